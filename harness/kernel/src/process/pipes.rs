//! What a lab and its parent agree on.

/// Where the parent tells the lab which descriptors it inherits: `setup,events,control,namespaces`.
pub(super) const PIPES: &str = "RELAPSE_LAB_PIPES";
/// What the parent says first on the control pipe: it holds the lab's handles.
pub(super) const GO_ON: u8 = b'\n';
