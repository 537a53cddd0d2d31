//! Where trials run, in words.

/// A backend in a word: "lab", "kind".
#[must_use]
pub fn backend(name: &str) -> &str {
    if name == "netns" { "lab" } else { name }
}

/// Where a trial ran: "in the lab", "on kind".
#[must_use]
pub fn on(backend: &str) -> String {
    if backend == "netns" { "in the lab".to_owned() } else { format!("on {backend}") }
}
