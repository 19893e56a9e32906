//! A row as an ordinary user: nobody's identity, no capability, the usual limit on locked memory.

use std::io;

use pagemirror::{Privilege, Userfault};
use rustix::process::{DumpableBehavior, Resource, Rlimit, geteuid, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// The user and group "nobody".
const NOBODY: u32 = 65534;
/// What the kernel gives every process since Linux 5.16 (`MLOCK_LIMIT`).
const LOCKED_MEMORY: u64 = 8 << 20;

/// Gives up what root has. Called while the process has one thread.
pub(crate) fn become_nobody() -> io::Result<()> {
    let least = |limit: Option<u64>| Some(limit.unwrap_or(u64::MAX).min(LOCKED_MEMORY));
    let limit = getrlimit(Resource::Memlock);
    setrlimit(Resource::Memlock, Rlimit { current: least(limit.current), maximum: least(limit.maximum) })?;
    if !geteuid().is_root() {
        return Ok(());
    }
    set_thread_groups(&[])?;
    let (group, user) = (Gid::from_raw(NOBODY), Uid::from_raw(NOBODY));
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    // The kernel took away the right to look at oneself in /proc, which a process that was started by nobody has.
    Ok(set_dumpable_behavior(DumpableBehavior::Dumpable)?)
}

/// What the run has, and what it has to do without.
pub(crate) fn in_words(source: &Userfault) -> String {
    let limit = getrlimit(Resource::Memlock).current.map_or("unlimited".into(), |bytes| format!("{} KiB", bytes >> 10));
    let descriptor = match source.privilege() {
        Privilege::UserModeOnly => {
            "a descriptor for user-mode faults only: changes are told as to root; faults that the kernel takes for the program \
             could not be served, and forks are not told, and neither is asked for here"
        }
        Privilege::Full => "a descriptor that root has",
    };
    format!("as an ordinary user, with {limit} of locked memory and {descriptor}")
}
