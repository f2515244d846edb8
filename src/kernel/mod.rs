//! The kernels. Each is written once, generic over [`Vector`].

pub(crate) mod order;

pub(crate) mod attention;
pub(crate) mod blocks;
pub(crate) mod dot;
#[cfg(test)]
mod exhaustive;
pub(crate) mod exp;
pub(crate) mod ln;
pub(crate) mod mask;
pub(crate) mod merge;
pub(crate) mod rotate;
pub(crate) mod scale;
pub(crate) mod score_mod;
pub(crate) mod softmax;
pub(crate) mod tanh;
pub(crate) mod tile;
pub(crate) mod widen;

use crate::simd::Vector;

/// A kernel with its operands: `dispatch` calls it with the vector type of a back end.
pub(crate) trait Kernel {
    /// The result.
    type Output;

    /// The name of its functions in `dispatch`, which a profile shows.
    const NAME: Name;

    /// Runs on vectors of `L` lanes. Each back end also chooses:
    ///
    /// * `G`: the number of vectors in a [group](order) of partial sums;
    /// * `R`, `C`: the number of rows, and of vectors per row, of a [tile].
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) -> Self::Output;

    /// Whether the kernel has at most 8 results side by side. Sixteen lanes would be half empty, and 512-bit
    /// instructions take twice the time of 256-bit ones on some cores; on the other cores they take as long.
    #[cfg_attr(not(target_feature = "sse2"), expect(dead_code, reason = "for the back end avx512"))]
    #[inline(always)]
    fn fits_8_lanes(&self) -> bool {
        false
    }
}

/// The name of a kernel's functions.
pub(crate) enum Name {
    Attention,
    Bias,
    Dot,
    Exp,
    JoinStates,
    LogSumExp,
    Merge,
    Product,
    ProjectElements,
    Rotate,
    ScaleRows,
    Slope,
    Softcap,
    Softmax,
    SoftmaxColumns,
    SoftmaxPanels,
    SoftmaxRows,
    Widen,
    #[cfg(test)]
    OfTests,
}
