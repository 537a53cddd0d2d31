//! A fault that a cache hides from clients at first.

use super::*;
use crate::event::Visible;

/// One trial, repeated: `visible` milliseconds after t0 in each.
pub(crate) fn cached(visible: &[u64]) -> Vec<RunEvent> {
    let script = |(number, visible): (u32, &u64)| {
        let start = ms(10 + u64::from(number) * 20_000);
        let seen = |at, healing| {
            let (what, at) = ("oss.example.com".to_owned(), START + start + T0 + at);
            TrialEvent::Visible(Visible { what, at, observed: true, healing, step: None })
        };
        let (name, visible) = ("name/oss.example.com", ms(*visible));
        let mut script = Script::new(start, "I6", "an edited record behind a cache", "dns-record-cached", ms(9_000))
            .on("netns", number)
            .injected(ms(1), "oss.example.com resolves to 100.64.249.132", "upstream-1 answers 100.64.249.132")
            .effect("transfer takes 240 ms or more", Some(visible + ms(40)), "median 363 ms (before: 6 ms)")
            .at(T0 + visible, seen(visible, false));
        script.visible = Some(visible);
        script
            .found(visible + ms(17), cause("dns-answer", name, ms(500)), "192.168.0.10 answers 100.64.249.132")
            .found(visible + ms(400), symptom("path-slow", name, ms(2_000)), "round trips take 120 ms; usual: 2.0 ms")
            .flow("transfer", ms(14_000), None, ms(6))
            .at(T0 + ms(12_300), seen(ms(12_300), true))
            .passed(ms(14_300))
    };
    play((1..).zip(visible).map(script).collect(), None)
}
