//! What the warden gives up: every capability but those that its work needs, for itself and for what it runs.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use crate::error::{Exit, Failure, Outcome};

/// The firewall and conntrack; the capture sockets (and iptables-legacy); to make the verifier another user's, and to
/// end it.
const NEEDED: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::KILL);

/// Gives up the rest. The bounding set matters as well: iptables is run as root, and would have all that is in it.
///
/// # Errors
/// Where the kernel refuses.
pub fn limit() -> Outcome {
    let failed = |error: rustix::io::Errno| {
        Failure::new(Exit::System, format_args!("cannot give up privileges: {error}"))
    };
    // The psks are in this process's memory.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)?;
    let have = capabilities(None).map_err(failed)?;
    if have.effective.contains(CapabilitySet::SETPCAP) {
        for unneeded in CapabilitySet::all().difference(NEEDED).iter() {
            if capability_is_in_bounding_set(unneeded).unwrap_or(false) {
                remove_capability_from_bounding_set(unneeded).map_err(failed)?;
            }
        }
    }
    let kept = CapabilitySets {
        effective: have.effective.intersection(NEEDED),
        permitted: have.permitted.intersection(NEEDED),
        inheritable: have.inheritable.intersection(NEEDED),
    };
    set_capabilities(None, kept).map_err(failed)
}
