//! Attention without a score grid: an online softmax over blocks of keys.
//!
//! ```text
//! for each tile of queries
//!   m = −∞ or the sink, sum, acc = 0
//!   for each block of keys that one of them sees
//!     s = key · (scale · query)
//!     cap, bias, mask: −∞ where masked
//!     m' = max(m, s),  f = e^(m − m'), a power of two
//!     w = e^(s − m')
//!     sum = sum · f + Σ w
//!     acc = acc · f + Σ w · value
//!   out = acc / sum
//! ```
//!
//! Both products are [`tile`](super::tile)s. With [`query_lanes`] queries lanes are queries, and no
//! step folds a vector. With a [`key_lanes`] those lanes would be empty: there, lanes are
//! keys for the scores and columns for the values. Half a vector of them ([`half_vector`]) has queries for the
//! scores alone, and one lane a way of its own ([`one_lane`]). The bits are the same.
//!
//! 1. `f` is a power of two, because the shift of the exponentials is a whole number
//!    ([`exp`](super::exp)): the rescale rounds nothing.
//! 2. A block's sums begin at 0 and are added to the total: shorter chains, and
//!    the rescale is part of that addition. [`order`](super::order) has the order.
//! 3. In each lane a masked key leaves the bits of `m`, `sum` and `acc` alone, so that skipping a block that
//!    nobody sees changes nothing. Only the sign of a zero could tell, and the
//!    last step makes +0 of a sum that is 0.
//! 4. A value that is not finite would make NaN of a masked weight, 0. Where a block has
//!    one and is masked in part, masked weights are marked by −1 and left out one by one.
//! 5. Where a score is +∞ its query's weights are 1 for those and 0 for the
//!    others, from then on.

use core::ops::Range;

use heapless::Vec;

use super::{
    Kernel,
    exp::Shift,
    mask::{Blocks, KEY_BLOCK, Queries, ScoreMod, VisibleKeys},
};
use crate::{
    matrix::{HeadsMut, HeadsRef, MatrixMut, MatrixRef},
    simd::{Vector, array, scalar::Scalar, strip},
};
use half_vector::HalfVector;
use key_lanes::KeyLanes;
use one_lane::OneLane;
use query_lanes::QueryLanes;

mod half_vector;
mod key_lanes;
mod one_lane;
mod outputs;
mod query_lanes;
mod query_scores;

/// Whether one lane is all that a target has.
const IS_MICROCONTROLLER: bool = cfg!(microcontroller);

/// How many queries share a tile at most: 2 vectors of the widest back end of a target.
const QUERY_BLOCK: usize = if IS_MICROCONTROLLER { 4 } else { 32 };

/// How many floats of workspace heads of these sizes need: scaled queries, the scores of a block,
/// accumulators, and what a microcontroller keeps of each query. Where tiles are wider, one lane finds that
/// in what they need.
pub(crate) const fn workspace(dim: usize, value_dim: usize) -> usize {
    let state = if IS_MICROCONTROLLER { one_lane::STATE_FLOATS } else { 0 };
    dim.saturating_add(value_dim).saturating_add(KEY_BLOCK + state).saturating_mul(QUERY_BLOCK)
}

/// What the log-sum-exp of some queries in a row is made of: `base + ln (sum · 2^n)`, where `base` and
/// `n` are those of the shift, or `base` is +∞. Where no key is any_visible, `sum` is 0 and `n` any number.
#[derive(Clone, Copy)]
pub(crate) struct LogSumExpParts<'a> {
    pub(crate) base: &'a [f32],
    pub(crate) n: &'a [f32],
    pub(crate) sum: &'a [f32],
}

/// Takes the first of some queries in a row, and what their log-sum-exp is made of.
pub(crate) type WriteLogSumExp<'a> = &'a mut dyn FnMut(usize, LogSumExpParts<'_>);

/// The queries of all heads, one after another, head after head; all sizes agree.
pub(crate) struct FlashAttention<'a> {
    pub(crate) queries: &'a HeadsRef<'a>,
    pub(crate) blocks: &'a Blocks<'a>,
    /// How many queries in a row share a key head.
    pub(crate) queries_per_kv_head: usize,
    pub(crate) scale: f32,
    pub(crate) visible: VisibleKeys,
    pub(crate) score_mod: Option<&'a dyn ScoreMod>,
    /// The sink of each head, where there is half_vector; else the one of all.
    pub(crate) sinks: &'a [f32],
    pub(crate) sink: f32,
    pub(crate) out: HeadsMut<'a>,
    pub(crate) log_sum_exp: Option<WriteLogSumExp<'a>>,
    /// At least [`workspace`] of the sizes.
    pub(crate) workspace: &'a mut [f32],
}

/// Attends with `$count` queries of `$call` from `$first` on, by the lanes of `$lanes`; gives `$count`.
macro_rules! run_tile {
    ($attention:ident, $lanes:ty, $outlined:expr, $token:expr, $first:expr, $count:expr) => {{
        let count = $count;
        V::outlined(
            $outlined,
            (&mut $attention, $first),
            #[inline(always)]
            |(attention, first): (&mut FlashAttention<'_>, usize)| {
                let mut visible = Vec::new();
                let mut tile = Tile::new(first, &mut visible);
                attention.find_visible(&mut tile, count);
                let workspace = core::mem::take(&mut attention.workspace);
                let lengths =
                    <$lanes>::lengths(attention.queries.cols(), attention.out.cols(), count);
                if let Some(floats) = split_workspace::<L>(workspace, lengths) {
                    let mut lanes = <$lanes>::new($token, attention, &tile, floats);
                    lanes.begin(attention, &tile);
                    attention.for_each_block(&tile, &mut lanes);
                    lanes.finish(attention, &tile);
                }
                attention.workspace = workspace;
            },
        );
        count
    }};
}

impl Kernel for FlashAttention<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        mut self,
        token: V::Token,
    ) {
        let queries = self.queries.heads() * self.queries.rows();
        let mut first = 0;
        while first < queries {
            let remaining =
                self.queries_per_kv_head - first.checked_rem(self.queries_per_kv_head).unwrap_or(0);
            first += if const { L == 1 } {
                run_tile!(
                    self,
                    OneLane<'_>,
                    token,
                    Scalar,
                    first,
                    remaining.min(one_lane::width(remaining))
                )
            } else if remaining > L {
                run_tile!(
                    self,
                    QueryLanes<'_, L, R, C, V>,
                    token,
                    token,
                    first,
                    remaining.min(C * L)
                )
            } else if remaining == 1 {
                run_tile!(self, KeyLanes<'_, L, 1, V>, token, token, first, remaining)
            } else if 2 * remaining > L {
                run_tile!(
                    self,
                    QueryLanes<'_, L, ONE_VECTOR_ROWS, 1, V>,
                    token,
                    token,
                    first,
                    remaining
                )
            } else if 2 * remaining < L && remaining <= R {
                run_tile!(self, KeyLanes<'_, L, R, V>, token, token, first, remaining)
            } else if const { L > 8 } {
                run_tile!(
                    self,
                    HalfVector<'_, L, ONE_VECTOR_ROWS, 8, V>,
                    token,
                    token,
                    first,
                    remaining
                )
            } else {
                run_tile!(
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

/// Rows of a tile of one vector: as many chains as hide the latency of a multiply-add (4
/// cycles) on two ports.
const ONE_VECTOR_ROWS: usize = 8;

/// What lanes are: of the queries of a tile and the keys of a block.
trait LaneLayout {
    /// Lays the queries down, where that was not done as this was made: nothing is moved then.
    fn begin(&mut self, _attention: &FlashAttention<'_>, _tile: &Tile<'_>) {}

    /// Forms the scores of `keys`; `next` is what is read after that.
    fn score(&mut self, keys: MatrixRef<'_>, next: MatrixRef<'_>);

    /// The scores, or their weights, as keys × queries.
    fn scores_mut(&mut self) -> Option<MatrixMut<'_>>;

    /// Adjusts the scores, or writes `mark` where they are masked: the first key is `key`.
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

    /// Writes −∞ where a query does not see a key, in `weights` −1: the first key is `first`.
    fn mask(&mut self, first: usize, visible: &[Range<usize>], weights: bool);

    /// Makes weights of the scores and adds them to the sums.
    fn weigh(&mut self);

    /// Adds the weighted values to the accumulators; `next` is what is read after that.
    fn add_values(&mut self, values: MatrixRef<'_>, next: MatrixRef<'_>);

    /// As [`add`](Self::add), without the products whose weight is marked by a negative number.
    fn add_visible_values(&mut self, values: MatrixRef<'_>);

    /// Whether no value is NaN or infinite.
    fn are_finite(&self, values: MatrixRef<'_>) -> bool;
}

/// What a masked score is; a masked weight that is to be left out.
#[inline(always)]
fn masked_fill(weights: bool) -> f32 {
    if weights { -1.0 } else { f32::NEG_INFINITY }
}

/// Some queries in a row, and the keys that each sees.
struct Tile<'a> {
    first: usize,
    /// In memory of their own, for of many they are half a KiB; what follows is in registers.
    visible: &'a mut Vec<Range<usize>, QUERY_BLOCK>,
    /// From the first key that any of them sees to behind the last; none is MAX..0.
    any_visible: Range<usize>,
    /// The keys that all see; it may begin behind its end.
    all_visible: Range<usize>,
}

impl<'a> Tile<'a> {
    #[inline(always)]
    fn new(first: usize, visible: &'a mut Vec<Range<usize>, QUERY_BLOCK>) -> Self {
        let none = Range { start: usize::MAX, end: 0 };
        Self { first, visible, any_visible: none, all_visible: 0..usize::MAX }
    }

    /// `count` more queries, which see the same.
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

impl FlashAttention<'_> {
    #[inline(always)]
    fn for_each_block(&self, tile: &Tile<'_>, lanes: &mut impl LaneLayout) {
        let queries = self.queries_of(tile);
        let head = tile.first.checked_div(self.queries_per_kv_head).unwrap_or(0);
        for block in tile.any_visible.start / KEY_BLOCK..tile.any_visible.end.div_ceil(KEY_BLOCK) {
            let first = block * KEY_BLOCK;
            // Something is seen behind `first`: there are keys.
            let count = self.visible.keys[1].wrapping_sub(first).min(KEY_BLOCK);
            let keys = first..first + count;
            let is_unmasked =
                tile.all_visible.start <= keys.start && keys.end <= tile.all_visible.end;
            let overlaps =
                |visible: &Range<usize>| visible.start < keys.end && keys.start < visible.end;
            let is_visible = is_unmasked || tile.visible.iter().any(overlaps);
            let masks_all = |score_mod: &dyn ScoreMod| score_mod.masks_all(keys.clone(), queries);
            if !is_visible || self.score_mod.is_some_and(masks_all) {
                continue;
            }
            let dim = self.queries.cols();
            let Some([key_rows, values]) = self.blocks.block(head, block, count, dim) else {
                continue;
            };
            let next = self.visible.keys[1].saturating_sub(keys.end).min(KEY_BLOCK);
            let next = self.blocks.block(head, block + 1, next, dim);
            let next = next.map_or(MatrixRef::EMPTY, |[keys, _]| keys);
            lanes.score(key_rows, values);
            if let Some(score_mod) = self.score_mod {
                lanes.score_mod(score_mod, keys.start, queries, None);
            }
            if !is_unmasked {
                lanes.mask(keys.start, tile.visible, false);
            }
            lanes.weigh();
            if (is_unmasked && self.score_mod.is_none()) || lanes.are_finite(values) {
                lanes.add_values(values, next);
            } else {
                if let Some(score_mod) = self.score_mod {
                    lanes.score_mod(score_mod, keys.start, queries, Some(masked_fill(true)));
                }
                lanes.mask(keys.start, tile.visible, true);
                lanes.add_visible_values(values);
            }
        }
    }

    /// The head and the token of query `i`.
    #[inline(always)]
    fn locate(&self, i: usize) -> (usize, usize) {
        let tokens = self.queries.rows();
        (i.checked_div(tokens).unwrap_or(0), i.checked_rem(tokens).unwrap_or(0))
    }

    /// The same of query `first` and of those behind it, without a division for each.
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

    #[inline(always)]
    fn queries_of(&self, tile: &Tile<'_>) -> Queries {
        Queries { first: tile.first, count: tile.visible.len(), tokens: self.queries.rows() }
    }

    /// Head for head: its number, the place of its first query in the tile, and which of its tokens are there.
    #[inline(always)]
    fn heads(&self, tile: &Tile<'_>) -> impl Iterator<Item = (usize, usize, Range<usize>)> + use<> {
        let (first, _) = self.locate(tile.first);
        self.queries_of(tile)
            .heads()
            .enumerate()
            .map(move |(n, (lane, tokens))| (first + n, lane, tokens))
    }

    /// Notes what `count` queries see.
    #[inline(always)]
    fn find_visible(&self, tile: &mut Tile<'_>, count: usize) {
        // For a microcontroller's few, one by one: what saves work for many is 320 bytes.
        if IS_MICROCONTROLLER {
            for i in 0..count {
                let (_, token) = self.locate(tile.first + i);
                tile.push(self.visible.range(token), 1);
            }
            return;
        }
        let queries = Queries { first: tile.first, count, tokens: self.queries.rows() };
        for (_, tokens) in queries.heads() {
            let (first, last) =
                (self.visible.range(tokens.start), self.visible.range(tokens.end - 1));
            // From one token to the next neither end of what is seen goes back.
            if first == last {
                tile.push(first, tokens.len());
                continue;
            }
            for token in tokens {
                tile.push(self.visible.range(token), 1);
            }
        }
    }

    /// The sink of query `i`.
    #[inline(always)]
    fn sink_of(&self, i: usize) -> f32 {
        let (head, _) = self.locate(i);
        self.sinks.get(head).copied().unwrap_or(self.sink)
    }

    /// The sinks of `C` vectors of queries from `first` on, where there are any.
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
        (self.sink > f32::NEG_INFINITY).then(|| [V::splat(token, self.sink); C])
    }
}

/// What an online softmax knows of `C` vectors of queries.
#[derive(Clone, Copy)]
struct State<const C: usize, V> {
    m: [V; C],
    shift: [Shift<V, true>; C],
    sum: [V; C],
}

impl<const C: usize, V> State<C, V> {
    /// Before the first key there is the sink, if any.
    #[inline(always)]
    fn new<const L: usize>(token: V::Token, sinks: Option<[V; C]>) -> Self
    where
        V: Vector<L>,
    {
        let m = sinks.unwrap_or([V::splat(token, f32::NEG_INFINITY); C]);
        let lowest = V::splat(token, f32::MIN);
        let shift: [Shift<V, true>; C] = array!(|c| Shift::new(token, lowest.max(m[c])));
        let sum = match sinks {
            Some(sinks) => array!(|c| shift[c].weight(token, sinks[c])),
            None => [V::splat(token, 0.0); C],
        };
        Self { m, shift, sum }
    }

    /// Whether a query of which `m` are the largest scores has one that is +∞.
    #[inline(always)]
    fn has_infinity<const L: usize>(m: [V; C]) -> bool
    where
        V: Vector<L>,
    {
        let mut has_infinity = false;
        for m in m {
            has_infinity |= m.to_array().contains(&f32::INFINITY);
        }
        has_infinity
    }

    /// Goes on to the largest scores `m`; gives what sums and accumulators are to be
    /// multiplied by.
    #[inline(always)]
    fn raise_maximum<const L: usize>(&mut self, token: V::Token, m: [V; C]) -> [V; C]
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        let (zero, one) = (constant(0.0), constant(1.0));
        let largest = constant(f32::MAX);
        let mut factors = [zero; C];
        for c in 0..C {
            let finite = m[c].select_gt(largest, zero, constant(f32::MIN).max(m[c]));
            let shift = Shift::new(token, finite);
            let factor = self.shift[c].factor_to(token, shift);
            // What counts for nothing beside +∞ is 0.
            let at_infinity = self.m[c].select_gt(largest, one, zero);
            factors[c] = m[c].select_gt(largest, at_infinity, factor);
            self.shift[c] = shift;
        }
        self.m = m;
        factors
    }

    /// What the accumulators are to be multiplied by at last.
    #[inline(always)]
    fn normalisers<const L: usize>(&self, token: V::Token) -> [V; C]
    where
        V: Vector<L>,
    {
        array!(|c| normaliser(token, self.sum[c]))
    }

    /// Hands over what the log-sum-exp of `count` queries from `first` on is made of.
    #[inline(always)]
    fn write_log_sum_exp<const L: usize>(
        &self,
        token: V::Token,
        first: usize,
        count: usize,
        write: WriteLogSumExp<'_>,
    ) where
        V: Vector<L>,
    {
        for c in 0..C {
            let [base, n] = Shift::base_and_n(token, self.shift[c].base_and_magic());
            let base = self.m[c].select_gt(V::splat(token, f32::MAX), self.m[c], base);
            let lanes = count.saturating_sub(c * L).min(L);
            let [base, n, sum] = [base, n, self.sum[c]].map(V::to_array);
            if let (Some(base), Some(n), Some(sum)) =
                (base.get(..lanes), n.get(..lanes), sum.get(..lanes))
            {
                write(first + c * L, LogSumExpParts { base, n, sum });
            }
        }
    }
}

/// What accumulators are to be multiplied by at last, whose weights have this sum.
#[inline(always)]
fn normaliser<const L: usize, V: Vector<L>>(token: V::Token, sum: V) -> V {
    // No sum of weights but 0 is that small: where it is, so are the accumulators. NaN stays.
    V::splat(token, 1.0) / V::splat(token, f32::MIN_POSITIVE).max(sum)
}

/// How many partial sums the weights of a block have.
const PARTIAL_SUMS: usize = 4;

/// Folds them.
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

/// The parts of a workspace that have these lengths; with room to spare the first begins with a
/// cache line, which a vector of AVX-512 is.
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
