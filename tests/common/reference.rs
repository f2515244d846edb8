//! The bits that every back end of a family must compute: `kernel/order.rs`, `kernel/exp.rs` and
//! `kernel/softmax.rs` in plain scalar code.

pub(crate) mod attention;

use sdpa::Family;

use super::grid::Grid;

const LOG2_E: f32 = f32::from_bits(0x3fb8_aa3b);
const HALF_LOG2_E: f32 = f32::from_bits(0x3f38_aa3b);
const LN2: f32 = f32::from_bits(0x3f31_7218);
/// ln 2 as the sum of two floats: for softmax, and for attention in either family.
const NARROW_LN2: [u32; 2] = [0x3f31_7200, 0x35bf_be8e];
const WIDE_LN2_FMA: [u32; 2] = [0x3f31_7218, 0xb102_e308];
const WIDE_LN2_NON_FMA: [u32; 2] = [0x3f31_7000, 0x3805_fdf4];
/// 1.5 · 2²³.
const MAGIC: f32 = f32::from_bits(0x4b40_0000);
/// The coefficients of r⁶ … r².
const C: [u32; 5] = [0x3ab5_63a7, 0x3c09_1ef0, 0x3d2a_ac2c, 0x3e2a_aa46, 0x3eff_fffe];
/// The initial value of the compensated sums of weights: 2⁶⁹.
const SUM_BIAS: f32 = f32::from_bits(196 << 23);
/// 2⁻¹²⁶ plus 4 ULP.
const SMALLEST: f32 = f32::from_bits(0x0080_0004);

/// The reference of one family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference {
    fma: bool,
}

/// The constants of `exp` for a given largest element.
#[derive(Clone, Copy, Debug)]
struct Shift {
    base: f32,
    lowest: f32,
    magic: f32,
    ln2: [f32; 2],
}

impl Reference {
    pub(crate) fn of(family: Family) -> Self {
        Self { fma: family == Family::Fma }
    }

    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        if self.fma { a.mul_add(b, c) } else { a * b + c }
    }

    fn chain(self, pairs: impl Iterator<Item = (f32, f32)>) -> f32 {
        pairs.fold(0.0, |sum, (a, b)| self.mul_add(a, b, sum))
    }

    pub(crate) fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        let mut p = vec![0.0; if self.fma { 64 } else { 4 }];
        for i in 0..a.len().next_multiple_of(p.len()) {
            let [a, b] = [a, b].map(|x| x.get(i).copied().unwrap_or(0.0));
            let i = i % p.len();
            p[i] = self.mul_add(a, b, p[i]);
        }
        fold(p)
    }

    pub(crate) fn project(self, x: &Grid, w: &Grid, bias: Option<&[f32]>) -> Grid {
        Grid::from_fn(x.rows, w.cols, |row, col| {
            let sum = self.chain((0..w.rows).map(|k| (x.at(row, k), w.at(k, col))));
            bias.map_or(sum, |bias| sum + bias[col])
        })
    }

    pub(crate) fn scores(self, keys: &Grid, queries: &Grid, scale: Option<f32>) -> Grid {
        let scale = scale.unwrap_or_else(|| 1.0 / (keys.cols as f32).sqrt());
        Grid::from_fn(keys.rows, queries.rows, |key, query| {
            let pairs = keys.row(key).iter().zip(queries.row(query));
            self.chain(pairs.map(|(&k, &q)| (k, scale * q)))
        })
    }

    pub(crate) fn weighted_sum(self, pattern: &Grid, values: &Grid) -> Grid {
        Grid::from_fn(pattern.cols, values.cols, |query, col| {
            (0..values.rows).step_by(64).fold(0.0, |sum, first| {
                let block = first..values.rows.min(first + 64);
                sum + self.chain(block.map(|key| (pattern.at(key, query), values.at(key, col))))
            })
        })
    }

    pub(crate) fn rotate(
        self,
        x: &[f32],
        cosines: &[f32],
        sines: &[f32],
        interleaved: bool,
    ) -> Vec<f32> {
        let mut out = x.to_vec();
        for (i, (&cosine, &sine)) in cosines.iter().zip(sines).enumerate() {
            let [a, b] = if interleaved { [2 * i, 2 * i + 1] } else { [i, cosines.len() + i] };
            out[a] = self.mul_add(x[a], cosine, -(x[b] * sine));
            out[b] = self.mul_add(x[b], cosine, x[a] * sine);
        }
        out
    }

    pub(crate) fn softmax(self, x: &[f32]) -> Vec<f32> {
        let count = if self.fma { 16 } else { 4 };
        self.softmax_by(x, |weights| {
            let (mut a, mut e) = (vec![SUM_BIAS; count], vec![0.0; count]);
            for round in weights.chunks(if self.fma { 4 } else { 2 } * count) {
                for i in 0..count {
                    let w = |k| round.get(i + k * count).copied().unwrap_or(0.0);
                    let first = w(0) + w(1);
                    let t = a[i] + first;
                    let mut lost = first - (t - a[i]);
                    a[i] = t;
                    if self.fma {
                        let second = w(2) + w(3);
                        a[i] = t + second;
                        lost += second - (a[i] - t);
                    }
                    e[i] += lost;
                }
            }
            fold(a.iter().map(|a| a - SUM_BIAS).collect()) + fold(e)
        })
    }

    pub(crate) fn softmax_rows(self, x: &Grid) -> Grid {
        let rows = (0..x.rows).flat_map(|row| self.softmax(x.row(row)));
        Grid { rows: x.rows, cols: x.cols, data: rows.collect() }
    }

    pub(crate) fn softmax_columns(self, x: &Grid) -> Grid {
        let columns = (0..x.cols).flat_map(|col| self.softmax_of_column(&x.column(col)));
        Grid { rows: x.cols, cols: x.rows, data: columns.collect() }.t()
    }

    fn softmax_of_column(self, x: &[f32]) -> Vec<f32> {
        self.softmax_by(x, |weights| {
            let (mut a, mut e) = (SUM_BIAS, 0.0);
            for w in weights {
                let t = a + w;
                e += w - (t - a);
                a = t;
            }
            (a - SUM_BIAS) + e
        })
    }

    /// Softmax whose weights are summed by `sum`.
    fn softmax_by(self, x: &[f32], sum: impl Fn(&[f32]) -> f32) -> Vec<f32> {
        let mut x = x.to_vec();
        let mut m = x.iter().fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m });
        if m == f32::INFINITY {
            x.iter_mut().for_each(|x| *x = score_under_infinity(*x));
            m = 0.0;
        }
        let shift = self.shift(m);
        let weights: Vec<f32> = x.iter().map(|&x| self.weight(&shift, x)).collect();

        let sum = sum(&weights);
        let factor = if sum > 0.0 { 1.0 / sum } else { sum };
        let cutoff = sum * SMALLEST;
        weights.iter().map(|&w| if w > cutoff { w } else { 0.0 } * factor).collect()
    }

    /// The shift of a whole row or column: weights are scaled by 2⁶³.
    fn shift(self, m: f32) -> Shift {
        self.shift_within(m, 256.0, self.wide_bias() + 63.0, NARROW_LN2)
    }

    /// The shift of blocks of keys: weights are not scaled, and scores may be far from 0.
    fn wide_shift(self, m: f32) -> Shift {
        self.shift_within(
            m,
            1_048_576.0,
            self.wide_bias(),
            if self.fma { WIDE_LN2_FMA } else { WIDE_LN2_NON_FMA },
        )
    }

    /// The exponent field of 1; one less in the FMA family, whose polynomial is twice e^r.
    fn wide_bias(self) -> f32 {
        if self.fma { 126.0 } else { 127.0 }
    }

    fn shift_within(self, m: f32, limit: f32, bias: f32, ln2: [u32; 2]) -> Shift {
        let m = if m > f32::NEG_INFINITY { m } else { 0.0 };
        let base = if (-limit..=limit).contains(&m) { 0.0 } else { m };
        let half = self.mul_add(m - base, HALF_LOG2_E, MAGIC) - MAGIC;
        let n = half + half - bias;
        Shift { base, lowest: n * LN2, magic: MAGIC - n, ln2: ln2.map(f32::from_bits) }
    }

    /// e^(x − base) · 2^−N, times 2⁶³ for [`shift`](Self::shift).
    fn weight(self, shift: &Shift, x: f32) -> f32 {
        let x = x - shift.base;
        let x = if shift.lowest > x { shift.lowest } else { x };
        self.exp(shift, x, self.mul_add(x, LOG2_E, shift.magic), shift.magic)
    }

    /// e^r · 2^k for x = n·ln 2 + r. `t` holds n and k; in the FMA family it holds k − 1.
    fn exp(self, shift: &Shift, x: f32, t: f32, magic: f32) -> f32 {
        let n = t - magic;
        let [high, low] = shift.ln2;
        let r = self.mul_add(n, -high, x);
        let r = self.mul_add(n, -low, r);
        let [first, rest @ ..] = C.map(f32::from_bits);
        let q = rest.iter().fold(first, |q, &c| self.mul_add(q, r, c));
        let p = if self.fma {
            2.0 * self.mul_add(self.mul_add(q, r, 1.0), r, 1.0)
        } else {
            1.0 + (r * r * q + r)
        };
        p * f32::from_bits(t.to_bits() << 23)
    }
}

/// The score used if the largest score is +∞: 0 for +∞, NaN for NaN, −∞ otherwise.
fn score_under_infinity(x: f32) -> f32 {
    match x {
        f32::INFINITY => 0.0,
        _ if x.is_nan() => x,
        _ => f32::NEG_INFINITY,
    }
}

/// Adds the upper half to the lower half until one element is left.
fn fold(mut p: Vec<f32>) -> f32 {
    while p.len() > 1 {
        let upper = p.split_off(p.len() / 2);
        p.iter_mut().zip(upper).for_each(|(lower, upper)| *lower += upper);
    }
    p[0]
}
