//! Delay, jitter, loss and rate of a path, by packet queues of the kernel (NFQUEUE): neither root nor netem is needed.
//!
//! An nft rule puts the packets of one direction into a queue ([`crate::nft::Rule::queue`]); the thread of a [`Line`]
//! gives the verdict on each when it is due. Packets leave a line in order, even if its delay is reduced, and never
//! early. Only their first bytes are copied to user space.
//!
//! A [`Shape`] with a delay alone keeps TCP segments together, up to 64 kB in one verdict, as a veth delivers them.
//! With loss or a rate the kernel segments them first, so that each packet counts by itself.
//!
//! A network does not become slow because processors are busy, so the threads have real-time priority where that is
//! allowed (`sched(7)`: `CAP_SYS_NICE` as root on kind, or `RLIMIT_RTPRIO`). With ten busy processes on each processor,
//! one wake-up in a thousand is 4 ms late or more, instead of 90 ms. They need little time, and the kernel limits it.
//!
//! Not supported: reordering, duplication.
//!
//! Kernel side: `net/netfilter/nfnetlink_queue.c`.

mod queue;
mod schedule;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use self::queue::Queue;
use self::schedule::Schedule;
use crate::clock::{from_realtime, now};
use crate::error::{Context, Result};
use crate::netns::NetNs;

/// Longest time that a verdict of this process was late, nanoseconds.
static LATEST: AtomicU64 = AtomicU64::new(0);

/// Longest time that packets on any line of this process were delayed beyond its shape, because the machine was busy.
#[must_use]
pub fn latest() -> Duration {
    Duration::from_nanos(LATEST.load(Ordering::Relaxed))
}

/// What a line does to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shape {
    pub delay: Duration,
    /// The delay is uniformly distributed between `delay - jitter` and `delay + jitter`, or longer where a packet would
    /// overtake another.
    pub jitter: Duration,
    /// Share of packets that are dropped, 0 to 1.
    pub loss: f64,
    /// Bits per second, IP headers included. A packet is dropped if more than 200 ms of traffic wait before it.
    pub rate: Option<u64>,
}

impl Shape {
    /// Whether segments must be separate packets.
    fn segments(&self) -> bool {
        self.loss > 0.0 || self.rate.is_some()
    }
}

/// One direction of a path. After it is dropped, its thread delivers the packets that still wait, then ends.
#[derive(Debug)]
pub struct Line(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Queue,
    shape: Mutex<Shape>,
    end: OwnedFd,
}

impl Line {
    /// Binds a queue of a namespace and starts its thread. Create rules that use the queue afterwards, and remove them
    /// before the line is dropped: the kernel drops packets for an unbound queue.
    ///
    /// # Errors
    /// If the kernel has no packet queues, the queue is bound already (`EPERM`), or the thread cannot be started.
    pub fn open(ns: &NetNs, number: u16, shape: Shape) -> Result<Self> {
        let what = || format!("read packet queue {number} in {}", ns.name());
        let queue = Queue::open(ns, number, !shape.segments())?;
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

    /// Changes the shape for packets that arrive from now on.
    ///
    /// # Errors
    /// If the kernel refuses to change the queue.
    pub fn set(&self, shape: Shape) -> Result<()> {
        let mut current = self.0.shape.lock().unwrap_or_else(PoisonError::into_inner);
        if shape.segments() != current.segments() {
            self.0.queue.keep_together(!shape.segments())?;
        }
        *current = shape;
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Only a full counter would fail; this is its only write.
        let _ = rustix::io::write(&self.0.end, &1_u64.to_ne_bytes());
    }
}

impl Shared {
    /// Runs until the line is dropped and no packet waits.
    fn run(&self) -> io::Result<()> {
        let lowest = libc::sched_param { sched_priority: 1 };
        // SAFETY: reads the parameter. Without permission the thread keeps its priority.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const lowest) };
        let (mut schedule, mut received, mut ending) = (Schedule::default(), Vec::with_capacity(4096), false);
        loop {
            let wait = schedule.next().map(|due| timespec(due.saturating_sub(now())));
            let queue = PollFd::new(&self.queue, PollFlags::IN);
            let mut both = [queue, PollFd::new(&self.end, PollFlags::IN)];
            // The eventfd stays readable.
            let watched = if ending { &mut both[..1] } else { &mut both[..] };
            match poll(watched, wait.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result?,
            };
            let (arrived, ends) = (!both[0].revents().is_empty(), !both[1].revents().is_empty());
            ending |= ends;
            if arrived {
                let shape = *self.shape.lock().unwrap_or_else(PoisonError::into_inner);
                self.queue.receive(&mut received, |packet| {
                    // Delays count from when the packet arrived, also if this thread had to wait for a processor.
                    let arrived = packet.arrived.map_or_else(now, from_realtime);
                    schedule.arrive(&shape, arrived, packet.id, packet.bytes);
                })?;
            }
            let verdicts = schedule.due(now());
            LATEST.fetch_max(verdicts.late, Ordering::Relaxed);
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
