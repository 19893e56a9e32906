//! The simulator: the real code of the core in a modelled Linux, deterministic from one seed.
mod actors;
mod counts;
mod device;
mod kernel;
mod memory;
mod mutator;
mod observe;
mod options;
mod phases;
mod table;
mod world;

pub use counts::{Count, Counts};
pub use options::{OptionError, Options, Setting};
pub use phases::Run;
pub use world::Step;

pub fn try_seed(seed: u64, traced: bool) -> Run {
    let build: phases::Build = std::sync::Arc::new(|options: &Options| {
        Box::new(pagemirror_core_sim::log::CollisionLog::new(options.log_size()))
            as Box<dyn pagemirror_core_sim::collision::CollisionTracker>
    });
    phases::run(seed, Options::swarm(seed), &build, true, traced)
}
