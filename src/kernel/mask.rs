//! Which keys a query sees, and where keys lie.

use core::ops::Range;

use crate::matrix::{HeadsRef, MatrixMut, MatrixRef};

/// How many keys a block has: blocks are counted from absolute key 0, and their
/// size is one number for all back ends, because it shows in the bits.
pub(crate) const KEY_BLOCK: usize = 64;

/// The keys that a position allows: causal, a window, what a cache has dropped.
///
/// Positions are whole numbers of either sign, and exact however far they are: what is added to a token's
/// number and what is taken off are kept apart. Neither sum overflows, as there are fewer tokens and
/// keys than floats in memory (a quarter of `isize::MAX`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct VisibleKeys {
    /// Token `t` sees the keys from `t + ahead - left` up to, and without, `t + ahead + right - behind`.
    plus: usize,
    left: usize,
    /// Where `behind` is not 0 this is 1.
    right: usize,
    minus: usize,
    /// The keys that there are.
    pub(crate) keys: [usize; 2],
}

impl VisibleKeys {
    /// Token 0 sits at `ahead - behind + offset`; its window is `left` keys before that and `right`
    /// keys after it, where `usize::MAX` is no limit.
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

    /// The keys that `token` sees: between the first and the end of those that there are, where none
    /// are, too.
    #[inline(always)]
    pub(crate) fn range(&self, token: usize) -> Range<usize> {
        let [first, end] = self.keys;
        let shifted = token + self.plus;
        let within = |key: usize| key.min(end).max(first);
        let to = shifted.saturating_add(self.right).saturating_sub(self.minus);
        within(shifted.saturating_sub(self.left))..within(to)
    }
}

/// Queries in a row, token after token, head after head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queries {
    pub(crate) first: usize,
    pub(crate) count: usize,
    /// How many of a head.
    pub(crate) tokens: usize,
}

impl Queries {
    /// All of one head.
    pub(crate) fn of_one_head(tokens: usize) -> Self {
        Self { first: 0, count: tokens, tokens }
    }

    /// Head for head: the place of its first query among these, and its tokens.
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

/// What is done to scores by softcap, bias and keep. A trait object, so that
/// kernels hold none of their code.
pub(crate) trait ScoreMod {
    /// Whether each of these scores is masked.
    fn masks_all(&self, keys: Range<usize>, queries: Queries) -> bool;

    /// Caps the scores of keys from `key` on and of `queries` (keys × queries), adds
    /// the bias, and makes −∞ of those that are masked. With a `mark`, writes that where they are
    /// masked, and nothing elsewhere.
    fn apply(&self, key: usize, queries: Queries, fill: Option<f32>, scores: MatrixMut<'_>);
}

/// Keys and values of every key head, block by block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks<'a> {
    pub(crate) keys: &'a HeadsRef<'a>,
    pub(crate) values: &'a HeadsRef<'a>,
    /// `None`: rows of plain matrices, all of them.
    pub(crate) ring: Option<&'a Ring>,
}

/// Blocks in a ring: the keys of a block lie transposed, so that all keys are
/// (blocks · dim) × [`KEY_BLOCK`], and may lack the last blocks while nothing lies there.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) blocks: usize,
    /// Where block 0 lies.
    pub(crate) first: usize,
    /// The first key that there is, and the end.
    pub(crate) keys: [usize; 2],
}

impl<'a> Blocks<'a> {
    /// The keys (keys × dim) and values of block `block` of a head, of which there are `count`.
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
                // Behind the last block of the most keys there can be lie 0 more.
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

/// `count` rows from `first` on, where they are there.
pub(crate) fn rows(view: MatrixRef<'_>, first: usize, count: usize) -> Option<MatrixRef<'_>> {
    view.submatrix(first..first + count, 0..view.cols())
}
