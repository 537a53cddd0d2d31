//! MariaDB as a third party's server: a configuration for small, quick tables, and the slow-query log.

use relapse_lab::cluster::backend::WantedServer;
use relapse_lab::workload::servers::database::shop;
use testcontainers::{ContainerRequest, GenericImage, ImageExt};

use super::super::docker::noted;
use super::local;

/// Statements executed at start.
const SETUP: &str = "/relapse.sql";

/// Starts it without the image's own entry point, which needs many seconds. Connections that a fault cuts off in their
/// handshake must not block their host.
const START: &str = "set -e
[ -d /var/lib/mysql/mysql ] || mariadb-install-db --user=mysql --skip-test-db >/dev/null
mkdir -p /run/mysqld && chown mysql /run/mysqld
exec mariadbd --no-defaults --user=mysql --bind-address=0.0.0.0 --skip-name-resolve --init-file=$1 --port=$2 \\
    --max-connections=1000 --max-connect-errors=4294967295 --max-allowed-packet=64M \\
    --innodb-buffer-pool-size=32M --innodb-log-file-size=16M --innodb-flush-log-at-trx-commit=0 \\
    --slow-query-log=ON --long-query-time=0.1 --log-output=TABLE
";

/// Listens on one port.
pub fn request(wanted: &WantedServer) -> Result<ContainerRequest<GenericImage>, String> {
    let image = noted("mariadb-image").ok_or("no MariaDB image: run `make kind`")?;
    let ports: Vec<String> = wanted.ports.iter().map(u16::to_string).collect();
    let [port] = &ports[..] else { return Err(format!("MariaDB listens on one port, not on {}", ports.join(", "))) };
    let mariadb = local(&image)?.with_entrypoint("sh").with_cmd(["-c", START, "sh", SETUP, port]);
    Ok(mariadb.with_copy_to(SETUP, shop::SETUP.as_bytes().to_vec()))
}
