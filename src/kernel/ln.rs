//! The natural logarithm, and log-sum-exp.

use super::{Kernel, attention::Logits};
use crate::simd::Vector;

/// `ln x` for `x >= 0`.
#[inline(always)]
pub(crate) fn ln<const L: usize, V: Vector<L>>(token: V::Token, x: V) -> V {
    let mut lanes = x.to_array();
    for x in &mut lanes {
        *x = libm::logf(*x);
    }
    V::load(token, &lanes)
}

/// The log-sum-exp of each query.
pub(crate) struct LogSumExp<'a> {
    pub(crate) logits: Logits<'a>,
    pub(crate) out: &'a mut [f32],
}

impl Kernel for LogSumExp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let Logits { base, n, sum } = self.logits;
        let inputs = base.chunks(L).zip(n.chunks(L)).zip(sum.chunks(L));
        for (((base, n), sum), out) in inputs.zip(self.out.chunks_mut(L)) {
            let load = |from| V::load_partial(token, from, 0.0);
            let (high, low) = (V::splat(token, LN2_HIGH), V::splat(token, LN2_LOW));
            let n = load(n);
            let rest = n.mul_add(low, ln(token, load(sum)));
            (load(base) + n.mul_add(high, rest)).store_partial(out);
        }
    }
}

/// ln 2: 12 bits, and the rest.
const LN2_HIGH: f32 = f32::from_bits(0x3f31_7000);
const LN2_LOW: f32 = f32::from_bits(0x3805_fdf4);
