//! Writes what was measured into `docs/performance.md`, between two markers, and its pictures beside it.

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, Result};
use comfy_table::presets;

use crate::{chart, compare::Comparison, cpu::Core, peers, report, scaling::Scaling};

const BEGIN: &str = "<!-- written by benches/peers: begin -->\n";
const END: &str = "<!-- written by benches/peers: end -->\n";

pub(crate) fn write(comparisons: &[Comparison], scaling: &Scaling) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let file = folder.join("performance.md");
    let page = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let (before, rest) = page.split_once(BEGIN).context("the first marker")?;
    let (_, after) = rest.split_once(END).context("the second marker")?;
    let generated = generated(comparisons, scaling)?;
    fs::write(&file, format!("{before}{BEGIN}\n{generated}\n{END}{after}"))?;
    fs::write(folder.join("performance.svg"), chart::shares(comparisons))?;
    fs::write(folder.join("scaling.svg"), chart::scaling(scaling))?;
    Ok(())
}

fn generated(comparisons: &[Comparison], scaling: &Scaling) -> Result<String> {
    let mut text = String::new();
    let peak = comparisons.iter().filter_map(|of| of.limit).map(|limit| limit.peak);
    let peak = 1e-9 * peak.fold(0.0, f64::max);
    writeln!(
        text,
        "Core: {}; {peak:.0} GFLOP/s in registers. {}.",
        Core::here(),
        env!("PEERS_RUSTC")
    )?;
    let names: Vec<String> = peers::peers().iter().map(|peer| peer.name()).collect();
    writeln!(text, "In one process: {}.", names.join("; "))?;
    for missing in peers::missing() {
        writeln!(text, "Not there: {missing}.")?;
    }
    writeln!(text, "\n{}\n", report::summary_in(presets::ASCII_MARKDOWN, comparisons))?;
    for comparison in comparisons {
        for wrong in comparison.wrong() {
            let Comparison { job, .. } = comparison;
            writeln!(text, "WRONG, and not timed: {} at {} {job}.", wrong.peer, job.group())?;
        }
    }
    let every = report::every(presets::ASCII_MARKDOWN, comparisons);
    writeln!(text, "<details><summary>Every time</summary>\n\n{every}\n\n</details>\n")?;
    writeln!(text, "### Scaling\n\n![Attention's time and memory against tokens](scaling.svg)\n")?;
    writeln!(text, "{}", scaling.text_in(presets::ASCII_MARKDOWN))?;
    Ok(text)
}
