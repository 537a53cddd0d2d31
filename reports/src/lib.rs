//! Reports of relapse, each made from [`event::RunEvent`]s alone.

pub mod event;
