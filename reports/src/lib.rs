//! Reports of relapse, each made from [`event::RunEvent`]s alone.
//!
//! A map of the modules:
//! - [`event`]: what leaves a run. [`jsonl`]: as lines of a file, and back.
//! - [`summary`] folds events into a run, [`trial`] answers questions about one trial of it,
//!   [`stages`] of a chain, [`statistics`] looks at repetitions. Every report starts here.
//! - [`units`], [`words`]: numbers, verdicts and backends as text; the same in all
//!   reports.
//! - [`table`]: a table before it is drawn. [`matrix`] (of [`marks`]) and [`times`] make them.
//! - [`terminal`] with [`paint`], [`block`] (a finished trial in lines) and [`text`] (tables).
//! - [`junit`], [`markdown`], [`html`] with its pictures: files made at the end.
//! - [`folder`]: where all of it lies.

pub mod block;
pub mod event;
pub mod folder;
pub mod html;
pub mod incident;
pub mod jsonl;
pub mod junit;
pub mod markdown;
pub mod marks;
pub mod matrix;
pub mod merge;
pub mod paint;
pub mod stages;
pub mod statistics;
pub mod summary;
pub mod table;
pub mod terminal;
pub mod text;
pub mod times;
pub mod trial;
pub mod units;
pub mod words;

#[cfg(test)]
mod sample;
