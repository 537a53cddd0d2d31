//! What a set of rules is worth, and its reports.
//!
//! [`grade`] makes a [`scorecard::Scorecard`] from verdicts, and [`expect`] says which alert counts as what and what
//! must hold. Every report ([`text`], [`markdown`], [`html`], JSON by serde) and [`against`], the comparison of two, is
//! made from scorecards alone.

pub mod against;
pub mod expect;
pub mod grade;
pub mod html;
mod level;
pub mod markdown;
mod rows;
pub mod scorecard;
pub mod text;
pub mod words;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
