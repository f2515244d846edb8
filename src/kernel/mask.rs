//! The visible keys of a query, the score modification trait, and the storage of key and value blocks.

use core::ops::Range;

use crate::matrix::{HeadsRef, MatrixMut, MatrixRef};

/// The number of keys in a block. Blocks are counted from absolute key 0. All back ends use the same
/// size, because it affects the bits of the result.
pub(crate) const KEY_BLOCK: usize = 64;

/// The number of keys in a span, counted like blocks from absolute key 0. It affects the bits too.
pub(crate) const SPAN: usize = 1024;

/// The number of blocks in a span.
pub(crate) const SPAN_BLOCKS: usize = SPAN / KEY_BLOCK;

/// The visible keys of each token: the causal mask, the window, and the keys that the cache still holds.
///
/// Positions may be negative, and every position is exact: the amounts added to and subtracted from a
/// token's index are two unsigned fields. Neither sum overflows, because there are fewer tokens, and fewer
/// keys in a cache, than floats in memory (a quarter of `isize::MAX`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct VisibleKeys {
    /// The visible keys of token `t` are `t + plus - left .. t + plus + right - minus`, clamped to `keys`.
    plus: usize,
    left: usize,
    /// Is 1 where `minus` is not 0.
    right: usize,
    minus: usize,
    /// The first key and the end of all keys.
    pub(crate) keys: [usize; 2],
}

impl VisibleKeys {
    /// Token `t` has position `t + plus - minus + offset`. Its window is `left` keys before that position
    /// and `right` keys after it; `usize::MAX` means no limit.
    #[inline(always)]
    pub(crate) fn new(
        keys: [usize; 2],
        [mut plus, mut minus]: [usize; 2],
        offset: isize,
        [left, right]: [usize; 2],
    ) -> Self {
        *(if offset < 0 { &mut minus } else { &mut plus }) += offset.unsigned_abs();
        let left = left.saturating_add(minus);
        let (right, minus) = match right {
            usize::MAX => (right, 0),
            right => (right.saturating_sub(minus) + 1, minus.saturating_sub(right)),
        };
        Self { plus, left, right, minus, keys }
    }

    /// The visible keys of `token`. An empty range too lies within `keys`.
    #[inline(always)]
    pub(crate) fn range(&self, token: usize) -> Range<usize> {
        let [first, end] = self.keys;
        let shifted = token + self.plus;
        let within = |key: usize| key.min(end).max(first);
        let to = shifted.saturating_add(self.right).saturating_sub(self.minus);
        within(shifted.saturating_sub(self.left))..within(to)
    }
}

/// Consecutive queries: token after token, head after head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queries {
    pub(crate) first: usize,
    pub(crate) count: usize,
    /// The number of tokens per head.
    pub(crate) tokens: usize,
}

impl Queries {
    /// All queries of one head.
    pub(crate) fn of_one_head(tokens: usize) -> Self {
        Self { first: 0, count: tokens, tokens }
    }

    /// For each head: the index of its first query among these, and its tokens.
    pub(crate) fn heads(self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let Self { first, count, tokens } = self;
        let mut token = first.checked_rem(tokens).unwrap_or(0);
        let mut lane = 0;
        core::iter::from_fn(move || {
            if lane >= count {
                return None;
            }
            let n = (count - lane).min(tokens - token);
            let item = (lane, token..token + n);
            (lane, token) = (lane + n, 0);
            Some(item)
        })
    }
}

/// A score modification: softcap, bias (additive mask) and keep (boolean mask). Kernels call it as a trait
/// object, so that they contain none of its code.
pub(crate) trait ScoreMod {
    /// Whether bias and keep mask every score of these keys and queries, so that the block can be skipped.
    fn masks_all(&self, keys: Range<usize>, queries: Queries) -> bool;

    /// Modifies `scores` (keys × queries), those of `queries` and the keys from `key` on: applies the
    /// softcap, adds the bias, and writes −∞ where masked. With a `fill` it only writes `fill` where masked.
    fn apply(&self, key: usize, queries: Queries, fill: Option<f32>, scores: MatrixMut<'_>);
}

/// The keys and values of every KV head, by blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks<'a> {
    pub(crate) keys: &'a HeadsRef<'a>,
    pub(crate) values: &'a HeadsRef<'a>,
    /// `None`: keys and values are plain matrices with a row per key.
    pub(crate) ring: Option<&'a Ring>,
}

/// A ring of blocks. The keys of a block are stored transposed, so that the keys of a head are a matrix of
/// (blocks · dim) × [`KEY_BLOCK`]. The matrices may end before the last blocks if those hold no key.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) blocks: usize,
    /// The slot of block 0.
    pub(crate) first: usize,
    /// The first key that the ring holds, and the end.
    pub(crate) keys: [usize; 2],
    /// The number of blocks of the first span that lie before block 0.
    pub(crate) blocks_before: usize,
}

impl<'a> Blocks<'a> {
    /// The first key and the end of all keys.
    #[inline(always)]
    pub(crate) fn held(&self) -> [usize; 2] {
        self.ring.map_or([0, self.keys.rows()], |ring| ring.keys)
    }

    /// The number of keys of the span of key 0 that lie before it.
    #[inline(always)]
    pub(crate) fn keys_before(&self) -> usize {
        self.ring.map_or(0, |ring| ring.blocks_before) * KEY_BLOCK
    }

    /// The end of the span of block `block`: the first block of the next one.
    #[inline(always)]
    pub(crate) fn end_of_span(&self, block: usize) -> usize {
        let before = self.ring.map_or(0, |ring| ring.blocks_before);
        ((block + before) / SPAN_BLOCKS + 1) * SPAN_BLOCKS - before
    }

    /// The `count` keys (keys × dim) and values of block `block` of the KV head `head`.
    #[inline(always)]
    pub(crate) fn block(
        &self,
        head: usize,
        block: usize,
        count: usize,
        dim: usize,
    ) -> Option<[MatrixRef<'a>; 2]> {
        let (keys, values) = (self.keys.head(head)?, self.values.head(head)?);
        match self.ring {
            None => {
                // Wraps only for the block after the last of `usize::MAX` keys; its count is 0.
                let first = block.wrapping_mul(KEY_BLOCK);
                Some([rows(keys, first, count)?, rows(values, first, count)?])
            }
            Some(ring) => {
                let slot = (ring.first + block).checked_rem(ring.blocks)?;
                let block = rows(keys, slot * dim, dim)?.t();
                Some([rows(block, 0, count)?, rows(values, slot * KEY_BLOCK, count)?])
            }
        }
    }
}

/// The `count` rows from `first` on, or `None` if one is out of range.
pub(crate) fn rows(view: MatrixRef<'_>, first: usize, count: usize) -> Option<MatrixRef<'_>> {
    view.submatrix(first..first + count, 0..view.cols())
}
