//! Grades Prometheus alerting rules against recorded incidents.
//!
//! A [`recording::Recording`] holds what exporters exported during one trial, once a second. [`rules`] reads the files
//! of a user into a [`rule::RuleSet`]; `promtool` decides which rules fire on a recording, and when; the answers are
//! [`verdict`]s. Nothing here runs a lab or evaluates PromQL.

pub mod catalogue;
pub mod decide;
pub mod expr;
pub mod known;
pub mod labels;
pub mod promtool;
pub mod recording;
pub mod rule;
pub mod rules;
pub mod settle;
pub mod subject;
pub mod timeline;
pub mod verdict;
