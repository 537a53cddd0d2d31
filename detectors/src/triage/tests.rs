//! One file per step, and `whole` for what they give together.

mod backend;
mod dns;
mod hops;
mod ingress;
mod nodes;
mod scene;
mod service;
mod whole;
