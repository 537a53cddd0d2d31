//! `relapse recover`: restores what killed runs left behind on this machine.

use std::process::ExitCode;

use relapse_lab::host::{Site, recover};

use super::out;
use crate::event::Outcome;

pub fn main() -> ExitCode {
    let recovered = Site::host().and_then(|site| recover(&site, &|holder| eprintln!("waiting for {holder}")));
    match recovered {
        Ok(recovered) if recovered.is_empty() => {
            out::line("nothing was left behind");
            ExitCode::SUCCESS
        }
        Ok(recovered) => {
            out::lines(&recovered);
            let open = recovered.iter().any(|one| one.outcome.is_open());
            ExitCode::from(if open { Outcome::Dirty.exit_code() } else { 0 })
        }
        Err(e) => {
            eprintln!("relapse: failed to {e}");
            ExitCode::from(Outcome::InternalError.exit_code())
        }
    }
}
