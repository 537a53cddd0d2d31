//! MariaDB. In labs relapse's own database answers in its place.

use super::ThirdParty;

pub const SERVER: ThirdParty = ThirdParty {
    name: "mariadb",
    understands: &["query", "connect", "queries"],
    help: "ask it by `query`, or in a `call` by `connect` and `queries`, or leave `server` of that host out",
};
