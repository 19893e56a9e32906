//! What is mapped in an address space, in the order in which it was mapped.

use pagemirror_core::addr::{MIN_PAGE, PageRange, VirtAddr};

/// Mappings that do not overlap, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mapped(Vec<PageRange>);

impl Mapped {
    /// `range` is mapped now, as the youngest; whatever was there is gone.
    pub(super) fn map(&mut self, range: PageRange) {
        self.unmap(range);
        self.0.push(range);
    }

    /// Nothing is mapped in `range`. What is left of a mapping that is cut keeps its age.
    pub(super) fn unmap(&mut self, range: PageRange) {
        if self.0.iter().all(|mapping| !mapping.overlaps(range)) {
            return;
        }
        self.0 = self.0.iter().flat_map(|mapping| without(*mapping, range)).flatten().collect();
    }

    /// How many pages of `range` are mapped.
    pub(super) fn pages_in(&self, range: PageRange) -> u64 {
        self.0.iter().filter_map(|mapping| mapping.intersection(range)).map(|both| both.len() / MIN_PAGE).sum()
    }

    /// How many chunks of `bytes` there are: blocks aligned to their size, as far as they are mapped.
    pub(super) fn chunks(&self, bytes: u64) -> u64 {
        self.0.iter().map(|mapping| chunks_of(*mapping, bytes)).sum()
    }

    /// The chunk with this number, the oldest first.
    pub(super) fn chunk(&self, mut number: u64, bytes: u64) -> Option<PageRange> {
        for mapping in &self.0 {
            let count = chunks_of(*mapping, bytes);
            if number < count {
                let block = between((mapping.start().get() / bytes + number) * bytes, bytes)?;
                return mapping.intersection(block);
            }
            number -= count;
        }
        None
    }
}

fn chunks_of(mapping: PageRange, bytes: u64) -> u64 {
    mapping.end().get().div_ceil(bytes) - mapping.start().get() / bytes
}

/// What is left of `mapping` before and behind `cut`.
fn without(mapping: PageRange, cut: PageRange) -> [Option<PageRange>; 2] {
    let (start, end) = (mapping.start().get(), mapping.end().get());
    let (cut_start, cut_end) = (cut.start().get().clamp(start, end), cut.end().get().clamp(start, end));
    if cut_start >= cut_end {
        return [Some(mapping), None];
    }
    [between(start, cut_start - start), between(cut_end, end - cut_end)]
}

fn between(start: u64, len: u64) -> Option<PageRange> {
    PageRange::covering(VirtAddr::new(start), len, MIN_PAGE).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(first: u64, count: u64) -> PageRange {
        between(first * MIN_PAGE, count * MIN_PAGE).unwrap()
    }

    #[test]
    fn cutting_leaves_what_is_before_and_behind() {
        let mut mapped = Mapped::default();
        mapped.map(pages(0, 10));
        mapped.map(pages(20, 4));
        mapped.unmap(pages(3, 2));
        assert_eq!(mapped.0, [pages(0, 3), pages(5, 5), pages(20, 4)]);
        mapped.unmap(pages(8, 14));
        assert_eq!(mapped.0, [pages(0, 3), pages(5, 3), pages(22, 2)]);
        mapped.unmap(PageRange::ALL);
        assert_eq!(mapped.0, []);
    }

    #[test]
    fn mapping_over_something_makes_it_the_youngest() {
        let mut mapped = Mapped::default();
        mapped.map(pages(0, 4));
        mapped.map(pages(8, 4));
        mapped.map(pages(1, 2));
        assert_eq!(mapped.0, [pages(0, 1), pages(3, 1), pages(8, 4), pages(1, 2)]);
        assert_eq!(mapped.pages_in(pages(2, 8)), 1 + 1 + 2);
    }

    #[test]
    fn chunks_are_aligned_and_clipped_to_what_is_mapped() {
        let (mut mapped, bytes) = (Mapped::default(), 4 * MIN_PAGE);
        mapped.map(pages(3, 6));
        mapped.map(pages(16, 4));
        let all: Vec<_> = (0..mapped.chunks(bytes)).filter_map(|number| mapped.chunk(number, bytes)).collect();
        assert_eq!(all, [pages(3, 1), pages(4, 4), pages(8, 1), pages(16, 4)]);
        assert_eq!(mapped.chunk(4, bytes), None);
    }
}
