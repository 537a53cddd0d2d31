//! Reports of relapse, each made from [`event::RunEvent`]s alone.
//!
//! A map of the modules:
//! - [`event`]: what leaves a run. [`jsonl`]: as lines of a file, and back.
//! - [`summary`] folds events into a run, [`trial`] answers questions about one trial of it,
//!   [`statistics`] looks at repetitions. Every report starts here.
//! - [`units`], [`words`], [`marks`]: numbers, verdicts, backends and cells as text; the same in all
//!   reports.
//! - [`parts`], [`compare`]: the matrix and the backends side by side, before they are drawn.
//! - [`terminal`] with [`paint`] and [`block`] (a finished trial in lines), [`matrix`], [`times`].
//! - [`junit`], [`markdown`], [`html`] with its pictures: files made at the end.
//! - [`folder`]: where all of it lies.

pub mod block;
pub mod compare;
pub mod event;
pub mod folder;
pub mod html;
pub mod jsonl;
pub mod junit;
pub mod markdown;
pub mod marks;
pub mod matrix;
pub mod paint;
pub mod parts;
pub mod statistics;
pub mod summary;
mod tables;
pub mod terminal;
pub mod times;
pub mod trial;
pub mod units;
pub mod words;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod sample_backends;
#[cfg(test)]
mod sample_runs;
