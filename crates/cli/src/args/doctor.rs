//! The arguments of `doctor`.

use crate::doctor::coverage::catalogue::{Memory, Operation};

/// Say what this kernel, this process and its limits permit, and what to do about what they do not.
///
/// Everything that is printed was asked of the kernel by this run. With --coverage every operation that changes memory is
/// fired at a registration that is really pinned, each in a process of its own, and what came out is compared with what
/// the documentation says: whether the old pages diverged, whether that was noticed, and whether before or after.
///
/// Exit code: 0 when what is needed is there (and the matrix is as documented); 1 when the matrix came out otherwise than
/// documented; 2 when something that is needed is missing (the output says what), or for wrong arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Fire every operation of the coverage matrix
    #[arg(long)]
    pub(crate) coverage: bool,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs one case of the coverage matrix in this process and prints what was seen as JSON. Used by `doctor` itself.
#[derive(Debug, clap::Args)]
pub(crate) struct CaseArgs {
    #[arg(long, value_enum)]
    pub(crate) operation: Operation,
    #[arg(long, value_enum)]
    pub(crate) memory: Memory,
}
