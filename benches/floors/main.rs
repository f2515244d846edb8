//! Speed floors: how near the kernels come to what this core can do.
//!
//! Each floor is a ratio of two times taken in turns in one run, each the least of many
//! repetitions, so that neither the clock nor the neighbours count for much. The
//! limits are measured here too: how fast this core loads two aligned arrays, and how
//! fast it forms multiply-adds in registers.
//!
//! ```text
//! taskset -c 1 cargo bench --bench floors
//! SDPA_SLOW=1 cargo bench --bench floors    # every call held to a floor twice: misses them
//! ```
//!
//! Exits with 1 when a floor is missed in each of five attempts.

#[cfg(target_arch = "x86_64")]
mod attention;
#[cfg(target_arch = "x86_64")]
mod limits;
#[cfg(target_arch = "x86_64")]
mod measure;
#[cfg(target_arch = "x86_64")]
mod unfused;

use std::process::ExitCode;

#[cfg(target_arch = "x86_64")]
fn main() -> ExitCode {
    use limits::{PEAK_FLOP, peak};
    use measure::{Floor, time};

    let mut missed = 0;
    for name in ["avx2", "avx512"] {
        let Some(backend) = sdpa::Backend::by_name(name) else {
            println!("NOT RUN: back end {name}: not on this machine");
            continue;
        };
        println!("\n{name}, {:.1} GFLOP/s at peak", 1e-9 / time(&mut || peak(backend)) * PEAK_FLOP);
        let floors = unfused::floors(backend).into_iter().chain(attention::floors(backend));
        missed += floors.map(Floor::holds).filter(|holds| !holds).count();
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

#[cfg(not(target_arch = "x86_64"))]
fn main() -> ExitCode {
    println!("NOT RUN: the limits of this machine's cores are not measured");
    ExitCode::SUCCESS
}
