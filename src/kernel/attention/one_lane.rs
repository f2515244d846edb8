//! One lane: queries by four or alone (by two where size counts), the state of one after the other.
//!
//! The steps and the bits of [`QueryLanes`](super::query_lanes::QueryLanes), for machines without vectors: tiles of
//! four keys by four queries, of which a Cortex-M4F holds all sums in registers, and one text for the
//! state of a query, however many there are. The state lies in the workspace: what a microcontroller
//! has on its stack are views and places.

use core::{ops::Range, slice};

use super::{
    FlashAttention, KEY_BLOCK, LaneLayout, LogSumExpParts, PARTIAL_SUMS, Tile, fold, masked,
    normaliser,
};
use crate::{
    kernel::{
        exp::Shift,
        mask::{Queries, ScoreMod},
        softmax::share_at_infinity,
    },
    matrix::{MatrixMut, MatrixRef},
    simd::{
        Vector, array,
        broadcast::RowQuads,
        scalar::{F32x1, Scalar, mul_add},
        scalar_row::ScalarRow,
    },
};

/// How many queries go together. Where size counts (`small`, see `build.rs`) it is the half: one alone is
/// a pair then, half of which is for nothing, and there is one kind of tile, with few registers to save.
const SIDE: usize = if cfg!(small) { 2 } else { 4 };

/// How many keys or columns of values go together.
const ROWS: usize = 4;

/// How many of `queries` go together: a tile that is half empty costs more than queries alone.
#[inline(always)]
pub(super) fn width(queries: usize) -> usize {
    if cfg!(small) || queries >= SIDE - 1 { SIDE } else { 1 }
}

/// Up to [`width`] queries.
pub(super) struct OneLane<'a> {
    width: usize,
    /// dim × width, scaled.
    packed: &'a mut [f32],
    /// Keys × width.
    scores: &'a mut [f32],
    /// How many keys this block has.
    keys: usize,
    /// Columns of the values × width.
    acc: &'a mut [f32],
    /// Whether that stands for zeros, whatever it holds.
    acc_is_zero: bool,
    /// Of each query.
    states: &'a mut [State],
}

/// The largest score, the sum, what the accumulators are to be multiplied by, and what is kept of the
/// shift.
type State = [f32; 5];

/// How many floats of workspace the state of a query takes.
pub(super) const STATE: usize = size_of::<State>() / size_of::<f32>();

impl<'a> OneLane<'a> {
    /// How long the parts of the workspace are.
    #[inline(always)]
    pub(super) fn lengths(dim: usize, value_dim: usize, queries: usize) -> [usize; 3] {
        let width = width(queries);
        [dim * width, KEY_BLOCK * width, (value_dim + STATE) * width]
    }

    #[inline(always)]
    pub(super) fn new(
        _: Scalar,
        _fused: &FlashAttention<'_>,
        tile: &Tile<'_>,
        [packed, scores, states_and_acc]: [&'a mut [f32]; 3],
    ) -> Self {
        let width = width(tile.visible.len());
        let (states, acc) = states_and_acc.split_at_mut_checked(STATE * width).unwrap_or_default();
        let (states, _) = states.as_chunks_mut();
        Self { width, packed, scores, keys: 0, acc, acc_is_zero: true, states }
    }

    /// Writes the outputs and hands over what log-sum-exps are made of.
    #[inline(always)]
    pub(super) fn finish(&mut self, call: &mut FlashAttention<'_>, tile: &Tile<'_>) {
        if self.acc_is_zero {
            // Sums of nothing.
            product(MatrixRef::EMPTY, &[], self.acc, None, self.width, true);
        }
        // Where the end is not known to be near, a loop is not unrolled.
        for (i, [m, sum, _, base, magic]) in self.states.iter().enumerate().take(tile.visible.len())
        {
            let (head, row) = call.locate(tile.first + i);
            let Some(mut out) = call.out.head_mut(head) else { return };
            let F32x1(factor) = normaliser(Scalar, F32x1(*sum));
            scale(ScalarRow::from_column(self.acc, i, self.width, &mut out, row), factor, false);
            if let Some(take) = &mut call.log_sum_exp {
                let kept = [*base, *magic].map(F32x1);
                let [F32x1(base), F32x1(n)] = Shift::base_and_n(Scalar, kept);
                let base = if *m == f32::INFINITY { *m } else { base };
                take(
                    tile.first + i,
                    LogSumExpParts { base: &[base], n: &[n], sum: slice::from_ref(sum) },
                );
            }
        }
    }
}

/// Multiplies by `factor`, and makes +0 of every zero; not where queries are `packed`: a chain of
/// products begins at +0, and the sign of a zero is lost there.
// One copy of three loops, for both ends of a call.
#[inline(never)]
fn scale(mut line: ScalarRow<'_>, factor: f32, packed: bool) {
    if packed && let Some(mut line) = line.with_steps::<1, SIDE>() {
        line.map_one_by_one::<false>(|x| (F32x1(x) * F32x1(factor)).0);
    } else if let Some(mut line) = line.with_steps::<SIDE, 1>() {
        line.map_one_by_one::<false>(|x| mul_add(x, factor, 0.0));
    } else {
        line.map_one_by_one::<false>(|x| mul_add(x, factor, 0.0));
    }
}

/// [`share_at_infinity`] beside +∞.
// Seldom called: a loop with a call is not unrolled, nor any where size counts.
#[cfg_attr(not(small), inline(never))]
#[cfg_attr(small, inline(always))]
fn share_beside_infinity(x: f32) -> f32 {
    share_at_infinity(Scalar, F32x1(f32::INFINITY), F32x1(x)).0
}

/// Makes weights of the scores of as many queries as there are states, keys × queries, and adds them to
/// their sums.
///
/// Those of [`State::raise`](super::State::raise) are weights too: they go through the loop of the others, before them, and
/// not in the first block, where they are 0.
#[inline(never)]
fn weigh(scores: &mut [f32], states: &mut [State]) {
    for (scores, state) in ScalarRow::columns(scores, states.len()).zip(states) {
        weigh_one(scores, state);
    }
}

#[inline(always)]
fn weigh_one(mut scores: ScalarRow<'_>, state: &mut State) {
    let [before, sum, _, base, magic] = *state;
    let mut m = F32x1(before);
    scores.visit(
        #[inline(always)]
        |x| m = F32x1(x).max(m),
    );
    let mut factor = [0.0];
    let mut is_factor = before > f32::NEG_INFINITY;
    if m.0 == f32::INFINITY {
        scores.map_one_by_one::<false>(share_beside_infinity);
        // What counts for nothing beside +∞ is 0.
        is_factor = false;
        if before == f32::INFINITY {
            factor = [1.0];
        }
    }
    let shift = Shift::new(Scalar, F32x1(if m.0.abs() < f32::INFINITY { m.0 } else { 0.0 }));
    let (mut line, mut now) = (scores, shift);
    if is_factor {
        let (of_factor, F32x1(x)) =
            Shift::factor_as_weight(Scalar, [base, magic].map(F32x1), shift);
        factor = [x];
        (line, now) = (scores.with_single(&mut factor), of_factor);
    }
    let mut parts;
    loop {
        // The next partial sum is the first one, and then all move up by one: where the
        // last move leaves them changes nothing in their fold.
        parts = [F32x1(0.0); PARTIAL_SUMS];
        line.map_one_by_one::<false>(
            #[inline(always)]
            |x| {
                let w = now.weight(Scalar, F32x1(x));
                let [first, second, third, fourth] = parts;
                parts = [second, third, fourth, first + w];
                w.0
            },
        );
        if !core::mem::take(&mut is_factor) {
            break;
        }
        (line, now) = (scores, shift);
    }
    let [factor] = factor;
    let [F32x1(base), F32x1(magic)] = shift.base_and_magic();
    *state = [m.0, mul_add(sum, factor, fold(parts).0), factor, base, magic];
}

/// `to = to · factors + left · right`, with no states without the first term; without what is `marked` by a
/// negative number in `right`. `right` and `to` have rows of `width` floats, `right` any number of them
/// that are not read.
#[inline(never)]
fn product(
    left: MatrixRef<'_>,
    right: &[f32],
    to: &mut [f32],
    states: Option<&[State]>,
    width: usize,
    marked: bool,
) {
    let done = if marked {
        0
    } else if width == SIDE {
        tiles::<SIDE>(left, right, to, states)
    } else {
        tiles::<1>(left, right, to, states)
    };
    if done < to.len() {
        one_by_one(left, right, to, states, width, done, marked);
    }
}

/// Likewise of whole tiles. Gives how many elements that are.
#[inline(always)]
fn tiles<const C: usize>(
    left: MatrixRef<'_>,
    right: &[f32],
    to: &mut [f32],
    states: Option<&[State]>,
) -> usize {
    let mut left = RowQuads::new(left);
    let states = states.and_then(|states| states.first_chunk::<C>());
    let right = right.as_chunks::<C>().0;
    let (tiles, _) = to.as_chunks_mut::<C>().0.as_chunks_mut::<ROWS>();
    let done = tiles.as_flattened().as_flattened().len();
    for to in tiles {
        // Written out, so that sums stay in registers, and on a Cortex-M55 lie in a vector.
        let zeros: [[f32; C]; ROWS] = array!(|_r| array!(|_c| 0.0));
        let sums = left.fold(
            right,
            zeros,
            #[inline(always)]
            |sums, left, right| array!(|r| array!(|c| mul_add(left[r], right[c], sums[r][c]))),
        );
        let Some(sums) = sums else { break };
        *to = match states {
            Some(states) => array!(|r| array!(|c| {
                let [_, _, factor, ..] = states[c];
                mul_add(to[r][c], factor, sums[r][c])
            })),
            None => sums,
        };
    }
    done
}

/// `to = to · factors + left · right`, one element after the other from `done` on; without what is
/// `marked` by a negative number in `right`.
// Here and below a loop with two ways out is one that is never unrolled.
#[inline(always)]
fn one_by_one(
    left: MatrixRef<'_>,
    right: &[f32],
    to: &mut [f32],
    states: Option<&[State]>,
    width: usize,
    done: usize,
    marked: bool,
) {
    let lowest = if marked { 0.0 } else { f32::NEG_INFINITY };
    for (at, to) in to.iter_mut().enumerate().skip(done) {
        let (row, col) = (at / width.max(1), at % width.max(1));
        let mut sum = 0.0;
        for k in 0..left.cols() {
            let weight = right.get(k * width + col);
            let (Some(left), Some(weight)) = (left.get(row, k), weight) else { return };
            if *weight < lowest {
                continue;
            }
            sum = mul_add(left, *weight, sum);
        }
        if let Some([_, _, factor, ..]) = states.and_then(|states| states.get(col)) {
            sum = mul_add(*to, *factor, sum);
        }
        *to = sum;
    }
}

// Called twice, and seldom: one copy, whose registers are out of the frame of the others. So are the next two.
#[inline(never)]
fn score_mod(
    score_mod: &dyn ScoreMod,
    key: usize,
    queries: Queries,
    mask_value: Option<f32>,
    scores: Option<MatrixMut<'_>>,
) {
    if let Some(scores) = scores {
        score_mod.apply(key, queries, mask_value, scores);
    }
}

/// Writes `mark` where a query does not see a key of `scores`, keys × `width`: the first is `first`.
// As bits: no register of floats is saved for it.
#[inline(never)]
fn mask(scores: &mut [f32], width: usize, first: usize, visible: &[Range<usize>], mark: u32) {
    for (i, visible) in visible.iter().enumerate() {
        let (mut at, mut key) = (i, first);
        while let Some(score) = scores.get_mut(at) {
            if !visible.contains(&key) {
                *score = f32::from_bits(mark);
            }
            (at, key) = (at + width, key + 1);
        }
    }
}

/// Whether no value is NaN or infinite.
#[inline(never)]
fn are_finite(values: MatrixRef<'_>) -> bool {
    (0..values.rows()).all(|row| {
        let mut zeros = 0.0;
        for col in 0..values.cols() {
            zeros += values.get(row, col).unwrap_or(0.0) * 0.0;
        }
        zeros == 0.0
    })
}

impl LaneLayout for OneLane<'_> {
    #[inline(always)]
    fn begin(&mut self, call: &FlashAttention<'_>, tile: &Tile<'_>) {
        for (i, state) in self.states.iter_mut().enumerate() {
            // Where that stays, the sum is 0: no shift makes any other of its logarithm than −∞.
            *state = [f32::NEG_INFINITY, 0.0, 0.0, 0.0, 0.0];
            // What is not there is a copy of the last: no one reads what nobody wrote.
            let there = i.min(tile.visible.len().saturating_sub(1));
            let (head, row) = call.locate(tile.first + there);
            let mut sink = [call.sinks.get(head).copied().unwrap_or(call.sink)];
            if sink > [f32::NEG_INFINITY] {
                weigh(&mut sink, slice::from_mut(state));
            }
            let queries = call.queries.head(head).unwrap_or(MatrixRef::EMPTY);
            scale(
                ScalarRow::into_column(queries, row, self.packed, i, self.width),
                call.scale,
                true,
            );
        }
    }

    #[inline(always)]
    fn score(&mut self, keys: MatrixRef<'_>, _next: MatrixRef<'_>) {
        self.keys = keys.rows();
        let scores = self.scores.get_mut(..self.keys * self.width).unwrap_or_default();
        product(keys, self.packed, scores, None, self.width, false);
    }

    #[inline(always)]
    fn grid(&mut self) -> Option<MatrixMut<'_>> {
        MatrixMut::new(self.scores, self.keys, self.width).ok()
    }

    #[inline(always)]
    fn score_mod(
        &mut self,
        of: &dyn ScoreMod,
        key: usize,
        queries: Queries,
        mask_value: Option<f32>,
    ) {
        score_mod(of, key, queries, mask_value, self.grid());
    }

    #[inline(always)]
    fn mask(&mut self, first: usize, visible: &[Range<usize>], weights: bool) {
        let scores = self.scores.get_mut(..self.keys * self.width).unwrap_or_default();
        mask(scores, self.width, first, visible, masked(weights).to_bits());
    }

    #[inline(always)]
    fn weigh(&mut self) {
        let scores = self.scores.get_mut(..self.keys * self.width).unwrap_or_default();
        weigh(scores, self.states);
    }

    #[inline(always)]
    fn add(&mut self, values: MatrixRef<'_>, _next: MatrixRef<'_>) {
        let states = (!core::mem::take(&mut self.acc_is_zero)).then_some(&*self.states);
        product(values.t(), self.scores, self.acc, states, self.width, false);
    }

    #[inline(always)]
    fn add_visible(&mut self, values: MatrixRef<'_>) {
        let states = (!core::mem::take(&mut self.acc_is_zero)).then_some(&*self.states);
        product(values.t(), self.scores, self.acc, states, self.width, true);
    }

    #[inline(always)]
    fn are_finite(&self, values: MatrixRef<'_>) -> bool {
        are_finite(values)
    }
}
