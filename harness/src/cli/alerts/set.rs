//! Which rules are graded, and how their Prometheus reads them.

use std::collections::BTreeMap;
use std::time::Duration;

use relapse_alerts::recording::Exporter;
use relapse_alerts::report::expect::Expect;
use relapse_alerts::rules::Input;
use relapse_model::diagnostics::Diagnostic;
use relapse_model::values;

use super::GradeOptions;
use crate::cli::Refused;
use crate::config::{AlertRules, Config, EVALUATE, FILE, SCRAPE};

/// Rules that one Prometheus evaluates.
#[derive(Debug, Clone)]
pub struct Set {
    /// Its name in `relapse.yaml`.
    pub name: Option<String>,
    pub inputs: Vec<Input>,
    pub scrape: Duration,
    pub evaluate: Duration,
    /// Labels of targets that the user has set.
    pub labels: BTreeMap<Exporter, BTreeMap<String, String>>,
    pub expect: Vec<Expect>,
}

#[derive(Debug)]
pub struct Chosen {
    pub sets: Vec<Set>,
}

impl Chosen {
    /// The given paths, otherwise the sets of `relapse.yaml`.
    pub fn find(paths: &[String], options: &GradeOptions) -> Result<Self, Refused> {
        let scrape = options.scrape;
        let evaluate = options.evaluate;
        if !paths.is_empty() {
            let set = Set {
                name: None,
                inputs: paths.iter().map(|path| Input::from(path.as_str())).collect(),
                scrape: scrape.unwrap_or(SCRAPE),
                evaluate: evaluate.unwrap_or(EVALUATE),
                labels: BTreeMap::new(),
                expect: Vec::new(),
            };
            return Ok(Self { sets: vec![set] });
        }
        let config = Config::load(options.config.as_deref(), jiff::Zoned::now().date())?;
        if config.alerts.is_empty() {
            let file = options.config.clone().unwrap_or_else(|| FILE.into());
            let diagnostic = if file.exists() {
                Diagnostic::of_file(file, "it has no `alerts`")
            } else {
                Diagnostic::of_file(file, "no such file, and no rules are given")
            };
            let help = "give rule files or folders: `relapse alerts my-rules/`, or - for standard input";
            return Err(Refused::Files(diagnostic.help(help).into()));
        }
        let set = |rules: AlertRules| Set {
            name: Some(rules.name),
            inputs: rules.files.into_iter().map(Input::Path).collect(),
            scrape: scrape.unwrap_or(rules.scrape),
            evaluate: evaluate.unwrap_or(rules.evaluate),
            labels: rules.labels,
            expect: rules.expect,
        };
        Ok(Self { sets: config.alerts.into_iter().map(set).collect() })
    }
}

/// An interval on the command line.
pub fn interval(text: &str) -> Result<Duration, String> {
    let whole = |time: &Duration| time.subsec_nanos() == 0 && (1..=600).contains(&time.as_secs());
    let time = values::Duration::parse(text).map(|time| time.0).filter(whole);
    time.ok_or_else(|| "write a whole number of seconds, from 1s to 10m, such as 15s".to_owned())
}
