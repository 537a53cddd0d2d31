use super::*;

const PHASES: Phases = Phases { fault: 60, heal: 180, end: 240 };
const TIMELINE: Timeline = Timeline { phases: PHASES, history: 600, hold: 1200, healthy: 600, period: 30 };

/// The samples of a recording by a function of the second.
fn samples(of: impl Fn(u32) -> Option<f64>) -> Samples {
    (0..PHASES.end).map(of).collect()
}

fn at(samples: &Samples, seconds: &[i64]) -> Vec<Option<f64>> {
    let extended = Extended::new(true, samples, &TIMELINE);
    seconds.iter().map(|&second| extended.at(second)).collect()
}

fn all() -> std::ops::Range<i64> {
    -i64::from(TIMELINE.history)..TIMELINE.end()
}

#[test]
fn recorded_seconds_are_as_recorded() {
    let samples = samples(|second| (second % 7 != 3).then(|| f64::from(second * second % 11)));
    let extended = Extended::new(false, &samples, &TIMELINE);
    for second in 0..240 {
        let shifted = if second < 180 { second } else { second + 1200 };
        assert_eq!(extended.at(shifted), samples[second as usize]);
    }
}

#[test]
fn counters_go_on_by_the_rises_of_the_window() {
    // 1 a second before the fault, 5 during it, 2 after.
    let samples = samples(|s| {
        Some(f64::from(s.min(60) + 5 * s.clamp(60, 180).saturating_sub(60) + 2 * s.max(180).saturating_sub(180)))
    });
    assert_eq!(at(&samples, &[-600, -1, 0]), [Some(-600.0), Some(-1.0), Some(0.0)]);
    let held = at(&samples, &[179, 180, 181, 1379]);
    assert_eq!(held, [Some(655.0), Some(660.0), Some(665.0), Some(655.0 + 6000.0)]);
    // The second at which it was healed is recorded as 660, and later by what the hold adds.
    assert_eq!(
        at(&samples, &[1380, 1381, 1439, 1440]),
        [Some(6660.0), Some(6662.0), Some(6660.0 + 118.0), Some(6660.0 + 120.0)]
    );
}

#[test]
fn no_counter_falls_except_where_it_was_recorded() {
    for seed in 0..200u32 {
        let mut state = seed;
        let mut random = move |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        let mut value = random(1000);
        let mut resets = 0;
        let samples: Samples = (0..240)
            .map(|second| {
                value += random(4);
                if random(100) == 0 && second > 0 {
                    resets += u32::from(value > 0);
                    value = 0;
                }
                (random(20) != 0 || second == 0).then(|| f64::from(value))
            })
            .collect();
        let extended = Extended::new(true, &samples, &TIMELINE);
        let values: Vec<f64> = all().filter_map(|second| extended.at(second)).collect();
        let falls = values.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!(falls as u32 <= resets, "seed {seed}: {falls} falls, {resets} resets");
    }
}

#[test]
fn buckets_move_together() {
    let bucket = |factor: f64| samples(move |second| Some((f64::from(second / 3) * factor).floor()));
    let (small, large) = (bucket(0.5), bucket(1.0));
    let [small, large] = &[&small, &large].map(|samples| Extended::new(true, samples, &TIMELINE));
    let rise = |of: &Extended<'_>, second| of.at(second + 10).unwrap() - of.at(second).unwrap();
    for second in -600..TIMELINE.end() - 10 {
        assert!(rise(small, second) <= rise(large, second) + 0.5, "{second}");
    }
    assert!((0..TIMELINE.end()).all(|second| small.at(second) <= large.at(second)));
}

#[test]
fn gauges_repeat_their_bursts() {
    let samples = samples(|second| Some(if second > 60 && second % 20 < 2 { 9.0 } else { 1.0 }));
    let extended = Extended::new(false, &samples, &TIMELINE);
    let high = (180..1380).filter(|&second| extended.at(second) == Some(9.0)).count();
    assert_eq!(high, 120);
    assert!(!extended.trends);
    // None before the fault.
    assert!((-600..60).all(|second| extended.at(second) == Some(1.0)));
}

#[test]
fn what_vanished_or_changed_once_stays_so() {
    let samples_up = samples(|second| Some(f64::from(u8::from(!(150..190).contains(&second)))));
    let up = Extended::new(false, &samples_up, &TIMELINE);
    assert!((150..1390).all(|second| up.at(second) == Some(0.0)));
    assert!((1390..TIMELINE.end()).all(|second| up.at(second) == Some(1.0)));

    for counter in [false, true] {
        let gone = samples(|second| (!(150..190).contains(&second)).then_some(5.0));
        let gone = Extended::new(counter, &gone, &TIMELINE);
        assert!((150..1390).all(|second| gone.at(second).is_none()));
        assert!((1390..TIMELINE.end()).all(|second| gone.at(second) == Some(5.0)));
        let came = samples(|second| (second >= 150).then_some(5.0));
        let came = Extended::new(counter, &came, &TIMELINE);
        assert!((-600..150).all(|second| came.at(second).is_none()));
        assert!((150..TIMELINE.end()).all(|second| came.at(second) == Some(5.0)));
    }
    // Coming and going goes on.
    let flaps = samples(|second| (second < 60 || second % 10 < 5).then_some(5.0));
    let flaps = Extended::new(false, &flaps, &TIMELINE);
    assert_eq!((180..1380).filter(|&second| flaps.at(second).is_some()).count(), 600);
}

#[test]
fn a_probe_under_way_when_something_changes_is_not_repeated() {
    // From 58 to 175, and those that began before and saw it.
    let samples = samples(|second| Some(f64::from(u8::from(!(58..176).contains(&second)))));
    let extended = Extended::new(false, &samples, &TIMELINE);
    assert!((-600..0).all(|second| extended.at(second) == Some(1.0)));
    assert_eq!([175, 176, 179].map(|second| extended.at(second)), [Some(0.0), Some(1.0), Some(1.0)], "as recorded");
    assert!((180..1380).all(|second| extended.at(second) == Some(0.0)));
}

#[test]
fn a_trend_keeps_its_last_value_and_is_known() {
    let fills = samples(|second| Some(f64::from(second.saturating_sub(60) * 10)));
    let fills = Extended::new(false, &fills, &TIMELINE);
    assert!(fills.trends);
    assert!((179..1380).all(|second| fills.at(second) == Some(1190.0)));
    let noisy = samples(|second| Some(f64::from(500 + second * 7919 % 13)));
    assert!(!Extended::new(false, &noisy, &TIMELINE).trends);
    assert!(!Extended::new(true, &samples(|second| Some(f64::from(second))), &TIMELINE).trends);
}

#[test]
fn a_recording_without_phases_is_no_reason_to_panic() {
    for (fault, heal, end) in [(0, 0, 0), (0, 1, 1), (1, 1, 2), (5, 3, 1), (60, 180, 240)] {
        let timeline = Timeline { phases: Phases { fault, heal, end }, ..TIMELINE };
        for samples in [vec![], vec![Some(1.0)], vec![None, Some(f64::NAN)]] {
            let extended = Extended::new(true, &samples, &timeline);
            for second in -700..3000 {
                let _ = extended.at(second);
            }
        }
    }
}
