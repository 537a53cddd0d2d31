//! Reports of relapse, each made from [`event::RunEvent`]s alone.
//!
//! The modules:
//! - [`event`]: the events of a run. [`jsonl`]: reads and writes them as JSON lines.
//! - [`summary`] folds events into a run, [`trial`] derives facts about one trial, [`stages`] cuts a chain,
//!   [`databases`] shows what databases logged, [`statistics`] covers repetitions, [`also`] what never occurred in them. Every report starts here.
//! - [`units`], [`words`]: numbers, verdicts and backends as text, the same in all reports.
//! - [`table`]: a table before it is drawn. [`matrix`] (of [`marks`]), [`times`], [`late`] and [`triage`] build them.
//! - [`terminal`] with [`paint`], [`block`] (a finished trial in lines) and [`text`] (tables).
//! - [`junit`], [`markdown`], [`html`] with its charts: files written at the end.
//! - [`folder`]: the folder that holds them.

pub mod also;
pub mod block;
pub mod databases;
pub mod event;
pub mod facts;
pub mod folder;
pub mod html;
pub mod incident;
pub mod jsonl;
pub mod junit;
pub mod late;
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
pub mod triage;
pub mod trial;
pub mod units;
pub mod words;

#[cfg(test)]
mod sample;
