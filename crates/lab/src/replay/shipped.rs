//! The traces that come with the program.

use crate::trace::{Trace, TraceError};

/// Their names and their text. `traces/README.md` says what they are and how they were made.
const SHIPPED: [(&str, &[u8]); 3] = [
    ("interpreter", include_bytes!("../../../../traces/interpreter.trace")),
    ("server", include_bytes!("../../../../traces/server.trace")),
    ("compiler", include_bytes!("../../../../traces/compiler.trace")),
];

/// Reads them.
///
/// # Errors
/// When one is not what this version reads, which its tests would have shown.
pub fn shipped() -> Result<Vec<(String, Trace)>, TraceError> {
    SHIPPED.into_iter().map(|(name, text)| Ok((name.to_owned(), Trace::read(text)?))).collect()
}
