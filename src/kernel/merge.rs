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

use super::{Kernel, exp::Shift, ln::ln, softmax::share};
use crate::{
    MatrixMut, MatrixRef,
    simd::{Vector, strip},
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
        let queries = log_sum_exp.chunks_mut(L).zip(other_log_sum_exp.chunks(L));
        for (i, (ours, theirs)) in queries.enumerate() {
            let shares = Shares::<L>::new::<V>(token, ours, theirs);
            for (lane, (ours, &theirs)) in ours.iter_mut().zip(theirs).enumerate() {
                let is_empty = [*ours, theirs].map(|x| x == f32::NEG_INFINITY);
                if is_empty == [false, true] {
                    continue;
                }
                *ours = if is_empty[0] { theirs } else { at(&shares.log_sum_exp, lane) };
                let w = V::splat(token, at(&shares.ours, lane));
                let v = V::splat(token, at(&shares.theirs, lane));
                let row = i * L + lane;
                for col in (0..out.cols()).step_by(L) {
                    let [a]: [V; 1] = strip::read(token, out.view(), row, col);
                    let [b]: [V; 1] = strip::read(token, other, row, col);
                    let both = match is_empty {
                        [false, _] => b.mul_add(v, a * w),
                        [true, false] => b,
                        [true, true] => V::splat(token, 0.0),
                    };
                    strip::write::<L, 1, 1, V>(&mut out, row, col, [[both]]);
                }
            }
        }
    }
}

/// A lane that is always there, which the compiler does not see.
#[inline(always)]
fn at<const L: usize>(lanes: &[f32; L], lane: usize) -> f32 {
    lanes.get(lane).copied().unwrap_or(0.0)
}

/// Where `n · ln 2` is exact in either family, with room.
const LIMIT: f32 = 2048.0;

/// What two log-sum-exps that are not −∞ make of the two states, in each lane.
struct Shares<const L: usize> {
    ours: [f32; L],
    theirs: [f32; L],
    log_sum_exp: [f32; L],
}

impl<const L: usize> Shares<L> {
    #[inline(always)]
    fn new<V: Vector<L>>(token: V::Token, ours: &[f32], theirs: &[f32]) -> Self {
        let constant = |c| V::splat(token, c);
        let (zero, largest) = (constant(0.0), constant(f32::MAX));
        let [a, b] = [ours, theirs].map(|x| V::load_partial(token, x, 0.0));
        let m = a.max(b);
        let infinite = m.select_gt(largest, m, zero);
        let m_shared = m.select_gt(largest, zero, m);
        let negative = constant(-LIMIT).select_gt(m_shared, m_shared, zero);
        let base = m_shared.select_gt(constant(LIMIT), m_shared, negative);
        let shift: Shift<V, true> = Shift::new(token, m_shared - base);
        let w = shift.weight(token, share(token, m, a) - base);
        let v = shift.weight(token, share(token, m, b) - base);
        let lesser = a.select_gt(b, b, a);
        let sum = lesser.select_gt(largest, constant(f32::NAN), w + v);
        let [_, n] = shift.base_and_n(token);
        Self {
            ours: (w / sum).to_array(),
            theirs: (v / sum).to_array(),
            log_sum_exp: (base + infinite + ln(token, sum, n)).to_array(),
        }
    }
}
