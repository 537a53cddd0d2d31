//! Plays an event file again, as it went on the terminal:
//! `cargo run -p relapse-reports --example play -- reports/latest/events.jsonl [speed]`.
//! Then makes its reports again, beside it.

use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::thread;

use relapse_reports::terminal::{Mode, Terminal};
use relapse_reports::{folder, jsonl};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().ok_or("name an event file")?);
    let speed: f64 = arguments.next().map_or(Ok(1.0), |speed| speed.parse())?;
    let events = jsonl::read(BufReader::new(File::open(&path)?))?.events;
    let mut terminal = Terminal::new(Mode::detect());
    let mut before = events.first().map(|event| event.at);
    for event in &events {
        if let Some(before) = before.replace(event.at) {
            thread::sleep(event.at.since(before).div_f64(speed.max(0.01)));
        }
        terminal.on_event(event);
    }
    let remade = folder::from_events(&path)?;
    terminal.finish(Some(&remade.folder));
    Ok(())
}
