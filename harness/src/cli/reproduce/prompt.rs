//! The prompt while the fault is in force.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use relapse_kernel::process::take_terminal;
use relapse_model::diagnostics::did_you_mean;
use relapse_reports::words::{self, Tone};

use super::look::Look;
use super::story::Story;
use super::{Exec, Printer};
use crate::cli::out;
use crate::run::hold::Visitor;
use crate::run::order::HoldEvent;

/// Commands of the prompt, besides the names of places.
const WORDS: [&str; 8] = ["shell", "places", "status", "look", "next", "heal", "quit", "help"];

const HELP: [&str; 8] = [
    "  shell PLACE    open a shell there; `exit` returns to this prompt",
    "  PLACE COMMAND  run one command there",
    "  places         list the places",
    "  status         show flows and standing findings",
    "  look           suggest commands",
    "  next           heal one step of a chain, and stop at the next",
    "  heal, quit     undo the fault, wait for recovery, tear everything down",
    "  help",
];

/// The interactive session.
pub struct Session {
    pub visitor: Visitor,
    pub story: Arc<Mutex<Story>>,
    pub printer: Printer,
    pub name: String,
    pub look: Vec<Look>,
    /// Whether its steps can be healed one by one.
    pub is_chain: bool,
}

/// What follows a look around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The next stage of a chain.
    Next,
    Heal,
}

impl Session {
    /// Waits until the trial is held, runs the prompt or the commands, and leaves the trial.
    pub fn hold(&self, exec: &[Exec]) {
        while let Some(places) = self.held() {
            if self.look_around(exec, &places) == Then::Heal {
                return self.visitor.leave();
            }
            self.visitor.next_stage();
        }
    }

    /// Waits until the trial is held. None when the run is over.
    fn held(&self) -> Option<Vec<String>> {
        loop {
            match self.visitor.next()? {
                HoldEvent::Holding { places } => return Some(places),
                event => self.print(&event),
            }
        }
    }

    fn look_around(&self, exec: &[Exec], places: &[String]) -> Then {
        let page = self.printer.page();
        let summary = {
            let mut story = self.story.lock().unwrap_or_else(PoisonError::into_inner);
            story.hold();
            story.summary(page)
        };
        self.printer.print(&summary);
        if exec.is_empty() {
            self.printer.print(&self.looks());
            self.printer.print(&[String::new()]);
            self.prompt(places)
        } else {
            self.carry_out(exec);
            Then::Heal
        }
    }

    fn looks(&self) -> Vec<String> {
        let page = self.printer.page();
        let width = self.look.iter().map(|look| look.place.len()).max().unwrap_or(0);
        let line = |look: &Look| {
            let missing = look.missing.as_ref().map(|program| format!("  ({program} is not installed)"));
            let missing = page.paint(Tone::Muted, &missing.unwrap_or_default());
            format!("  {:width$}  {}{missing}", look.place, page.paint(Tone::Note, &look.command))
        };
        std::iter::once(page.strong("look at")).chain(self.look.iter().map(line)).collect()
    }

    fn carry_out(&self, exec: &[Exec]) {
        for Exec { place, command } in exec {
            self.printer.print(&[self.printer.page().paint(Tone::Note, &format!("{place}: {command}"))]);
            self.visitor.start(place, Some(command));
            match self.ended() {
                Some(Ok(0)) => {}
                Some(Ok(status)) => self.printer.print(&[format!("{place}: exit status {status}")]),
                Some(Err(why)) => self.printer.print(&[why]),
                None => return,
            }
        }
    }

    fn prompt(&self, places: &[String]) -> Then {
        let mut input = io::stdin().lock();
        loop {
            let _ = write!(io::stdout(), "relapse {}> ", self.name);
            let _ = io::stdout().flush();
            let mut line = String::new();
            match input.read_line(&mut line) {
                Ok(0) | Err(_) => {
                    out::line("");
                    return Then::Heal;
                }
                Ok(_) => {}
            }
            while let Some(event) = self.visitor.pending() {
                self.print(&event);
            }
            if line.trim() == "next" {
                if self.is_chain {
                    return Then::Next;
                }
                out::line("  this scenario is no chain: `heal` undoes its fault");
            } else if self.execute(line.trim(), places).is_none() {
                return Then::Heal;
            }
        }
    }

    /// Executes a line. Returns `None` to leave the prompt.
    fn execute(&self, line: &str, places: &[String]) -> Option<()> {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "" => {}
            "help" | "?" => out::lines(HELP),
            "places" => out::lines(places.iter().map(|place| format!("  {place}"))),
            "look" => out::lines(self.looks()),
            "status" => {
                let now = relapse_lab::fault::now();
                let story = self.story.lock().unwrap_or_else(PoisonError::into_inner);
                out::lines(story.status(now, out::page()));
            }
            "heal" | "quit" | "exit" | "q" => return None,
            "shell" if rest.is_empty() => {
                out::line("  shell PLACE, where PLACE is one of:");
                out::lines(places.iter().map(|place| format!("  {place}")));
            }
            "shell" => {
                let (place, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                return self.open(place, command.trim(), places);
            }
            place if place == "fabric" || place.contains('/') => return self.open(place, rest, places),
            other => {
                out::line(format!("  there is no command `{other}`; {}", did_you_mean(other, "commands", WORDS)));
            }
        }
        Some(())
    }

    fn open(&self, place: &str, command: &str, places: &[String]) -> Option<()> {
        if !places.iter().any(|known| known == place) {
            let meant = did_you_mean(place, "places", places.iter().map(String::as_str));
            out::line(format!("  there is no place {place}; {meant}"));
            return Some(());
        }
        if command.is_empty() && !io::stdin().is_terminal() {
            out::line("  a shell needs a terminal; write a command after the place");
            return Some(());
        }
        self.visitor.start(place, (!command.is_empty()).then_some(command));
        let ended = self.ended();
        // The program may have taken the terminal without returning it.
        let _ = take_terminal();
        match ended? {
            Ok(status) if status != 0 && !command.is_empty() => {
                out::line(format!("  exit status {status}"));
            }
            Ok(_) => {}
            Err(why) => {
                out::line(format!("  {why}"));
            }
        }
        Some(())
    }

    /// Waits for the program to end. Returns `None` when the run has ended.
    fn ended(&self) -> Option<Result<i32, String>> {
        loop {
            match self.visitor.next()? {
                HoldEvent::Ended { status } => return Some(status),
                event => self.print(&event),
            }
        }
    }

    fn print(&self, event: &HoldEvent) {
        if let HoldEvent::LimitRestored { why } = event {
            let text = format!("nf_conntrack_max was restored early: {}", words::one_line(why));
            self.printer.print(&[self.printer.page().paint(Tone::Unsure, &text)]);
        }
    }
}
