//! Speed floors: how near the kernels come to what this core can do.
//!
//! Each floor is a ratio of two times taken in turns in one run, each the least of many
//! repetitions, so that neither the clock nor the neighbours count for much. The
//! limits are measured here too: how fast this core loads two aligned arrays, and how
//! fast it forms multiply-adds in registers.
//!
//! ```text
//! taskset -c 1 cargo bench --bench floors
//! ```
//!
//! Exits with 1 when a floor is missed in each of five attempts.

#![allow(unsafe_code)] // the two loops that measure the core

use std::{hint::black_box, process::ExitCode, time::Instant};

use sdpa::{Backend, MatrixMut, MatrixRef};

fn main() -> ExitCode {
    let mut missed = 0;
    for name in ["avx2", "avx512"] {
        let Some(backend) = Backend::by_name(name) else {
            println!("NOT RUN: back end {name}: not on this machine");
            continue;
        };
        println!("\n{name}, {:.1} GFLOP/s at peak", 1e-9 / time(&mut || peak(backend)) * PEAK_FLOP);
        missed += floors(backend).into_iter().map(Floor::holds).filter(|holds| !holds).count();
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// A ratio that must be at least or at most its limit.
struct Floor<'a> {
    what: &'a str,
    limit: Limit,
    /// Measured: what `limit` speaks of.
    ratio: Box<dyn FnMut() -> f64 + 'a>,
}

enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Floor<'_> {
    fn holds(mut self) -> bool {
        for attempt in 1..=5 {
            let ratio = (self.ratio)();
            let (holds, limit) = match self.limit {
                Limit::AtLeast(limit) => (ratio >= limit, format!("at least {limit}")),
                Limit::AtMost(limit) => (ratio <= limit, format!("at most {limit}")),
            };
            if holds || attempt == 5 {
                let verdict = if holds { "ok" } else { "MISSED" };
                println!("{:56} {ratio:5.2}  {limit:14} {verdict}", self.what);
                return holds;
            }
        }
        unreachable!("the last attempt returns")
    }
}

fn floors(backend: Backend) -> Vec<Floor<'static>> {
    let share_of_peak = if backend.name() == "avx512" { 0.75 } else { 0.85 };
    vec![
        Floor {
            what: "dot of 4096: share of the rate of loads",
            limit: Limit::AtLeast(0.88),
            ratio: Box::new(move || dot_of_loads(backend, 4096)),
        },
        Floor {
            what: "dot of 1024: share of the rate of loads",
            limit: Limit::AtLeast(0.80),
            ratio: Box::new(move || dot_of_loads(backend, 1024)),
        },
        Floor {
            what: "softmax of 1024: times its exponentials alone",
            limit: Limit::AtMost(1.6),
            ratio: Box::new(move || softmax_of_exp(backend)),
        },
        Floor {
            what: "scores 128 x 128 x 64: share of the peak",
            limit: Limit::AtLeast(share_of_peak),
            ratio: Box::new(move || scores_of_peak(backend)),
        },
        Floor {
            what: "column softmax 64 x 64: times row softmax",
            limit: Limit::AtMost(1.0),
            ratio: Box::new(move || columns_of_rows(backend)),
        },
        Floor {
            what: "softmax of 1024 that underflows: times one that does not",
            limit: Limit::AtMost(1.05),
            ratio: Box::new(move || underflow_of_ordinary(backend)),
        },
    ]
}

fn dot_of_loads(backend: Backend, n: usize) -> f64 {
    let (a, b) = (Aligned::new(n, 1.0), Aligned::new(n, 1.0));
    let wide = backend.name() == "avx512";
    let [loads, dot] = times([&mut || load_both(&a, &b, wide), &mut || {
        _ = black_box(backend.dot(black_box(a.floats()), black_box(b.floats())))
    }]);
    loads / dot
}

fn softmax_of_exp(backend: Backend) -> f64 {
    let x = data(1024, 10.0);
    let (mut out, mut exp) = (vec![0.0; 1024], vec![0.0; 1024]);
    let [exp, softmax] = times([
        &mut || backend.exp_pass(black_box(&x), black_box(&mut exp)).expect("shape"),
        &mut || backend.softmax(black_box(&x), black_box(&mut out)).expect("shape"),
    ]);
    softmax / exp
}

fn underflow_of_ordinary(backend: Backend) -> f64 {
    let (x, far) = (data(1024, 10.0), data(1024, 300.0));
    let (mut out, mut far_out) = (vec![0.0; 1024], vec![0.0; 1024]);
    let [ordinary, underflow] = times([
        &mut || backend.softmax(black_box(&x), black_box(&mut out)).expect("shape"),
        &mut || backend.softmax(black_box(&far), black_box(&mut far_out)).expect("shape"),
    ]);
    underflow / ordinary
}

fn columns_of_rows(backend: Backend) -> f64 {
    let x = data(64 * 64, 10.0);
    let (mut rows, mut columns) = (vec![0.0; 64 * 64], vec![0.0; 64 * 64]);
    let [rows, columns] = times([
        &mut || backend.softmax_rows(view(&x, 64, 64), view_mut(&mut rows, 64, 64)).expect("shape"),
        &mut || {
            backend
                .softmax_columns(view(&x, 64, 64), view_mut(&mut columns, 64, 64))
                .expect("shape");
        },
    ]);
    columns / rows
}

fn scores_of_peak(backend: Backend) -> f64 {
    let (keys, queries) = (data(128 * 64, 1.0), data(128 * 64, 1.0));
    let mut out = vec![0.0; 128 * 128];
    let [peak, scores] = times([&mut || peak(backend), &mut || {
        let (keys, queries) = (view(&keys, 128, 64), view(&queries, 128, 64));
        backend.scores(keys, queries, None, view_mut(&mut out, 128, 128)).expect("shape");
    }]);
    (2.0 * 128.0 * 128.0 * 64.0 / scores) / (PEAK_FLOP / peak)
}

fn view(x: &[f32], rows: usize, cols: usize) -> MatrixRef<'_> {
    MatrixRef::new(black_box(x), rows, cols).expect("shape")
}

fn view_mut(x: &mut [f32], rows: usize, cols: usize) -> MatrixMut<'_> {
    MatrixMut::new(black_box(x), rows, cols).expect("shape")
}

/// The least time of one call of each, in seconds, taken in turns.
fn times<const N: usize>(mut functions: [&mut dyn FnMut(); N]) -> [f64; N] {
    let repeats: Vec<u32> = functions.iter_mut().map(|function| repeats(function)).collect();
    let mut least = [f64::INFINITY; N];
    for _ in 0..400 {
        for ((function, &repeats), least) in functions.iter_mut().zip(&repeats).zip(&mut least) {
            *least = least.min(time_of(function, repeats) / f64::from(repeats));
        }
    }
    least
}

fn time(function: &mut dyn FnMut()) -> f64 {
    let [time] = times([function]);
    time
}

/// How many calls take some 50 microseconds: many times what the clock resolves.
fn repeats(function: &mut dyn FnMut()) -> u32 {
    let mut repeats = 1;
    while time_of(function, repeats) < 50e-6 {
        repeats *= 2;
    }
    repeats
}

fn time_of(function: &mut dyn FnMut(), repeats: u32) -> f64 {
    let begin = Instant::now();
    for _ in 0..repeats {
        function();
    }
    begin.elapsed().as_secs_f64()
}

/// Floats between `-scale / 2` and `scale / 2`.
fn data(n: usize, scale: f32) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / 16_777_216.0 - 0.5) * scale
    };
    (0..n).map(|_| next()).collect()
}

/// Floats that begin at a cache line.
struct Aligned {
    lines: Vec<Line>,
}

#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "read through a slice of all lines")] [f32; 16]);

impl Aligned {
    /// `n` is a multiple of 16.
    fn new(n: usize, scale: f32) -> Self {
        let lines = data(n, scale).as_chunks().0.iter().map(|&line| Line(line)).collect();
        Self { lines }
    }

    fn floats(&self) -> &[f32] {
        let first = self.lines.as_ptr().cast();
        // SAFETY: a `Line` is 16 floats without padding, and they lie side by side.
        unsafe { core::slice::from_raw_parts(first, 16 * self.lines.len()) }
    }
}

/// Loads each of two arrays once, and nothing else.
fn load_both(a: &Aligned, b: &Aligned, wide: bool) {
    // SAFETY: the back end that asks was detected, so the machine has its instructions.
    unsafe {
        if wide {
            load_both_avx512(a.floats(), b.floats())
        } else {
            load_both_avx2(a.floats(), b.floats())
        }
    }
}

#[target_feature(enable = "avx2")]
fn load_both_avx2(a: &[f32], b: &[f32]) {
    for (a, b) in a.as_chunks::<64>().0.iter().zip(b.as_chunks::<64>().0) {
        // SAFETY: 64 aligned floats of each are read.
        unsafe {
            core::arch::asm!(
                "vmovaps {t}, [{a} + 0]", "vmovaps {t}, [{b} + 0]",
                "vmovaps {t}, [{a} + 32]", "vmovaps {t}, [{b} + 32]",
                "vmovaps {t}, [{a} + 64]", "vmovaps {t}, [{b} + 64]",
                "vmovaps {t}, [{a} + 96]", "vmovaps {t}, [{b} + 96]",
                "vmovaps {t}, [{a} + 128]", "vmovaps {t}, [{b} + 128]",
                "vmovaps {t}, [{a} + 160]", "vmovaps {t}, [{b} + 160]",
                "vmovaps {t}, [{a} + 192]", "vmovaps {t}, [{b} + 192]",
                "vmovaps {t}, [{a} + 224]", "vmovaps {t}, [{b} + 224]",
                a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(), t = out(ymm_reg) _,
                options(nostack, readonly, preserves_flags),
            );
        }
    }
    core::arch::x86_64::_mm256_zeroupper();
}

#[target_feature(enable = "avx512f")]
fn load_both_avx512(a: &[f32], b: &[f32]) {
    for (a, b) in a.as_chunks::<64>().0.iter().zip(b.as_chunks::<64>().0) {
        // SAFETY: 64 aligned floats of each are read.
        unsafe {
            core::arch::asm!(
                "vmovaps {t}, [{a} + 0]", "vmovaps {t}, [{b} + 0]",
                "vmovaps {t}, [{a} + 64]", "vmovaps {t}, [{b} + 64]",
                "vmovaps {t}, [{a} + 128]", "vmovaps {t}, [{b} + 128]",
                "vmovaps {t}, [{a} + 192]", "vmovaps {t}, [{b} + 192]",
                a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(), t = out(zmm_reg) _,
                options(nostack, readonly, preserves_flags),
            );
        }
    }
    core::arch::x86_64::_mm256_zeroupper();
}

/// The FLOP of one call of [`peak`]: 1200 multiply-adds of 16 lanes, or 2400 of 8.
const PEAK_FLOP: f64 = 2.0 * 1200.0 * 16.0;

/// Multiply-adds in registers: twelve chains, which hide any latency.
fn peak(backend: Backend) {
    // SAFETY: `backend` was detected, so the machine has its instructions.
    unsafe { if backend.name() == "avx512" { peak_avx512() } else { peak_avx2() } }
}

#[target_feature(enable = "avx2,fma")]
fn peak_avx2() {
    use core::arch::x86_64::*;
    let (x, y) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
    let mut chains = [y; 12];
    for _ in 0..200 {
        for chain in &mut chains {
            *chain = _mm256_fmadd_ps(*chain, x, y);
        }
    }
    black_box(chains);
}

#[target_feature(enable = "avx512f")]
fn peak_avx512() {
    use core::arch::x86_64::*;
    let (x, y) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
    let mut chains = [y; 12];
    for _ in 0..100 {
        for chain in &mut chains {
            *chain = _mm512_fmadd_ps(*chain, x, y);
        }
    }
    black_box(chains);
}
