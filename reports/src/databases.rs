//! What a third party's database outside logged about itself, as rows for comparison with detectors. Never judged.
//!
//! Job: counts of its slow-query log as it would be with two settings of `long_query_time`, and its memory. Invariant:
//! only from what was read during the trial; a trial without such a database has no rows.

use std::net::SocketAddr;
use std::time::Duration;

use relapse_detectors::signal::DatabaseMemory;
use relapse_detectors::time::Time;

use crate::event::DatabaseReport;
use crate::summary::{RunSummary, TrialSummary};
use crate::table::{Cell, Table};
use crate::units::{bytes, span};

/// The settings that are compared: as relapse sets it, and MariaDB's default (`long_query_time`).
const LOGS: [(&str, Duration); 2] = [
    ("slow-query log (long_query_time 0.1 s)", Duration::ZERO),
    ("slow-query log (10 s, the default)", Duration::from_secs(10)),
];

/// A report of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub server: SocketAddr,
    pub report: &'static str,
    /// "39 queries, first 1.20 s after t0", "nothing".
    pub shown: String,
}

/// The rows of a trial, by database.
#[must_use]
pub fn rows(trial: &TrialSummary) -> Vec<Row> {
    let Some(t0) = trial.t0() else { return Vec::new() };
    let mut servers: Vec<SocketAddr> = trial.databases.iter().map(|(_, report)| report.server()).collect();
    servers.sort_unstable();
    servers.dedup();
    let of = |server| {
        let logs = LOGS.map(|(report, least)| Row { server, report, shown: logged(trial, server, t0, least) });
        let memory = memory(trial, server, t0).map(|shown| Row { server, report: "memory", shown });
        logs.into_iter().chain(memory)
    };
    servers.into_iter().flat_map(of).collect()
}

/// Queries that a log which begins at `least` would contain since t0.
fn logged(trial: &TrialSummary, server: SocketAddr, t0: Time, least: Duration) -> String {
    let is_logged = |report: &DatabaseReport| match report {
        DatabaseReport::SlowQuery(query) => query.server == server && Duration::from_micros(query.took_us) >= least,
        DatabaseReport::Memory(_) => false,
    };
    let read = trial.databases.iter().filter(|(read, report)| *read >= t0 && is_logged(report));
    let read: Vec<Time> = read.map(|(read, _)| *read).collect();
    match read.iter().min() {
        None => "nothing".to_owned(),
        Some(first) => {
            let queries = if read.len() == 1 { "1 query".to_owned() } else { format!("{} queries", read.len()) };
            format!("{queries}, first {} after t0", span(first.since(t0)))
        }
    }
}

/// The memory before t0, and the most until the last healing.
fn memory(trial: &TrialSummary, server: SocketAddr, t0: Time) -> Option<String> {
    let used = trial.databases.iter().filter_map(|(read, report)| match report {
        DatabaseReport::Memory(DatabaseMemory { server: of, used }) if *of == server => Some((*read, *used)),
        _ => None,
    });
    let before = used.clone().rfind(|(read, _)| *read < t0).map(|(_, used)| used);
    let healed = trial.healed_at().unwrap_or(Time(u64::MAX));
    // Only changes are reported.
    let during = used.filter(|(read, _)| (t0..=healed).contains(read)).map(|(_, used)| used).max().or(before)?;
    let before = before.map_or_else(|| "unknown".to_owned(), bytes);
    Some(format!("{before} before the fault, {} at most during it", bytes(during)))
}

/// The rows of all trials of a run.
#[must_use]
pub fn table(run: &RunSummary) -> Option<Table<'static>> {
    let of = |trial: &TrialSummary| {
        let name = run.label(trial);
        rows(trial).into_iter().map(move |row| {
            vec![
                Cell::Text(name.clone()),
                Cell::Text(row.server.to_string()),
                Cell::text(row.report),
                Cell::Text(row.shown),
            ]
        })
    };
    let rows: Vec<_> = run.trials.iter().flat_map(of).collect();
    (!rows.is_empty()).then(|| Table::of_times(&["trial", "database", "its report", "not judged"], rows))
}

#[cfg(test)]
mod tests {
    use relapse_detectors::signal::SlowQuery;

    use super::*;
    use crate::event::{Injected, TrialEvent};

    fn trial(reports: &[(u64, DatabaseReport)]) -> TrialSummary {
        let ms = |at: u64| Time(at * 1_000_000);
        let mut trial = TrialSummary::default();
        let (t0, t1) = (ms(1_000), ms(1_001));
        let injected = Injected {
            fault: "missing-index".to_owned(),
            what: String::new(),
            t0,
            t1,
            read_back: String::new(),
            step: None,
        };
        trial.push(t1, &TrialEvent::Injected(injected));
        for (read, report) in reports {
            trial.push(ms(*read), &TrialEvent::Database { read: ms(*read), report: report.clone() });
        }
        trial.push(ms(9_000), &TrialEvent::Healed { what: String::new(), error: None });
        trial
    }

    fn slow(took_ms: u64) -> DatabaseReport {
        let server = "10.176.46.4:3306".parse().unwrap();
        DatabaseReport::SlowQuery(SlowQuery { server, took_us: took_ms * 1_000, rows_examined: 1 })
    }

    fn uses(mib: u64) -> DatabaseReport {
        DatabaseReport::Memory(DatabaseMemory { server: "10.176.46.4:3306".parse().unwrap(), used: mib << 20 })
    }

    fn shown(reports: &[(u64, DatabaseReport)]) -> Vec<String> {
        rows(&trial(reports)).into_iter().map(|row| row.shown).collect()
    }

    #[test]
    fn both_logs_count_from_t0_and_memory_until_healing() {
        let reports = [
            (100, uses(120)),
            (900, slow(150)),
            (2_200, slow(400)),
            (2_200, slow(430)),
            (3_000, uses(140)),
            (8_000, slow(10_000)),
            (9_500, uses(200)),
        ];
        assert_eq!(
            shown(&reports),
            [
                "3 queries, first 1.20 s after t0",
                "1 query, first 7.00 s after t0",
                "120 MiB before the fault, 140 MiB at most during it"
            ]
        );
    }

    #[test]
    fn a_database_that_logs_nothing_has_rows_and_a_trial_without_one_has_none() {
        let same = "50 MiB before the fault, 50 MiB at most during it";
        assert_eq!(shown(&[(100, uses(50))]), ["nothing", "nothing", same]);
        assert!(shown(&[]).is_empty());
        let run = RunSummary { trials: vec![trial(&[]), trial(&[(100, uses(50))])], ..RunSummary::default() };
        assert_eq!(table(&run).map(|table| table.rows.len()), Some(3));
        assert!(crate::html::html(&run).contains(same) && crate::markdown::markdown(&run).contains(same));
        let lines = crate::block::lines(&run, &run.trials[1], crate::paint::Page::PLAIN).join("\n");
        assert!(lines.contains("slow-query log (10 s, the default)      nothing"), "{lines}");
    }
}
