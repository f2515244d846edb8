//! One lane: tiles of four queries or of one (of two if compiled for size), for machines without vectors.
//!
//! The steps and the bits are those of [`QueryLanes`](super::query_lanes::QueryLanes). Tiles are four keys by
//! four queries: a Cortex-M4F holds all their sums in registers. The states of the queries are updated one
//! after another, by one copy of the code. They are in the workspace, so that the stack of a
//! microcontroller holds only views and indices.

use core::{ops::Range, slice};

use super::{
    FlashAttention, KEY_BLOCK, LaneLayout, PARTIAL_SUMS, Sums, Tile, fold, masked_fill, normaliser,
};
use crate::{
    kernel::{
        blocks::{AnyRows, Block, Elements, Widened},
        exp::Shift,
        mask::{Queries, ScoreMod},
        softmax::share_at_infinity,
    },
    matrix::{MatrixMut, MatrixRef},
    simd::{
        Load, Vector, array,
        broadcast::RowQuads,
        scalar::{F32x1, Scalar, mul_add},
        scalar_row::ScalarRow,
    },
};

/// The number of queries in a tile. If compiled for size (`small`, see `build.rs`) it is 2, and a single
/// query is computed as a pair of which half is discarded. One kind of tile is enough then, and it has few
/// registers to save.
const TILE_QUERIES: usize = if cfg!(small) { 2 } else { 4 };

/// The number of keys, or of value columns, in a tile.
const TILE_ROWS: usize = 4;

/// The width of the next tile, if `queries` are left: two of four queries in a tile would cost more than two
/// tiles of one.
#[inline(always)]
pub(super) fn width(queries: usize) -> usize {
    if cfg!(small) || queries >= TILE_QUERIES - 1 { TILE_QUERIES } else { 1 }
}

/// A tile of up to [`width`] queries.
pub(super) struct OneLane<'a> {
    width: usize,
    /// The scaled queries: dim × width.
    packed: &'a mut [f32],
    /// Keys × width.
    scores: &'a mut [f32],
    /// The number of keys in this block.
    keys: usize,
    /// Value columns × width.
    acc: &'a mut [f32],
    /// Whether the accumulators are 0; their memory is not yet written then.
    acc_is_zero: bool,
    /// One per query.
    states: &'a mut [State],
    /// Whether there is a total of states before.
    has_total: bool,
}

/// The online-softmax state of a query: running maximum, sum of weights, the factor that rescales the
/// accumulators, and [`Shift::base_and_magic`]; then maximum and sum of the total of the states before, whose
/// accumulators are in the output.
type State = [f32; 7];

/// The number of floats of workspace for the state of a query.
pub(super) const STATE_FLOATS: usize = size_of::<State>() / size_of::<f32>();

/// Maximum and sum before the first key. The shift is not read then.
const EMPTY: [f32; 2] = [f32::NEG_INFINITY, 0.0];

impl<'a> OneLane<'a> {
    /// The lengths of the workspace's parts.
    #[inline(always)]
    pub(super) fn lengths(dim: usize, value_dim: usize, queries: usize) -> [usize; 3] {
        let width = width(queries);
        [dim * width, KEY_BLOCK * width, (value_dim + STATE_FLOATS) * width]
    }

    #[inline(always)]
    pub(super) fn new(
        _: Scalar,
        _attention: &FlashAttention<'_, '_>,
        tile: &Tile<'_>,
        [packed, scores, states_and_acc]: [&'a mut [f32]; 3],
    ) -> Self {
        let width = width(tile.visible.len());
        let (states, acc) =
            states_and_acc.split_at_mut_checked(STATE_FLOATS * width).unwrap_or_default();
        let (states, _) = states.as_chunks_mut();
        Self { width, packed, scores, keys: 0, acc, acc_is_zero: true, states, has_total: false }
    }

    /// See [`LaneLayout::end_span`].
    #[inline(always)]
    fn join_and_write(
        &mut self,
        attention: &mut FlashAttention<'_, '_>,
        tile: &Tile<'_>,
        last: bool,
    ) {
        if self.acc_is_zero {
            // Empty sums: writes zeros.
            product::<f32>(MatrixRef::EMPTY, &[], self.acc, None, self.width, true);
        }
        let normalise = last && attention.normalise;
        let is_single = normalise && !self.has_total;
        // `take` hides from the compiler that there are at most four queries: it would unroll a short loop.
        for (i, state) in self.states.iter_mut().enumerate().take(tile.visible.len()) {
            let (head, row) = attention.locate(tile.first + i);
            let Some(mut out) = attention.out.head_mut(head) else { return };
            let mut line = ScalarRow::from_column(self.acc, i, self.width, &mut out, row);
            let divisor = if is_single {
                state[1]
            } else {
                add_to_total(state, &mut line, self.has_total, normalise)
            };
            scale(line, divisor, false);
            if last && let Some(write) = &mut attention.sums {
                let [max, sum, _, _, _, total_max, total_sum] = state;
                let (max, sum) = if is_single { (max, sum) } else { (total_max, total_sum) };
                let (max, sum) = (slice::from_ref(max), slice::from_ref(sum));
                write(tile.first + i, Sums { max, sum });
            }
        }
        (self.has_total, self.acc_is_zero) = (true, true);
    }
}

/// Ends a span for one query: its state, [`join`]ed with the total if there is one, becomes the total, and a new state
/// begins. Returns the divisor of the accumulators: the sum if `normalise`, else 1.
// Not inlined: most calls have a single span without a sink, and need no registers for this.
#[cold]
#[inline(never)]
fn add_to_total(
    state: &mut State,
    line: &mut ScalarRow<'_>,
    has_total: bool,
    normalise: bool,
) -> f32 {
    if has_total {
        join(state, line);
    }
    let [m, sum, ..] = *state;
    [state[0], state[1]] = EMPTY;
    [state[5], state[6]] = [m, sum];
    if normalise { sum } else { 1.0 }
}

/// Joins the total with the state of a span, and the accumulators of the total, in the output, with those of the
/// span, the input. The output becomes the input.
///
/// One of two factors is 1. As products are rounded in this family, both states can be multiplied.
#[inline(always)]
fn join(state: &mut State, line: &mut ScalarRow<'_>) {
    let [m, sum, _, _, _, total_m, total_sum] = *state;
    let is_span_larger = m > total_m;
    let (lesser, larger) = if is_span_larger { (total_m, m) } else { (m, total_m) };
    state[0] = f32::NEG_INFINITY;
    // Scores in this order: the second one rescales the weight of the first by the factor.
    weigh(&mut [lesser], slice::from_mut(state));
    weigh(&mut [larger], slice::from_mut(state));
    let factor = state[2];
    let factors = if is_span_larger { [1.0, factor] } else { [factor, 1.0] };
    state[1] = line.join(sum, total_sum, factors);
}

/// Multiplies a row by `by` if queries are `packed`, else by the [`normaliser`] of `by`, and turns −0 into +0. When
/// queries are packed it keeps −0, which does not matter: a score's chain begins at +0 and loses the sign.
// Not inlined: packing and the final scaling share one copy of the three loops. The normaliser is computed here,
// so that the caller saves no register for its constants.
#[inline(never)]
fn scale(mut line: ScalarRow<'_>, by: f32, packed: bool) {
    let factor = if packed { by } else { normaliser(Scalar, F32x1(by)).0 };
    if packed && let Some(mut line) = line.with_steps::<1, TILE_QUERIES>() {
        line.map_one_by_one::<false>(|x| (F32x1(x) * F32x1(factor)).0);
    } else if let Some(mut line) = line.with_steps::<TILE_QUERIES, 1>() {
        line.map_one_by_one::<false>(|x| mul_add(x, factor, 0.0));
    } else {
        line.map_one_by_one::<false>(|x| mul_add(x, factor, 0.0));
    }
}

/// [`share_at_infinity`] for a maximum of +∞.
// Seldom called, hence not inlined: the compiler does not unroll a loop around a call. If compiled for size
// it unrolls no loop.
#[cfg_attr(not(small), inline(never))]
#[cfg_attr(small, inline(always))]
fn share_if_infinite(x: f32) -> f32 {
    share_at_infinity(Scalar, F32x1(f32::INFINITY), F32x1(x)).0
}

/// Turns the scores (keys × queries, a query per state) into weights and adds them to the sums of the states.
///
/// The rescale factors of [`State::raise_maximum`](super::State::raise_maximum) are weights too. The same
/// loop computes the factor first, except in the first block, where it is 0.
#[inline(never)]
fn weigh(scores: &mut [f32], states: &mut [State]) {
    for (scores, state) in ScalarRow::columns(scores, states.len()).zip(states) {
        weigh_one(scores, state);
    }
}

#[inline(always)]
fn weigh_one(mut scores: ScalarRow<'_>, state: &mut State) {
    let [before, sum, _, base, magic, ..] = *state;
    let mut m = F32x1(before);
    scores.visit(
        #[inline(always)]
        |x| m = F32x1(x).max(m),
    );
    let mut factor = [0.0];
    let mut is_factor = before > f32::NEG_INFINITY;
    if m.0 == f32::INFINITY {
        scores.map_one_by_one::<false>(share_if_infinite);
        // Finite scores have no weight beside +∞: the first +∞ resets the sums, a later one keeps them.
        is_factor = false;
        if before == f32::INFINITY {
            factor = [1.0];
        }
    }
    let shift = Shift::new(Scalar, F32x1(if m.0.abs() < f32::INFINITY { m.0 } else { 0.0 }));
    let (mut line, mut now) = (scores, shift);
    if is_factor {
        let (factor_shift, F32x1(x)) =
            Shift::factor_as_weight(Scalar, [base, magic].map(F32x1), shift);
        factor = [x];
        (line, now) = (scores.with_single(&mut factor), factor_shift);
    }
    let mut partial_sums;
    loop {
        // A weight goes to the first partial sum, then all four rotate. A remainder leaves them rotated,
        // which changes no bit of their fold.
        partial_sums = [F32x1(0.0); PARTIAL_SUMS];
        line.map_one_by_one::<false>(
            #[inline(always)]
            |x| {
                let w = now.weight(Scalar, F32x1(x));
                let [first, second, third, fourth] = partial_sums;
                partial_sums = [second, third, fourth, first + w];
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
    let sum = mul_add(sum, factor, fold(partial_sums).0);
    [state[0], state[1], state[2], state[3], state[4]] = [m.0, sum, factor, base, magic];
}

/// `to = to · factors + left · right`, or `to = left · right` without states. `right` and `to` have rows of
/// `width` floats; `right` may have more rows than are read. With `skip_negative`, the products of negative
/// elements of `right` are skipped: masked weights.
#[inline(never)]
fn product<E: Load>(
    left: MatrixRef<'_, E>,
    right: &[f32],
    to: &mut [f32],
    states: Option<&[State]>,
    width: usize,
    skip_negative: bool,
) {
    let done = if skip_negative {
        0
    } else if width == TILE_QUERIES {
        tiles::<TILE_QUERIES, E>(left, right, to, states)
    } else {
        tiles::<1, E>(left, right, to, states)
    };
    if done < to.len() {
        one_by_one(left, right, to, states, width, done, skip_negative);
    }
}

/// [`product`] of rows of any element, or of their columns.
#[inline(always)]
fn product_of(
    left: AnyRows<'_>,
    is_transposed: bool,
    right: &[f32],
    to: &mut [f32],
    states: Option<&[State]>,
    width: usize,
    skip_negative: bool,
) {
    macro_rules! product {
        ($left:ident) => {{
            let left = if is_transposed { $left.t() } else { $left };
            product(left, right, to, states, width, skip_negative)
        }};
    }
    match left {
        AnyRows::F32(left) => product!(left),
        AnyRows::F16(left) => product!(left),
        AnyRows::Bf16(left) => product!(left),
        AnyRows::I8(left) => product!(left),
    }
}

/// [`product`] for the whole tiles of `to`. Returns the number of elements in them.
#[inline(always)]
fn tiles<const C: usize, E: Load>(
    left: MatrixRef<'_, E>,
    right: &[f32],
    to: &mut [f32],
    states: Option<&[State]>,
) -> usize {
    let mut left = RowQuads::new(left);
    let states = states.and_then(|states| states.first_chunk::<C>());
    let right = right.as_chunks::<C>().0;
    let (tiles, _) = to.as_chunks_mut::<C>().0.as_chunks_mut::<TILE_ROWS>();
    let done = tiles.as_flattened().as_flattened().len();
    for to in tiles {
        // Unrolled, so that the sums stay in registers, and on a Cortex-M55 in a vector.
        let zeros: [[f32; C]; TILE_ROWS] = array!(|_r| array!(|_c| 0.0));
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

/// [`product`] for the elements of `to` from `done` on, one at a time.
// Here and below, a loop with two exits is one that the compiler never unrolls.
#[inline(always)]
fn one_by_one<E: Load>(
    left: MatrixRef<'_, E>,
    right: &[f32],
    to: &mut [f32],
    states: Option<&[State]>,
    width: usize,
    done: usize,
    skip_negative: bool,
) {
    let lowest = if skip_negative { 0.0 } else { f32::NEG_INFINITY };
    for (at, to) in to.iter_mut().enumerate().skip(done) {
        let (row, col) = (at / width.max(1), at % width.max(1));
        let mut sum = 0.0;
        for k in 0..left.cols() {
            let weight = right.get(k * width + col);
            let (Some(left), Some(weight)) = (left.get(row, k), weight) else { return };
            if *weight < lowest {
                continue;
            }
            sum = mul_add(left.widen(), *weight, sum);
        }
        if let Some([_, _, factor, ..]) = states.and_then(|states| states.get(col)) {
            sum = mul_add(*to, *factor, sum);
        }
        *to = sum;
    }
}

// This and the next two functions are seldom called, and not inlined: one copy each, and the registers they
// save do not enlarge the frame of the caller.
#[inline(never)]
fn score_mod(
    score_mod: &dyn ScoreMod,
    key: usize,
    queries: Queries,
    fill: Option<f32>,
    scores: Option<MatrixMut<'_>>,
) {
    if let Some(scores) = scores {
        score_mod.apply(key, queries, fill, scores);
    }
}

/// Writes `fill` to the scores (keys × `width`) of keys that are not visible to their query. The first key is
/// `first`; keys before `end_of_kept` are visible before the start of a range too.
// `fill` is passed as bits, so that no float register is saved for it.
#[inline(never)]
fn mask(
    scores: &mut [f32],
    width: usize,
    first: usize,
    visible: &[Range<usize>],
    end_of_kept: usize,
    fill: u32,
) {
    for (i, visible) in visible.iter().enumerate() {
        let (mut at, mut key) = (i, first);
        while let Some(score) = scores.get_mut(at) {
            if (end_of_kept..visible.start).contains(&key) || key >= visible.end {
                *score = f32::from_bits(fill);
            }
            (at, key) = (at + width, key + 1);
        }
    }
}

/// Whether no value is NaN or infinite.
#[inline(never)]
fn are_finite(values: MatrixRef<'_>) -> bool {
    (0..values.rows())
        .all(|row| (0..values.cols()).all(|col| values.get(row, col).is_some_and(f32::is_finite)))
}

impl LaneLayout for OneLane<'_> {
    #[inline(always)]
    fn begin(&mut self, attention: &FlashAttention<'_, '_>, tile: &Tile<'_>) {
        for (i, state) in self.states.iter_mut().enumerate() {
            // Stays if no key is visible.
            [state[0], state[1]] = EMPTY;
            // A lane without a query packs a copy of the last query, so that no unwritten memory is read.
            let query = i.min(tile.visible.len().saturating_sub(1));
            let (head, row) = attention.locate(tile.first + query);
            let mut sink = [attention.sinks.get(head).copied().unwrap_or(attention.sink)];
            if sink > [f32::NEG_INFINITY] {
                weigh(&mut sink, slice::from_mut(state));
            }
            let queries = attention.queries.head(head).unwrap_or(MatrixRef::EMPTY);
            scale(
                ScalarRow::into_column(queries, row, self.packed, i, self.width),
                attention.scale,
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
    fn scores_mut(&mut self) -> Option<MatrixMut<'_>> {
        MatrixMut::new(self.scores, self.keys, self.width).ok()
    }

    #[inline(always)]
    fn score_mod(&mut self, of: &dyn ScoreMod, key: usize, queries: Queries, fill: Option<f32>) {
        score_mod(of, key, queries, fill, self.scores_mut());
    }

    #[inline(always)]
    fn mask(&mut self, first: usize, visible: &[Range<usize>], end_of_kept: usize, weights: bool) {
        let scores = self.scores.get_mut(..self.keys * self.width).unwrap_or_default();
        let fill = masked_fill(weights).to_bits();
        mask(scores, self.width, first, visible, end_of_kept, fill);
    }

    #[inline(always)]
    fn weigh(&mut self) {
        let scores = self.scores.get_mut(..self.keys * self.width).unwrap_or_default();
        weigh(scores, self.states);
    }

    #[inline(always)]
    fn add_values(&mut self, values: MatrixRef<'_>, _next: MatrixRef<'_>) {
        let states = (!core::mem::take(&mut self.acc_is_zero)).then_some(&*self.states);
        product(values.t(), self.scores, self.acc, states, self.width, false);
    }

    #[inline(always)]
    fn add_visible_values(&mut self, values: MatrixRef<'_>) {
        let states = (!core::mem::take(&mut self.acc_is_zero)).then_some(&*self.states);
        product(values.t(), self.scores, self.acc, states, self.width, true);
    }

    #[inline(always)]
    fn are_finite(&self, values: MatrixRef<'_>) -> bool {
        are_finite(values)
    }

    // Elements are widened where they are loaded.

    #[inline(always)]
    fn score_elements(
        &mut self,
        elements: &impl Elements,
        block: Block,
        _: Option<[AnyRows<'_>; 3]>,
        _: &mut Widened<'_>,
    ) {
        self.keys = block.count;
        let scores = self.scores.get_mut(..self.keys * self.width).unwrap_or_default();
        let Some([keys, _]) = elements.any(block) else { return };
        product_of(keys, false, self.packed, scores, None, self.width, false);
    }

    #[inline(always)]
    fn add_elements(
        &mut self,
        elements: &impl Elements,
        block: Block,
        _: Option<[AnyRows<'_>; 3]>,
        all: bool,
        _: &mut Widened<'_>,
    ) {
        let states = (!core::mem::take(&mut self.acc_is_zero)).then_some(&*self.states);
        let Some([_, values]) = elements.any(block) else { return };
        product_of(values, true, self.scores, self.acc, states, self.width, !all);
    }

    #[inline(always)]
    fn end_span(&mut self, attention: &mut FlashAttention<'_, '_>, tile: &Tile<'_>, last: bool) {
        self.join_and_write(attention, tile, last);
    }
}
