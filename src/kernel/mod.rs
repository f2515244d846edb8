//! The kernels, each written once over [`Vector`], in the order the data takes.

pub(crate) mod order;

pub(crate) mod attention;
pub(crate) mod dot;
#[cfg(test)]
mod exhaustive;
pub(crate) mod exp;
pub(crate) mod ln;
pub(crate) mod mask;
pub(crate) mod merge;
pub(crate) mod scale;
pub(crate) mod score_mod;
pub(crate) mod softmax;
pub(crate) mod tanh;
pub(crate) mod tile;

use crate::simd::Vector;

/// A kernel with its operands: `dispatch` gives it the vectors of a back end.
pub(crate) trait Kernel {
    /// What comes out.
    type Output;

    /// Runs on vectors of `L` lanes. The other numbers are the back end's:
    ///
    /// * `G`: how many vectors a [group](order) of partial sums is;
    /// * `R`, `C`: rows and vectors of a [tile].
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) -> Self::Output;
}
