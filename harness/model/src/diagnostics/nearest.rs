//! Suggestions for misspelt names.

/// With a clear suggestion, at most this many candidates are listed.
const LISTED_BESIDE: usize = 8;

/// The candidate nearest to `name`, if one is near enough.
#[must_use]
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The cost grows with the product of the lengths, and a long text is no misspelt name.
    if name.len() > 128 {
        return None;
    }
    let folded = name.to_lowercase();
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= 128)
        .map(|candidate| (strsim::damerau_levenshtein(&folded, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count().max(folded.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Suggests the nearest candidate for `name`, otherwise lists all of them.
#[must_use]
pub fn did_you_mean<'a>(name: &str, what: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let mut candidates: Vec<&str> = candidates.into_iter().collect();
    candidates.dedup();
    if candidates.is_empty() {
        return format!("there are no {what}");
    }
    match nearest(name, candidates.iter().copied()) {
        Some(meant) if candidates.len() > LISTED_BESIDE => format!("did you mean `{meant}`?"),
        Some(meant) if meant != name => format!("did you mean `{meant}`? {what}: {}", listed(candidates)),
        _ => format!("{what}: {}", listed(candidates)),
    }
}

/// Joins names with commas, up to a maximum.
#[must_use]
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const MOST: usize = 18;
    let names: Vec<&str> = names.into_iter().collect();
    let mut out = names.iter().take(MOST).copied().collect::<Vec<_>>().join(", ");
    if names.len() > MOST {
        out.push_str(&format!(" and {} more", names.len() - MOST));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keyboard_is_understood_and_another_word_is_not() {
        let names = ["worker-1", "worker-2", "database"];
        assert_eq!(nearest("woker-1", names), Some("worker-1"));
        assert_eq!(nearest("Database", names), Some("database"));
        assert_eq!(nearest("queue", names), None);
        assert_eq!(nearest("", ["a"]), Some("a"));
        assert_eq!(nearest(&"x".repeat(100_000), names), None);
    }

    #[test]
    fn help_names_what_there_is() {
        assert_eq!(did_you_mean("ap", "pods", ["app", "db"]), "did you mean `app`? pods: app, db");
        assert_eq!(did_you_mean("queue", "pods", ["app"]), "pods: app");
        assert_eq!(did_you_mean("queue", "pods", []), "there are no pods");
    }
}
