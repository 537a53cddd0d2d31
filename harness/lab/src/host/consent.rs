//! The user's permission to write a machine-wide setting.
//!
//! Given for one command (`--allow-host-writes`) or by the environment; never remembered, never requested
//! during a run. Without it scenarios that need it are skipped, with the reason.

/// The variable that grants it if no flag can be given (`cargo test`, CI).
pub const VARIABLE: &str = "RELAPSE_ALLOW_HOST_WRITES";

/// Whether a run may write `nf_conntrack_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    Granted,
    Withheld,
}

impl Consent {
    /// From the flag of the command line, or the environment.
    #[must_use]
    pub fn from_environment(flag: bool) -> Self {
        Self::decide(flag, std::env::var(VARIABLE).ok().as_deref())
    }

    /// Only the flag or exactly `1` grants it: `0`, `no` and an empty value are no consent.
    #[must_use]
    pub fn decide(flag: bool, variable: Option<&str>) -> Self {
        if flag || variable == Some("1") { Self::Granted } else { Self::Withheld }
    }

    #[must_use]
    pub const fn is_granted(self) -> bool {
        matches!(self, Self::Granted)
    }

    /// Describes what will be changed, for the user to read beforehand (`reproduce`).
    #[must_use]
    pub const fn touches() -> &'static str {
        "net.netfilter.nf_conntrack_max, one number for every network namespace of this machine, is \
         written while the fault is in force and then restored. The write is refused if another \
         namespace holds more than half of the new limit. It is journaled first, and restored within \
         a second even if the run is killed"
    }

    /// Why a scenario is skipped without it.
    #[must_use]
    pub const fn skip_reason() -> &'static str {
        "writes net.netfilter.nf_conntrack_max, one number for the whole machine: allow it with \
         --allow-host-writes or RELAPSE_ALLOW_HOST_WRITES=1"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_flag_or_a_one_grants_it() {
        assert!(Consent::decide(true, None).is_granted());
        assert!(Consent::decide(false, Some("1")).is_granted());
        for value in [None, Some(""), Some("0"), Some("no"), Some("true"), Some(" 1")] {
            assert_eq!(Consent::decide(false, value), Consent::Withheld, "{value:?}");
        }
    }
}
