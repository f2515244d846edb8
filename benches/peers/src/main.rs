//! This library beside others: right answers first, then times in turns on one core, and what the core allows.
//!
//! ```sh
//! cargo run --release -- --csv peers.csv --svg peers.svg
//! cargo run --release --features candle,burn -- --write-docs
//! ```

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the limits of other cores are not measured: see benches/floors/limits.rs");

#[path = "../../aligned.rs"]
mod aligned;
mod chart;
mod compare;
#[path = "../../floors/cpu.rs"]
mod cpu;
mod docs;
mod jobs;
#[path = "../../floors/limits.rs"]
mod limits;
#[expect(dead_code, reason = "what holds the floors; here it is only the data of the limits")]
#[path = "../../floors/measure.rs"]
mod measure;
mod peers;
mod report;
mod rounds;
mod scaling;
#[allow(unused_macros, reason = "the suite of the tests")]
#[path = "../../../tests/common/mod.rs"]
mod tests;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::Parser;
use core_affinity::CoreId;

use compare::Comparison;

/// Times sdpa beside other libraries, on one core, in one run.
#[derive(Parser)]
struct Arguments {
    /// Only jobs with this in their name, such as "dot" or "512 × 512".
    #[arg(long)]
    only: Option<String>,
    /// Only peers with this in their name; sdpa is always there.
    #[arg(long)]
    peer: Option<String>,
    /// Turns of each peer at each job.
    #[arg(long, default_value_t = 60)]
    rounds: u32,
    /// The core to run on, counted from 0 [default: the last one].
    #[arg(long)]
    core: Option<usize>,
    /// Check the answers, and time nothing.
    #[arg(long)]
    check: bool,
    /// Time attention against tokens and threads instead, and count its memory.
    #[arg(long)]
    scaling: bool,
    /// Write every time as CSV.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw the result.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Do everything, and write docs/performance.md and its pictures.
    #[arg(long, conflicts_with_all = ["only", "peer", "check", "scaling"])]
    write_docs: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let cores = core_affinity::get_core_ids().context("the cores of this machine")?;
    pin(&cores, arguments.core)?;
    if compare::vector_backends().is_empty() {
        bail!("the limits of this core are measured with AVX2, which it has not");
    }
    if arguments.scaling {
        let scaling = scaling::Scaling::new(&cores, arguments.rounds)?;
        println!("{}", scaling.text());
        write(arguments.svg.as_ref(), || Ok(chart::scaling(&scaling)))?;
        return Ok(ExitCode::SUCCESS);
    }

    let is_asked = |name: &str, part: &Option<String>| {
        part.as_ref().is_none_or(|part| name.contains(part.as_str()))
    };
    let mut peers = peers::peers();
    peers.retain(|peer| {
        peer.kind() != peers::Kind::Other || is_asked(&peer.name(), &arguments.peer)
    });
    let names: Vec<String> = peers.iter().map(|peer| peer.name()).collect();
    println!("peers: {}", names.join("; "));
    peers::missing().iter().for_each(|missing| println!("{missing}"));

    let mut comparisons = Vec::new();
    for job in jobs::jobs() {
        let name = format!("{} {job}", job.group());
        if is_asked(&name, &arguments.only) {
            let rounds = (!arguments.check).then_some(arguments.rounds);
            let comparison = Comparison::new(job, &peers, rounds);
            println!("\n{name}\n{}", report::entries(&comparison));
            comparisons.push(comparison);
        }
    }
    if comparisons.is_empty() {
        bail!("no job has {:?} in its name", arguments.only.unwrap_or_default());
    }
    if !arguments.check {
        println!("\n{}", report::summary(&comparisons));
    }
    write(arguments.csv.as_ref(), || report::csv(&comparisons))?;
    write(arguments.svg.as_ref(), || Ok(chart::shares(&comparisons)))?;
    if arguments.write_docs {
        let scaling = scaling::Scaling::new(&cores, arguments.rounds)?;
        println!("{}", scaling.text());
        docs::write(&comparisons, &scaling)?;
    }

    let wrong: usize = comparisons.iter().map(|comparison| comparison.wrong().count()).sum();
    println!("{} jobs, {wrong} wrong answers", comparisons.len());
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs everything on one core, libraries that start threads too.
fn pin(cores: &[CoreId], wanted: Option<usize>) -> Result<()> {
    let core = match wanted {
        Some(wanted) => cores.iter().find(|core| core.id == wanted),
        None => cores.last(),
    };
    let core = core.with_context(|| format!("the cores here are {cores:?}"))?;
    if !core_affinity::set_for_current(*core) {
        bail!("this thread cannot be pinned to core {}", core.id);
    }
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global()?;
    Ok(())
}

fn write(file: Option<&PathBuf>, text: impl FnOnce() -> Result<String>) -> Result<()> {
    file.map_or(Ok(()), |file| fs::write(file, text()?).with_context(|| file.display().to_string()))
}
