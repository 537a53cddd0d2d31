//! Packets of a path that arrive late, or not at all: a queue in the kernel (NFQUEUE), whose verdicts a thread gives
//! when they are due.
//!
//! A rule of nft hands the packets of one direction to a queue by its number ([`crate::nft::Rule::queue`]), and a
//! [`Line`] lets them go on. It needs neither root nor netem. Invariants: packets leave a line in the order in which
//! they came, also when its delay becomes smaller; only their first bytes are copied.
//!
//! A [`Shape`] without loss and rate takes TCP segments together, up to 64 kB at once, as a veth hands them over. One
//! with either takes them apart: a packet is lost or waits for its turn by itself.
//!
//! Left out: reordering and duplication.
//!
//! Kernel side: `net/netfilter/nfnetlink_queue.c`.

mod queue;
mod schedule;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use self::queue::Queue;
use self::schedule::Schedule;
use crate::clock::now;
use crate::error::{Context, Result};
use crate::netns::NetNs;

/// What a line does to each packet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shape {
    pub delay: Duration,
    /// The delay varies by as much, evenly, in both directions; a packet does not overtake one before it.
    pub jitter: Duration,
    /// Share of packets that are lost, 0 to 1.
    pub loss: f64,
    /// Bits of IP packets a second. At most 200 ms of traffic wait for their turn, what is beyond that is lost.
    pub rate: Option<u64>,
}

impl Shape {
    /// Whether each packet counts by itself.
    fn takes_apart(&self) -> bool {
        self.loss > 0.0 || self.rate.is_some()
    }
}

/// One direction of a path. Dropped, it takes no more packets, lets go those it has when they are due, and ends.
#[derive(Debug)]
pub struct Line(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Queue,
    shape: Mutex<Shape>,
    end: OwnedFd,
}

impl Line {
    /// Reads the queue of this number in a namespace, where none else may read it. Rules that hand packets to it are
    /// made afterwards, and removed before it is dropped: a queue that is not read loses them.
    ///
    /// # Errors
    /// When the kernel has no such queues or another reader has this one (`EPERM`), or when there can be no thread.
    pub fn open(ns: &NetNs, number: u16, shape: Shape) -> Result<Self> {
        let what = || format!("read packet queue {number} in {}", ns.name());
        let queue = Queue::open(ns, number, !shape.takes_apart())?;
        let end = eventfd(0, EventfdFlags::CLOEXEC).context(what)?;
        let shared = Arc::new(Shared { queue, shape: Mutex::new(shape), end });
        let of_thread = shared.clone();
        let run = move || {
            if let Err(e) = of_thread.run() {
                eprintln!("relapse: failed to read packet queue {number}: {e}");
            }
        };
        std::thread::Builder::new().name(format!("delay-{number}")).spawn(run).context(what)?;
        Ok(Self(shared))
    }

    /// Treats what arrives from now on by another shape.
    ///
    /// # Errors
    /// When the kernel refuses the message.
    pub fn set(&self, shape: Shape) -> Result<()> {
        let mut current = self.0.shape.lock().unwrap_or_else(PoisonError::into_inner);
        if shape.takes_apart() != current.takes_apart() {
            self.0.queue.keep_together(!shape.takes_apart())?;
        }
        *current = shape;
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // A counter that is written once is never full.
        let _ = rustix::io::write(&self.0.end, &1_u64.to_ne_bytes());
    }
}

impl Shared {
    /// Until the line is dropped and nothing waits in it.
    fn run(&self) -> io::Result<()> {
        let (mut schedule, mut received, mut ending) = (Schedule::default(), Vec::with_capacity(4096), false);
        loop {
            let wait = schedule.next().map(|due| timespec(due.saturating_sub(now())));
            let queue = PollFd::new(&self.queue, PollFlags::IN);
            let mut both = [queue, PollFd::new(&self.end, PollFlags::IN)];
            // What has ended stays readable.
            let watched = if ending { &mut both[..1] } else { &mut both[..] };
            match poll(watched, wait.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result?,
            };
            let (arrived, ends) = (!both[0].revents().is_empty(), !both[1].revents().is_empty());
            ending |= ends;
            if arrived {
                let shape = *self.shape.lock().unwrap_or_else(PoisonError::into_inner);
                self.queue.receive(&mut received, |id, bytes| schedule.arrive(&shape, now(), id, bytes))?;
            }
            let verdicts = schedule.due(now());
            self.queue.decide(&verdicts)?;
            if ending && schedule.next().is_none() {
                return Ok(());
            }
        }
    }
}

fn timespec(nanoseconds: u64) -> Timespec {
    const SECOND: u64 = 1_000_000_000;
    let part = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Timespec { tv_sec: part(nanoseconds / SECOND), tv_nsec: part(nanoseconds % SECOND) }
}
