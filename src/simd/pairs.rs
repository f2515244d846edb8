//! Pairs of columns: what becomes of one depends on the other, and on two factors.

use super::{
    Vector, array,
    strip::{Row, gather, load, scatter, store},
};
use crate::matrix::MatrixRef;

/// Writes `f` of the columns of `pair`, of which those with one index belong together, and of the same columns of row
/// `row` of both `factors`: as many as all of them have.
///
/// Columns are read as vectors where they are contiguous, and where those of `pair` alternate. Tails, and other strides,
/// are gathered.
#[inline(always)]
pub(crate) fn map<const L: usize, V: Vector<L>>(
    token: V::Token,
    pair: [Row<'_, false>; 2],
    factors: [MatrixRef<'_>; 2],
    row: usize,
    f: impl Fn([V; 2], [V; 2]) -> [V; 2],
) {
    let [a, b] = pair;
    let [cosines, sines] = factors;
    let has_row = row < cosines.rows() && row < sines.rows();
    let cols = if has_row { cosines.cols().min(sines.cols()) } else { 0 };
    let len = a.cols.min(b.cols).min(cols);
    let at = [cosines.at(row, 0), sines.at(row, 0)];
    let strides = [a.from_stride, b.from_stride, a.to_stride, b.to_stride];
    let alternate = b.from == a.from.wrapping_add(1) && b.to == a.to.wrapping_add(1);
    let factor_strides = [cosines.col_stride(), sines.col_stride()];
    let mut col = 0;
    if factor_strides == [1; 2] && strides == [1; 4] {
        while len - col >= L {
            // SAFETY: each row has `L` contiguous lanes from `col` on; they are read before anything is written.
            unsafe {
                let [x] = load(token, a.from.wrapping_add(col));
                let [y] = load(token, b.from.wrapping_add(col));
                let [cosine] = load(token, at[0].wrapping_add(col));
                let [sine] = load(token, at[1].wrapping_add(col));
                let [x, y] = f([x, y], [cosine, sine]);
                store(a.to.wrapping_add(col), [x]);
                store(b.to.wrapping_add(col), [y]);
            }
            col += L;
        }
    } else if factor_strides == [1; 2] && strides == [2; 4] && alternate {
        while len - col >= L {
            // SAFETY: as above, where the lanes of both columns are `2 * L` contiguous ones.
            unsafe {
                let pair = take_apart(token, load(token, a.from.wrapping_add(2 * col)));
                let [cosine] = load(token, at[0].wrapping_add(col));
                let [sine] = load(token, at[1].wrapping_add(col));
                let pair = f(pair, [cosine, sine]);
                store(a.to.wrapping_add(2 * col), put_together(token, pair));
            }
            col += L;
        }
    }
    while col < len {
        let lanes = (len - col).min(L);
        let offset = |stride: usize| stride.wrapping_mul(col);
        // SAFETY: each row has `lanes` lanes from `col` on, as far apart as its stride; they are read before anything is
        // written.
        unsafe {
            let from = a.from.wrapping_add(offset(a.from_stride));
            let [x] = gather(token, from, a.from_stride, lanes, 0.0);
            let from = b.from.wrapping_add(offset(b.from_stride));
            let [y] = gather(token, from, b.from_stride, lanes, 0.0);
            let from = at[0].wrapping_add(offset(factor_strides[0]));
            let [cosine] = gather(token, from, factor_strides[0], lanes, 0.0);
            let from = at[1].wrapping_add(offset(factor_strides[1]));
            let [sine] = gather(token, from, factor_strides[1], lanes, 0.0);
            let [x, y] = f([x, y], [cosine, sine]);
            scatter(a.to.wrapping_add(offset(a.to_stride)), a.to_stride, lanes, [x]);
            scatter(b.to.wrapping_add(offset(b.to_stride)), b.to_stride, lanes, [y]);
        }
        col += L;
    }
}

/// The even and the odd lanes of two vectors.
#[inline(always)]
fn take_apart<const L: usize, V: Vector<L>>(token: V::Token, [low, high]: [V; 2]) -> [V; 2] {
    let lanes = [low.to_array(), high.to_array()];
    array!(|odd| V::load(token, &array!(|i| lanes[(2 * i + odd) / L][(2 * i + odd) % L])))
}

/// The inverse of [`take_apart`].
#[inline(always)]
fn put_together<const L: usize, V: Vector<L>>(token: V::Token, [even, odd]: [V; 2]) -> [V; 2] {
    let lanes = [even.to_array(), odd.to_array()];
    array!(|high| V::load(token, &array!(|i| lanes[(high * L + i) % 2][(high * L + i) / 2])))
}
