//! The inner side of a case: runs it in this process and says what came of it, a line at a time, on standard output.

use std::io::Write;
use std::panic::PanicHookInfo;
use std::process::ExitCode;
use std::time::Duration;

use super::cases::Engine;
use super::report::{Finding, FindingKind, Said, Side, Step};

/// How often it says how far it is.
const TICK: Duration = Duration::from_millis(100);

/// The exit code after a finding.
const FOUND: u8 = 1;
/// The exit code of a process that was asked for something that is not there, or that nobody listens to.
const USAGE: u8 = 2;

/// One engine, as its copy of the trackers has it.
struct Bound {
    /// Runs the case; nothing when there is no such tracker or scenario.
    explore: fn(&str, &str, &Counter) -> Option<Said>,
    recorded: fn() -> Vec<Step>,
    counter: Counter,
}

/// Reads how many executions have begun, of whichever copy.
type Counter = std::sync::Arc<std::sync::OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>>;

/// Binds the copy of the trackers that was built for an engine.
macro_rules! bind {
    ($copy:ident, $engine:expr) => {
        Bound {
            explore: |tracker, scenario, counter| {
                let tracker = tracker.parse::<$copy::catalogue::TrackerName>().ok()?;
                let scenario = $copy::scenario::Scenario::named(scenario)?;
                let count = $copy::engine::Count::default();
                let shown = count.clone();
                // Only ever set here, once in a process.
                let _ = counter.set(Box::new(move || shown.executions()));
                let (time, executions) = ($engine.time(), $engine.executions());
                let explored = scenario.explore(tracker, $copy::engine::Budget { time, executions }, &count);
                Some(Said::Explored { executions: explored.executions, complete: explored.complete })
            },
            recorded: || {
                let side = |side| match side {
                    $copy::steps::Side::Fault => Side::Fault,
                    $copy::steps::Side::Invalidate => Side::Invalidate,
                };
                let step = |step: $copy::steps::Step| Step {
                    side: side(step.actor.side),
                    number: step.actor.number,
                    text: step.text,
                    wrong: step.wrong,
                };
                $copy::steps::recorded().into_iter().map(step).collect()
            },
            counter: Counter::default(),
        }
    };
}

/// Runs one case in this process. Does not come back from a finding: it is said, and the process ends.
#[must_use]
pub fn run(tracker: &str, scenario: &str, engine: Engine) -> ExitCode {
    let Bound { explore, recorded, counter } = match engine {
        Engine::Loom => bind!(pagemirror_trackers_loom, Engine::Loom),
        Engine::Shuttle => bind!(pagemirror_trackers_shuttle, Engine::Shuttle),
        Engine::Threads => bind!(pagemirror_trackers, Engine::Threads),
    };
    let so_far = {
        let counter = counter.clone();
        move || counter.get().map_or(0, |executions| executions())
    };
    let ticker = so_far.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let (text, executions) = (text_of(panic), so_far());
        // On a thread of its own: the threads of a model have small stacks, and their own idea of what is running.
        let said = std::thread::spawn(move || {
            say(&Said::Found(Finding { kind: FindingKind::of(&text), text, executions, steps: recorded() }));
        });
        let _ = said.join();
        // A checker would unwind now, run destructors outside its model, and likely abort.
        std::process::exit(FOUND.into());
    }));
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(TICK);
            say(&Said::Running(ticker()));
        }
    });
    match explore(tracker, scenario, &counter) {
        Some(explored) => {
            say(&explored);
            ExitCode::SUCCESS
        }
        None => USAGE.into(),
    }
}

/// Writes one line. Whoever asked has gone when that fails, and then there is nothing left to do.
fn say(said: &Said) {
    let Ok(mut line) = serde_json::to_string(said) else { return };
    line.push('\n');
    let mut out = std::io::stdout().lock();
    if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(USAGE.into());
    }
}

fn text_of(panic: &PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a text").to_owned()
}
