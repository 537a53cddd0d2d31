//! What promtool prints, read by its words: layout, order and blank lines differ among versions.
//!
//! A failed question is `expr: "#7\nup == 0", time: 2m, exp: nil got: {job="a"} 0E+00`, or `err: ...` for the last two
//! (`cmd/promtool/unittest.go`). The number in the comment at its start says which question it is.

use std::collections::BTreeMap;

use super::{File, Version};

/// What an expression gives: samples, or why it gives none.
pub type Answer = Result<Samples, String>;

/// Of each test of a file the answers to its questions, or why it was given up.
pub type OfFile = Vec<Result<Vec<Answer>, String>>;

/// Labels, with `__name__` where there is one, and value.
pub type Samples = Vec<(BTreeMap<String, String>, f64)>;

/// `promtool, version 2.42.0+ds (branch: ...)`; without a number if it was built by `go install`.
pub fn version(printed: &str) -> Option<Version> {
    let line = printed.lines().find(|line| line.starts_with("promtool"))?;
    let mut words = line.split(['(', ' ']).skip_while(|word| *word != "version").skip(1);
    let Some(word) = words.find(|word| word.starts_with(|c: char| c.is_ascii_digit())) else {
        return line.contains("version").then_some(super::UNKNOWN);
    };
    let mut numbers = word.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    Some(Version {
        major: numbers.next()?.ok()?,
        minor: numbers.next()?.ok()?,
        patch: numbers.next().and_then(Result::ok).unwrap_or_default(),
    })
}

/// The answers to the questions of each test.
pub fn answers(printed: &str, files: &[File]) -> Vec<OfFile> {
    let (mut failed, other) = failed(printed);
    let mut number = 0;
    let mut all = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let mut tests = Vec::new();
        for test in &file.tests {
            let answers = test.asks.iter().map(|_| {
                let answer = failed.remove(&number).unwrap_or_else(|| Ok(Vec::new()));
                number += 1;
                answer
            });
            let answers = answers.collect();
            // The last question is always answered, unless the test was given up.
            let ended = failed.remove(&number).is_some();
            number += 1;
            tests.push(if ended { Ok(answers) } else { Err(given_up(&other, index)) });
        }
        all.push(tests);
    }
    all
}

/// The questions that failed, by their number, and the rest of the text.
fn failed(printed: &str) -> (BTreeMap<usize, Answer>, String) {
    let mut answers = BTreeMap::new();
    let mut other = String::new();
    let mut rest = printed;
    let mut number = None;
    loop {
        let next = rest.find(QUESTION);
        let (body, after) = rest.split_at(next.unwrap_or(rest.len()));
        match number {
            Some(number) => {
                // The line that names the next file is not part of it.
                let (body, foreign) = body.split_at(header(body).unwrap_or(body.len()));
                answers.insert(number, answer(body));
                other.push_str(foreign);
            }
            None => other.push_str(body),
        }
        if next.is_none() {
            return (answers, other);
        }
        let text = after.trim_start_matches("expr: ");
        let (expr, after) = go_string(text).unwrap_or_default();
        number = expr.trim_start_matches('#').lines().next().and_then(|number| number.parse().ok());
        rest = after;
    }
}

const QUESTION: &str = "expr: \"#";

fn answer(body: &str) -> Answer {
    // What comes first: labels and messages may hold the other word.
    let (got, error) = (body.find("got:"), body.find("err:"));
    if let Some((_, got)) = body.split_once("got:").filter(|_| error.is_none_or(|error| got < Some(error))) {
        return samples(got).ok_or_else(|| format!("unreadable: {}", got.trim()));
    }
    let text = body.split_once("err:").map_or(body, |(_, error)| error);
    Err(without_series(text.split_whitespace().collect::<Vec<_>>().join(" ")))
}

/// Where the line that names a file of tests starts: `Unit Testing:  test-0.yaml`, `Processing test file: test-0.yaml`.
fn header(text: &str) -> Option<usize> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_end().ends_with(".yaml") && line.contains(": ") && line.contains("test-") {
            return Some(start);
        }
        start += line.len();
    }
    None
}

/// The first that is printed about a file.
fn given_up(other: &str, file: usize) -> String {
    let name = format!("test-{file}.yaml");
    let mine = other.split_once(&name).map_or(other, |(_, mine)| mine);
    let mine = mine.split_at(header(mine).unwrap_or(mine.len())).0;
    let mut lines = mine.lines().map(str::trim);
    let line =
        lines.find(|line| !line.is_empty() && !line.ends_with(&name) && !line.ends_with("FAILED:")).unwrap_or_default();
    // `rule: NAME, time: 5m0s, err: ...`, or `rules-0.yaml: 7:5: group "rules", rule 1, "NAME": ...`
    let of_rule = line.split_once(", rule ").and_then(|(_, rest)| rest.split_once("\": "));
    without_series(line.split_once("err: ").or(of_rule).map_or(line, |(_, error)| error).to_owned())
}

/// `{a="b"} 1E+00, {} NaN`
fn samples(got: &str) -> Option<Samples> {
    let mut samples = Vec::new();
    let mut rest = got.trim();
    while rest.starts_with('{') {
        let mut labels = BTreeMap::new();
        rest = rest.get(1..)?.trim_start();
        while !rest.starts_with('}') {
            let (label, after) = if rest.starts_with('"') {
                go_string(rest)?
            } else {
                let end = rest.find('=')?;
                (rest.get(..end)?.trim().to_owned(), rest.get(end..)?)
            };
            let (value, after) = go_string(after.trim_start().strip_prefix('=')?.trim_start())?;
            labels.insert(label, value);
            rest = after.trim_start().trim_start_matches(',').trim_start();
        }
        rest = rest.get(1..)?.trim_start();
        // Of a native histogram nothing is used.
        let (word, after) = match rest.find("}}").filter(|_| rest.starts_with("{{")) {
            Some(end) => ("NaN", rest.get(end + 2..)?),
            None => rest.split_at(rest.find([',', '\n', ' ']).unwrap_or(rest.len())),
        };
        samples.push((labels, word.parse().ok()?));
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    (!samples.is_empty()).then_some(samples)
}

/// A string in double quotes as Go's `strconv.Quote` writes it, and what follows.
fn go_string(text: &str) -> Option<(String, &str)> {
    let mut value = Vec::new();
    let mut chars = text.strip_prefix('"')?.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((String::from_utf8_lossy(&value).into_owned(), text.get(at + 2..)?)),
            '\\' => {
                let (_, escape) = chars.next()?;
                let mut hex = |digits: usize| {
                    let digits: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                    u32::from_str_radix(&digits, 16).ok()
                };
                let c = match escape {
                    'x' => {
                        value.push(u8::try_from(hex(2)?).ok()?);
                        continue;
                    }
                    'u' => char::from_u32(hex(4)?)?,
                    'U' => char::from_u32(hex(8)?)?,
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'a' => '\u{7}',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'v' => '\u{b}',
                    other => other,
                };
                value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            c => value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    None
}

/// An error of matching lists two of the series that collide, in either order: the same error must read the same.
fn without_series(error: String) -> String {
    match error.split_once(": [").and_then(|(before, rest)| Some((before, rest.rsplit_once("];")?.1))) {
        Some((before, after)) => format!("{before}; {}", after.trim_start()),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ask, Promtool, Test, WrittenRule};
    use super::*;

    fn rule(expr: &str, wait: u64) -> WrittenRule {
        let labels = BTreeMap::from([("id".to_owned(), expr.to_owned())]);
        WrittenRule { alert: true, name: "A".into(), expr: expr.into(), wait, keep_firing: 0, labels }
    }

    /// A file whose questions have all kinds of answers, one whose rule fails, and one whose rule does not parse.
    fn files() -> Vec<File> {
        let values = "_x1 1 _x1 7 _x1 Inf _x1 -Inf _x1 NaN stale";
        let series =
            [r#"x{a="b\"c, } got: \n",d="é"}"#, r#"x{a="2"}"#].map(|series| (series.to_owned(), values.to_owned()));
        let asks = [
            "max_over_time(x[1m])",
            "x > 100",
            "x * on() group_left() x",
            "min_over_time(timestamp(ALERTS{alertstate=\"firing\"})[2m:30s])",
            "1e300 * count(x)",
            "no_such_function(x)",
            "absent(x{a=\"3\"}) * (0 / 0)",
        ];
        let asks = asks.map(|expr| Ask { expr: expr.to_owned(), at: 60_000 }).to_vec();
        let test = Test { interval: 7_500, series: series.to_vec(), asks };
        let file = |rules| File { evaluate: 30_000, rules, tests: vec![test.clone()] };
        vec![
            file(vec![rule("x > 5", 0)]),
            file(vec![rule("x > 5", 0), rule("x * on() group_left() x", 0)]),
            file(vec![rule("x >", 0)]),
        ]
    }

    /// What each version prints about [`files`], recorded by this test with `PROMTOOL` and `RELAPSE_WRITE=VERSION`.
    #[test]
    fn the_words_of_each_version_mean_the_same() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promtool");
        if let Ok(version) = std::env::var("RELAPSE_WRITE") {
            let promtool = Promtool::find().unwrap();
            let printed = promtool.printed(&files(), std::time::Duration::from_secs(60)).unwrap().1;
            std::fs::write(folder.join(format!("{version}.txt")), printed).unwrap();
        }
        let mut versions = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let version = path.file_stem().unwrap().to_string_lossy().into_owned();
            let mut lines = Vec::new();
            for test in answers(&std::fs::read_to_string(&path).unwrap(), &files()).into_iter().flatten() {
                match test {
                    Ok(answers) => lines.extend(answers.into_iter().map(|answer| format!("{answer:?}"))),
                    Err(message) => lines.push(format!("given up: {message}")),
                }
            }
            insta::assert_snapshot!(format!("words-{version}"), lines.join("\n"));
            versions.push(version);
        }
        versions.sort();
        assert!(versions.len() >= 3, "{versions:?}");
    }

    #[test]
    fn versions_are_found_among_words() {
        let of = |printed| version(printed).map(|version| version.to_string());
        assert_eq!(
            of("promtool, version 2.42.0+ds (branch: debian/sid, revision: 2)\n  build user: a"),
            Some("2.42.0".into())
        );
        assert_eq!(of("promtool, version 3.5.0-rc.1 (branch: HEAD)"), Some("3.5.0".into()));
        let built = "promtool, version  (branch: , revision: unknown)\n  go version: go1.26.8";
        assert_eq!(of(built), Some("of unknown version".into()));
        assert_eq!(of("hello 1.2.3"), None);
    }
}
