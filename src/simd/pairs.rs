//! Pairs of columns: what becomes of one depends on the other, and on two factors.

use super::{
    Vector, array,
    strip::{InOut, Row, gather, load, scatter, store},
};
use crate::matrix::MatrixRef;

/// Writes `f` of the columns of `pair`, of which those with one index belong together, and of the same elements of both
/// `factors`: as many rows and columns as all of them have.
///
/// Columns are read as vectors where they are contiguous, and where those of `pair` alternate; one by one elsewhere.
#[inline(always)]
pub(crate) fn map<const L: usize, V: Vector<L>>(
    token: V::Token,
    pair: [InOut<'_>; 2],
    factors: [MatrixRef<'_>; 2],
    f: impl Fn([V; 2], [V; 2]) -> [V; 2],
) {
    let [mut a, mut b] = pair;
    let [cosines, sines] = factors;
    let shapes = [a.shape(), b.shape(), cosines.shape(), sines.shape()];
    let [rows, cols] = shapes
        .iter()
        .fold([usize::MAX; 2], |[rows, cols], shape| [rows.min(shape.0), cols.min(shape.1)]);
    let strides = [cosines.col_stride(), sines.col_stride()];
    let (contiguous, alternating) = {
        // Where they are adjacent in two rows, they are in all.
        let mut adjacent = |row| {
            let [a, b]: [Row<'_, false>; 2] = [a.row(row), b.row(row)];
            b.from == a.from.wrapping_add(1) && b.to == a.to.wrapping_add(1)
        };
        let adjacent = adjacent(0) && adjacent(1);
        let [a, b]: [Row<'_, false>; 2] = [a.row(0), b.row(0)];
        let pair_strides = [a.from_stride, b.from_stride, a.to_stride, b.to_stride];
        let are = |n| strides == [1; 2] && pair_strides.iter().all(|&stride| stride == n);
        (are(1), are(2) && adjacent)
    };
    for row in 0..rows {
        let [a, b]: [Row<'_, false>; 2] = [a.row(row), b.row(row)];
        let (cosine_at, sine_at) = (cosines.at(row, 0), sines.at(row, 0));
        if contiguous {
            for vector in 0..cols / L {
                let col = vector * L;
                // SAFETY: each row has `L` contiguous lanes from `col` on; they are read before anything is written.
                unsafe {
                    let [x] = load(token, a.from.wrapping_add(col));
                    let [y] = load(token, b.from.wrapping_add(col));
                    let [cosine] = load(token, cosine_at.wrapping_add(col));
                    let [sine] = load(token, sine_at.wrapping_add(col));
                    let [x, y] = f([x, y], [cosine, sine]);
                    store(a.to.wrapping_add(col), [x]);
                    store(b.to.wrapping_add(col), [y]);
                }
            }
            let (rows, lanes) = ([a.from, b.from, cosine_at, sine_at], cols % L);
            if lanes > 0 {
                let col = cols - lanes;
                // SAFETY: as above, with the remaining `lanes`.
                unsafe {
                    let [[x], [y], [cosine], [sine]] =
                        array!(|i| gather(token, rows[i].wrapping_add(col), 1, lanes, 0.0));
                    let [x, y] = f([x, y], [cosine, sine]);
                    scatter(a.to.wrapping_add(col), 1, lanes, [x]);
                    scatter(b.to.wrapping_add(col), 1, lanes, [y]);
                }
            }
            continue;
        }
        let mut col = 0;
        if alternating {
            while cols - col >= L {
                // SAFETY: as above, where the lanes of both columns are `2 * L` contiguous ones.
                unsafe {
                    let pair = take_apart(token, load(token, a.from.wrapping_add(2 * col)));
                    let [cosine] = load(token, cosine_at.wrapping_add(col));
                    let [sine] = load(token, sine_at.wrapping_add(col));
                    let pair = f(pair, [cosine, sine]);
                    store(a.to.wrapping_add(2 * col), put_together(token, pair));
                }
                col += L;
            }
        }
        for col in col..cols {
            // SAFETY: each row has this column, which is read before it is written.
            unsafe {
                let of = |at: *const f32, stride: usize| {
                    V::splat(token, *at.wrapping_add(stride.wrapping_mul(col)))
                };
                let factors = [of(cosine_at, strides[0]), of(sine_at, strides[1])];
                let [x, y] = f([of(a.from, a.from_stride), of(b.from, b.from_stride)], factors);
                *a.to.wrapping_add(a.to_stride.wrapping_mul(col)) = x.to_array()[0];
                *b.to.wrapping_add(b.to_stride.wrapping_mul(col)) = y.to_array()[0];
            }
        }
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
