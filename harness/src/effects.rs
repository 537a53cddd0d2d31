//! All effects: one file each, and one line each in the registry below.
//!
//! A file defines the effect's YAML and planning ([`EffectSpec`]), its description ([`Effect`]), and its observation
//! ([`crate::effect::Watch`]).

use std::sync::Arc;

use relapse_model::spanned::Spanned;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::effect::{Effect, EffectPlanner, EffectSpec};

macro_rules! effects {
    ($($name:literal => $module:ident::$spec:ident,)*) => {
        $(pub mod $module;)*

        /// An effect to observe.
        #[derive(Debug, Clone, Deserialize, JsonSchema)]
        #[schemars(title = "effect")]
        pub enum Observation {
            $(#[serde(rename = $name)] $spec($module::$spec),)*
        }

        impl Observation {
            /// The flow whose users see it: it fails or is slow.
            #[must_use]
            pub const fn affected(&self) -> Option<&Spanned<String>> {
                match self {
                    Self::FailsSpec(fails) => Some(&fails.flow),
                    Self::SlowSpec(slow) => Some(&slow.flow),
                    _ => None,
                }
            }

            /// The flow that works.
            #[must_use]
            pub const fn working(&self) -> Option<&Spanned<String>> {
                if let Self::WorksSpec(works) = self { Some(&works.flow) } else { None }
            }

            /// Plans the effect.
            pub fn plan(&self, planner: &mut EffectPlanner<'_, '_>) -> Option<Arc<dyn Effect>> {
                match self { $(Self::$spec(spec) => spec.plan(planner),)* }
            }
        }
    };
}

effects! {
    "fails" => fails::FailsSpec,
    "works" => works::WorksSpec,
    "resolves" => resolves::ResolvesSpec,
    "slow" => slow::SlowSpec,
    "packet" => packet::PacketSpec,
}
