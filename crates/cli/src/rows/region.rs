//! Regions: a few pages whose mapping is changed under the device's eyes.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::device::Object;
use super::generations::Generations;
use super::memory::{Backing, Placement, Span};
use super::tally::Kind;

/// A file in memory, and a mapping of all of it through which pages are taken out of the file: the *alias*.
#[derive(Debug)]
pub(crate) struct SharedFile {
    file: OwnedFd,
    alias: Span,
}

impl SharedFile {
    pub(crate) fn with_pages(pages: usize) -> io::Result<Arc<Self>> {
        let file = memfd_create("pagemirror-stress", MemfdFlags::CLOEXEC)?;
        let alias = Span::reserve(pages);
        ftruncate(&file, alias.len() as u64)?;
        alias.map(Backing::Shared(&file, 0), Placement::Free)?;
        Ok(Arc::new(Self { file, alias }))
    }

    /// The mapping that the source has to know for discards through it to reach the regions.
    pub(crate) fn alias(&self) -> Span {
        self.alias
    }
}

#[derive(Debug)]
enum Content {
    Anonymous,
    Shared { file: Arc<SharedFile>, offset: usize },
}

/// A region.
#[derive(Debug)]
pub(crate) struct Region {
    id: u64,
    span: Span,
    /// Where its pages go when they are moved away.
    aside: Span,
    content: Content,
    generations: Generations,
    changing: Mutex<()>,
}

/// The right to change a region, held by one mutator at a time.
#[derive(Debug)]
pub(crate) struct Changing<'r> {
    region: &'r Region,
    _held: MutexGuard<'r, ()>,
}

impl Region {
    /// A mapped and filled region of anonymous memory.
    pub(crate) fn anonymous(id: u64, pages: usize) -> io::Result<Self> {
        Self::new(id, pages, Content::Anonymous)
    }

    /// A mapped and filled region that shows `pages` pages of `file` from page `first` on.
    pub(crate) fn shared(id: u64, pages: usize, file: &Arc<SharedFile>, first: usize) -> io::Result<Self> {
        let offset = first * rustix::param::page_size();
        Self::new(id, pages, Content::Shared { file: Arc::clone(file), offset })
    }

    fn new(id: u64, pages: usize, content: Content) -> io::Result<Self> {
        let (span, aside) = (Span::reserve(pages), Span::reserve(pages));
        let (generations, changing) = (Generations::default(), Mutex::new(()));
        let region = Self { id, span, aside, content, generations, changing };
        region.span.map(region.backing(), Placement::Free)?;
        region.restamp();
        Ok(region)
    }

    pub(crate) fn span(&self) -> Span {
        self.span
    }

    fn backing(&self) -> Backing<'_> {
        match &self.content {
            Content::Anonymous => Backing::Anonymous,
            Content::Shared { file, offset } => Backing::Shared(&file.file, *offset as u64),
        }
    }

    /// Whether a device has used what is there.
    pub(crate) fn is_used(&self) -> bool {
        self.generations.is_used()
    }

    /// The mapping is as it will be: fills it with the generation that was begun.
    fn finish_change(&self) {
        self.span.fill(self.id, self.generations.begun());
        self.generations.finish();
    }

    /// A new generation in the mapping that is there.
    pub(crate) fn restamp(&self) {
        self.generations.begin();
        self.finish_change();
    }

    /// The right to change it, if nobody else has it.
    pub(crate) fn try_change(&self) -> Option<Changing<'_>> {
        let held = match self.changing.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(held)) => held.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Changing { region: self, _held: held })
    }

    /// The right to change it, waiting for it.
    pub(crate) fn change(&self) -> Changing<'_> {
        let held = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        Changing { region: self, _held: held }
    }
}

impl Object for Region {
    fn name(&self) -> &'static str {
        "region"
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

impl<'r> Changing<'r> {
    /// What may be changed.
    pub(crate) fn region(&self) -> &'r Region {
        self.region
    }

    /// Changes the mapping as `kind` says, and fills the new generation. Says whether it counts: whether a device had
    /// used what was there.
    pub(crate) fn make(&self, kind: Kind) -> io::Result<bool> {
        let region = self.region;
        let counts = region.is_used();
        region.generations.begin();
        match kind {
            Kind::Munmap | Kind::Allocator => {
                region.span.unmap()?;
                region.span.map(region.backing(), Placement::Free)?;
            }
            Kind::MapFixed => region.span.map(region.backing(), Placement::Replace)?,
            Kind::Mremap => {
                self.move_aside()?;
                region.span.map(region.backing(), Placement::Replace)?;
                region.aside.unmap()?;
            }
            Kind::Dontneed => region.span.discard()?,
            Kind::Remove => match &region.content {
                Content::Shared { file, offset } => file.alias.part(*offset, region.span.len()).remove()?,
                Content::Anonymous => region.span.discard()?,
            },
        }
        region.finish_change();
        Ok(counts)
    }

    /// Moves the pages away, page by page where watching a part of the region has split its mapping in two.
    fn move_aside(&self) -> io::Result<()> {
        let (span, aside) = (self.region.span, self.region.aside);
        if span.move_to(aside).is_ok() {
            return Ok(());
        }
        let page = rustix::param::page_size();
        // A page that has gone with the first call is not there any more.
        let moved =
            (0..span.len()).step_by(page).filter(|&at| span.part(at, page).move_to(aside.part(at, page)).is_ok());
        if moved.count() == 0 { Err(io::Error::from_raw_os_error(libc::EFAULT)) } else { Ok(()) }
    }
}
