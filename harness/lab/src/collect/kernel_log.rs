//! The kernel log: one for the whole machine, read once and reported to every node, as if the agent of each
//! had read it, with the node's own network namespace: some lines name theirs.

use std::sync::Arc;

use relapse_detectors::signal::{self, CollectorKind};
use relapse_detectors::time::Time;
use relapse_kernel::kmsg::KernelLog;
use tokio::task::JoinSet;

use super::{Agent, Armed, CollectorInfo, Opened, Start};

pub const COLLECTORS: &[CollectorInfo] =
    &[CollectorInfo { kinds: &[CollectorKind::KernelLog], start: Start::Once(start), trial: None }];

fn start(agents: &[Arc<Agent>], log: &Opened, tasks: &mut JoinSet<()>) -> Option<Armed> {
    let file = log.as_ref().map_err(Clone::clone).and_then(|file| file.try_clone().map_err(|e| e.to_string()));
    let mut log = match file.and_then(|file| KernelLog::from_file(file).map_err(|e| e.to_string())) {
        Ok(log) => log,
        Err(why) => return Some(Err(why)),
    };
    let agents = agents.to_vec();
    tasks.spawn(async move {
        let mut lost = 0;
        loop {
            match log.next().await {
                Ok(line) => {
                    for agent in &agents {
                        let netns = Some(agent.ns.inode());
                        agent.emit_at(Time(line.at), signal::KernelLog { line: line.text.clone(), netns });
                    }
                }
                Err(e) => {
                    agents.iter().for_each(|agent| agent.lost(CollectorKind::KernelLog, &e));
                    return;
                }
            }
            if log.lost() > lost {
                let why = format!("{} records of the kernel log were overwritten unread", log.lost() - lost);
                agents.iter().for_each(|agent| agent.lost(CollectorKind::KernelLog, &why));
                lost = log.lost();
            }
        }
    });
    Some(Ok(()))
}
