//! Much memory without huge pages, of which only the last page is used: discarding it takes long, and that page goes last.

use std::io;

use pagemirror::PageRange;

use super::device::{Object, Piece};
use super::generations::Generations;
use super::memory::{Backing, Placement, Span};
use super::rig::{Rig, Unsupported};

/// Its size: a discard of it takes some ten milliseconds.
const BYTES: usize = 64 << 20;

/// The name of its last page to the oracle.
const ID: u64 = 1;

/// The memory, and the generations of its last page.
#[derive(Debug)]
pub(crate) struct Expanse {
    whole: Span,
    last: PageRange,
    generations: Generations,
}

impl Expanse {
    /// Mapped, watched as a whole, populated.
    pub(crate) fn new(rig: &Rig) -> Result<Self, Unsupported> {
        let whole = Span::reserve(BYTES / rustix::param::page_size());
        // Watched as a whole before anybody asks for the last page: otherwise that page would become a mapping of its own,
        // and its discard would be announced only when the rest is gone.
        let made = whole
            .map(Backing::Anonymous, Placement::Free)
            .and_then(|()| whole.without_huge_pages())
            .and_then(|()| rig.watch(whole))
            .and_then(|()| whole.populate())
            .and_then(|()| whole.last_page().range().map_err(io::Error::other));
        let last = made.map_err(|error| Unsupported(format!("{} MiB could not be prepared: {error}", BYTES >> 20)))?;
        let expanse = Self { whole, last, generations: Generations::default() };
        expanse.restamp();
        Ok(expanse)
    }

    /// Makes every page present.
    pub(crate) fn populate(&self) -> io::Result<()> {
        self.whole.populate()
    }

    /// MADV_DONTNEED of everything.
    pub(crate) fn discard_all(&self) -> io::Result<()> {
        self.whole.discard()
    }

    /// MADV_DONTNEED of the last page.
    pub(crate) fn discard_last(&self) -> io::Result<()> {
        self.whole.last_page().discard()
    }

    /// The last page, as addresses.
    pub(crate) fn last(&self) -> PageRange {
        self.last
    }

    /// The last page, to be sent.
    pub(crate) fn piece(&self) -> Piece<'_> {
        Piece { object: self, offset: 0, len: self.whole.last_page().len() }
    }

    /// A change of the last page begins.
    pub(crate) fn begin_change(&self) {
        self.generations.begin();
    }

    /// Writes the last page anew, and says so.
    pub(crate) fn finish_change(&self) {
        self.whole.last_page().fill(ID, self.generations.begun());
        self.generations.finish();
    }

    /// A new generation of the last page.
    pub(crate) fn restamp(&self) {
        self.begin_change();
        self.finish_change();
    }
}

impl Object for Expanse {
    fn name(&self) -> &'static str {
        "last page"
    }
    fn id(&self) -> u64 {
        ID
    }
    fn address(&self) -> usize {
        self.whole.last_page().address()
    }
    fn generations(&self) -> &Generations {
        &self.generations
    }
}
