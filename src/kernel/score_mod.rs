//! The elementwise score modifications: softcap and bias (additive mask).

use super::{Kernel, Name, tanh::tanh};
use crate::{
    matrix::{MatrixMut, MatrixRef},
    simd::{Vector, strip},
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
