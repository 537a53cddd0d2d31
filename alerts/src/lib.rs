//! Grades Prometheus alerting rules against recorded incidents.
//!
//! A [`recording::Recording`] holds what exporters exported during one trial, once a second. [`rules`] reads the files
//! of a user into a [`rule::RuleSet`]; `promtool` decides which rules fire on a recording, and when; the answers are
//! [`verdict`]s. Nothing here runs a lab or evaluates PromQL.
//!
//! Before promtool: [`expr`] finds what an expression reads, [`catalogue`] what recordings hold, [`labels`] what a
//! reader's Prometheus calls the targets, and [`settle`] decides what reading alone can, with the facts of [`known`].
//!
//! [`decide`] asks [`promtool`] about the rest, on recordings that a [`timeline`] makes long enough; [`subject`] reads from
//! an alert's labels whom it is about.

pub mod catalogue;
pub mod decide;
pub mod duration;
pub mod explain;
pub mod export;
pub mod expr;
pub mod known;
pub mod labels;
pub mod parallel;
pub mod promtool;
pub mod report;
pub mod rule;
pub mod rules;
pub mod settle;
pub mod subject;
pub mod timeline;
pub mod verdict;

pub use relapse_series as recording;

#[cfg(test)]
mod testing;
