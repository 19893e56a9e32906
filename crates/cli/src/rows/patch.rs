//! Patches: a few pages of one kind of memory, changed under the device's eyes by what applies to that kind.
//!
//! # What a new mapping shows
//! Each patch of a file has two parts of a file of its own. A new mapping shows the part that the old one did not, with a
//! hole punched in it before: other pages, which are zero. So a stale registration shows, and a state of long ago does not.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use rustix::fs::{FallocateFlags, fallocate, ftruncate};

use super::device::Object;
use super::generations::Generations;
use super::memory::{Backing, Placement, Span};
use super::segment;
use super::tally::Kind;

/// What a patch is made of.
#[derive(Debug)]
pub(crate) enum Form {
    Anonymous,
    /// Anonymous, with huge pages asked for.
    Huge,
    Hugetlb,
    SharedAnonymous,
    PrivateFile(OwnedFd),
    /// `alias` shows the whole file, and pages are taken out of it there.
    SharedFile {
        file: OwnedFd,
        alias: Span,
    },
    SystemV,
    Break,
}

impl Form {
    /// Shared mappings of `file`, for a patch of `len` bytes in pages of `unit`.
    pub(crate) fn shared(file: OwnedFd, len: usize, unit: usize) -> io::Result<Self> {
        let alias = Span::reserve_aligned(2 * len, unit);
        ftruncate(&file, alias.len() as u64)?;
        alias.map(Backing::Shared(&file, 0), Placement::Free)?;
        Ok(Self::SharedFile { file, alias })
    }

    /// Private mappings of `file`.
    pub(crate) fn private(file: OwnedFd, len: usize) -> io::Result<Self> {
        ftruncate(&file, 2 * len as u64)?;
        Ok(Self::PrivateFile(file))
    }

    /// The changes that apply to it.
    pub(crate) fn changes(&self) -> &'static [Kind] {
        match self {
            Self::Anonymous | Self::Huge | Self::Hugetlb | Self::PrivateFile(_) => {
                &[Kind::Munmap, Kind::MapFixed, Kind::Mremap, Kind::Dontneed]
            }
            Self::SharedAnonymous => &[Kind::Munmap, Kind::MapFixed, Kind::Mremap],
            Self::SharedFile { .. } => &[Kind::Munmap, Kind::MapFixed, Kind::Mremap, Kind::Remove],
            Self::SystemV => &[Kind::Munmap],
            Self::Break => &[Kind::Munmap, Kind::Dontneed],
        }
    }
}

/// A patch.
#[derive(Debug)]
pub(crate) struct Patch {
    id: u64,
    span: Span,
    /// Where its pages go when they are moved away.
    aside: Span,
    form: Form,
    generations: Generations,
    /// Which part of its file it shows; held by whoever changes it.
    part: Mutex<usize>,
}

impl Patch {
    /// Mapped and filled.
    pub(crate) fn new(id: u64, bytes: usize, unit: usize, form: Form) -> io::Result<Self> {
        let span = match form {
            Form::Break => segment::behind_break(bytes),
            _ => Span::reserve_aligned(bytes, unit),
        };
        let aside = Span::reserve_aligned(bytes, unit);
        let (generations, part) = (Generations::default(), Mutex::new(0));
        let patch = Self { id, span, aside, form, generations, part };
        patch.place(0, Placement::Free)?;
        patch.generations.begin();
        patch.finish_change();
        Ok(patch)
    }

    pub(crate) fn span(&self) -> Span {
        self.span
    }

    /// What the source has to know besides the patch itself.
    pub(crate) fn alias(&self) -> Option<Span> {
        if let Form::SharedFile { alias, .. } = &self.form { Some(*alias) } else { None }
    }

    pub(crate) fn changes(&self) -> &'static [Kind] {
        self.form.changes()
    }

    fn finish_change(&self) {
        self.span.fill(self.id, self.generations.begun());
        self.generations.finish();
    }

    /// Changes it as `kind` says, unless somebody else does. Says whether it counts: whether a device had used what was there.
    pub(crate) fn try_change(&self, kind: Kind) -> io::Result<bool> {
        let mut part: MutexGuard<'_, usize> = match self.part.try_lock() {
            Ok(part) => part,
            Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
            Err(TryLockError::WouldBlock) => return Ok(false),
        };
        let counts = self.generations.is_used();
        self.generations.begin();
        match kind {
            Kind::Dontneed => self.span.discard()?,
            Kind::Remove => {
                if let Form::SharedFile { alias, .. } = &self.form {
                    alias.part(*part * self.span.len(), self.span.len()).remove()?;
                }
            }
            _ => {
                *part = 1 - *part;
                self.replace(kind, *part)?;
            }
        }
        self.finish_change();
        Ok(counts)
    }

    fn replace(&self, kind: Kind, part: usize) -> io::Result<()> {
        self.empty(part)?;
        match kind {
            Kind::MapFixed => self.place(part, Placement::Replace),
            Kind::Mremap => {
                self.move_aside(0, self.span.len());
                self.place(part, Placement::Replace)?;
                self.aside.unmap()
            }
            _ => {
                match self.form {
                    Form::SystemV => segment::detach(self.span)?,
                    Form::Break => segment::give_back(self.span)?,
                    _ => self.span.unmap()?,
                }
                self.place(part, Placement::Free)
            }
        }
    }

    /// Moves the pages away, in halves where watching parts of the patch has split its mapping. What the last small piece
    /// refuses has gone with an earlier call, or is replaced where it is.
    fn move_aside(&self, offset: usize, len: usize) {
        if self.span.part(offset, len).move_to(self.aside.part(offset, len)).is_ok() || len <= self.unit() {
            return;
        }
        let half = (len / 2).next_multiple_of(self.unit());
        self.move_aside(offset, half);
        self.move_aside(offset + half, len - half);
    }

    /// The least that can be moved.
    fn unit(&self) -> usize {
        match self.form {
            Form::Hugetlb => self.span.len(),
            _ => rustix::param::page_size(),
        }
    }

    /// Takes out of the file what the next mapping will show. Nobody shows it now.
    fn empty(&self, part: usize) -> io::Result<()> {
        let Form::SharedFile { file, .. } = &self.form else { return Ok(()) };
        let len = self.span.len() as u64;
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(file, hole, part as u64 * len, len)?)
    }

    fn place(&self, part: usize, placement: Placement) -> io::Result<()> {
        let offset = (part * self.span.len()) as u64;
        match &self.form {
            Form::Anonymous => self.span.map(Backing::Anonymous, placement),
            Form::Huge => {
                self.span.map(Backing::Anonymous, placement)?;
                self.span.with_huge_pages()
            }
            Form::Hugetlb => self.span.map(Backing::Huge, placement),
            Form::SharedAnonymous => self.span.map(Backing::SharedAnonymous, placement),
            Form::PrivateFile(file) => self.span.map(Backing::Private(file, offset), placement),
            Form::SharedFile { file, .. } => self.span.map(Backing::Shared(file, offset), placement),
            Form::SystemV => segment::attach(self.span),
            Form::Break => segment::take(self.span),
        }
    }
}

impl Object for Patch {
    fn name(&self) -> &'static str {
        "patch"
    }
    fn id(&self) -> u64 {
        self.id
    }
    fn address(&self) -> usize {
        self.span.address()
    }
    fn generations(&self) -> &Generations {
        &self.generations
    }
}
