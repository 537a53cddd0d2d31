//! The cache of a replica, which follows CoreDNS's cache plugin (plugin/cache, plugin/pkg/dnsutil/ttl.go).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Record, RecordType};
use relapse_model::time_in_cache;
use relapse_model::zone::folded;

/// Assumed time to live of a reply without records, seconds.
const NO_RECORDS: u32 = 5;
/// Maximum number of answers.
const CAPACITY: usize = 9984;

/// Answers to forwarded questions.
pub(super) struct Cache {
    /// Longest time an answer is kept, seconds.
    longest: u32,
    kept: Mutex<HashMap<Question, Kept>>,
}

type Question = (String, RecordType);

struct Kept {
    at: Instant,
    seconds: u32,
    reply: Message,
}

impl Cache {
    pub fn new(longest: u32) -> Self {
        Self { longest, kept: Mutex::default() }
    }

    /// The cached answer to a question, with its remaining time to live.
    pub fn find(&self, asked: &Message, now: Instant) -> Option<Message> {
        let question = question(asked)?;
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.get(&question)?;
        let age = now.duration_since(kept.at);
        if age >= Duration::from_secs(kept.seconds.into()) {
            all.remove(&question);
            return None;
        }
        let left = kept.seconds.saturating_sub(u32::try_from(age.as_secs()).unwrap_or(u32::MAX));
        let mut reply = kept.reply.clone();
        reply.metadata.id = asked.metadata.id;
        reply.queries.clone_from(&asked.queries);
        set_ttl(&mut reply, left);
        Some(reply)
    }

    /// Keeps a reply, and sets its time to live to the time it is kept.
    pub fn keep(&self, reply: &mut Message, now: Instant) {
        let denies = reply.authorities.iter().any(|record| record.record_type() == RecordType::SOA);
        let is_kept = reply.metadata.response_code == ResponseCode::NoError || denies;
        let Some(question) = question(reply).filter(|_| is_kept && !reply.metadata.truncation) else { return };
        let ttl = records(reply).map(|record| record.ttl).min().unwrap_or(NO_RECORDS);
        let seconds = time_in_cache(ttl, self.longest);
        set_ttl(reply, seconds);
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < CAPACITY || all.contains_key(&question) {
            all.insert(question, Kept { at: now, seconds, reply: reply.clone() });
        }
    }
}

fn question(message: &Message) -> Option<Question> {
    let query = message.queries.first()?;
    Some((folded(&query.name().to_utf8()), query.query_type()))
}

fn records(reply: &mut Message) -> impl Iterator<Item = &mut Record> {
    reply.answers.iter_mut().chain(&mut reply.authorities).chain(&mut reply.additionals)
}

fn set_ttl(reply: &mut Message, seconds: u32) {
    records(reply).for_each(|record| record.ttl = seconds);
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::cluster;
    use crate::workload::servers::resolver::answer;
    use crate::workload::stub;

    fn asked(id: u16, name: &str) -> Message {
        Message::from_vec(&stub::question(id, name, RecordType::A).unwrap()).unwrap()
    }

    /// The time to live of an answer when it arrives, and from the cache `later` seconds later.
    fn played(longest: u32, ttl: Option<u32>, later: u64) -> (u32, Option<u32>) {
        let cache = Cache::new(longest);
        let record = ttl.map(|ttl| cluster::Record { addresses: vec![IpAddr::from([10, 219, 226, 2])], ttl });
        let mut reply = Message::from_vec(&answer(&asked(1, "oss.example.com."), record.as_ref(), 7).unwrap()).unwrap();
        let now = Instant::now();
        cache.keep(&mut reply, now);
        let later = now + Duration::from_secs(later);
        let mut again = cache.find(&asked(2, "OSS.example.com."), later);
        assert!(cache.find(&asked(3, "other.example.com."), later).is_none());
        assert!(again.as_ref().is_none_or(|again| again.metadata.id == 2));
        let least = |message: &mut Message| records(message).map(|record| record.ttl).min().unwrap();
        (least(&mut reply), again.as_mut().map(least))
    }

    #[test]
    fn an_answer_is_kept_for_its_ttl_within_the_limits() {
        assert_eq!(played(30, Some(20), 3), (20, Some(17)));
        assert_eq!(played(30, Some(20), 20), (20, None));
        assert_eq!(played(30, Some(3600), 29), (30, Some(1)), "no longer than the option");
        assert_eq!(played(30, Some(1), 4), (5, Some(1)), "the plugin's own shortest time");
        assert_eq!(played(2, Some(1), 1), (2, Some(1)));
        assert_eq!(played(30, None, 6), (7, Some(1)), "that there is no such name as well");
        assert_eq!(played(30, None, 7), (7, None));
    }
}
