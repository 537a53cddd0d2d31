//! The order of trials, which threads take one after the other.

/// Spreads the trials that wait for the machine-wide lock, which form one long chain, evenly among the others.
pub fn evenly<T>(trials: Vec<T>, waits: impl Fn(&T) -> bool) -> Vec<T> {
    let (chain, others): (Vec<_>, Vec<_>) = trials.into_iter().partition(waits);
    let total = chain.len() + others.len();
    let mut keyed: Vec<(usize, T)> = Vec::with_capacity(total);
    for group in [chain, others] {
        let length = group.len().max(1);
        keyed.extend(group.into_iter().enumerate().map(|(n, trial)| (n * total / length, trial)));
    }
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, trial)| trial).collect()
}
