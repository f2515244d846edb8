//! Every f32 through a function of one number, on every back end: what the tests of
//! such functions share.

extern crate std;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread, vec,
    vec::Vec,
};

use crate::Backend;

/// Runs a function on `x`, whose length is whole vectors, on a back end.
pub(super) type Run = fn(Backend, &[f32]) -> Vec<f32>;

/// The worst error in ULP that `run` makes of the positive floats with the bits `from`,
/// `from + step` … below `to`, for the first back end of each family. The others must have its
/// bits, and negative floats what `mirror` makes of those.
pub(super) fn worst_errors(
    [from, to, step]: [u32; 3],
    run: Run,
    truth: fn(f64) -> f64,
    mirror: fn(f32) -> f32,
) -> Vec<(Backend, f64)> {
    let next = AtomicU32::new(from);
    let mut worst = vec![0.0f64; firsts().len()];
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let worker = || {
            let mut worst = vec![0.0f64; firsts().len()];
            loop {
                let begin = next.fetch_add(BLOCK * step, Ordering::Relaxed);
                if begin >= to {
                    break worst;
                }
                block([begin, to, step], run, truth, mirror, &mut worst);
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            let errors = worker.join().expect("what a worker asserts");
            worst.iter_mut().zip(errors).for_each(|(worst, error)| *worst = worst.max(error));
        }
    });
    firsts().into_iter().zip(worst).collect()
}

/// So many floats stay in the first-level cache with all that becomes of them.
const BLOCK: u32 = 1 << 11;

fn block(
    [begin, to, step]: [u32; 3],
    run: Run,
    truth: fn(f64) -> f64,
    mirror: fn(f32) -> f32,
    worst: &mut [f64],
) {
    // The last block is filled up with the last float.
    let bits = (0..BLOCK).map(|i| (begin + i * step).min(to - 1));
    let x: Vec<f32> = bits.map(f32::from_bits).collect();
    let negative: Vec<f32> = x.iter().map(|x| -x).collect();
    let truths: Vec<f64> = x.iter().map(|&x| truth(f64::from(x))).collect();
    for (first, worst) in firsts().into_iter().zip(worst) {
        let got = run(first, &x);
        let error = got.iter().zip(&truths).map(|(&got, &truth)| ulps(got, truth));
        *worst = error.fold(*worst, f64::max);
        let mirrored: Vec<f32> = got.iter().map(|&got| mirror(got)).collect();
        assert_same(&x, &run(first, &negative), &mirrored);
        for other in Backend::available() {
            if other.family() == first.family() && other != first {
                assert_same(&x, &run(other, &x), &got);
                assert_same(&x, &run(other, &negative), &mirrored);
            }
        }
    }
}

/// The first back end of each family.
fn firsts() -> Vec<Backend> {
    let mut firsts: Vec<Backend> = Vec::new();
    for backend in Backend::available() {
        if firsts.iter().all(|first| first.family() != backend.family()) {
            firsts.push(backend);
        }
    }
    firsts
}

fn assert_same(x: &[f32], got: &[f32], want: &[f32]) {
    let same =
        |got: f32, want: f32| got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
    for (x, (&got, &want)) in x.iter().zip(got.iter().zip(want)) {
        assert!(same(got, want), "of ±{x:e}: {got:e}, not {want:e}");
    }
}

/// How far `got` is from `truth`, in units of the last place of an f32.
pub(super) fn ulps(got: f32, truth: f64) -> f64 {
    if f64::from(got) == truth {
        return 0.0; // infinities too
    }
    let exponent = (truth.abs().to_bits() >> 52).max(1023 - 126);
    let error = (f64::from(got) - truth).abs() / f64::from_bits((exponent - 23) << 52);
    if error.is_nan() { f64::INFINITY } else { error }
}
