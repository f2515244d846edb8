//! The profiler's workbench: one operation of one shape on one back end, again and again.
//!
//! ```text
//! cargo run --release --example hot_loop -- --kernel attention --shape 1x777x96 --heads 6 --backend avx2
//! cargo run --release --example hot_loop -- --kernel scores --shape 64x64x64 --all-backends
//! cargo run --release --example hot_loop -- --all-backends --csv      # every operation
//! ```
//!
//! The answer is checked against plain f64 before anything is timed. Then come the limits of this core, in turns
//! with the call, and the call alone for `--seconds`: that is what a profiler sees. `--calls` makes a number of
//! calls instead, for a profiler that counts instructions. docs/profiling.md goes through a session.
//!
//! After an error there is a message on stderr and the exit status is 2; 1 after a wrong answer.

#[cfg(target_arch = "x86_64")]
#[path = "../../benches/aligned.rs"]
mod aligned;
#[path = "../../benches/common/mod.rs"]
mod common;
#[cfg(target_arch = "x86_64")]
#[path = "../../benches/floors/limits.rs"]
mod limits;
#[allow(dead_code, reason = "what holds the floors")]
#[path = "../../benches/floors/measure.rs"]
mod measure;
mod report;
mod roofs;

use std::{
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum, builder::PossibleValuesParser};
use common::{Case, Layout, OPERATIONS, Operation, Shape};
use indicatif::{ProgressBar, ProgressStyle};
use report::{Measured, Row};
use roofs::Roofs;
use sdpa::Backend;

/// Runs one operation again and again, for a profiler, and measures it against what this core can do
#[derive(Parser)]
#[command(name = "hot_loop")]
struct Args {
    /// The operation; with --all-backends all of them, if left out
    #[arg(long, value_parser = kernels(), required_unless_present = "all_backends")]
    kernel: Option<String>,

    /// Queries x keys x dim, or the length of a slice [default: 64x1024x64, or 1024]
    ///
    /// Projections have keys tokens, dim inputs and queries outputs. Values are as wide as keys.
    #[arg(long, value_name = "QxKxD", value_parser = sizes)]
    shape: Option<Sizes>,

    /// Heads of attention, each of this shape
    #[arg(long, default_value_t = 1)]
    heads: usize,

    /// How heads lie in memory
    #[arg(long, value_enum, default_value_t = HeadsLayout::Stacked)]
    layout: HeadsLayout,

    /// Keys lie as dim x keys
    #[arg(long)]
    keys_transposed: bool,

    /// The back end [default: the fastest of this machine]
    #[arg(long, value_parser = backends())]
    backend: Option<String>,

    /// How long the call alone runs
    #[arg(long, default_value = "3", value_parser = seconds)]
    seconds: Duration,

    /// Make this many calls and measure nothing
    #[arg(long, conflicts_with_all = ["seconds", "csv", "all_backends"])]
    calls: Option<u64>,

    /// Every back end of this machine, in turns: a table
    #[arg(long, conflicts_with_all = ["backend", "seconds"])]
    all_backends: bool,

    /// Print comma-separated values
    #[arg(long)]
    csv: bool,
}

/// Queries, keys and dim; the last two 1 where one number was given, the length of a slice.
#[derive(Clone, Copy)]
enum Sizes {
    Slice(usize),
    Matrices([usize; 3]),
}

#[derive(Clone, Copy, ValueEnum)]
enum HeadsLayout {
    /// [heads][tokens][dim]
    Stacked,
    /// [tokens][heads][dim]
    Interleaved,
}

fn kernels() -> PossibleValuesParser {
    OPERATIONS.map(|operation| operation.name).into()
}

fn backends() -> PossibleValuesParser {
    Backend::available().map(Backend::name).collect::<Vec<_>>().into()
}

/// Parses `777` or `1x777x96`.
fn sizes(text: &str) -> Result<Sizes, String> {
    let numbers: Vec<usize> = text
        .split('x')
        .map(|number| number.parse().map_err(|_| format!("'{number}' is no size")))
        .collect::<Result<_, _>>()?;
    if numbers.contains(&0) {
        return Err("a size of 0 leaves nothing to time".into());
    }
    match numbers[..] {
        [n] => Ok(Sizes::Slice(n)),
        [queries, keys, dim] => Ok(Sizes::Matrices([queries, keys, dim])),
        _ => Err("one size, or three: queries x keys x dim".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 1e6 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds above 0, at most a million".into()),
    }
}

/// What ends the program.
enum Failure {
    /// The arguments do not go together.
    Arguments(String),
    WrongAnswer(String),
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn main() -> ExitCode {
    let (message, status) = match run(&Args::parse(), &mut io::stdout().lock()) {
        Ok(()) => return ExitCode::SUCCESS,
        // The reader, such as `| head`, has closed the pipe.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Err(Failure::Output(error)) => (error.to_string(), 2),
        Err(Failure::Arguments(message)) => (message, 2),
        Err(Failure::WrongAnswer(message)) => (message, 1),
    };
    // Where stderr is closed too, the status is all that is left.
    let _ = writeln!(io::stderr(), "hot_loop: {message}");
    ExitCode::from(status)
}

fn run(args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    let asked: Vec<Operation> = OPERATIONS
        .into_iter()
        .filter(|operation| args.kernel.as_ref().is_none_or(|name| name == operation.name))
        .collect();
    let jobs: Vec<(Operation, Shape)> = asked
        .into_iter()
        .map(|operation| Ok((operation, args.shape_of(operation)?)))
        .collect::<Result<_, _>>()
        .map_err(Failure::Arguments)?;
    if args.all_backends {
        return compare(args, &jobs, out);
    }
    let named = args.backend.as_deref().and_then(Backend::by_name);
    let backend = named.unwrap_or_else(Backend::best);
    for (operation, shape) in jobs {
        let mut case = checked(operation, backend, shape)?;
        if let Some(calls) = args.calls {
            repeat(&mut case.call(), calls);
            writeln!(out, "{calls} calls of {}", report::title(operation, backend, shape))?;
            continue;
        }
        let measured = measure(&mut case, operation, backend, shape, args.seconds);
        if args.csv {
            writeln!(out, "{}\n{}", Measured::CSV, measured.csv())?;
        } else {
            writeln!(out, "{measured}")?;
        }
    }
    Ok(())
}

impl Args {
    /// The shape for `operation`, or why there is none.
    fn shape_of(&self, operation: Operation) -> Result<Shape, String> {
        let name = operation.name;
        let shape = match (self.shape, operation.of_slices) {
            (None, true) => Shape::slice(1024),
            (None, false) => Shape::new(1024, 64, 64),
            (Some(Sizes::Slice(n)), true) => Shape::slice(n),
            (Some(Sizes::Matrices([queries, keys, dim])), false) => Shape::new(keys, queries, dim),
            (Some(Sizes::Slice(_)), false) => {
                return Err(format!("{name} takes a shape of three sizes: queries x keys x dim"));
            }
            (Some(Sizes::Matrices(_)), true) => {
                return Err(format!("{name} takes slices: a shape of one size, their length"));
            }
        };
        if self.heads == 0 {
            return Err("no heads leave nothing to time".into());
        }
        // With every operation, those without heads have one, and their keys are as they are.
        let all = self.kernel.is_none();
        if !operation.of_heads && !all && self.heads > 1 {
            return Err(format!("{name} takes no heads"));
        }
        if !operation.of_keys && !all && self.keys_transposed {
            return Err(format!("{name} takes no transposed keys"));
        }
        let shape = Shape {
            heads: if operation.of_heads { self.heads } else { 1 },
            layout: match self.layout {
                HeadsLayout::Stacked => Layout::Stacked,
                HeadsLayout::Interleaved => Layout::Interleaved,
            },
            keys_transposed: operation.of_keys && self.keys_transposed,
            ..shape
        };
        is_small_enough(shape).then_some(shape).ok_or_else(|| {
            "too large: at most 2^26 floats an array, and 2^38 multiply-adds, which are also checked"
                .into()
        })
    }
}

/// Whether the arrays and the check in f64 are those that a machine has memory and time for.
fn is_small_enough(shape: Shape) -> bool {
    let product = |sizes: &[usize]| {
        sizes.iter().try_fold(shape.heads, |product, &size| product.checked_mul(size))
    };
    let Shape { keys, queries, dim, .. } = shape;
    let is_at_most = |limit: usize, sizes: &[usize]| product(sizes).is_some_and(|n| n <= limit);
    is_at_most(1 << 26, &[queries, dim])
        && is_at_most(1 << 26, &[keys, dim])
        && is_at_most(1 << 26, &[keys, queries])
        && is_at_most(1 << 38, &[keys, queries, dim])
}

/// The data of a call, whose answer is right.
fn checked(operation: Operation, backend: Backend, shape: Shape) -> Result<Case, Failure> {
    let spinner = ProgressBar::new_spinner().with_message("checking the answer");
    spinner.enable_steady_tick(Duration::from_millis(100));
    let case = Case::new(operation, backend, shape).map_err(Failure::WrongAnswer);
    spinner.finish_and_clear();
    case
}

/// The calls that a profiler counts: `--toggle-collect='hot_loop::repeat*'`.
#[inline(never)]
fn repeat(call: &mut dyn FnMut(), calls: u64) {
    for _ in 0..calls {
        call();
    }
}

/// Measures the limits of the core and the call in turns, then the call alone.
fn measure(
    case: &mut Case,
    operation: Operation,
    backend: Backend,
    shape: Shape,
    duration: Duration,
) -> Measured {
    let bytes = case.bytes();
    let mut call = case.call();
    let (roofs, in_turns) = Roofs::measure(backend, bytes, &mut call);
    let times = hot_loop(&mut call, duration);
    let least = times.iter().copied().fold(in_turns, f64::min);
    let median = times.get(times.len() / 2).copied().unwrap_or(in_turns);
    Measured { operation, backend, shape, bytes, seconds: [least, median], roofs }
}

/// Calls for so long, and returns the times of a call in rising order.
fn hot_loop(call: &mut dyn FnMut(), duration: Duration) -> Vec<f64> {
    let repeats = measure::repeats(call, 1e-3);
    let bar = ProgressBar::new(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {elapsed} of {len} ms, {msg}") {
        bar.set_style(style);
    }
    let (begin, mut shown, mut times) = (Instant::now(), Duration::ZERO, Vec::new());
    while times.is_empty() || begin.elapsed() < duration {
        times.push(measure::time_of(call, repeats) / f64::from(repeats));
        if begin.elapsed() - shown > Duration::from_millis(100) {
            shown = begin.elapsed();
            bar.set_position(u64::try_from(shown.as_millis()).unwrap_or(u64::MAX));
            let last = times.last().copied().unwrap_or_default();
            bar.set_message(format!("{:.0} ns a call", 1e9 * last));
        }
    }
    bar.finish_and_clear();
    times.sort_by(f64::total_cmp);
    times
}

/// Times every back end in turns and prints the table.
fn compare(args: &Args, jobs: &[(Operation, Shape)], out: &mut impl Write) -> Result<(), Failure> {
    writeln!(out, "{}", if args.csv { Row::CSV } else { Row::HEAD })?;
    let bar = ProgressBar::new(jobs.len() as u64);
    for &(operation, shape) in jobs {
        let mut cases: Vec<(Backend, Case)> = Backend::available()
            .map(|backend| Ok((backend, checked(operation, backend, shape)?)))
            .collect::<Result<_, Failure>>()?;
        let names: Vec<Backend> = cases.iter().map(|(backend, _)| *backend).collect();
        let mut calls: Vec<_> = cases.iter_mut().map(|(_, case)| case.call()).collect();
        let mut functions: Vec<&mut dyn FnMut()> =
            calls.iter_mut().map(|call| &mut **call as &mut dyn FnMut()).collect();
        let mut times = vec![f64::INFINITY; functions.len()];
        measure::times_into(&mut functions, &mut times);
        // The first of all back ends is `scalar`.
        let scalar = times.first().copied().unwrap_or(f64::NAN);
        for (&backend, &seconds) in names.iter().zip(&times) {
            let row = Row { operation, backend, shape, seconds, times_scalar: scalar / seconds };
            bar.suspend(|| match args.csv {
                true => writeln!(out, "{}", row.csv()),
                false => writeln!(out, "{row}"),
            })?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}
