//! The `pagemirror` program.
//!
//! `stress` is the parent's side of the stress run, `rows` the child's: every row runs in a process of its own. `check` shows
//! what `pagemirror_lab::check` finds, `sim` runs the simulator of `pagemirror_lab::sim`. `record` and `import` make traces of
//! real programs. `replay` and `bench` compare the trackers on traces and on made-up work. `doctor` says what this machine permits.

mod args;
mod bench;
mod check;
mod doctor;
mod import;
mod record;
mod replay;
mod rows;
mod sim;
mod stress;

use std::process::ExitCode;

use args::{Args, Command};
use clap::Parser;

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Stress(options) => stress::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Record(options) => record::run(&options),
        Command::Import(options) => import::run(&options),
        Command::Sim(options) => sim::run(&options),
        Command::Replay(options) => replay::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::CoverageCase(options) => doctor::coverage::child::serve(&options),
        Command::StressRow(options) => rows::process::run(&options),
        Command::CheckChild(options) => check::run_child(&options),
        Command::SimChild(options) => sim::run_child(&options),
    }
}
