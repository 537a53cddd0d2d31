//! At full size, without the scale: a raised limit, a table filled to what kube-proxy's formula gives, and that written.
//! Entries that stand for unrelated connections are the load; the workload's own are the last of it.

use relapse_detectors::time::Time;
use relapse_kernel::conntrack::Conntrack;

use super::{BALLAST_MARK, ballast, filler, growing, insert, loaded, write};
use crate::fault::{FaultError, InForce, UndoStack, World};

/// The limit before, as a multiple of what kube-proxy writes.
const RAISED: u64 = 4;
/// Entries that are left for the workload in the baseline: what it holds, and TIME_WAIT.
const WORKLOAD: u64 = 12_000;
/// Room below the new limit when it is written, which the growing load fills within a second.
const ROOM: u64 = 500;

/// Raises the limit and fills the table to a little below the limit that is written later. Load does not grow until
/// then.
pub(super) async fn prepare(world: &World, undo: &mut UndoStack, whole: u64) -> Result<(), FaultError> {
    if !world.host_limit.is_available() {
        return Ok(());
    }
    let limit = world.host_limit.clone();
    undo.push("restore nf_conntrack_max", move || limit.restore());
    write(world, whole * RAISED).await?;
    growing(world).iter().for_each(|flow| flow.pause(true));
    fill(world, Some(undo), whole.saturating_sub(WORKLOAD)).map(drop)
}

/// Fills the table up to [`ROOM`], then writes the limit. Healing raises the limit again.
pub(super) async fn write_default(
    world: &World,
    undo: &mut UndoStack,
    whole: u64,
    formula: &str,
) -> Result<InForce, FaultError> {
    let paused = growing(world);
    undo.push("resume opening held connections", move || {
        paused.iter().for_each(|flow| flow.pause(false));
        Ok(())
    });
    fill(world, None, whole.saturating_sub(ROOM))?;
    let limit = world.host_limit.clone();
    undo.push("raise nf_conntrack_max again", move || limit.write(whole * RAISED).map(drop));
    let written = write(world, whole).await?;
    growing(world).iter().for_each(|flow| flow.pause(false));
    Ok(InForce {
        t0: Time(written.t0),
        t1: Time(written.t1),
        what: format!("nf_conntrack_max {} -> {whole} ({formula}, not scaled)", written.before),
        read_back: written.read_back.to_string(),
        reduced: None,
    })
}

/// Adds filler entries until each table has so many.
fn fill(world: &World, mut undo: Option<&mut UndoStack>, wanted: u64) -> Result<(), FaultError> {
    for node in loaded(world) {
        let ns = world.cluster.node(node).ns.clone();
        let (count, _) = Conntrack::open(&ns)?.table()?;
        if let Some(undo) = &mut undo {
            let home = ns.clone();
            undo.push(format!("remove the filler entries from the table of {}", ns.name()), move || {
                Conntrack::open(&home)?.delete_marked(BALLAST_MARK)
            });
        }
        // Numbers above those that are there already.
        let first = if undo.is_some() { 0 } else { wanted };
        insert(&ns, BALLAST_MARK, &mut (first..first + wanted.saturating_sub(count)).map(ballast))?;
        // Others expire meanwhile.
        filler::read_back(&ns, wanted.saturating_sub(ROOM))?;
    }
    Ok(())
}
