//! Which keys a query sees, and where keys lie.

use core::ops::Range;

use crate::{HeadsRef, MatrixMut, MatrixRef};

/// How many keys a block has: blocks are counted from absolute key 0, and their
/// size is one number for all back ends, because it shows in the bits.
pub(crate) const KEY_BLOCK: usize = 64;

/// The keys that a position allows: causal, a window, what a cache has dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    /// Where token 0 sits among the keys.
    pub(crate) origin: isize,
    /// How many keys before its own position a token sees, and how many behind.
    pub(crate) left: usize,
    pub(crate) right: usize,
    /// The keys that there are.
    pub(crate) keys: [usize; 2],
}

impl Sight {
    /// The keys that `token` sees, none as an empty range.
    #[inline(always)]
    pub(crate) fn of(&self, token: usize) -> Range<usize> {
        let [first, end] = self.keys;
        let signed = |n| isize::try_from(n).unwrap_or(isize::MAX);
        let position = self.origin.saturating_add(signed(token));
        let from = if self.left == usize::MAX {
            0
        } else {
            usize::try_from(position.saturating_sub(signed(self.left))).unwrap_or(0)
        };
        let to = if self.right == usize::MAX {
            usize::MAX
        } else {
            let last = position.saturating_add(signed(self.right));
            usize::try_from(last).map_or(0, |last| last.saturating_add(1))
        };
        let (from, to) = (from.max(first), to.min(end));
        if from < to { from..to } else { 0..0 }
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
            let here = (count - lane).min(tokens - token);
            let item = (lane, token..token + here);
            (lane, token) = (lane + here, 0);
            Some(item)
        })
    }
}

/// What is done to scores by softcap, bias and keep. A trait object, so that
/// kernels hold none of their code.
pub(crate) trait Adjust {
    /// Whether each of these scores is masked.
    fn hides(&self, keys: Range<usize>, queries: Queries) -> bool;

    /// Caps the scores of keys from `key` on and of `queries` (keys × queries), adds
    /// the bias, and makes −∞ of those that are masked. With a `mark`, writes that where they are
    /// masked, and nothing elsewhere.
    fn apply(&self, key: usize, queries: Queries, mark: Option<f32>, scores: MatrixMut<'_>);
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
    /// The first key that there is, and the end.
    pub(crate) there: [usize; 2],
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
                let slot = block.checked_rem(ring.blocks)?;
                let block = rows(keys, slot * dim, dim)?.t();
                Some([rows(block, 0, count)?, rows(values, slot * KEY_BLOCK, count)?])
            }
        }
    }
}

/// `count` rows from `first` on, where they are there.
pub(crate) fn rows(view: MatrixRef<'_>, first: usize, count: usize) -> Option<MatrixRef<'_>> {
    view.part(first..first + count, 0..view.cols())
}
