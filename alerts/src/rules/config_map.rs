//! Rule files in a ConfigMap, as the charts of Prometheus write them.

use std::sync::Arc;

use relapse_model::diagnostics::{Diagnostic, Source, Span};
use relapse_model::yaml::{self, Value, YamlNode};

use super::group::{Lines, Reader, get};
use super::template;

/// Reads the values that are rule files by their keys and their text. Others, such as dashboards, are left out.
pub(super) fn read(node: &YamlNode, reader: &mut Reader<'_>) {
    let data = get(node, "data").map(|data| &data.value);
    let Some(Value::Map(entries)) = data else { return reader.skip("ConfigMap") };
    let mut found = false;
    for (key, value) in entries.iter().filter(|(key, _)| is_rule_file(&key.value)) {
        if let Value::Text(text) = &value.value
            && text.lines().any(|line| line.starts_with("groups:"))
        {
            found = true;
            file(&key.value, text, value.span, reader);
        }
    }
    if !found {
        reader.skip("ConfigMap");
    }
}

fn is_rule_file(key: &str) -> bool {
    [".yaml", ".yml", ".rules"].iter().any(|ending| key.ends_with(ending))
}

fn file(key: &str, text: &str, span: Span, reader: &mut Reader<'_>) {
    match block(text, span, reader) {
        // Its lines are lines of the outer file.
        Some((start, block)) => {
            let source = Source::new(&reader.source.file, block);
            let (parts, errors) = yaml::documents(&source, "rule", |_| true);
            for error in errors.iter().map(|error| rendered(&source, error)) {
                let place = error.place.as_ref().map(|(_, span)| {
                    (Arc::clone(&reader.source.text), Span { offset: span.offset + start, len: span.len })
                });
                reader.wrong.push(Diagnostic { place, ..error });
            }
            for part in parts {
                groups(&part.node, &mut Reader { start: start + part.start, ..reader.again() });
            }
        }
        // Of a string in quotes, lines are counted within it.
        None => {
            let source = Source::new(format!("{}:{key}", reader.file), text);
            let (parts, errors) = yaml::documents(&source, "rule", |_| true);
            errors.iter().for_each(|error| reader.wrong.push(rendered(&source, error)));
            let (file, lines) = (Arc::from(source.file.to_string_lossy()), Lines::of(text));
            for part in parts {
                let mut reader =
                    Reader { source: &source, file: &file, lines: &lines, start: part.start, ..reader.again() };
                groups(&part.node, &mut reader);
            }
        }
    }
}

/// The text of a block (`key: |`) with its indentation, and the byte of the file at which it begins; `None` for other
/// strings, whose text is not that of the file.
fn block(text: &str, span: Span, reader: &Reader<'_>) -> Option<(usize, String)> {
    let span = reader.span(span);
    let start = reader.source.text.get(..span.offset)?.rfind('\n')? + 1;
    let indent = span.offset - start;
    let block = reader.source.text.get(start..span.offset + span.len)?;
    let lines = block.trim_end().lines().map(|line| line.get(indent..).unwrap_or_default());
    if !lines.eq(text.trim_end().lines()) {
        return None;
    }
    // An indented `---` begins no document.
    let marker = text.starts_with("---");
    Some((start, if marker { block.replacen("---", "   ", 1) } else { block.to_owned() }))
}

fn rendered(source: &Source, error: &Diagnostic) -> Diagnostic {
    template::unrendered(source, error).unwrap_or_else(|| error.clone())
}

fn groups(node: &YamlNode, reader: &mut Reader<'_>) {
    if let Some(groups) = get(node, "groups") {
        reader.groups(groups);
    }
}
