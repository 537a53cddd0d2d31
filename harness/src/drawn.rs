//! The drawn scenarios of a run (`--vary`): written to a folder, and planned.

use std::fs;
use std::path::Path;

use relapse_model::diagnostics::{Diagnostic, Diagnostics};
use relapse_model::yaml::{self, Document};

use crate::plan::{Plan, load};
use crate::scenario::Scenario;
use crate::vary::{Extent, Seed, draw};

/// Draws every repetition of these scenarios, writes the drawn files to a folder, and plans them.
///
/// # Errors
/// If a file cannot be written, and all errors in any of them.
pub fn plans(
    shipped: &[Plan],
    seed: Seed,
    repeat: u32,
    extent: Extent,
    folder: &Path,
) -> Result<Vec<Plan>, Diagnostics> {
    let failed = |e: std::io::Error| Diagnostic::of_file(folder, format!("drawn scenarios cannot be written: {e}"));
    fs::create_dir_all(folder).map_err(failed)?;
    let mut drawn = Vec::new();
    for plan in shipped {
        let source = yaml::read(&plan.file, Scenario::NOUN)?;
        if let Some(config) = plan.cluster.kind_config.as_ref().filter(|_| extent == Extent::Numbers) {
            let text = yaml::read(config, "kind configuration")?.text;
            fs::write(folder.join(config.file_name().unwrap_or_default()), text.as_bytes()).map_err(failed)?;
        }
        for repetition in 1..=repeat {
            let name = if repeat == 1 { plan.name.clone() } else { format!("{}-{repetition}", plan.name) };
            let file = folder.join(format!("{name}.yaml"));
            fs::write(&file, draw(&source, seed, repetition, extent)?.text).map_err(failed)?;
            for mut plan in load(&[file])? {
                plan.repetition = Some(repetition);
                drawn.push(plan);
            }
        }
    }
    Ok(drawn)
}
