//! The JSON Schema of a scenario file, made from its types.
//!
//! Editors complete and check by it, and so does [`super::check`]: what it says is what is accepted,
//! but for names and numbers that only planning can judge.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::Value;

use super::Scenario;

/// The schema, as `scenarios/schema.json` has it.
#[must_use]
pub fn schema() -> Value {
    SchemaSettings::draft2020_12()
        .for_deserialize()
        .with_transform(KeysHaveValues)
        .into_generator()
        .into_root_schema_for::<Scenario>()
        .to_value()
}

/// A key that may be left out may not be there without a value.
#[derive(Debug, Clone)]
struct KeysHaveValues;

impl Transform for KeysHaveValues {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(Value::Array(types)) = schema.get_mut("type") {
            types.retain(|t| t != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                schema.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(branches)) = schema.get_mut("anyOf") {
            branches.retain(|branch| branch.get("type").is_none_or(|t| t != "null"));
            if let [Value::Object(only)] = branches.as_slice() {
                let only = only.clone();
                schema.remove("anyOf");
                for (key, value) in only {
                    schema.ensure_object().entry(key).or_insert(value);
                }
            }
        }
        transform_subschemas(self, schema);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_file_beside_the_scenarios_is_current() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/schema.json");
        let current = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, &current).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(found == current, "{} is not current: run `UPDATE=1 cargo test -p relapse schema`", file.display());
    }

    #[test]
    fn no_key_may_be_empty() {
        assert!(!schema().to_string().contains("\"null\""));
    }
}
