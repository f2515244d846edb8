//! Runs a function of one number on every f32, on every back end: shared by the tests of such functions.

extern crate std;

use std::{
    println,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread, vec,
    vec::Vec,
};

use crate::dispatch::Backend;

/// The function under test: maps each `x` on a back end. The length is a multiple of every lane count.
pub(super) type Run = fn(Backend, &[f32]) -> Vec<f32>;

/// The worst error of `run` in ULP for the positive floats with the bits `from`, `from + step`, … below `to`,
/// on the widest back end of each family. `range` is `[from, to, step]`.
fn worst_errors(range: [u32; 3], run: Run, truth: fn(f64) -> f64) -> Vec<(Backend, f64)> {
    worst_of(range, truth, |backend, x, truths| {
        run(backend, x)
            .iter()
            .zip(truths)
            .map(|(&got, &truth)| ulps(got, truth))
            .fold(0.0, f64::max)
    })
}

/// Asserts that the worst error of `run` is at most 2 ULP, and at least `least`: an error that is too small
/// means that the test does not measure it.
pub(super) fn assert_within_two_ulp(range: [u32; 3], run: Run, truth: fn(f64) -> f64, least: f64) {
    for (backend, worst) in worst_errors(range, run, truth) {
        let (name, from) = (backend.name(), f32::from_bits(range[0]));
        println!("{name}: {worst:.4} ULP at worst from {from:e}");
        assert!(worst <= 2.0, "{name}: {worst} ULP");
        assert!(worst >= least, "{name}: {worst} ULP is too small an error for a whole family");
    }
}

/// The largest `error(backend, x, truths)` over all blocks of `range`, on the widest back end of each family.
pub(super) fn worst_of(
    range: [u32; 3],
    truth: impl Fn(f64) -> f64 + Sync,
    error: impl Fn(Backend, &[f32], &[f64]) -> f64 + Sync,
) -> Vec<(Backend, f64)> {
    let worst = Mutex::new(vec![0.0f64; widest().len()]);
    for_each_block(range, |x| {
        let truths: Vec<f64> = x.iter().map(|&x| truth(f64::from(x))).collect();
        let errors: Vec<f64> =
            widest().into_iter().map(|backend| error(backend, x, &truths)).collect();
        let mut worst = worst.lock().expect("no assertion of a worker failed");
        worst.iter_mut().zip(errors).for_each(|(worst, error)| *worst = worst.max(error));
    });
    widest().into_iter().zip(worst.into_inner().expect("no assertion of a worker failed")).collect()
}

/// Asserts that all back ends of a family return the same bits, and that `run(−x)` is `mirror(run(x))`, for
/// the positive floats of `range`.
pub(super) fn assert_alike(range: [u32; 3], run: Run, mirror: fn(f32) -> f32) {
    for_each_block(range, |x| {
        let negative: Vec<f32> = x.iter().map(|x| -x).collect();
        for first in widest() {
            let got = run(first, x);
            let mirrored: Vec<f32> = got.iter().map(|&got| mirror(got)).collect();
            for backend in Backend::available().filter(|b| b.family() == first.family()) {
                assert_same(x, &run(backend, x), &got);
                assert_same(x, &run(backend, &negative), &mirrored);
            }
        }
    });
}

/// Calls `f` with the floats of a range, block by block, on every core.
fn for_each_block([from, to, step]: [u32; 3], f: impl Fn(&[f32]) + Sync) {
    let next = AtomicU32::new(from);
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let worker = || {
            loop {
                let begin = next.fetch_add(BLOCK * step, Ordering::Relaxed);
                if begin >= to {
                    break;
                }
                // The last block is filled up with the last float.
                let bits = (0..BLOCK).map(|i| (begin + i * step).min(to - 1));
                f(&bits.map(f32::from_bits).collect::<Vec<f32>>());
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .for_each(|worker| worker.join().expect("no assertion of a worker failed"));
    });
}

/// Floats per block: they stay in the first-level cache together with all results.
const BLOCK: u32 = 1 << 11;

/// The widest back end of each family, which is the last one.
fn widest() -> Vec<Backend> {
    let mut widest: Vec<Backend> = Vec::new();
    for backend in Backend::available() {
        widest.retain(|other| other.family() != backend.family());
        widest.push(backend);
    }
    widest
}

fn assert_same(x: &[f32], got: &[f32], want: &[f32]) {
    let same =
        |got: f32, want: f32| got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
    for (x, (&got, &want)) in x.iter().zip(got.iter().zip(want)) {
        assert!(same(got, want), "of ±{x:e}: {got:e}, not {want:e}");
    }
}

/// The distance of `got` from `truth`, in units in the last place of an f32.
pub(super) fn ulps(got: f32, truth: f64) -> f64 {
    if f64::from(got) == truth {
        return 0.0; // infinities too
    }
    let exponent = (truth.abs().to_bits() >> 52).max(1023 - 126);
    let per_ulp = f64::from_bits((2 * 1023 + 23 - exponent) << 52);
    let error = (f64::from(got) - truth).abs() * per_ulp;
    if error.is_nan() { f64::INFINITY } else { error }
}
