//! Rule files and test files as promtool reads them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// A file of tests with the rules that are evaluated in each of them. Times are in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct File {
    pub evaluate: u64,
    pub rules: Vec<WrittenRule>,
    pub tests: Vec<Test>,
}

#[derive(Debug, Clone, Default)]
pub struct Test {
    /// Between two values of a series.
    pub interval: u64,
    /// Series and values in promtool's notation.
    pub series: Vec<(String, String)>,
    pub asks: Vec<Ask>,
}

/// An expression and the time at which it is evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub expr: String,
    pub at: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenRule {
    pub alert: bool,
    pub name: String,
    pub expr: String,
    pub wait: u64,
    pub keep_firing: u64,
    pub labels: BTreeMap<String, String>,
}

/// The question that ends each test: it is answered if the test was not given up before.
pub const LAST: &str = "vector(1)";

impl File {
    /// Writes the file of tests, named by `number`, and that of the rules beside it; counts the questions on in `asked`.
    /// Its name.
    pub fn write(&self, folder: &Path, number: usize, asked: &mut usize) -> io::Result<OsString> {
        let rules = format!("rules-{number}.yaml");
        let name = format!("test-{number}.yaml");
        let mut out = BufWriter::new(std::fs::File::create(folder.join(&name))?);
        writeln!(out, "evaluation_interval: {}", duration(self.evaluate))?;
        if self.rules.is_empty() {
            writeln!(out, "rule_files: []")?;
        } else {
            writeln!(out, "rule_files: [{rules}]")?;
            self.write_rules(&folder.join(&rules))?;
        }
        writeln!(out, "tests:")?;
        for test in &self.tests {
            test.write(&mut out, asked)?;
        }
        out.flush()?;
        Ok(name.into())
    }

    fn write_rules(&self, path: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(std::fs::File::create(path)?);
        writeln!(out, "groups:\n- name: rules\n  rules:")?;
        for rule in &self.rules {
            write!(out, "{rule}")?;
        }
        out.flush()
    }
}

/// As an entry of `rules`.
impl fmt::Display for WrittenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  - {}: {}", if self.alert { "alert" } else { "record" }, quoted(&self.name))?;
        writeln!(f, "    expr: {}", quoted(&self.expr))?;
        for (field, time) in [("for", self.wait), ("keep_firing_for", self.keep_firing)] {
            if time > 0 {
                writeln!(f, "    {field}: {}", duration(time))?;
            }
        }
        if !self.labels.is_empty() {
            writeln!(f, "    labels:")?;
        }
        for (label, value) in &self.labels {
            writeln!(f, "      {}: {}", quoted(label), quoted(value))?;
        }
        Ok(())
    }
}

impl Test {
    fn write(&self, out: &mut impl Write, asked: &mut usize) -> io::Result<()> {
        writeln!(out, "- interval: {}", duration(self.interval))?;
        if !self.series.is_empty() {
            writeln!(out, "  input_series:")?;
        }
        for (series, values) in &self.series {
            writeln!(out, "  - series: {}\n    values: {}", quoted(series), quoted(values))?;
        }
        writeln!(out, "  promql_expr_test:")?;
        let end = self.asks.iter().map(|ask| ask.at).max().unwrap_or_default();
        let last = Ask { expr: LAST.to_owned(), at: end };
        for ask in self.asks.iter().chain([&last]) {
            // A comment of PromQL, by which the answer is found. An expression may end with one of its own.
            let expr = format!("#{asked}\n{}", ask.expr);
            *asked += 1;
            writeln!(out, "  - expr: {}\n    eval_time: {}", quoted(&expr), duration(ask.at))?;
            writeln!(out, "    exp_samples: []")?;
        }
        Ok(())
    }
}

/// A string as JSON, YAML and PromQL all read it.
#[must_use]
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn duration(milliseconds: u64) -> String {
    if milliseconds.is_multiple_of(1000) { format!("{}s", milliseconds / 1000) } else { format!("{milliseconds}ms") }
}
