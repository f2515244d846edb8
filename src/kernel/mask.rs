//! The visible keys of a query, and the score modification trait.

use core::ops::Range;

use crate::matrix::MatrixMut;

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
    /// The first key and the end of all keys but the kept ones.
    pub(crate) keys: [usize; 2],
    #[cfg(kept_keys)]
    kept: [usize; 2],
}

impl VisibleKeys {
    /// Token `t` has position `t + plus - minus + offset`. Its window is `left` keys before that position
    /// and `right` keys after it; `usize::MAX` means no limit.
    #[inline(always)]
    pub(crate) fn new(
        keys: [usize; 2],
        #[cfg_attr(not(kept_keys), expect(unused))] kept: [usize; 2],
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
        Self {
            plus,
            left,
            right,
            minus,
            keys,
            #[cfg(kept_keys)]
            kept,
        }
    }

    /// The start and the end of the keys that are kept: the window hides none of them. They may lie before `keys`. None
    /// without `cfg(kept_keys)`: every call pays flash and stack for them.
    #[inline(always)]
    pub(crate) fn kept(&self) -> [usize; 2] {
        #[cfg(kept_keys)]
        return self.kept;
        #[cfg(not(kept_keys))]
        [0; 2]
    }

    /// The visible keys of `token`, and besides those kept keys that lie before the end of this range. The end may lie
    /// before the start.
    #[inline(always)]
    pub(crate) fn range(&self, token: usize) -> Range<usize> {
        let [first, end] = self.keys;
        let shifted = token + self.plus;
        let to = shifted.saturating_add(self.right).saturating_sub(self.minus);
        shifted.saturating_sub(self.left).min(end).max(first)..to.min(end)
    }
}

/// Some queries of a head: its index, the index of the first of them among others, and their tokens.
pub(crate) type OfHead = (usize, usize, Range<usize>);

/// Consecutive queries: token after token, head after head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queries {
    pub(crate) first: usize,
    pub(crate) count: usize,
    /// The number of tokens per head.
    pub(crate) tokens: usize,
}

impl Queries {
    /// The queries of each head.
    #[inline(always)]
    pub(crate) fn heads(self) -> impl Iterator<Item = OfHead> {
        let Self { first, count, tokens } = self;
        let mut head = first.checked_div(tokens).unwrap_or(0);
        let mut token = first - head * tokens;
        let mut lane = 0;
        core::iter::from_fn(move || {
            if lane >= count {
                return None;
            }
            let n = (count - lane).min(tokens - token);
            let item = (head, lane, token..token + n);
            (head, lane, token) = (head + 1, lane + n, 0);
            Some(item)
        })
    }
}

/// A score modification: softcap, bias (additive mask), slopes (ALiBi) and keep (boolean mask). Kernels call it as a
/// trait object, so that they contain none of its code.
pub(crate) trait ScoreMod {
    /// Whether bias and keep mask every score of these keys and queries, so that the block can be skipped.
    fn masks_all(&self, keys: Range<usize>, queries: Queries) -> bool;

    /// Modifies `scores` (keys × queries), those of `queries` and the keys from `key` on: applies the
    /// softcap, adds the bias, subtracts slope · distance, and writes −∞ where masked. With a `fill` it only writes
    /// `fill` where masked.
    fn apply(&self, key: usize, queries: Queries, fill: Option<f32>, scores: MatrixMut<'_>);
}
