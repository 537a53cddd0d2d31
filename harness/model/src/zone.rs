//! Names of records, and the record that answers for a name.

/// A name in the form that is compared (RFC 4343): lower case, without the dot at its end.
#[must_use]
pub fn folded(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The owner of the record that answers for a folded name: the name itself, or `*` below the closest of its ancestors
/// that exists (RFC 4592, 3.3.1).
#[must_use]
pub fn owner<'a>(owners: impl Iterator<Item = &'a str> + Clone, name: &str) -> Option<&'a str> {
    let is_below = |owner: &str, above: &str| owner.strip_suffix(above).is_some_and(|rest| rest.ends_with('.'));
    let exists = |name: &str| owners.clone().any(|owner| owner == name || is_below(owner, name));
    if exists(name) {
        return owners.clone().find(|owner| *owner == name);
    }
    let mut ancestors = std::iter::successors(name.split_once('.'), |(_, above)| above.split_once('.'));
    let (_, closest) = ancestors.find(|(_, above)| exists(above))?;
    owners.clone().find(|owner| owner.strip_prefix("*.") == Some(closest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_answers_for_what_does_not_exist_below_its_closest_ancestor() {
        let owners = ["*.example.com", "oss.example.com", "a.b.example.com", "*.corp.example"];
        let answers = |name: &str| owner(owners.into_iter(), name);
        assert_eq!(answers("oss.example.com"), Some("oss.example.com"));
        assert_eq!(answers("api.example.com"), Some("*.example.com"));
        assert_eq!(answers("x.y.example.com"), Some("*.example.com"));
        assert_eq!(answers("x.oss.example.com"), None, "oss.example.com exists, and has no wildcard below it");
        assert_eq!(answers("c.b.example.com"), None, "b.example.com exists: a name lies below it");
        assert_eq!(answers("b.example.com"), None);
        assert_eq!(answers("example.com"), None);
        assert_eq!(answers("api.example.org.corp.example"), Some("*.corp.example"));
        assert_eq!(answers("example.org"), None);
        assert_eq!(folded("OSS.Example.com."), "oss.example.com");
    }
}
