//! nginx as a third party's server: its configuration and its files.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use relapse_lab::cluster::backend::WantedServer;
use testcontainers::{ContainerRequest, GenericImage, ImageExt};

use super::super::docker::noted;
use super::local;

/// Included by the image's own configuration.
const CONFIGURATION: &str = "/etc/nginx/conf.d/default.conf";
const ROOT: &str = "/usr/share/nginx/html";

/// Serves a static file for each response size that flows request.
pub fn request(wanted: &WantedServer) -> Result<ContainerRequest<GenericImage>, String> {
    let image = noted("nginx-image").ok_or("no nginx image: run `make kind`")?;
    let nginx = local(&image)?.with_entrypoint("nginx").with_cmd(["-g", "daemon off;"]);
    let nginx = nginx.with_copy_to(CONFIGURATION, configuration(&wanted.ports).into_bytes());
    let response = |size: &u32| (format!("{ROOT}/bytes/{size}"), vec![b'.'; *size as usize]);
    let responses = wanted.sizes.iter().map(response);
    Ok(responses.fold(nginx, |nginx, (path, bytes)| nginx.with_copy_to(path, bytes)))
}

fn configuration(ports: &BTreeSet<u16>) -> String {
    let mut listen = String::new();
    for port in ports {
        let _ = writeln!(listen, "    listen {port};");
    }
    format!(
        "server {{
{listen}    access_log off;
    location /bytes/ {{ root {ROOT}; }}
    location / {{ return 404; }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_listens_where_flows_ask_and_nowhere_else() {
        assert_eq!(
            configuration(&BTreeSet::from([8080, 80])),
            "server {
    listen 80;
    listen 8080;
    access_log off;
    location /bytes/ { root /usr/share/nginx/html; }
    location / { return 404; }
}
"
        );
    }
}
