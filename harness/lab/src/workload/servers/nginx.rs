//! nginx. In labs relapse's own HTTP server answers in its place.

use super::ThirdParty;

pub const SERVER: ThirdParty = ThirdParty {
    name: "nginx",
    understands: &["http", "get"],
    help: "make it an `http` flow, or leave `server` of that host out",
};
