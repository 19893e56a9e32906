//! Who can say whether a device has let go of a range.

use crate::addr::PageRange;
use crate::wait::Deadline;

/// Something that holds pages of the process for a device: asked by an unmapping that waits for the uses to end.
pub trait Holder: Send + Sync {
    /// Waits until nothing that overlaps `range` is held any more. Says whether that came before the deadline. Called while
    /// an invalidation of `range` runs, so everything that is cached of it is stale already and nothing new is.
    ///
    /// # Blocking
    /// Sleeps until the last use is given back, at most until the deadline.
    fn wait_released(&self, range: PageRange, deadline: &Deadline<'_>) -> bool;
}
