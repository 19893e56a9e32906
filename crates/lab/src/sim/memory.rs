//! The page tables of the modelled process: which page lies where, and since when it no longer does.
//!
//! Plain data, changed in one step by whoever holds the kernel's lock; nothing here is scheduled.
//!
//! # Identity
//! A page that comes to lie at an address gets a new *tag*, even when its frame has lain elsewhere. A device that pinned
//! the address holds tags. A tag says when the process was told that it is gone: that is what staleness is measured by.

use std::ops::Range;

use pagemirror_core_sim::addr::{MIN_PAGE, PageRange, VirtAddr};

/// Pages of a huge page.
pub(crate) const HUGE: usize = 512;
/// The first page of the modelled memory, so that no range starts at address zero.
const FIRST: u64 = 16;
/// No tag: nothing lies there.
const ABSENT: u32 = 0;
/// Not yet.
pub(crate) const NEVER: u64 = u64::MAX;

/// What lay at an address for a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tag {
    pub(crate) page: u32,
    frame: u32,
    /// When somebody could first know that it is gone: the call that took it returned, or the address was given out again.
    pub(crate) dead: u64,
    /// When the call that took it returned.
    pub(crate) returned: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Frame {
    content: u64,
    /// Address spaces that map it: more than one after a fork, until somebody writes.
    sharers: u32,
    pins: u32,
    /// The page of this process that showed it last.
    page: u32,
}

#[derive(Debug, Clone, Default)]
struct Page {
    mapped: bool,
    watched: bool,
    /// mprotect(PROT_NONE): silent.
    forbidden: bool,
    huge: bool,
    tag: u32,
    /// What the program last put there.
    expected: u64,
    /// Calls that are changing it now, and how many ever have.
    calls: u32,
    changes: u32,
    /// Tags that were taken from here and that nobody was told of yet.
    taken: Vec<u32>,
}

/// Why a range cannot be pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Unmapped,
    Forbidden,
}

/// A forked child: the frames that it maps, and what it must find in them.
#[derive(Debug)]
pub(crate) struct Child {
    pages: Vec<(u32, u64)>,
}

/// What a page was like when a use began: whether anybody changed it since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Witness {
    changes: u32,
    calls: u32,
}

/// The page tables. See the module's text.
#[derive(Debug)]
pub(crate) struct Memory {
    pages: Vec<Page>,
    frames: Vec<Frame>,
    tags: Vec<Tag>,
    pub(crate) splits: u64,
    pub(crate) copies: u64,
}

/// The address range of pages.
///
/// # Panics
/// When it is empty.
pub(crate) fn range_of(pages: Range<usize>) -> PageRange {
    let start = VirtAddr::new((pages.start as u64 + FIRST) * MIN_PAGE);
    let range = PageRange::covering(start, pages.len() as u64 * MIN_PAGE, MIN_PAGE);
    range.unwrap_or_else(|error| panic!("a modelled range is never empty and never ends beyond memory: {error}"))
}

impl Memory {
    /// `pages` pages of address space, nothing mapped.
    pub(crate) fn new(pages: usize) -> Self {
        let nothing = Tag { page: 0, frame: 0, dead: 0, returned: 0 };
        Self {
            pages: vec![Page::default(); pages],
            frames: vec![Frame::default()],
            tags: vec![nothing],
            splits: 0,
            copies: 0,
        }
    }

    pub(crate) fn is_mapped(&self, pages: Range<usize>) -> bool {
        self.pages[pages].iter().all(|page| page.mapped)
    }

    pub(crate) fn is_free(&self, pages: Range<usize>) -> bool {
        self.pages[pages].iter().all(|page| !page.mapped)
    }

    pub(crate) fn any_watched(&self, pages: Range<usize>) -> bool {
        self.pages[pages].iter().any(|page| page.mapped && page.watched)
    }

    /// Maps; what lay there before and nobody was told of is known to be gone when the mapper returns, so it is handed out.
    pub(crate) fn map(&mut self, pages: Range<usize>, huge: bool) -> Vec<u32> {
        let mut known = Vec::new();
        for page in &mut self.pages[pages] {
            page.mapped = true;
            page.watched = false;
            page.forbidden = false;
            page.huge = huge;
            page.expected = 0;
            known.append(&mut page.taken);
        }
        known
    }

    /// Unmaps, and hands out the tags that it took.
    pub(crate) fn unmap(&mut self, pages: Range<usize>) -> Vec<u32> {
        self.split(pages.clone());
        let taken = self.take(pages.clone());
        for page in &mut self.pages[pages] {
            page.mapped = false;
            page.watched = false;
        }
        taken
    }

    /// Removes what lies in the mapped part of a range, which stays mapped.
    pub(crate) fn zap(&mut self, pages: Range<usize>) -> Vec<u32> {
        self.split(pages.clone());
        self.take(pages)
    }

    fn take(&mut self, pages: Range<usize>) -> Vec<u32> {
        let mut taken = Vec::new();
        for page in &mut self.pages[pages] {
            if page.tag != ABSENT {
                taken.push(page.tag);
                page.taken.push(page.tag);
                self.frames[self.tags[page.tag as usize].frame as usize].sharers -= 1;
                page.tag = ABSENT;
            }
            page.expected = 0;
        }
        taken
    }

    /// A huge page that is changed in part is one no more; what lies in it stays where it is.
    fn split(&mut self, pages: Range<usize>) {
        let unit = 0..HUGE.min(self.pages.len());
        let partly = self.pages[unit.start].huge && pages.start < unit.end && pages.len() < HUGE;
        if partly {
            self.pages[unit].iter_mut().for_each(|page| page.huge = false);
            self.splits += 1;
        }
    }

    /// Moves what lies in `from` to the free pages at `to`, watched as it was. Hands out the tags of the old place, and
    /// those that are known to be gone from the new one.
    pub(crate) fn relocate(&mut self, from: Range<usize>, to: usize) -> (Vec<u32>, Vec<u32>) {
        self.split(from.clone());
        let (mut taken, mut known) = (Vec::new(), Vec::new());
        for (offset, old) in from.clone().enumerate() {
            let moved = self.pages[old].clone();
            let new = &mut self.pages[to + offset];
            known.append(&mut new.taken);
            new.mapped = true;
            new.watched = moved.watched;
            new.forbidden = moved.forbidden;
            new.huge = false;
            new.expected = moved.expected;
            new.tag = ABSENT;
            let page = &mut self.pages[old];
            page.mapped = false;
            page.watched = false;
            page.tag = ABSENT;
            page.expected = 0;
            if moved.tag != ABSENT {
                taken.push(moved.tag);
                page.taken.push(moved.tag);
                let frame = self.tags[moved.tag as usize].frame;
                self.pages[to + offset].tag = self.new_tag(to + offset, frame);
            }
        }
        (taken, known)
    }

    fn new_tag(&mut self, page: usize, frame: u32) -> u32 {
        self.frames[frame as usize].page = page as u32;
        self.tags.push(Tag { page: page as u32, frame, dead: NEVER, returned: NEVER });
        (self.tags.len() - 1) as u32
    }

    fn new_frame(&mut self, content: u64) -> u32 {
        self.frames.push(Frame { content, sharers: 1, ..Frame::default() });
        (self.frames.len() - 1) as u32
    }

    /// A page fault: whatever is absent from a mapped page comes into being, a huge page as a whole.
    fn touch(&mut self, page: usize) {
        if self.pages[page].tag != ABSENT {
            return;
        }
        let unit = if self.pages[page].huge { 0..HUGE } else { page..page + 1 };
        for page in unit {
            if self.pages[page].tag == ABSENT {
                let frame = self.new_frame(0);
                self.pages[page].tag = self.new_tag(page, frame);
            }
        }
    }

    /// Makes the frame of a page this process's own: silent, and over at once.
    fn unshare(&mut self, page: usize, now: u64) {
        let tag = self.pages[page].tag;
        let frame = self.tags[tag as usize].frame;
        if self.frames[frame as usize].sharers <= 1 {
            return;
        }
        self.copies += 1;
        self.frames[frame as usize].sharers -= 1;
        let copy = self.new_frame(self.frames[frame as usize].content);
        self.tell(&[tag], now, true);
        self.pages[page].tag = self.new_tag(page, copy);
    }

    /// The program is told that these are gone: by the return of the call that took them, or by a new mapping.
    pub(crate) fn tell(&mut self, tags: &[u32], now: u64, by_return: bool) {
        for &tag in tags {
            let tag = &mut self.tags[tag as usize];
            tag.dead = tag.dead.min(now);
            if by_return {
                tag.returned = tag.returned.min(now);
            }
        }
    }

    /// A call begins to change these pages.
    pub(crate) fn begin_call(&mut self, pages: Range<usize>) {
        self.pages[pages].iter_mut().for_each(|page| page.calls += 1);
    }

    /// The call is over. What was taken there is no longer remembered: it was told of.
    pub(crate) fn end_call(&mut self, pages: Range<usize>) {
        for page in &mut self.pages[pages] {
            page.calls -= 1;
            page.changes += 1;
            page.taken.retain(|tag| self.tags[*tag as usize].dead == NEVER);
        }
    }

    pub(crate) fn watch(&mut self, pages: Range<usize>) -> bool {
        let mapped = self.is_mapped(pages.clone());
        if mapped {
            self.pages[pages].iter_mut().for_each(|page| page.watched = true);
        }
        mapped
    }

    pub(crate) fn protect(&mut self, pages: Range<usize>, forbidden: bool) {
        self.pages[pages].iter_mut().for_each(|page| page.forbidden = forbidden);
    }

    /// Writes as the program does. Nothing happens where it may not.
    pub(crate) fn write(&mut self, page: usize, content: u64, now: u64) {
        if self.pages[page].mapped && !self.pages[page].forbidden {
            self.touch(page);
            self.unshare(page, now);
            let frame = self.tags[self.pages[page].tag as usize].frame;
            self.frames[frame as usize].content = content;
            self.pages[page].expected = content;
        }
    }

    /// What the program finds, beside what it must find; nothing where nothing lies.
    pub(crate) fn read(&self, page: usize) -> Option<(u64, u64)> {
        let page = &self.pages[page];
        let frame = self.tags[page.tag as usize].frame;
        (page.tag != ABSENT).then(|| (self.frames[frame as usize].content, page.expected))
    }

    /// Pins what lies in a range, faulting it in, and says what it is.
    pub(crate) fn pin(&mut self, pages: Range<usize>, now: u64) -> Result<Vec<u32>, Refused> {
        if !self.is_mapped(pages.clone()) {
            return Err(Refused::Unmapped);
        }
        if self.pages[pages.clone()].iter().any(|page| page.forbidden) {
            return Err(Refused::Forbidden);
        }
        let pin = |page: usize| {
            self.touch(page);
            self.unshare(page, now);
            let tag = self.pages[page].tag;
            self.frames[self.tags[tag as usize].frame as usize].pins += 1;
            tag
        };
        Ok(pages.map(pin).collect())
    }

    pub(crate) fn unpin(&mut self, tags: &[u32]) {
        for &tag in tags {
            self.frames[self.tags[tag as usize].frame as usize].pins -= 1;
        }
    }

    pub(crate) fn tag(&self, tag: u32) -> Tag {
        self.tags[tag as usize]
    }

    /// Whether it lies where it lay when it was pinned.
    pub(crate) fn is_there(&self, tag: u32) -> bool {
        self.pages[self.tag(tag).page as usize].tag == tag
    }

    /// A device writes through what it pinned. What was moved meanwhile shows it at its new place.
    pub(crate) fn device_write(&mut self, tags: &[u32], content: u64) {
        for &tag in tags {
            let frame = self.tags[tag as usize].frame;
            self.frames[frame as usize].content = content;
            let page = &mut self.pages[self.frames[frame as usize].page as usize];
            if page.tag != ABSENT && self.tags[page.tag as usize].frame == frame {
                page.expected = content;
            }
        }
    }

    pub(crate) fn witness(&self, page: usize) -> Witness {
        Witness { changes: self.pages[page].changes, calls: self.pages[page].calls }
    }

    /// Whether no call touched the page since, and none does.
    pub(crate) fn unchanged(&self, page: usize, since: Witness) -> bool {
        since.calls == 0 && self.witness(page) == since
    }

    /// A child that shares every frame, but for pinned ones, which it gets a copy of.
    pub(crate) fn fork(&mut self, copies_pinned: bool) -> Child {
        let mut pages = Vec::new();
        for at in 0..self.pages.len() {
            let tag = self.pages[at].tag;
            if tag == ABSENT {
                continue;
            }
            let frame = self.tags[tag as usize].frame;
            let Frame { content, pins, .. } = self.frames[frame as usize];
            let child = if pins > 0 && copies_pinned {
                self.new_frame(content)
            } else {
                self.frames[frame as usize].sharers += 1;
                frame
            };
            pages.push((child, content));
        }
        Child { pages }
    }

    /// What the child finds that it must not: the first page whose content is not that of the moment of the fork.
    pub(crate) fn child_finds(&self, child: &Child) -> Option<(u64, u64)> {
        let differs = |&(frame, content): &(u32, u64)| {
            let found = self.frames[frame as usize].content;
            (found != content).then_some((found, content))
        };
        child.pages.iter().find_map(differs)
    }

    /// The child writes to its page number `at`.
    pub(crate) fn child_writes(&mut self, child: &mut Child, at: usize, content: u64) {
        let Some((frame, expected)) = child.pages.get_mut(at) else { return };
        if self.frames[*frame as usize].sharers > 1 {
            self.copies += 1;
            self.frames[*frame as usize].sharers -= 1;
            self.frames.push(Frame { content, sharers: 1, ..Frame::default() });
            *frame = (self.frames.len() - 1) as u32;
        }
        self.frames[*frame as usize].content = content;
        *expected = content;
    }

    pub(crate) fn child_exits(&mut self, child: Child) {
        for (frame, _) in child.pages {
            self.frames[frame as usize].sharers -= 1;
        }
    }
}
