//! What a call does to an address space.

use std::collections::HashMap;

use pagemirror_core::addr::{PageRange, VirtAddr};
use smallvec::{SmallVec, smallvec};

use super::call::{Call, CallResult, has_flag, parse_number};
use crate::trace::event::{Access, Discard, Operation};

/// What a step does to the task that takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// An event as it is.
    Change(Operation),
    /// The end of the heap is here now. `asked`: the caller only wanted to know.
    Break { at: u64, asked: bool },
    /// A segment of shared memory is mapped here.
    Attach { range: PageRange, replaces: bool },
    /// The segment at this address is unmapped.
    Detach(u64),
    /// There is a new task.
    Create { child: u32, shares_memory: bool, same_process: bool },
    /// Another program is loaded.
    Exec,
    /// The task has ended.
    Exited,
    /// The task, or its whole process, asked to end.
    Leaves { process: bool },
    /// The task ends because this one of the same process execs, and takes its number.
    Superseded { by: u32 },
}

impl Effect {
    /// Whether it counts from the beginning of the call and not from its end.
    pub(super) fn counts_from_its_beginning(&self) -> bool {
        match self {
            Self::Change(operation) => match operation {
                Operation::Unmap(_) | Operation::Protect(..) | Operation::Discard(..) => true,
                Operation::Appear
                | Operation::Map(_)
                | Operation::Replace(_)
                | Operation::Remap { .. }
                | Operation::Grow(_)
                | Operation::Shrink(_)
                | Operation::Fork { .. }
                | Operation::Thread(_)
                | Operation::Exec { .. }
                | Operation::Exit { .. } => false,
            },
            Self::Detach(_) | Self::Create { .. } => true,
            Self::Break { .. }
            | Self::Attach { .. }
            | Self::Exec
            | Self::Exited
            | Self::Leaves { .. }
            | Self::Superseded { .. } => false,
        }
    }
}

/// What a call comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Translated {
    Effects(SmallVec<[Effect; 1]>),
    /// Nothing; the kind under which it is counted.
    Dropped(&'static str),
}

/// Sizes of segments of shared memory, by their numbers.
pub(super) type Segments = HashMap<u64, u64>;

/// Whether a call of this name is looked at.
pub(super) fn matters(name: &str) -> bool {
    matches!(
        name,
        "mmap"
            | "mmap2"
            | "old_mmap"
            | "munmap"
            | "mremap"
            | "brk"
            | "mprotect"
            | "pkey_mprotect"
            | "madvise"
            | "process_madvise"
            | "remap_file_pages"
            | "shmget"
            | "shmat"
            | "shmdt"
            | "fork"
            | "vfork"
            | "clone"
            | "clone3"
            | "execve"
            | "execveat"
            | "exit"
            | "exit_group"
    )
}

/// Says what the call does.
pub(super) fn translate(call: &Call<'_>, page: u64, segments: &mut Segments) -> Result<Translated, String> {
    if let "exit" | "exit_group" = call.name {
        return Ok(one(Effect::Leaves { process: call.name == "exit_group" }));
    }
    let value = match call.result {
        CallResult::Value(value) => value,
        CallResult::Failed => return Ok(Translated::Dropped("failed")),
        CallResult::Unknown => return Ok(Translated::Dropped("result-unknown")),
    };
    let range = |address, len| range(call, address, len, page);
    Ok(match call.name {
        "mmap" | "mmap2" | "old_mmap" => {
            let mapped = range(value, call.number(1)?)?;
            let flags = call.arg(3)?;
            // Both flags together mean the one that replaces nothing.
            let replaces = has_flag(flags, "MAP_FIXED", 0x10) && !has_flag(flags, "MAP_FIXED_NOREPLACE", 0x10_0000);
            change(if replaces { Operation::Replace(mapped) } else { Operation::Map(mapped) })
        }
        "munmap" => change(Operation::Unmap(range(call.number(0)?, call.number(1)?)?)),
        "mremap" => change(remap(call, value, page)?),
        "brk" => one(Effect::Break { at: value, asked: call.number(0)? == 0 }),
        "mprotect" | "pkey_mprotect" => match call.number(1)? {
            0 => Translated::Dropped("empty"),
            len => change(Operation::Protect(range(call.number(0)?, len)?, access(call.arg(2)?))),
        },
        "madvise" => match (discard(call.arg(2)?), call.number(1)?) {
            (None, _) => Translated::Dropped("advice"),
            (Some(_), 0) => Translated::Dropped("empty"),
            (Some(kind), len) => change(Operation::Discard(range(call.number(0)?, len)?, kind)),
        },
        "process_madvise" => discards(call, value, page)?,
        "remap_file_pages" => match call.number(1)? {
            0 => Translated::Dropped("empty"),
            len => change(Operation::Replace(range(call.number(0)?, len)?)),
        },
        "shmget" => {
            // An existing segment may be asked for with less than its size.
            let size = segments.entry(value).or_default();
            *size = call.number(1)?.max(*size);
            Translated::Dropped("shmget")
        }
        "shmat" => match call.number(0).ok().and_then(|id| segments.get(&id).copied()) {
            Some(size) if size > 0 => {
                let replaces = has_flag(call.arg(2)?, "SHM_REMAP", 0o40_000);
                one(Effect::Attach { range: range(value, size)?, replaces })
            }
            _ => Translated::Dropped("shmat-of-unknown-size"),
        },
        "shmdt" => one(Effect::Detach(call.number(0)?)),
        "fork" | "vfork" | "clone" | "clone3" => create(call, value)?,
        // The only ones left of those that matter.
        _ => one(Effect::Exec),
    })
}

fn one(effect: Effect) -> Translated {
    Translated::Effects(smallvec![effect])
}

fn change(operation: Operation) -> Translated {
    one(Effect::Change(operation))
}

fn range(call: &Call<'_>, address: u64, len: u64, page: u64) -> Result<PageRange, String> {
    let range = PageRange::covering(VirtAddr::new(address), len, page);
    range.map_err(|why| format!("{} succeeded on what is no range ({why}); was the log changed?", call.name))
}

fn remap(call: &Call<'_>, moved_to: u64, page: u64) -> Result<Operation, String> {
    let flags = call.arg(3)?;
    let replaces = has_flag(flags, "MREMAP_FIXED", 2);
    let new = range(call, moved_to, call.number(2)?, page)?;
    let old_len = call.number(1)?;
    if old_len == 0 {
        // A second mapping of the same shared pages: the old one stays as it is.
        return Ok(if replaces { Operation::Replace(new) } else { Operation::Map(new) });
    }
    let old = range(call, call.number(0)?, old_len, page)?;
    Ok(Operation::Remap { old, new, replaces, keeps_old: has_flag(flags, "MREMAP_DONTUNMAP", 4) })
}

fn access(protection: &str) -> Access {
    let has = |name, bit| has_flag(protection, name, bit);
    Access { read: has("PROT_READ", 1), write: has("PROT_WRITE", 2), execute: has("PROT_EXEC", 4) }
}

/// The kind of discard, by its name or number; nothing for other advice.
fn discard(advice: &str) -> Option<Discard> {
    match advice {
        "MADV_DONTNEED" => Some(Discard::DontNeed),
        "MADV_DONTNEED_LOCKED" => Some(Discard::DontNeedLocked),
        "MADV_FREE" => Some(Discard::Free),
        "MADV_REMOVE" => Some(Discard::Remove),
        "MADV_GUARD_INSTALL" => Some(Discard::Guard),
        number => match parse_number(number)? {
            4 => Some(Discard::DontNeed),
            24 => Some(Discard::DontNeedLocked),
            8 => Some(Discard::Free),
            9 => Some(Discard::Remove),
            102 => Some(Discard::Guard),
            _ => None,
        },
    }
}

/// The kernel lets a process discard nothing but its own pages in this way, so these are the caller's. Only the first
/// `done` bytes were.
fn discards(call: &Call<'_>, mut done: u64, page: u64) -> Result<Translated, String> {
    let Some(kind) = discard(call.arg(3)?) else { return Ok(Translated::Dropped("advice")) };
    let mut effects = SmallVec::new();
    for vector in call.arg(1)?.split("iov_base=").skip(1) {
        let base = vector.split([',', '}']).next().and_then(parse_number);
        let len =
            vector.split_once("iov_len=").and_then(|(_, len)| len.split([',', '}']).next()).and_then(parse_number);
        let (Some(base), Some(len)) = (base, len) else {
            return Err("the list of ranges of process_madvise is not understood".to_owned());
        };
        let len = len.min(done);
        done -= len;
        if len > 0 {
            effects.push(Effect::Change(Operation::Discard(range(call, base, len, page)?, kind)));
        }
    }
    Ok(if effects.is_empty() { Translated::Dropped("empty") } else { Translated::Effects(effects) })
}

fn create(call: &Call<'_>, child: u64) -> Result<Translated, String> {
    let child = u32::try_from(child).ok().filter(|child| *child != super::UNNAMED);
    let child = child.ok_or_else(|| format!("the result of {} is no process number", call.name))?;
    let flags = call.args.iter().find_map(|arg| arg.split_once("flags=")).map(|(_, flags)| flags);
    let flags = flags.and_then(|flags| flags.split([',', '}', ' ']).next()).unwrap_or_default();
    if flags.is_empty() && call.name.starts_with("clone") {
        return Err(format!("{} has no flags, without which nobody knows whose memory the child has", call.name));
    }
    let shares_memory = call.name == "vfork" || has_flag(flags, "CLONE_VM", 0x100);
    Ok(one(Effect::Create { child, shares_memory, same_process: has_flag(flags, "CLONE_THREAD", 0x1_0000) }))
}
