//! Rotary position embedding: turns pairs of columns.
//!
//! ```text
//! out[a] = x[a] · cos − x[b] · sin
//! out[b] = x[b] · cos + x[a] · sin
//! ```
//!
//! A lane is a pair, in either layout: vectors of interleaved pairs are taken apart into the first and the second columns,
//! and put together again. Columns behind the last pair are copied.

use super::{Kernel, Name};
use crate::{
    matrix::{HeadsMut, HeadsRef, MatrixRef},
    simd::{Vector, pairs, strip::InOut},
};

/// Which two columns of a row are a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Pairs {
    /// Column `i` of the first half of the columns that turn, and column `i` of the second half: GPT-NeoX, and Llama in the
    /// checkpoints of Hugging Face (`rotate_half`).
    Halves,
    /// Columns `2 · i` and `2 · i + 1`: RoFormer, GPT-J, and Llama in those of Meta.
    Interleaved,
}

/// Rotates `from`, or `to` in place. All shapes agree.
pub(crate) struct Rotate<'a> {
    pub(crate) from: Option<HeadsRef<'a>>,
    pub(crate) to: HeadsMut<'a>,
    /// Cosines and sines: a row for each token and a column for each pair.
    pub(crate) factors: [MatrixRef<'a>; 2],
    pub(crate) pairs: Pairs,
}

impl Kernel for Rotate<'_> {
    type Output = ();

    const NAME: Name = Name::Rotate;

    #[inline(always)]
    fn fits_8_lanes(&self) -> bool {
        self.factors[0].cols() <= 8
    }

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let Self { from, mut to, factors, pairs } = self;
        let minus = V::splat(token, -1.0);
        for head in 0..to.heads() {
            let Some(to) = to.head_mut(head) else { continue };
            let x = match from.and_then(|from| from.head(head)) {
                Some(from) => InOut::new(from, to),
                None => Ok(InOut::in_place(to)),
            };
            let count = factors[0].cols();
            let Ok((x, rest)) = x.and_then(|x| x.split_columns(2 * count)) else { continue };
            let ab = match pairs {
                Pairs::Halves => x.split_columns(count),
                Pairs::Interleaved => Ok(x.alternate_columns()),
            };
            let Ok((a, b)) = ab else { continue };
            pairs::map(
                token,
                [a, b],
                factors,
                #[inline(always)]
                |[a, b]: [V; 2], [cosine, sine]| {
                    [a.mul_add(cosine, b * (sine * minus)), b.mul_add(cosine, a * sine)]
                },
            );
            if from.is_some() && rest.shape().1 > 0 {
                copy(rest);
            }
        }
    }
}

/// Copies the columns that do not turn. Inlined, it would take registers from the loop over pairs.
#[inline(never)]
fn copy(mut x: InOut<'_>) {
    let dense = x.rows_are_dense();
    for row in 0..x.shape().0 {
        let mut row = x.scalar_row(row);
        if dense { row.map::<true>(|_, x| x) } else { row.map_one_by_one::<false>(|x| x) }
    }
}
