//! The kernel log: one for the whole machine, read once and told to every node, as the agent of each
//! would read it.

use std::fs::File;
use std::sync::Arc;

use relapse_detectors::signal::{CollectorKind, Observed, Sight};
use relapse_detectors::time::Time;
use relapse_kernel::kmsg::KernelLog;
use tokio::task::JoinSet;

use super::Agent;

/// `log` is the open file, or why there is none. Every agent says whether it sees.
pub fn start(agents: Vec<Arc<Agent>>, log: Result<File, String>, tasks: &mut JoinSet<()>) {
    let opened = log.and_then(|file| KernelLog::from_file(file).map_err(|e| e.to_string()));
    let sight = |sight: &Sight| agents.iter().for_each(|agent| agent.sight(CollectorKind::KernelLog, sight.clone()));
    let mut log = match opened {
        Ok(log) => log,
        Err(why) => return sight(&Sight::Blind(why)),
    };
    sight(&Sight::Ready);
    tasks.spawn(async move {
        let mut lost = 0;
        loop {
            match log.next().await {
                Ok(line) => {
                    for agent in &agents {
                        agent.tell_at(Time(line.at), Observed::KernelLog { line: line.text.clone() });
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
}
