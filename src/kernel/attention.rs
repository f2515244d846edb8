//! Attention without a score grid: an online softmax over blocks of keys (FlashAttention).
//!
//! ```text
//! for each tile of queries
//!   total = the sink or nothing
//!   for each span of keys
//!     m = −∞, sum, acc = 0
//!     for each block of the span that is visible to at least one of the queries
//!       s = key · (scale · query)
//!       s = softcap, bias, masks of s: −∞ where masked
//!       m' = max(m, s),  f = e^(m − m'), a power of two
//!       w = e^(s − m')
//!       sum = sum · f + Σ w
//!       acc = acc · f + Σ w · value
//!     total = the lesser of total and (m, sum, acc), rescaled, + the larger
//!   out = acc / sum of the total
//! ```
//!
//! Both products are [`tile`](super::tile)s. The number of queries in a tile decides what the lanes of
//! a vector hold:
//!
//! | module | queries | lanes of the scores | lanes of the outputs |
//! | --- | --- | --- | --- |
//! | [`query_lanes`] | more than half a vector | queries | queries |
//! | [`half_vector`] | half a vector, or fewer but more than `R` | queries | value columns |
//! | [`key_lanes`] | 1, or up to `R` and less than half a vector | keys | value columns |
//! | [`one_lane`] | up to 4, on a back end of one lane | one query | one query |
//!
//! With queries in the lanes no step folds a vector; with few queries most of those lanes would be empty.
//! All layouts produce the same bits.
//!
//! 1. `f` is a power of two, because the shift of the exponentials is a whole number
//!    ([`exp`](super::exp)): the rescale rounds nothing.
//! 2. The sums of a block begin at 0 and are then added to the total. This shortens the chains, and
//!    the same multiply-add does the rescale. [`order`](super::order) defines the order.
//! 3. In each lane a masked key leaves the bits of `m`, `sum` and `acc` unchanged, so a block that
//!    no query sees can be skipped. The one difference would be the sign of a zero, and the
//!    last step turns a sum of −0 into +0.
//! 4. A masked weight is 0, and 0 times a value that is NaN or infinite is NaN. Where a partly masked block
//!    contains such a value, masked weights are set to −1 and their products are skipped one by one.
//! 5. As soon as a score is +∞, the weights of its query are 1 for the scores of +∞ and 0 for all
//!    others, in this and every later block.
//! 6. The accumulators of the total are in the output, whose rows are read only once they are written. The
//!    state of a single span becomes the output directly.
//! 7. Keys and values that are not floats are widened block by block, for up to [`GROUP`] tiles of two vectors of queries
//!    at a time: with one tile at a time this would take a tenth of the time of the products.

use core::ops::Range;

use heapless::Vec;

use super::{
    Kernel, Name,
    blocks::{AnyElements, AnyRows, Block, Blocks, Data, Elements, Widened},
    mask::{KEY_BLOCK, Queries, ScoreMod, VisibleKeys},
    tile::ONE_VECTOR_ROWS,
};
use crate::{
    matrix::{HeadsMut, HeadsRef, MatrixMut, MatrixRef},
    simd::{Vector, array, scalar::Scalar, strip},
};
use half_vector::HalfVector;
use key_lanes::KeyLanes;
use one_lane::OneLane;
use query_lanes::QueryLanes;
use state::{Join, State, States, normaliser};

mod half_vector;
pub(crate) mod join;
mod key_lanes;
mod one_lane;
mod outputs;
mod query_lanes;
mod query_scores;
mod state;

/// Whether the target has no vectors: one lane is the only back end.
const IS_MICROCONTROLLER: bool = cfg!(microcontroller);

/// The maximum number of queries in a tile: 2 vectors of the target's widest back end.
const QUERY_BLOCK: usize = if IS_MICROCONTROLLER { 4 } else { 32 };

/// The maximum number of tiles of two vectors that share widened keys and values.
const GROUP: usize = if IS_MICROCONTROLLER { 1 } else { 4 };

/// The workspace for heads of these sizes, in floats: scaled queries, the scores of a block,
/// accumulators, and on a microcontroller the state of each query. On other targets the one-lane back end
/// needs no extra floats for that state: its tiles are smaller than those that this size is for.
pub(crate) const fn workspace(dim: usize, value_dim: usize) -> usize {
    let state = if IS_MICROCONTROLLER { one_lane::STATE_FLOATS } else { 0 };
    dim.saturating_add(value_dim).saturating_add(KEY_BLOCK + state).saturating_mul(QUERY_BLOCK)
}

/// The workspace of a call over elements, without [`widened`]: that of a group.
pub(crate) const fn group_workspace(dim: usize, value_dim: usize) -> usize {
    workspace(dim, value_dim).saturating_mul(GROUP)
}

/// The floats that take the widened keys or values of a block; a microcontroller widens them where they are loaded.
pub(crate) const fn widened(dim: usize, value_dim: usize) -> usize {
    let width = if dim > value_dim { dim } else { value_dim };
    if IS_MICROCONTROLLER { 0 } else { width.saturating_mul(KEY_BLOCK) }
}

/// The largest scores of consecutive queries, and the sums of their weights under the shifts of these
/// scores. For a query without visible keys and sink they are −∞ and 0.
#[derive(Clone, Copy)]
pub(crate) struct Sums<'a> {
    pub(crate) max: &'a [f32],
    pub(crate) sum: &'a [f32],
}

/// Receives the index of the first of some consecutive queries, and their sums.
pub(crate) type WriteSums<'a> = &'a mut dyn FnMut(usize, Sums<'_>);

/// The operands of one attention call, whose shapes agree. Queries are numbered over all heads, head after
/// head.
pub(crate) struct FlashAttention<'a, 'o> {
    pub(crate) queries: &'a HeadsRef<'a>,
    /// The number of consecutive queries that share a KV head.
    pub(crate) queries_per_kv_head: usize,
    pub(crate) scale: f32,
    pub(crate) visible: VisibleKeys,
    pub(crate) score_mod: Option<&'a dyn ScoreMod>,
    /// One sink per query head, or empty.
    pub(crate) sinks: &'a [f32],
    /// The sink of all heads, where `sinks` is empty.
    pub(crate) sink: f32,
    /// By reference, as the other views: a copy would be loaded in wider parts than it was stored.
    pub(crate) out: &'a mut HeadsMut<'o>,
    /// Whether the outputs are divided by the sums of the weights.
    pub(crate) normalise: bool,
    pub(crate) sums: Option<WriteSums<'a>>,
    /// At least [`workspace`] floats, or [`group_workspace`] for elements.
    pub(crate) workspace: &'a mut [f32],
}

/// Attention over blocks of keys.
pub(crate) struct OverBlocks<'a, 'o, E = AnyElements<'a>> {
    pub(crate) attention: FlashAttention<'a, 'o>,
    pub(crate) blocks: &'a Blocks<'a, E>,
    /// For widened elements: [`widened`] floats, or none for keys and values that are floats.
    pub(crate) widened: &'a mut [f32],
}

/// Runs a tile of `$count` queries from `$first` on with the lane layout `$lanes`, in the function `$name`, and
/// returns `$count`. `$outlined` is a token of `V`, `$token` one of the vectors of `$lanes`.
macro_rules! run_tile {
    ($name:ident, $call:ident, $lanes:ty, $outlined:expr, $token:expr, $first:expr, $count:expr) => {{
        let count = $count;
        V::$name(
            $outlined,
            (&mut $call, $first),
            #[inline(always)]
            |(call, first): (&mut OverBlocks<'_, '_, E>, usize)| {
                let OverBlocks { attention, blocks, widened } = call;
                let mut visible = Vec::new();
                let tile = attention.tile(first, count, &mut visible);
                let workspace = core::mem::take(&mut attention.workspace);
                let lengths =
                    <$lanes>::lengths(attention.queries.cols(), attention.out.cols(), count);
                if let Some(floats) = split_workspace::<L>(workspace, lengths) {
                    let mut lanes = <$lanes>::new($token, attention, &tile, floats);
                    lanes.begin(attention, &tile);
                    let one = OneTile { tile: &tile, lanes: &mut lanes, sees: Sees::Nothing };
                    attention.for_each_span(blocks, widened, one);
                }
                attention.workspace = workspace;
            },
        );
        count
    }};
}

impl<E: Elements + Copy> Kernel for OverBlocks<'_, '_, E> {
    type Output = ();

    const NAME: Name = Name::Attention;

    /// Up to 4 queries take 8 lanes of keys and of value columns: more chains in flight than with 16 lanes, and
    /// fewer keys in a last vector. One query over elements is bound by widening them, which takes as many instructions
    /// for 16 lanes.
    #[inline(always)]
    fn fits_8_lanes(&self) -> bool {
        let queries = self.attention.queries_per_kv_head;
        queries <= 4 && !(queries == 1 && matches!(self.blocks.data, Data::Elements(_)))
    }

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        mut self,
        token: V::Token,
    ) {
        let FlashAttention { queries, queries_per_kv_head: per_kv_head, .. } = self.attention;
        let queries = queries.heads() * queries.rows();
        let mut first = 0;
        while first < queries {
            let remaining = per_kv_head - first.checked_rem(per_kv_head).unwrap_or(0);
            first += if const { L == 1 } {
                run_tile!(
                    one_query_tile,
                    self,
                    OneLane<'_>,
                    token,
                    Scalar,
                    first,
                    remaining.min(one_lane::width(remaining))
                )
            } else if remaining > C * L && matches!(self.blocks.data, Data::Elements(_)) {
                self.run_group::<L, R, C, V>(token, first, remaining)
            } else if remaining > L {
                run_tile!(
                    two_vectors_tile,
                    self,
                    QueryLanes<'_, L, R, C, V>,
                    token,
                    token,
                    first,
                    remaining.min(C * L)
                )
            } else if remaining == 1 {
                run_tile!(
                    one_query_tile,
                    self,
                    KeyLanes<'_, L, 1, V>,
                    token,
                    token,
                    first,
                    remaining
                )
            } else if 2 * remaining > L {
                run_tile!(
                    one_vector_tile,
                    self,
                    QueryLanes<'_, L, ONE_VECTOR_ROWS, 1, V>,
                    token,
                    token,
                    first,
                    remaining
                )
            } else if 2 * remaining < L && remaining <= R {
                run_tile!(
                    few_queries_tile,
                    self,
                    KeyLanes<'_, L, R, V>,
                    token,
                    token,
                    first,
                    remaining
                )
            } else if const { L > 8 } {
                run_tile!(
                    half_vector_tile,
                    self,
                    HalfVector<'_, L, ONE_VECTOR_ROWS, 8, V>,
                    token,
                    token,
                    first,
                    remaining
                )
            } else {
                run_tile!(
                    half_vector_tile,
                    self,
                    HalfVector<'_, L, ONE_VECTOR_ROWS, 4, V>,
                    token,
                    token,
                    first,
                    remaining
                )
            };
        }
    }
}

impl<E: Elements + Copy> OverBlocks<'_, '_, E> {
    /// Runs up to [`GROUP`] tiles of the `remaining` queries from `first` on, block by block, so that a block is widened
    /// once for all of them. Returns the number of queries.
    #[inline(always)]
    fn run_group<const L: usize, const R: usize, const C: usize, V: Vector<L>>(
        &mut self,
        token: V::Token,
        first: usize,
        remaining: usize,
    ) -> usize {
        let count = remaining.min(GROUP * C * L);
        // A last tile of up to one vector has another layout.
        let last = count % (C * L);
        let count = if last > L { count } else { count - last };
        V::two_vectors_tile(
            token,
            (self, first..first + count),
            #[inline(always)]
            |(call, queries): (&mut Self, Range<usize>)| {
                let OverBlocks { attention, blocks, widened } = call;
                let mut visible = [const { Vec::new() }; GROUP];
                let workspace = core::mem::take(&mut attention.workspace);
                let lengths = QueryLanes::<L, R, C, V>::lengths(
                    attention.queries.cols(),
                    attention.out.cols(),
                    C * L,
                );
                // `chunks_mut` takes no 0; the widths are not 0.
                let lengths = lengths.map(|length| length.max(1));
                let tiles = queries.len().div_ceil(C * L);
                if let Some([packed, scores, acc]) =
                    split_workspace::<L>(workspace, lengths.map(|length| tiles * length))
                {
                    let mut group = Vec::<_, GROUP>::new();
                    let parts = packed
                        .chunks_mut(lengths[0])
                        .zip(scores.chunks_mut(lengths[1]))
                        .zip(acc.chunks_mut(lengths[2]));
                    for ((first, visible), ((packed, scores), acc)) in
                        queries.clone().step_by(C * L).zip(&mut visible).zip(parts)
                    {
                        let tile = attention.tile(first, (C * L).min(queries.end - first), visible);
                        let floats = [packed, scores, acc];
                        let lanes = QueryLanes::<L, R, C, V>::new(token, attention, &tile, floats);
                        // Cannot fail: there are as many places as lists of visible keys.
                        let _ = group.push((tile, lanes, Sees::Nothing));
                    }
                    attention.for_each_span(blocks, widened, &mut group[..]);
                }
                attention.workspace = workspace;
            },
        );
        count
    }
}

/// The layout of a tile of queries and a block of keys in lanes, and the steps of the online softmax on it.
trait LaneLayout {
    /// Initialises states and packs queries, for a layout that does not in `new`: it is in its final place
    /// here, so nothing is moved.
    fn begin(&mut self, _attention: &FlashAttention<'_, '_>, _tile: &Tile<'_>) {}

    /// Computes the scores of `keys`, and prefetches `next`, which is read after them.
    fn score(&mut self, keys: MatrixRef<'_>, next: MatrixRef<'_>);

    /// The scores of the block, or its weights after [`weigh`](Self::weigh), as keys × queries.
    fn scores_mut(&mut self) -> Option<MatrixMut<'_>>;

    /// Applies the score modification to the scores of the keys from `key` on. With a `fill` it writes
    /// `fill` where they are masked and nothing else.
    #[inline(always)]
    fn score_mod(
        &mut self,
        score_mod: &dyn ScoreMod,
        key: usize,
        queries: Queries,
        fill: Option<f32>,
    ) {
        if let Some(scores) = self.scores_mut() {
            score_mod.apply(key, queries, fill, scores);
        }
    }

    /// Writes [`masked_fill`] to the scores, or `weights`, of keys that are not visible to their query: from the end of
    /// its range on, and those before it that are not kept. The block begins with key `first`.
    fn mask(&mut self, first: usize, visible: &[Range<usize>], end_of_kept: usize, weights: bool);

    /// Raises the running maxima, turns the scores into weights in place and adds these to the sums.
    fn weigh(&mut self);

    /// Rescales the accumulators and adds the weighted values; prefetches `next`, which is read after them.
    fn add_values(&mut self, values: MatrixRef<'_>, next: MatrixRef<'_>);

    /// [`add_values`](Self::add_values) without the products whose weight is negative: masked.
    fn add_visible_values(&mut self, values: MatrixRef<'_>);

    /// Whether no value is NaN or infinite.
    fn are_finite(&self, values: MatrixRef<'_>) -> bool;

    /// Whether the layout takes the keys of a block, its values and the keys of the next one as they are, if they are
    /// there: `rows`, below.
    const LOADS_ELEMENTS: bool = false;

    /// [`score`](Self::score) for the keys of a block that are not floats.
    #[inline(always)]
    fn score_elements(
        &mut self,
        elements: &impl Elements,
        block: Block,
        _rows: Option<[AnyRows<'_>; 3]>,
        widened: &mut Widened<'_>,
    ) {
        self.score_widened(elements, block, widened);
    }

    /// [`score_elements`](Self::score_elements) for all keys of the block, widened into `widened`.
    #[inline(always)]
    fn score_widened(&mut self, elements: &impl Elements, block: Block, widened: &mut Widened<'_>) {
        if let Some(keys) = elements.keys(block, widened) {
            self.score(keys, MatrixRef::EMPTY);
        }
    }

    /// Multiplies the scores by the scales of the keys.
    #[inline(always)]
    fn scale_scores(&mut self, elements: &impl Elements, block: Block) {
        if let Some(scores) = self.scores_mut() {
            elements.scale_scores(block, scores);
        }
    }

    /// Multiplies the weights by the scales of the values.
    #[inline(always)]
    fn scale_weights(&mut self, elements: &impl Elements, block: Block) {
        if let Some(weights) = self.scores_mut() {
            elements.scale_weights(block, weights);
        }
    }

    /// [`add_values`](Self::add_values), or [`add_visible_values`](Self::add_visible_values) unless `all`, for the
    /// values of a block that are not floats.
    #[inline(always)]
    fn add_elements(
        &mut self,
        elements: &impl Elements,
        block: Block,
        _rows: Option<[AnyRows<'_>; 3]>,
        all: bool,
        widened: &mut Widened<'_>,
    ) {
        self.add_widened(elements, block, all, widened);
    }

    /// [`add_elements`](Self::add_elements) for all value columns, widened into `widened`.
    #[inline(always)]
    fn add_widened(
        &mut self,
        elements: &impl Elements,
        block: Block,
        all: bool,
        widened: &mut Widened<'_>,
    ) {
        match elements.values(block, widened) {
            Some(values) if all => self.add_values(values, MatrixRef::EMPTY),
            Some(values) => self.add_visible_values(values),
            None => (),
        }
    }

    /// Joins the state with the total of the states before, whose accumulators are in the output, and begins
    /// a new state. At the `last` span it writes the outputs and the sums instead.
    fn end_span(&mut self, attention: &mut FlashAttention<'_, '_>, tile: &Tile<'_>, last: bool);
}

/// The keys and values of a block, as a layout takes them.
enum Operands<'a, 'w, E> {
    /// `next` has the keys of the next block.
    Floats {
        keys: MatrixRef<'a>,
        values: MatrixRef<'a>,
        next: MatrixRef<'a>,
    },
    Elements {
        elements: E,
        block: Block,
        rows: Option<[AnyRows<'a>; 3]>,
        widened: Widened<'w>,
    },
}

impl<E: Elements + Copy> Operands<'_, '_, E> {
    #[inline(always)]
    fn score(&mut self, lanes: &mut impl LaneLayout) {
        match self {
            Self::Floats { keys, values, .. } => lanes.score(*keys, *values),
            Self::Elements { elements, block, rows, widened } => {
                lanes.score_elements(elements, *block, *rows, widened);
                lanes.scale_scores(elements, *block);
            }
        }
    }

    /// Called when the keys have been used by all tiles.
    #[inline(always)]
    fn end_keys(&mut self) {
        if let Self::Elements { widened, .. } = self {
            widened.is_ready = false;
        }
    }

    #[inline(always)]
    fn scale_weights(&self, lanes: &mut impl LaneLayout) {
        if let Self::Elements { elements, block, .. } = self {
            lanes.scale_weights(elements, *block);
        }
    }

    #[inline(always)]
    fn values_are_finite(&self, lanes: &impl LaneLayout) -> bool {
        match self {
            Self::Floats { values, .. } => lanes.are_finite(*values),
            Self::Elements { elements, block, .. } => elements.values_are_finite(*block),
        }
    }

    /// Adds the weighted values: without the products whose weight is negative, unless they are `all` visible or
    /// finite.
    #[inline(always)]
    fn add_values(&mut self, lanes: &mut impl LaneLayout, all: bool) {
        match self {
            Self::Floats { values, next, .. } if all => lanes.add_values(*values, *next),
            Self::Floats { values, .. } => lanes.add_visible_values(*values),
            Self::Elements { elements, block, rows, widened } => {
                lanes.add_elements(elements, *block, *rows, all, widened);
            }
        }
    }
}

/// The value of a masked score, or of a masked weight whose product is skipped.
#[inline(always)]
fn masked_fill(weights: bool) -> f32 {
    if weights { -1.0 } else { f32::NEG_INFINITY }
}

/// Consecutive queries and the keys that are visible to each.
struct Tile<'a> {
    first: usize,
    /// Behind a reference, because 32 of them take half a KiB: the other fields stay in registers.
    visible: &'a mut Vec<Range<usize>, QUERY_BLOCK>,
    /// From the first key that is visible to any query, but for kept keys, to the end of the last; `MAX..0` without
    /// queries.
    any_visible: Range<usize>,
    /// The keys that are visible to all queries; `start` may be greater than `end`.
    all_visible: Range<usize>,
}

/// Tiles that go through the blocks of keys together.
trait Tiles<T> {
    /// Calls `f` with each tile, its lanes, and what its queries see of the current block.
    fn for_each(&mut self, f: impl FnMut(&Tile<'_>, &mut T, &mut Sees));
}

/// One tile: no loop, which would take flash and stack of a microcontroller.
struct OneTile<'a, 'v, T> {
    tile: &'a Tile<'v>,
    lanes: &'a mut T,
    sees: Sees,
}

impl<T> Tiles<T> for OneTile<'_, '_, T> {
    #[inline(always)]
    fn for_each(&mut self, mut f: impl FnMut(&Tile<'_>, &mut T, &mut Sees)) {
        f(self.tile, self.lanes, &mut self.sees);
    }
}

impl<T> Tiles<T> for &mut [(Tile<'_>, T, Sees)] {
    #[inline(always)]
    fn for_each(&mut self, mut f: impl FnMut(&Tile<'_>, &mut T, &mut Sees)) {
        for (tile, lanes, sees) in &mut **self {
            f(tile, lanes, sees);
        }
    }
}

/// What the queries of a tile see of a block of keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sees {
    Nothing,
    /// Some queries see some keys.
    Part,
    /// All queries see all keys, none of which is kept, but for the score modification.
    All,
}

impl<'a> Tile<'a> {
    #[inline(always)]
    fn new(first: usize, visible: &'a mut Vec<Range<usize>, QUERY_BLOCK>) -> Self {
        let none = Range { start: usize::MAX, end: 0 };
        Self { first, visible, any_visible: none, all_visible: 0..usize::MAX }
    }

    /// Appends `count` queries with the same visible keys.
    #[inline(always)]
    fn push(&mut self, visible: Range<usize>, count: usize) {
        let Self { any_visible, all_visible, .. } = self;
        *any_visible = any_visible.start.min(visible.start)..any_visible.end.max(visible.end);
        *all_visible = all_visible.start.max(visible.start)..all_visible.end.min(visible.end);
        for _ in 0..count {
            // Cannot fail: a tile has at most QUERY_BLOCK queries.
            let _ = self.visible.push(visible.clone());
        }
    }
}

impl FlashAttention<'_, '_> {
    #[inline(always)]
    fn for_each_span<T: LaneLayout>(
        &mut self,
        blocks: &Blocks<'_, impl Elements + Copy>,
        widened: &mut [f32],
        mut tiles: impl Tiles<T>,
    ) {
        let (mut first, mut start, mut end) = (usize::MAX, usize::MAX, 0);
        tiles.for_each(
            #[inline(always)]
            |tile, _, _| {
                first = first.min(tile.first);
                start = start.min(tile.any_visible.start);
                end = end.max(tile.any_visible.end);
            },
        );
        let head = first.checked_div(self.queries_per_kv_head).unwrap_or(0);
        let (start, end) = (start / KEY_BLOCK, end.div_ceil(KEY_BLOCK));
        let [kept, end_of_kept] = self.visible.kept();
        let mut from = if kept < end_of_kept { start.min(kept / KEY_BLOCK) } else { start };
        // The sink is a state of its own, without blocks.
        let mut to = if self.has_sinks() { from } else { blocks.end_of_span(from) };
        loop {
            self.for_each_block(blocks, head, from..to.min(end), widened, &mut tiles);
            let is_last = to >= end;
            tiles.for_each(
                #[inline(always)]
                |tile, lanes, _| lanes.end_span(self, tile, is_last),
            );
            if is_last {
                return;
            }
            // Spans between the kept keys and the window are left out.
            let skips = kept < end_of_kept && to * KEY_BLOCK >= end_of_kept;
            from = if skips { start.max(to) } else { to };
            to = blocks.end_of_span(from);
        }
    }

    #[inline(always)]
    fn for_each_block<T: LaneLayout>(
        &self,
        blocks: &Blocks<'_, impl Elements + Copy>,
        head: usize,
        numbers: Range<usize>,
        widened: &mut [f32],
        tiles: &mut impl Tiles<T>,
    ) {
        for number in numbers {
            let first = blocks.first_key(number);
            // Keys after the last visible one would change no bit. A microcontroller has no stack to spare for leaving them out.
            let mut end = if IS_MICROCONTROLLER { self.visible.keys[1] } else { 0 };
            if !IS_MICROCONTROLLER {
                tiles.for_each(
                    #[inline(always)]
                    |tile, _, _| end = end.max(tile.any_visible.end),
                );
            }
            // Where it wraps, no key is visible.
            let count = end.wrapping_sub(first).min(KEY_BLOCK - first % KEY_BLOCK);
            let keys = first..first + count;
            let [_, end_of_kept] = self.visible.kept();
            let mut is_visible = false;
            tiles.for_each(
                #[inline(always)]
                |tile, _, sees| {
                    *sees = self.sees(tile, &keys);
                    is_visible |= *sees != Sees::Nothing;
                },
            );
            if !is_visible {
                continue;
            }
            let block = Block { head, first_key: first, count, dim: self.queries.cols() };
            let next = self.visible.keys[1].saturating_sub(first + count).min(KEY_BLOCK);
            let next = Block { first_key: first + count, count: next, ..block };
            let mut operands = match &blocks.data {
                Data::Floats([keys, values]) => {
                    let Some(of_block) = blocks.keys(keys, block) else { continue };
                    let Some(values) = blocks.values(values, block) else { continue };
                    let next = blocks.keys(keys, next).unwrap_or(MatrixRef::EMPTY);
                    Operands::Floats { keys: of_block, values, next }
                }
                Data::Elements(elements) => {
                    let rows = if T::LOADS_ELEMENTS { elements.any(block) } else { None };
                    let rows = rows.map(|[keys, values]| {
                        [keys, values, elements.any(next).map_or(keys, |[keys, _]| keys)]
                    });
                    let widened = Widened { floats: widened, is_ready: false };
                    Operands::Elements { elements: *elements, block, rows, widened }
                }
            };
            tiles.for_each(
                #[inline(always)]
                |tile, lanes, sees| {
                    if *sees == Sees::Nothing {
                        return;
                    }
                    operands.score(lanes);
                    if let Some(score_mod) = self.score_mod {
                        lanes.score_mod(score_mod, keys.start, self.queries_of(tile), None);
                    }
                    if *sees == Sees::Part {
                        lanes.mask(keys.start, tile.visible, end_of_kept, false);
                    }
                    lanes.weigh();
                    operands.scale_weights(lanes);
                },
            );
            operands.end_keys();
            tiles.for_each(
                #[inline(always)]
                |tile, lanes, sees| {
                    if *sees == Sees::Nothing {
                        return;
                    }
                    let are_all_visible = *sees == Sees::All && self.score_mod.is_none();
                    if are_all_visible || operands.values_are_finite(lanes) {
                        return operands.add_values(lanes, true);
                    }
                    if let Some(score_mod) = self.score_mod {
                        let fill = Some(masked_fill(true));
                        lanes.score_mod(score_mod, keys.start, self.queries_of(tile), fill);
                    }
                    lanes.mask(keys.start, tile.visible, end_of_kept, true);
                    operands.add_values(lanes, false);
                },
            );
        }
    }

    /// What the queries of a tile see of these keys.
    #[inline(always)]
    fn sees(&self, tile: &Tile<'_>, keys: &Range<usize>) -> Sees {
        let [_, end_of_kept] = self.visible.kept();
        let overlaps = |visible: &Range<usize>| {
            (visible.start < keys.end || keys.start < end_of_kept) && keys.start < visible.end
        };
        let masks_all =
            |score_mod: &dyn ScoreMod| score_mod.masks_all(keys.clone(), self.queries_of(tile));
        let is_all = tile.all_visible.start <= keys.start && keys.end <= tile.all_visible.end;
        let is_visible = is_all || tile.visible.iter().any(overlaps);
        if !is_visible || self.score_mod.is_some_and(masks_all) {
            Sees::Nothing
        } else if is_all {
            Sees::All
        } else {
            Sees::Part
        }
    }

    /// The query head of query `i` and its token in that head.
    #[inline(always)]
    fn locate(&self, i: usize) -> (usize, usize) {
        let tokens = self.queries.rows();
        (i.checked_div(tokens).unwrap_or(0), i.checked_rem(tokens).unwrap_or(0))
    }

    /// [`locate`](Self::locate) of query `first` and each query after it, with one division in all.
    #[inline(always)]
    fn locations_from(&self, first: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let tokens = self.queries.rows();
        let mut location = self.locate(first);
        core::iter::repeat_with(
            #[inline(always)]
            move || {
                let (head, token) = location;
                let is_last = token + 1 == tokens;
                location = if is_last { (head + 1, 0) } else { (head, token + 1) };
                (head, token)
            },
        )
    }

    /// The head and the first row of the queries of vector `c` of the tile, if they are all rows of one head.
    #[inline(always)]
    fn one_head<const L: usize>(&self, tile: &Tile<'_>, c: usize) -> Option<(usize, usize)> {
        let (head, row) = self.locate(tile.first + c * L);
        // Lanes without a query are after the last row of the head.
        let queries = L.min(tile.visible.len().saturating_sub(c * L));
        (row + queries <= self.queries.rows()).then_some((head, row))
    }

    /// Calls `f` with the rows of the queries of vector `c` of the tile, every `L` columns of them, and with what
    /// `chunks` yields for those. A lane without a query is 0: the row of another tile may not be written yet.
    #[inline(always)]
    fn for_each_square<const L: usize, const Q: usize, V: Vector<L>, T>(
        &self,
        token: V::Token,
        from: HeadsRef<'_>,
        tile: &Tile<'_>,
        c: usize,
        chunks: impl Iterator<Item = T>,
        mut f: impl FnMut([V; Q], T),
    ) {
        let of_head = |head| from.head(head).unwrap_or(MatrixRef::EMPTY);
        if let Some((head, row)) = self.one_head::<L>(tile, c) {
            let rows = of_head(head);
            for (i, chunk) in chunks.enumerate() {
                f(strip::read_rows(token, rows, row, i * L), chunk);
            }
            return;
        }
        for (i, chunk) in chunks.enumerate() {
            let rows = array!(|lane| {
                let (head, row) = self.locate(tile.first + c * L + lane);
                let is_query = c * L + lane < tile.visible.len();
                let from = if is_query { of_head(head) } else { MatrixRef::EMPTY };
                let [vector] = strip::read(token, from, row, i * L);
                vector
            });
            f(rows, chunk);
        }
    }

    #[inline(always)]
    fn queries_of(&self, tile: &Tile<'_>) -> Queries {
        Queries { first: tile.first, count: tile.visible.len(), tokens: self.queries.rows() }
    }

    /// The tile of `count` queries from `first` on; `visible` is empty.
    #[inline(always)]
    fn tile<'t>(
        &self,
        first: usize,
        count: usize,
        visible: &'t mut Vec<Range<usize>, QUERY_BLOCK>,
    ) -> Tile<'t> {
        let mut tile = Tile::new(first, visible);
        self.find_visible(&mut tile, count);
        tile
    }

    /// Appends `count` queries with their visible keys to the tile.
    #[inline(always)]
    fn find_visible(&self, tile: &mut Tile<'_>, count: usize) {
        // A microcontroller's tile has at most 4 queries: the path below would cost 320 bytes of code.
        if IS_MICROCONTROLLER {
            for i in 0..count {
                let (_, token) = self.locate(tile.first + i);
                tile.push(self.visible.range(token), 1);
            }
            return;
        }
        let queries = Queries { first: tile.first, count, tokens: self.queries.rows() };
        for (_, _, tokens) in queries.heads() {
            let (first, last) =
                (self.visible.range(tokens.start), self.visible.range(tokens.end - 1));
            // Neither end of the visible range decreases from one token to the next: where the first and
            // the last range are equal, so are those between.
            if first == last {
                tile.push(first, tokens.len());
                continue;
            }
            for token in tokens {
                tile.push(self.visible.range(token), 1);
            }
        }
    }

    #[inline(always)]
    fn has_sinks(&self) -> bool {
        !self.sinks.is_empty() || self.sink > f32::NEG_INFINITY
    }

    /// The sink of query `i`.
    #[inline(always)]
    fn sink_of(&self, i: usize) -> f32 {
        let (head, _) = self.locate(i);
        self.sinks.get(head).copied().unwrap_or(self.sink)
    }

    /// The sinks of `C` vectors of queries from `first` on, or `None` without sinks.
    #[inline(always)]
    fn sinks_from<const L: usize, const C: usize, V: Vector<L>>(
        &self,
        token: V::Token,
        first: usize,
    ) -> Option<[V; C]> {
        if !self.sinks.is_empty() {
            return Some(array!(|c| {
                let lanes = array!(|lane| self.sink_of(first + c * L + lane));
                V::load(token, &lanes)
            }));
        }
        self.has_sinks().then(|| [V::splat(token, self.sink); C])
    }
}

/// The number of partial sums of a block's weights.
const PARTIAL_SUMS: usize = 4;

/// Folds the partial sums into one.
#[inline(always)]
fn fold<T: core::ops::Add<Output = T>>([first, second, third, fourth]: [T; PARTIAL_SUMS]) -> T {
    (first + third) + (second + fourth)
}

/// Whether no value is NaN or infinite.
#[inline(always)]
fn are_finite<const L: usize, V: Vector<L>>(token: V::Token, values: MatrixRef<'_>) -> bool {
    let zero = V::splat(token, 0.0);
    let mut zeros = zero;
    for row in 0..values.rows() {
        for col in (0..values.cols()).step_by(L) {
            let [x]: [V; 1] = strip::read(token, values, row, col);
            zeros = x.mul_add(zero, zeros);
        }
    }
    zeros.to_array().iter().all(|zero| *zero == 0.0)
}

/// Splits a workspace into parts of these lengths, or returns `None` if it is too short. If there is room,
/// the first part is aligned to a cache line: a vector of AVX-512 is one line.
#[inline(always)]
fn split_workspace<const L: usize>(
    workspace: &mut [f32],
    lengths: [usize; 3],
) -> Option<[&mut [f32]; 3]> {
    let [first, second, third] = lengths;
    let spare = workspace.len().saturating_sub(first + second + third);
    let before_line = if L > 1 { workspace.as_ptr().align_offset(64) } else { 0 };
    let skipped = if before_line <= spare { before_line } else { 0 };
    let workspace = workspace.get_mut(skipped..)?;
    let (first, remaining) = workspace.split_at_mut_checked(first)?;
    let (second, remaining) = remaining.split_at_mut_checked(second)?;
    Some([first, second, remaining.get_mut(..third)?])
}
