//! The section "Attention: blocks of keys" of `kernel/order.rs` in plain scalar code.

use super::super::{grid::Grid, options::Options};
use super::{Reference, Shift, score_under_infinity};

const BLOCK: usize = 64;
const SPAN: usize = 1024;

/// The results of one head.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) out: Grid,
    pub(crate) log_sum_exp: Vec<f32>,
}

/// Values, and the scale of each row.
struct Values<'a> {
    rows: &'a Grid,
    scales: Option<&'a [f32]>,
}

/// The state of one query after some blocks or spans: running maximum, sum of weights, output accumulators.
#[derive(Clone)]
struct State {
    m: f32,
    shift: Shift,
    sum: f32,
    acc: Vec<f32>,
}

impl Reference {
    pub(crate) fn attention(self, options: &Options, head: usize, grids: [&Grid; 3]) -> Answer {
        self.attention_with_scales(options, head, grids, [None; 2])
    }

    /// Attention whose keys and values are multiplied by scales, one for each key.
    pub(crate) fn attention_with_scales(
        self,
        options: &Options,
        head: usize,
        [queries, keys, values]: [&Grid; 3],
        [of_keys, of_values]: [Option<&[f32]>; 2],
    ) -> Answer {
        let options = &options.of_head(head);
        let scores = self.adjusted_scores(options, queries, keys, of_keys);
        let values = &Values { rows: values, scales: of_values };
        let mut out = Grid::zeros(queries.rows, values.rows.cols);
        let mut log_sum_exp = Vec::new();
        for token in 0..queries.rows {
            let sees = |key| options.sees(key, token);
            let state = self.walk(options.sink(0), &scores.column(token), &sees, values);
            let factor = if state.sum > 0.0 { 1.0 / state.sum } else { state.sum };
            for (out, acc) in out.data[token * values.rows.cols..].iter_mut().zip(&state.acc) {
                *out = self.mul_add(*acc, factor, 0.0);
            }
            log_sum_exp.push(self.log_sum_exp(&state));
        }
        Answer { out, log_sum_exp }
    }

    /// Joins the sink and all spans in which the query sees a key.
    fn walk(
        self,
        sink: f32,
        scores: &[f32],
        sees: &dyn Fn(usize) -> bool,
        values: &Values<'_>,
    ) -> State {
        let empty = |m| {
            let shift = self.wide_shift(m);
            State { m, shift, sum: self.weight(&shift, m), acc: vec![0.0; values.rows.cols] }
        };
        let mut total = empty(sink);
        for first in (0..scores.len()).step_by(SPAN) {
            let mut state = empty(f32::NEG_INFINITY);
            let mut is_visible = false;
            for first in (first..scores.len().min(first + SPAN)).step_by(BLOCK) {
                let keys: Vec<usize> =
                    (first..scores.len().min(first + BLOCK)).filter(|&key| sees(key)).collect();
                if !keys.is_empty() {
                    self.step(&mut state, scores, &keys, values);
                    is_visible = true;
                }
            }
            if is_visible {
                total = self.join(total, state);
            }
        }
        total
    }

    /// Adds the lesser of two states, rescaled, to the larger.
    fn join(self, total: State, span: State) -> State {
        let (lesser, mut larger) = if span.m > total.m { (total, span) } else { (span, total) };
        let factor = match (lesser.m, larger.m) {
            (f32::NEG_INFINITY, _) => 0.0,
            (f32::INFINITY, _) => 1.0,
            (_, f32::INFINITY) => 0.0,
            _ => self.factor(&lesser.shift, &larger.shift),
        };
        larger.sum = self.mul_add(lesser.sum, factor, larger.sum);
        for (acc, lesser) in larger.acc.iter_mut().zip(lesser.acc) {
            *acc = self.mul_add(lesser, factor, *acc);
        }
        larger
    }

    /// Processes one block, in which the query sees `keys`.
    fn step(self, state: &mut State, scores: &[f32], keys: &[usize], values: &Values<'_>) {
        let m = keys.iter().fold(state.m, |m, &key| if scores[key] > m { scores[key] } else { m });
        let is_infinite = m == f32::INFINITY;
        let shift = self.wide_shift(if is_infinite { 0.0 } else { m });
        let factor = match state.m {
            f32::NEG_INFINITY => 0.0,
            f32::INFINITY => 1.0,
            _ if is_infinite => 0.0,
            _ => self.factor(&state.shift, &shift),
        };
        let mut parts = [0.0; 4];
        let mut sums = vec![0.0; values.rows.cols];
        for &key in keys {
            let score = if is_infinite { score_under_infinity(scores[key]) } else { scores[key] };
            let weight = self.weight(&shift, score);
            parts[key % BLOCK % 4] += weight;
            let scaled = values.scales.map_or(weight, |scales| weight * scales[key]);
            for (sum, &value) in sums.iter_mut().zip(values.rows.row(key)) {
                *sum = self.mul_add(scaled, value, *sum);
            }
        }
        let [first, second, third, fourth] = parts;
        let sum = (first + third) + (second + fourth);
        state.sum = self.mul_add(state.sum, factor, sum);
        for (acc, sum) in state.acc.iter_mut().zip(sums) {
            *acc = self.mul_add(*acc, factor, sum);
        }
        state.m = m;
        state.shift = shift;
    }

    /// The rescale factor from one shift to another: 2^(N of `from` − N of `to`), times e^(difference of the
    /// bases).
    fn factor(self, from: &Shift, to: &Shift) -> f32 {
        let k = to.magic - from.magic + self.wide_bias();
        let (lowest, x) = (0.0 - k * super::LN2, from.base - to.base);
        let x = if lowest > x { lowest } else { x };
        let magic = super::MAGIC + k;
        self.exp(from, x, self.mul_add(x, super::LOG2_E, magic), magic)
    }

    fn log_sum_exp(self, state: &State) -> f32 {
        let infinite = if state.m == f32::INFINITY { state.m } else { 0.0 };
        let base = state.shift.base + infinite;
        let n = super::MAGIC - state.shift.magic + self.wide_bias();
        base + self.ln(state.sum, n)
    }

    /// `Attention::scores`, with −∞ where masked.
    pub(crate) fn masked_scores(self, options: &Options, queries: &Grid, keys: &Grid) -> Grid {
        let scores = self.adjusted_scores(options, queries, keys, None);
        Grid::from_fn(keys.rows, queries.rows, |key, token| {
            if options.sees(key, token) { scores.at(key, token) } else { f32::NEG_INFINITY }
        })
    }

    /// `Attention::pattern`: the softmax of every column and the sink behind it.
    pub(crate) fn pattern(self, options: &Options, queries: &Grid, keys: &Grid) -> Grid {
        let mut grid = self.masked_scores(options, queries, keys);
        for token in 0..queries.rows {
            let mut column = grid.column(token);
            column.push(options.sink(0));
            let weights = self.softmax_of_column(&column);
            for (key, &weight) in weights.iter().enumerate().take(keys.rows) {
                let seen = options.sees(key, token);
                grid.data[key * queries.rows + token] = if seen { weight } else { 0.0 };
            }
        }
        grid
    }

    /// The scores of head 0 after the scales of keys, softcap, bias and slopes, before masks.
    fn adjusted_scores(
        self,
        options: &Options,
        queries: &Grid,
        keys: &Grid,
        scales: Option<&[f32]>,
    ) -> Grid {
        let scores = self.scores(keys, queries, options.scale);
        Grid::from_fn(keys.rows, queries.rows, |key, token| {
            let mut score = scores.at(key, token);
            if let Some(scales) = scales {
                score *= scales[key];
            }
            if options.softcap != 0.0 {
                score = options.softcap * self.tanh(score / options.softcap);
            }
            if let Some(bias) = &options.bias {
                score += bias.at(key, token);
            }
            match options.slopes[..] {
                [slope, ..] => self.mul_add(options.distance(key, token), -slope, score),
                [] => score,
            }
        })
    }

    /// `kernel/tanh.rs`.
    fn tanh(self, x: f32) -> f32 {
        const C: [u32; 5] = [0xbbba_8671, 0x3ca8_fc67, 0xbd5c_1ad2, 0x3e08_837b, 0xbeaa_aa99];
        let magnitude = x.abs();
        if magnitude > 0.625 {
            let y = if magnitude > 10.0 { 10.0 } else { magnitude };
            let magic = super::MAGIC + self.wide_bias();
            let t = self.mul_add(y + y, super::LOG2_E, magic);
            let power = self.exp(&self.shift(0.0), y + y, t, magic);
            let large = 1.0 - 2.0 / (power + 1.0);
            return if x < 0.0 { 0.0 - large } else { large };
        }
        let square = x * x;
        let [first, rest @ ..] = C.map(f32::from_bits);
        let p = rest.iter().fold(first, |p, &c| self.mul_add(p, square, c));
        x * self.mul_add(p, square, 1.0)
    }

    /// `kernel/ln.rs`: ln (x · 2^n).
    fn ln(self, x: f32, n: f32) -> f32 {
        const R: [u32; 3] = [0x3e98_f01d, 0x3ecc_af6c, 0x3f2a_aabd];
        match x {
            _ if x.is_nan() || x == f32::INFINITY => return x,
            _ if x < f32::MIN_POSITIVE => return f32::NEG_INFINITY,
            _ => {}
        }
        let [high, low] = super::NARROW_LN2.map(f32::from_bits);
        let k = x.to_bits().wrapping_sub(0x3f35_04f4).cast_signed() >> 23;
        let m = f32::from_bits(x.to_bits().wrapping_sub(k.cast_unsigned() << 23));
        let (e, f) = (n + k as f32, m - 1.0);
        let s = f / (f + 2.0);
        let z = s * s;
        let [r6, r4, r2] = R.map(f32::from_bits);
        let r = self.mul_add(self.mul_add(r6, z, r4), z, r2) * z;
        let half_square = 0.5 * f * f;
        let rest = self.mul_add(e, low, s * (half_square + r));
        self.mul_add(e, high, f - (half_square - rest))
    }
}
