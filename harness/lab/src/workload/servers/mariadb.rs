//! MariaDB. In labs relapse's own database answers in its place.

use super::ThirdParty;
use crate::workload::database::MARIADB;

pub const SERVER: ThirdParty = ThirdParty {
    name: MARIADB,
    understands: &["query", "connect", "queries"],
    help: "ask it by `query`, or in a `call` by `connect` and `queries`, or leave `server` of that host out",
};
