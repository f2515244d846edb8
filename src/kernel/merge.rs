//! Two partial states made one.
//!
//! ```text
//! m = max(a, b)                                  a, b: log-sum-exps
//! w = e^(a − m),  v = e^(b − m)
//! out = (w / (w + v)) · out_a + (v / (w + v)) · out_b
//! log-sum-exp = m + ln (w + v)
//! ```
//!
//! 1. The shift by `m` goes into the exponent ([`exp`](super::exp)), and comes back as the whole
//!    number that [`ln`] takes: neither rounds anything. Beyond ±[`LIMIT`] `m` is subtracted,
//!    which is exact where the lesser weight is not 0.
//! 2. Beside an empty state, whose log-sum-exp is −∞, the other one is copied or left as it is.
//! 3. Where one is +∞ its weight is 1, and 0 the other's; where both are, nobody knows the
//!    shares: NaN.

use super::{Kernel, exp::Shift, ln::ln, softmax::share_at_infinity};
use crate::{
    matrix::{MatrixMut, MatrixRef},
    simd::{Vector, array, strip},
};

/// `out` and `log_sum_exp` hold one state and become both; shapes agree.
pub(crate) struct Merge<'a> {
    pub(crate) out: MatrixMut<'a>,
    pub(crate) log_sum_exp: &'a mut [f32],
    pub(crate) other_out: MatrixRef<'a>,
    pub(crate) other_log_sum_exp: &'a [f32],
}

impl Kernel for Merge<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let Self { mut out, log_sum_exp, other_out: other, other_log_sum_exp } = self;
        for first in (0..log_sum_exp.len()).step_by(L) {
            let ours = log_sum_exp.get_mut(first..).unwrap_or_default();
            let theirs = other_log_sum_exp.get(first..).unwrap_or_default();
            let lanes = lanes::<L, V>(token, ours, theirs);
            let queries = ours.iter_mut().zip(theirs).zip(lanes);
            for (row, ((ours, &theirs), both)) in (first..).zip(queries) {
                let is_empty = [*ours == f32::NEG_INFINITY, theirs == f32::NEG_INFINITY];
                if is_empty == [false, true] {
                    continue;
                }
                *ours = if is_empty[0] { theirs } else { both.log_sum_exp };
                let (w, v) = (V::splat(token, both.shares[0]), V::splat(token, both.shares[1]));
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

/// Where `n · ln 2` is exact in either family, with room.
const LIMIT: f32 = 2048.0;

/// What two log-sum-exps that are not −∞ make of their states.
#[derive(Clone, Copy)]
struct Both {
    shares: [f32; 2],
    log_sum_exp: f32,
}

#[inline(always)]
fn lanes<const L: usize, V: Vector<L>>(token: V::Token, a: &[f32], b: &[f32]) -> [Both; L] {
    let constant = |c| V::splat(token, c);
    let (zero, largest) = (constant(0.0), constant(f32::MAX));
    // Where both are −∞ nobody reads what comes out: the least float stands for it, whose differences are 0.
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
    array!(|i| Both { shares: [w[i], v[i]], log_sum_exp: log_sum_exp[i] })
}
