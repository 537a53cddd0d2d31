//! nginx as a third party's server: what it is configured by, and what it serves.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use relapse_lab::cluster::backend::WantedServer;

use super::super::docker::noted;
use super::Recipe;

/// Read by the image's own configuration.
const CONFIGURATION: &str = "/etc/nginx/conf.d/default.conf";
const ROOT: &str = "/usr/share/nginx/html";

/// A static file for each response that flows ask for.
pub fn recipe(wanted: &WantedServer) -> Result<Recipe, String> {
    let image = noted("nginx-image").ok_or("there is no image of nginx: make kind")?;
    let configuration = (CONFIGURATION.to_owned(), configuration(&wanted.ports).into_bytes());
    let responses = wanted.sizes.iter().map(|size| (format!("{ROOT}/bytes/{size}"), vec![b'.'; *size as usize]));
    Ok(Recipe {
        image,
        program: "nginx",
        arguments: &["-g", "daemon off;"],
        files: std::iter::once(configuration).chain(responses).collect(),
        ports: wanted.ports.clone(),
    })
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
