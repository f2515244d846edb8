//! Speed floors: how near the kernels come to what this core can do, and the calls of the C library to those of Rust.
//!
//! Each floor is a ratio of two times taken in turns in one run, each the least of many
//! repetitions, so that neither the clock nor the neighbours count for much. The
//! yardsticks are measured here too: how fast this core loads two aligned arrays, and how
//! fast it forms multiply-adds in registers.
//!
//! The limits hold for the cores on which they were measured (`cpu.rs`). On another core the shares are
//! printed without a verdict, unless `SDPA_SLACK` is set, which holds any core.
//!
//! ```text
//! taskset -c 1 cargo bench --bench floors
//! taskset -c 1 cargo bench --bench floors -- 8192    # those that have this in their names
//! SDPA_SLOW=1 cargo bench --bench floors    # every call held to a floor twice: misses them
//! SDPA_SLACK=1.5 cargo bench --bench floors # any core; missed only by more than half as much again
//! ```
//!
//! A floor that is missed is tried again after all others: a neighbour on the host may be busy for some seconds.
//! Exits with 1 when one is missed in each of five attempts.

#[cfg(target_arch = "x86_64")]
#[path = "../aligned.rs"]
mod aligned;
#[cfg(target_arch = "x86_64")]
mod attention;
#[cfg(target_arch = "x86_64")]
#[path = "../c_calls.rs"]
mod c_calls;
#[cfg(target_arch = "x86_64")]
mod cpu;
#[cfg(target_arch = "x86_64")]
mod limits;
#[cfg(target_arch = "x86_64")]
mod measure;
#[cfg(target_arch = "x86_64")]
mod operations;

use std::{env, process::ExitCode, thread, time::Duration};

/// Before each further attempt.
const PAUSE: Duration = Duration::from_secs(5);

#[cfg(target_arch = "x86_64")]
fn main() -> ExitCode {
    use cpu::Core;
    use limits::{PEAK_FLOP, peak};
    use measure::{slack, time};

    let core = Core::here();
    println!("{core}");
    let slack = slack().or(core.measured().map(|_| 1.0));
    if slack.is_none() {
        println!(
            "NO VERDICT: the limits were measured on other cores; SDPA_SLACK=1.5 holds any core"
        );
    }
    let mut missed = Vec::new();
    // Cargo adds `--bench`.
    let asked: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    for name in ["avx2", "avx512"] {
        let Some(backend) = sdpa::Backend::by_name(name) else {
            println!("NOT RUN: back end {name}: not on this machine");
            continue;
        };
        println!("\n{name}, {:.1} GFLOP/s at peak", 1e-9 / time(&mut || peak(backend)) * PEAK_FLOP);
        let floors = [operations::floors, attention::floors, operations::c_calls]
            .into_iter()
            .flat_map(|floors| floors(backend))
            .filter(|floor| asked.is_empty() || asked.iter().any(|part| floor.what.contains(part)));
        let those = floors.filter_map(|mut floor| (!floor.holds(slack)).then_some((name, floor)));
        missed.extend(those);
    }
    for attempt in 2..=5 {
        if missed.is_empty() {
            break;
        }
        thread::sleep(PAUSE);
        println!("\nattempt {attempt}");
        missed.retain_mut(|(name, floor)| {
            print!("{name:7}");
            !floor.holds(slack)
        });
    }
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

#[cfg(not(target_arch = "x86_64"))]
fn main() -> ExitCode {
    println!("NOT RUN: the limits of this machine's cores are not measured");
    ExitCode::SUCCESS
}
