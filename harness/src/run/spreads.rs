//! When clients see changes that a cache or kept connections hide from them.
//!
//! Made from the DNS answers that the collectors report, of any server to any client of the cluster. No clock, no I/O.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use relapse_detectors::signal::{Observed, Signal};
use relapse_detectors::time::Time;
use relapse_lab::fault::Spread;
use relapse_reports::event::Visible;

/// Shared by the observer of signals and the trial.
#[derive(Clone, Default)]
pub struct SharedSpreads(Arc<Mutex<Spreads>>);

impl SharedSpreads {
    pub fn lock(&self) -> MutexGuard<'_, Spreads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The changes of a trial that some clients see later.
#[derive(Default)]
pub struct Spreads(Vec<Change>);

struct Change {
    step: Option<String>,
    spread: Spread,
    /// Time after which it counts as visible, whatever was observed.
    hold: Duration,
    /// Every other fault of its step is hidden as well.
    alone: bool,
    /// Immediately before it was made.
    made: Option<Time>,
    /// When its undo was read back.
    healed: Option<Time>,
    /// First answer that shows it, and the last ones that do and do not.
    first: Option<Time>,
    with: Time,
    without: Time,
    is_reported: bool,
}

impl Change {
    /// When a client could first see it, as far as known.
    fn visible(&self) -> Option<Time> {
        let made = self.made?;
        Some(self.first.map_or(made + self.hold, |first| first.max(made).min(made + self.hold)))
    }

    /// Since when no answer contradicts it, or its healing, as far as known.
    fn settled(&self) -> Option<Time> {
        let since = self.healed.or(self.made)?;
        let expired = since + self.hold;
        Some(match (self.healed, self.first) {
            (Some(_), _) => self.with.clamp(since, expired),
            (None, Some(_)) => self.without.clamp(since, expired),
            (None, None) => expired,
        })
    }

    fn is_of(&self, step: Option<&str>) -> bool {
        self.step.as_deref() == step
    }
}

impl Spreads {
    /// The faults of a step are about to be made; `None` for those that nothing hides. A client that keeps its
    /// connections is expected to look the name up again within `unseen`.
    pub fn begin(&mut self, step: Option<&str>, spreads: Vec<Option<Spread>>, unseen: Duration) {
        let alone = spreads.iter().all(Option::is_some);
        for spread in spreads.into_iter().flatten() {
            let same = |known: &Change| known.is_of(step) && known.spread == spread;
            if !self.0.iter().any(same) {
                self.0.push(Change {
                    step: step.map(str::to_owned),
                    hold: spread.hold.unwrap_or(unseen),
                    spread,
                    alone,
                    made: None,
                    healed: None,
                    first: None,
                    with: Time::default(),
                    without: Time::default(),
                    is_reported: false,
                });
            }
        }
    }

    /// They were made, the first one at `t0`. Returns when clients see the first of them at the latest, if that is later.
    pub fn made(&mut self, step: Option<&str>, t0: Time) -> Option<Time> {
        let of_step = self.0.iter_mut().filter(|change| change.is_of(step));
        let latest = of_step.map(|change| {
            change.made = Some(t0);
            (change.alone, t0 + change.hold)
        });
        latest.filter(|(alone, _)| *alone).map(|(_, at)| at).min()
    }

    /// The undo of a step, or of all, was read back.
    pub fn healed(&mut self, step: Option<&str>, at: Time) {
        let healed = self.0.iter_mut().filter(|change| step.is_none() || change.is_of(step));
        healed.for_each(|change| change.healed = change.healed.or(Some(at)));
    }

    pub fn signal(&mut self, signal: &Signal) {
        let Observed::Dns(dns) = &signal.observed else { return };
        for change in &mut self.0 {
            match change.spread.shows(dns) {
                Some(true) => {
                    change.first = change.first.or(Some(signal.at));
                    change.with = change.with.max(signal.at);
                }
                Some(false) => change.without = change.without.max(signal.at),
                None => {}
            }
        }
    }

    /// Changes that have become visible since the last call, and whether detection counts from then.
    pub fn news(&mut self, now: Time) -> Vec<(Visible, bool)> {
        let mut news = Vec::new();
        for change in self.0.iter_mut().filter(|change| !change.is_reported) {
            let (Some(made), Some(at)) = (change.made, change.visible()) else { continue };
            if change.first.is_none() && now < at {
                continue;
            }
            change.is_reported = true;
            if at > made {
                let (what, step) = (change.spread.name.clone(), change.step.clone());
                let observed = change.first == Some(at);
                news.push((Visible { what, at, observed, healing: false, step }, change.alone));
            }
        }
        news
    }

    /// When every change of the trial was visible to some client, as far as known.
    pub fn visible(&self) -> Option<Time> {
        self.0.iter().filter_map(Change::visible).max()
    }

    /// Since when no client contradicts the changes made and healed, as far as known.
    pub fn settled(&self) -> Option<Time> {
        self.0.iter().filter_map(Change::settled).max()
    }

    /// Healed steps, each with when clients saw that.
    pub fn healed_steps(&self) -> Vec<(Option<String>, Time)> {
        let healed = self.0.iter().filter(|change| change.healed.is_some());
        healed.filter_map(|change| Some((change.step.clone(), change.settled()?))).collect()
    }

    /// Healings that clients saw later.
    pub fn healings(&self) -> Vec<Visible> {
        let late = self.0.iter().filter_map(|change| {
            let at = change.settled().filter(|at| change.healed.is_some_and(|healed| *at > healed))?;
            let (what, step) = (change.spread.name.clone(), change.step.clone());
            Some(Visible { what, at, observed: at == change.with, healing: true, step })
        });
        late.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use relapse_detectors::signal::Dns;

    use super::*;

    const RIGHT: [u8; 4] = [10, 219, 226, 2];
    const WRONG: [u8; 4] = [100, 64, 249, 132];

    fn secs(n: u64) -> Time {
        Time(n * 1_000_000_000)
    }

    fn spread(hold: Option<u64>) -> Option<Spread> {
        let (name, hold) = ("oss.example.com".to_owned(), hold.map(Duration::from_secs));
        Some(Spread {
            name,
            before: vec![RIGHT.into()],
            after: vec![WRONG.into()],
            hold,
            clients: "10.176.96.0/20".parse().unwrap(),
        })
    }

    fn answer(spreads: &mut Spreads, at: u64, address: [u8; 4]) {
        let dns = Dns {
            client: ([10, 176, 96, 7], 40_000).into(),
            server: ([192, 168, 0, 10], 53).into(),
            id: 1,
            name: "oss.example.com.".to_owned(),
            record: "A".to_owned(),
            response: Some("NOERROR".to_owned()),
            answers: vec![IpAddr::from(address)],
            ttl: Some(5),
        };
        spreads.signal(&Signal { at: secs(at), node: "worker-1".into(), observed: dns.into() });
    }

    fn made(spreads: Vec<Option<Spread>>) -> Spreads {
        let mut all = Spreads::default();
        all.begin(None, spreads, Duration::from_secs(20));
        answer(&mut all, 9, RIGHT);
        all.made(None, secs(10));
        all
    }

    #[test]
    fn a_change_is_visible_with_the_first_answer_and_settled_after_the_last_without_it() {
        let mut all = made(vec![spread(Some(5))]);
        answer(&mut all, 11, RIGHT);
        assert_eq!((all.news(secs(12)), all.visible(), all.settled()), (vec![], Some(secs(15)), Some(secs(15))));
        answer(&mut all, 12, WRONG);
        answer(&mut all, 13, RIGHT);
        let (seen, counts) = all.news(secs(13)).remove(0);
        assert_eq!((seen.at, seen.observed, seen.healing, counts), (secs(12), true, false, true));
        assert_eq!((all.news(secs(14)), all.settled()), (vec![], Some(secs(13))), "the cache of another replica");
        answer(&mut all, 17, RIGHT);
        assert_eq!(all.settled(), Some(secs(15)), "no cache gives the old answer any more");

        all.healed(None, secs(20));
        assert_eq!((all.settled(), all.healings()), (Some(secs(20)), vec![]));
        answer(&mut all, 21, WRONG);
        answer(&mut all, 22, RIGHT);
        answer(&mut all, 23, WRONG);
        assert_eq!(all.healed_steps(), [(None, secs(23))]);
        let healing = all.healings().remove(0);
        assert_eq!((healing.at, healing.observed, healing.healing), (secs(23), true, true));
        answer(&mut all, 29, WRONG);
        assert_eq!(all.settled(), Some(secs(25)));
    }

    #[test]
    fn without_a_look_up_it_is_visible_when_caches_have_expired() {
        let mut all = made(vec![spread(Some(5))]);
        assert_eq!(all.news(secs(14)), []);
        let (seen, _) = all.news(secs(15)).remove(0);
        assert_eq!((seen.at, seen.observed), (secs(15), false));
    }

    #[test]
    fn kept_connections_hide_it_until_one_is_opened_again() {
        let mut all = made(vec![spread(None)]);
        assert_eq!((all.news(secs(29)), all.visible()), (vec![], Some(secs(30))));
        answer(&mut all, 29, WRONG);
        assert_eq!(all.visible(), Some(secs(29)));
    }

    #[test]
    fn a_step_that_has_a_fault_in_plain_sight_counts_from_its_injection() {
        let mut all = Spreads::default();
        all.begin(Some("both"), vec![spread(Some(5)), None], Duration::ZERO);
        all.begin(Some("record"), vec![spread(Some(5)), spread(Some(5))], Duration::ZERO);
        assert_eq!(all.made(Some("both"), secs(10)), None);
        assert_eq!(all.made(Some("record"), secs(11)), Some(secs(16)));
        let news = all.news(secs(20));
        let counts: Vec<_> = news.iter().map(|(seen, counts)| (seen.step.as_deref(), *counts)).collect();
        assert_eq!(counts, [(Some("both"), false), (Some("record"), true)]);
    }
}
