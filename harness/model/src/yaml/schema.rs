//! The JSON Schema of a file, generated from its types.
//!
//! Editors use it for completion and validation, and [`super::check`] uses it, too: it defines what is accepted, except
//! for names and numbers that only planning can check.

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

/// The schema of a file.
#[must_use]
pub fn schema<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12()
        .for_deserialize()
        .with_transform(KeysHaveValues)
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// Removes `null` from optional keys: a key may be omitted, but not left without a value.
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
