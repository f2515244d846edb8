//! The elementwise score modifications: softcap, bias (additive mask) and slopes (ALiBi).

use super::{Kernel, Name, tanh::tanh};
use crate::{
    matrix::{MatrixMut, MatrixRef},
    simd::{Vector, array, strip},
};

/// `score = cap · tanh(score / cap)`, for a positive cap.
pub(crate) struct Softcap<'a> {
    pub(crate) cap: f32,
    pub(crate) scores: MatrixMut<'a>,
}

impl Kernel for Softcap<'_> {
    type Output = ();

    const NAME: Name = Name::Softcap;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        mut self,
        token: V::Token,
    ) {
        let cap = V::splat(token, self.cap);
        for row in 0..self.scores.rows() {
            for col in (0..self.scores.cols()).step_by(L) {
                let [s]: [V; 1] = strip::read(token, self.scores.view(), row, col);
                let s = cap * tanh(token, s / cap);
                strip::write::<L, 1, 1, V>(&mut self.scores, row, col, [[s]]);
            }
        }
    }
}

/// `score = score + bias`, and −∞ where the bias is −∞, even if the score is NaN or +∞. With a `fill`,
/// only writes `fill` where the bias is −∞.
pub(crate) struct AddBias<'a> {
    pub(crate) bias: MatrixRef<'a>,
    pub(crate) fill: Option<f32>,
    pub(crate) scores: MatrixMut<'a>,
}

impl Kernel for AddBias<'_> {
    type Output = ();

    const NAME: Name = Name::Bias;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        mut self,
        token: V::Token,
    ) {
        let lowest = V::splat(token, f32::MIN);
        let fill = self.fill.map(|fill| V::splat(token, fill));
        for row in 0..self.scores.rows() {
            for col in (0..self.scores.cols()).step_by(L) {
                let [s]: [V; 1] = strip::read(token, self.scores.view(), row, col);
                let [bias]: [V; 1] = strip::read(token, self.bias, row, col);
                let s = match fill {
                    None => lowest.select_gt(bias, bias, s + bias),
                    Some(fill) => lowest.select_gt(bias, fill, s),
                };
                strip::write::<L, 1, 1, V>(&mut self.scores, row, col, [[s]]);
            }
        }
    }
}

/// `score = score - slope · distance` (ALiBi). Distances count up to 2³⁰.
pub(crate) struct SubtractSlope<'a> {
    pub(crate) slope: f32,
    /// The position of query 0 minus that of key 0. Adding or subtracting a row and a column does not overflow.
    pub(crate) offset: i64,
    pub(crate) scores: MatrixMut<'a>,
}

impl Kernel for SubtractSlope<'_> {
    type Output = ();

    const NAME: Name = Name::Slope;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let Self { slope, mut offset, mut scores } = self;
        if const { L > 1 } && scores.row_stride() == 1 {
            // Keys in the lanes: the distances of the transposed scores are those from keys to queries.
            (scores, offset) = (scores.t(), -offset);
        }
        let factor = V::splat(token, -slope);
        for row in 0..scores.rows() {
            for col in (0..scores.cols()).step_by(L) {
                let [s]: [V; 1] = strip::read(token, scores.view(), row, col);
                // At 2^30 the lanes change no rounded distance: integers of 32 bits suffice.
                let first = offset - row as i64 + col as i64;
                let first = first.clamp(-(1 << 30), 1 << 30) as i32;
                let distance = array!(|lane| ((first + lane as i32) as f32).abs());
                let s = V::load(token, &distance).mul_add(factor, s);
                strip::write::<L, 1, 1, V>(&mut scores, row, col, [[s]]);
            }
        }
    }
}
