//! Grades Prometheus alerting rules against recorded incidents.
//!
//! A [`recording::Recording`] holds what exporters exported during one trial, once a second. [`rules`] reads the files
//! of a user into a [`rule::RuleSet`]; `promtool` decides which rules fire on a recording, and when; the answers are
//! [`verdict`]s. Nothing here runs a lab or evaluates PromQL.

pub mod decide;
pub mod promtool;
pub mod recording;
pub mod rule;
pub mod subject;
pub mod timeline;
pub mod verdict;
