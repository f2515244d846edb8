//! Plain loops that rustc vectorises for AVX2 and AVX-512: what one writes without a library. Also the softmax
//! inside composed attention.

use multiversion::multiversion;

use super::Library;
use crate::jobs::Along;

pub(super) struct Loops;

impl Library for Loops {
    fn name() -> String {
        "plain loops".into()
    }

    fn dot() -> Option<impl FnMut(&[f32], &[f32]) -> f32 + 'static> {
        Some(dot)
    }

    fn softmax(
        [_, cols]: [usize; 2],
        along: Along,
    ) -> Option<impl FnMut(&[f32], &mut [f32]) + 'static> {
        Some(move |x: &[f32], out: &mut [f32]| match along {
            Along::Rows => softmax_rows(x, cols, out),
            Along::Columns => softmax_columns(x, cols, out),
        })
    }
}

/// Partial sums and maxima: two vectors of AVX2, or one of AVX-512.
const LANES: usize = 16;

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) =
        (a.as_chunks::<{ 4 * LANES }>(), b.as_chunks::<{ 4 * LANES }>());
    let mut sums = [0.0f32; 4 * LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..4 * LANES {
            sums[i] = a[i].mul_add(b[i], sums[i]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    let mut half = 2 * LANES;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[half + i];
        }
        half /= 2;
    }
    sums[0] + rest
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn softmax_rows(x: &[f32], cols: usize, out: &mut [f32]) {
    for (x, out) in x.chunks(cols).zip(out.chunks_mut(cols)) {
        out.copy_from_slice(x);
        softmax(out, 1.0);
    }
}

/// Softmax of the scaled scores of each query, in place. Causal: query i sees the keys up to i.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(super) fn attention_weights(scores: &mut [f32], keys: usize, scale: f32, causal: bool) {
    for (query, scores) in scores.chunks_mut(keys).enumerate() {
        let visible = if causal { query + 1 } else { keys };
        // Whole vectors, and what they have too much is masked first and last.
        let rounded = visible.next_multiple_of(LANES).min(keys);
        scores[visible..rounded].fill(f32::NEG_INFINITY);
        softmax(&mut scores[..rounded], scale);
        scores[visible..].fill(0.0);
    }
}

#[inline(always)]
fn softmax(x: &mut [f32], scale: f32) {
    // The shorter rows are not worth wide lanes.
    if x.len().is_multiple_of(LANES) {
        softmax_in::<LANES>(x, scale)
    } else {
        softmax_in::<8>(x, scale)
    }
}

#[inline(always)]
fn softmax_in<const N: usize>(x: &mut [f32], scale: f32) {
    let largest = |a: f32, b: f32| if a > b { a } else { b };
    let (chunks, rest) = x.as_chunks_mut::<N>();
    let mut most = [f32::NEG_INFINITY; N];
    for chunk in chunks.iter() {
        for i in 0..N {
            most[i] = largest(chunk[i], most[i]);
        }
    }
    let most = most.iter().chain(rest.iter()).copied().fold(f32::NEG_INFINITY, largest);
    let shift = scale * most;
    let mut sums = [0.0; N];
    for chunk in chunks.iter_mut() {
        for i in 0..N {
            chunk[i] = exp(chunk[i].mul_add(scale, -shift));
            sums[i] += chunk[i];
        }
    }
    let mut sum: f32 = sums.iter().sum();
    for x in rest.iter_mut() {
        *x = exp(x.mul_add(scale, -shift));
        sum += *x;
    }
    let factor = 1.0 / sum;
    x.iter_mut().for_each(|x| *x *= factor);
}

/// Row by row, three times.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn softmax_columns(x: &[f32], cols: usize, out: &mut [f32]) {
    let (mut most, mut sums) = (vec![f32::NEG_INFINITY; cols], vec![0.0; cols]);
    for x in x.chunks_exact(cols) {
        for (most, &x) in most.iter_mut().zip(x) {
            *most = if x > *most { x } else { *most };
        }
    }
    for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(cols)) {
        for (((out, &x), sum), &most) in out.iter_mut().zip(x).zip(&mut sums).zip(&most) {
            *out = exp(x - most);
            *sum += *out;
        }
    }
    sums.iter_mut().for_each(|sum| *sum = 1.0 / *sum);
    for out in out.chunks_exact_mut(cols) {
        for (out, &factor) in out.iter_mut().zip(&sums) {
            *out *= factor;
        }
    }
}

/// e^x for x ≤ 0: 2^n · e^r by the Taylor polynomial of degree 6, whose error for |r| ≤ ln 2 / 2 is two ULP.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Added, it rounds to an integer, which stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_145_75;
    const LN2_LOW: f32 = 1.428_606_8e-6;
    // Below this 2^n is no normal float.
    let x = if x > -87.0 { x } else { -87.0 };
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let factors = [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let p = factors.into_iter().fold(1.0 / 720.0, |p: f32, factor| p.mul_add(r, factor));
    f32::from_bits(p.to_bits().wrapping_add(rounded.to_bits() << 23))
}
