//! `vary:`: which numbers of a scenario may vary, and how far.
//!
//! A number is named by a YAML anchor where it stands in the file (`to: &raised 1380`). [`crate::vary`] draws it.

use std::borrow::Cow;
use std::fmt;

use relapse_model::spanned::Spanned;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The values that a number may have. Takes exactly one of `from` with `to`, `oneOf`, and `of` with `times` or `plus`.
///
/// Bounds are written like the number itself, with its unit: `{ from: 300ms, to: 900ms }`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variable {
    /// Smallest value.
    pub from: Option<Spanned<Written>>,
    /// Largest value.
    pub to: Option<Spanned<Written>>,
    /// A list of values.
    pub one_of: Option<Spanned<Vec<Spanned<Written>>>>,
    /// Name of another variable, from which this one follows: `of` x `times` + `plus`.
    pub of: Option<Spanned<String>>,
    /// A factor, or its smallest and largest value. Default 1.
    pub times: Option<Spanned<Between>>,
    /// A summand in the unit of this number, or its smallest and largest value. Default 0.
    pub plus: Option<Spanned<Between>>,
}

/// A number or a string; its text is that of the file.
#[derive(Debug, Clone, Copy)]
pub struct Written;

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Written;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a string")
            }
            fn visit_u64<E>(self, _: u64) -> Result<Written, E> {
                Ok(Written)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Written, E> {
                Ok(Written)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Written, E> {
                Ok(Written)
            }
            fn visit_str<E>(self, _: &str) -> Result<Written, E> {
                Ok(Written)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl JsonSchema for Written {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Written".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "number" }, { "type": "string" }] })
    }
}

/// A number, or a smallest and a largest one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Between {
    pub low: f64,
    pub high: f64,
}

impl<'de> Deserialize<'de> for Between {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Either {
            const fn exactly(number: f64) -> Between {
                Between { low: number, high: number }
            }
        }
        impl<'de> Visitor<'de> for Either {
            type Value = Between;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a list of the smallest and the largest one")
            }
            fn visit_u64<E: Error>(self, n: u64) -> Result<Between, E> {
                self.visit_f64(u32::try_from(n).map_err(E::custom)?.into())
            }
            fn visit_i64<E: Error>(self, n: i64) -> Result<Between, E> {
                self.visit_f64(i32::try_from(n).map_err(E::custom)?.into())
            }
            fn visit_f64<E>(self, n: f64) -> Result<Between, E> {
                Ok(Self::exactly(n))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Between, A::Error> {
                let (Some(low), Some(high), None) =
                    (seq.next_element()?, seq.next_element()?, seq.next_element::<f64>()?)
                else {
                    return Err(A::Error::custom("two numbers are needed"));
                };
                Ok(Between { low, high })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Between {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Between".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "number" },
            { "type": "array", "items": { "type": "number" }, "minItems": 2, "maxItems": 2 },
        ] })
    }
}
