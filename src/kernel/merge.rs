//! Merges two partial attention states.
//!
//! ```text
//! m = max(a, b)                                  a, b: log-sum-exps
//! w = e^(a − m),  v = e^(b − m)
//! out = (w / (w + v)) · out_a + (v / (w + v)) · out_b
//! log-sum-exp = m + ln (w + v)
//! ```
//!
//! 1. The shift by `m` is applied to the exponent ([`exp`](super::exp)), and its whole number `n` is an
//!    argument of [`ln`]: neither rounds anything. Beyond ±[`LIMIT`] `m` is subtracted, which is exact where
//!    the lesser weight is not 0.
//! 2. An empty state has the log-sum-exp −∞. If one state is empty, the result is the other, bit for bit.
//! 3. If one log-sum-exp is +∞, its state has the weight 1 and the other 0. If both are, the weights are not
//!    determined: NaN.

use super::{Kernel, Name, exp::Shift, ln::ln, softmax::share_at_infinity};
use crate::{
    matrix::{MatrixMut, MatrixRef},
    simd::{Vector, array, strip},
};

/// Merges the second state into the first one, `out` and `log_sum_exp`. All shapes agree.
pub(crate) struct Merge<'a> {
    pub(crate) out: MatrixMut<'a>,
    pub(crate) log_sum_exp: &'a mut [f32],
    pub(crate) other_out: MatrixRef<'a>,
    pub(crate) other_log_sum_exp: &'a [f32],
}

impl Kernel for Merge<'_> {
    type Output = ();

    const NAME: Name = Name::Merge;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let Self { mut out, log_sum_exp, other_out: other, other_log_sum_exp } = self;
        for first in (0..log_sum_exp.len()).step_by(L) {
            let ours = log_sum_exp.get_mut(first..).unwrap_or_default();
            let theirs = other_log_sum_exp.get(first..).unwrap_or_default();
            let merged = merged_queries::<L, V>(token, ours, theirs);
            let queries = ours.iter_mut().zip(theirs).zip(merged);
            for (row, ((ours, &theirs), query)) in (first..).zip(queries) {
                let is_empty = [*ours == f32::NEG_INFINITY, theirs == f32::NEG_INFINITY];
                if is_empty == [false, true] {
                    continue;
                }
                *ours = if is_empty[0] { theirs } else { query.log_sum_exp };
                let (w, v) = (V::splat(token, query.weights[0]), V::splat(token, query.weights[1]));
                for col in (0..out.cols()).step_by(L) {
                    let [a]: [V; 1] = strip::read(token, out.view(), row, col);
                    let [b]: [V; 1] = strip::read(token, other, row, col);
                    let merged = match is_empty {
                        [false, _] => b.mul_add(v, a * w),
                        [true, false] => b,
                        [true, true] => V::splat(token, 0.0),
                    };
                    strip::write::<L, 1, 1, V>(&mut out, row, col, [[merged]]);
                }
            }
        }
    }
}

/// Far inside the range in which `n · ln 2` is exact, in either family.
const LIMIT: f32 = 2048.0;

/// The weights of the two states of a query, of which neither is empty, and the merged log-sum-exp.
#[derive(Clone, Copy)]
struct MergedQuery {
    weights: [f32; 2],
    log_sum_exp: f32,
}

/// Merges the log-sum-exps `a` and `b` of up to `L` queries.
#[inline(always)]
fn merged_queries<const L: usize, V: Vector<L>>(
    token: V::Token,
    a: &[f32],
    b: &[f32],
) -> [MergedQuery; L] {
    let constant = |c| V::splat(token, c);
    let (zero, largest) = (constant(0.0), constant(f32::MAX));
    // The least float stands for −∞, so that differences are 0 and not NaN. Where both are −∞ the caller does
    // not use the result.
    let [a, b] = [a, b].map(
        #[inline(always)]
        |x| constant(f32::MIN).max(V::load_partial(token, x, 0.0)),
    );
    let m = a.max(b);
    let infinite = m.select_gt(largest, m, zero);
    let finite = m.select_gt(largest, zero, m);
    let base = constant(-LIMIT).select_gt(finite, finite, zero);
    let base = finite.select_gt(constant(LIMIT), finite, base);
    let shift: Shift<V, true> = Shift::new(token, finite - base);
    let w = shift.weight(token, share_at_infinity(token, m, a) - base);
    let v = shift.weight(token, share_at_infinity(token, m, b) - base);
    let lesser = a.select_gt(b, b, a);
    let sum = lesser.select_gt(largest, constant(f32::NAN), w + v);
    let [_, n] = Shift::base_and_n(token, shift.base_and_magic());
    let log_sum_exp = (base + infinite + ln(token, sum, n)).to_array();
    let (w, v) = ((w / sum).to_array(), (v / sum).to_array());
    array!(|i| MergedQuery { weights: [w[i], v[i]], log_sum_exp: log_sum_exp[i] })
}
