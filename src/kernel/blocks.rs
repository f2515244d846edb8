//! The keys and values of a call, block by block.
//!
//! Keys and values are floats, or [`Elements`] that are widened to floats: all of a block at once, or where
//! they are loaded.

use core::ops::Range;

use super::mask::{KEY_BLOCK, SPAN, SPAN_BLOCKS};
use crate::{
    matrix::{HeadsRef, MatrixMut, MatrixRef},
    number::{Bf16, F16, I8},
    simd::prefetch::{Prefetcher, fit_in_l1},
};

/// The keys and values of every KV head, by blocks.
#[derive(Clone, Copy)]
pub(crate) struct Blocks<'a, E = AnyElements<'a>> {
    pub(crate) data: Data<'a, E>,
    /// `None`: keys and values are plain matrices with a row per key.
    pub(crate) ring: Option<&'a Ring>,
}

/// Keys and values.
#[derive(Clone, Copy)]
pub(crate) enum Data<'a, E> {
    Floats([&'a HeadsRef<'a>; 2]),
    Elements(E),
}

/// The elements of the one attention kernel that hosts have. A microcontroller has a kernel for each pair of elements
/// that is used; that of floats contains no code for others.
#[cfg(not(microcontroller))]
pub(crate) type AnyElements<'a> = &'a dyn Elements;
#[cfg(microcontroller)]
pub(crate) type AnyElements<'a> = Never;

/// The number of keys in a block of a cache's storage. A microcontroller has no memory for more.
pub(crate) const STORAGE_BLOCK: usize = if IS_RING { KEY_BLOCK } else { KEY_BLOCK / 4 };

/// Whether the storage of a cache is a ring of blocks. Else a cache moves its keys to the front where it drops a block.
pub(crate) const IS_RING: bool = cfg!(not(shifting_cache));

/// The storage of a cache. The keys are stored transposed: in a ring those of each block, so that the keys of a head
/// are a matrix of (blocks · dim) × [`KEY_BLOCK`], else all of them, as dim × keys. The matrices may end before the
/// last blocks if those hold no key.
#[derive(Debug)]
pub(crate) struct Ring {
    /// Without the pinned ones.
    pub(crate) blocks: usize,
    /// The number of first keys that are never dropped.
    #[cfg(kept_keys)]
    pub(crate) kept: usize,
    /// The number of blocks that hold those, in the first slots.
    #[cfg(kept_keys)]
    pub(crate) pinned: usize,
    /// The slot of block 0 in a ring that begins behind the pinned slots, or a number with that remainder.
    pub(crate) first: usize,
    /// The first key that the cache holds, but for kept ones, and the end.
    pub(crate) keys: [usize; 2],
    /// The first key that has storage, but for pinned blocks.
    pub(crate) first_stored: usize,
    /// The number of blocks of the first span that lie before block 0.
    pub(crate) blocks_before: usize,
}

/// A block of keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) head: usize,
    pub(crate) first_key: usize,
    /// The number of keys, and their width.
    pub(crate) count: usize,
    pub(crate) dim: usize,
}

impl Ring {
    /// The number of first keys that are never dropped: none where the code for them is left out.
    #[inline(always)]
    pub(crate) fn kept(&self) -> usize {
        #[cfg(kept_keys)]
        return self.kept;
        #[cfg(not(kept_keys))]
        0
    }

    /// The keys before the end that are not held.
    #[inline(always)]
    pub(crate) fn dropped(&self) -> Range<usize> {
        self.kept().min(self.keys[0])..self.keys[0]
    }

    /// The number of blocks that hold those, in the first slots.
    #[inline(always)]
    fn pinned(&self) -> usize {
        #[cfg(kept_keys)]
        return self.pinned;
        #[cfg(not(kept_keys))]
        0
    }
}

impl<'a> Ring {
    /// The keys (keys × dim) of a block.
    #[inline(always)]
    pub(crate) fn keys<T: Copy>(
        &self,
        of: MatrixRef<'a, T>,
        block: Block,
    ) -> Option<MatrixRef<'a, T>> {
        if !IS_RING {
            return self.values(of.t(), block);
        }
        let keys = of.rows_from(self.slot(block)? * block.dim, block.dim)?.t();
        keys.rows_from(0, block.count)
    }

    /// The values of a block, or what else has a row per key.
    #[inline(always)]
    pub(crate) fn values<T: Copy>(
        &self,
        of: MatrixRef<'a, T>,
        block: Block,
    ) -> Option<MatrixRef<'a, T>> {
        let pinned = self.pinned() * KEY_BLOCK;
        let row = if IS_RING {
            self.slot(block)? * KEY_BLOCK
        } else if block.first_key < pinned {
            block.first_key
        } else {
            if pinned > 0 && block.first_key < self.first_stored {
                return None; // dropped
            }
            block.first_key.wrapping_sub(self.first_stored).wrapping_add(pinned)
        };
        of.rows_from(row, block.count)
    }

    #[inline(always)]
    fn slot(&self, block: Block) -> Option<usize> {
        let block = block.first_key / KEY_BLOCK;
        if block < self.pinned() {
            return Some(block);
        }
        Some(self.pinned() + (self.first + block).checked_rem(self.blocks)?)
    }
}

impl<'a, E: Elements> Blocks<'a, E> {
    /// The number of KV heads.
    #[inline(always)]
    pub(crate) fn heads(&self) -> usize {
        match &self.data {
            Data::Floats([keys, _]) => keys.heads(),
            Data::Elements(elements) => {
                let [[heads, ..], _] = elements.shapes();
                heads
            }
        }
    }

    /// The number of value columns.
    #[inline(always)]
    pub(crate) fn value_dim(&self) -> usize {
        match &self.data {
            Data::Floats([_, values]) => values.cols(),
            Data::Elements(elements) => {
                let [_, [.., cols]] = elements.shapes();
                cols
            }
        }
    }

    /// Whether there are as many values as keys, and keys have `dim` columns. The cache has checked those of a ring.
    #[inline(always)]
    pub(crate) fn agree(&self, dim: usize) -> bool {
        self.ring.is_some()
            || match &self.data {
                Data::Floats([keys, values]) => {
                    (keys.rows(), keys.cols(), keys.heads()) == (values.rows(), dim, values.heads())
                }
                Data::Elements(elements) => {
                    let [[heads, rows, cols], [value_heads, value_rows, _]] = elements.shapes();
                    (rows, cols, heads) == (value_rows, dim, value_heads)
                }
            }
    }

    /// The first key and the end of all keys, but for kept ones.
    #[inline(always)]
    pub(crate) fn held(&self) -> [usize; 2] {
        self.ring.map_or_else(
            || match &self.data {
                Data::Floats([keys, _]) => [0, keys.rows()],
                Data::Elements(elements) => {
                    let [[_, rows, _], _] = elements.shapes();
                    [0, rows]
                }
            },
            |ring| ring.keys,
        )
    }

    /// The keys before the end that are not held.
    #[inline(always)]
    pub(crate) fn dropped(&self) -> Range<usize> {
        self.ring.map_or(0..0, Ring::dropped)
    }

    /// The number of keys held.
    #[inline(always)]
    pub(crate) fn count(&self) -> usize {
        let [_, end] = self.held();
        end - self.dropped().len()
    }

    /// The spans with keys held, counted from that of key 0: those of kept keys, and others.
    #[inline(always)]
    pub(crate) fn spans(&self) -> [Range<usize>; 2] {
        let ([first, end], before) = (self.held(), self.keys_before());
        let kept = self.dropped();
        let kept = if kept.is_empty() { 0 } else { kept.start.div_ceil(SPAN) };
        let start = (before.saturating_add(first) / SPAN).max(kept);
        let end = if first < end { before.saturating_add(end).div_ceil(SPAN) } else { start };
        [0..kept, start..end]
    }

    /// The number of keys of the span of key 0 that lie before it.
    #[inline(always)]
    pub(crate) fn keys_before(&self) -> usize {
        self.ring.map_or(0, |ring| ring.blocks_before) * KEY_BLOCK
    }

    /// The first key of block `number` that has storage.
    #[inline(always)]
    pub(crate) fn first_key(&self, number: usize) -> usize {
        let first = number * KEY_BLOCK;
        match self.ring {
            // A block between kept keys and those is not visible.
            Some(ring)
                if !IS_RING && (ring.kept() == 0 || number >= ring.first_stored / KEY_BLOCK) =>
            {
                first.max(ring.first_stored)
            }
            _ => first,
        }
    }

    /// The end of the span of block `block`: the first block of the next one.
    #[inline(always)]
    pub(crate) fn end_of_span(&self, block: usize) -> usize {
        let before = self.ring.map_or(0, |ring| ring.blocks_before);
        ((block + before) / SPAN_BLOCKS + 1) * SPAN_BLOCKS - before
    }

    /// The keys (keys × dim) of a block of floats.
    #[inline(always)]
    pub(crate) fn keys(&self, of: &HeadsRef<'a>, block: Block) -> Option<MatrixRef<'a>> {
        let of = of.head(block.head)?;
        self.ring.map_or_else(|| of_block(of, block), |ring| ring.keys(of, block))
    }

    /// The values of a block of floats.
    #[inline(always)]
    pub(crate) fn values(&self, of: &HeadsRef<'a>, block: Block) -> Option<MatrixRef<'a>> {
        let of = of.head(block.head)?;
        self.ring.map_or_else(|| of_block(of, block), |ring| ring.values(of, block))
    }
}

/// The rows of a block in a plain matrix.
#[inline(always)]
pub(crate) fn of_block<T: Copy>(of: MatrixRef<'_, T>, block: Block) -> Option<MatrixRef<'_, T>> {
    of.rows_from(block.first_key, block.count)
}

/// Rows of keys or values of any element.
#[derive(Clone, Copy, Debug)]
pub enum AnyRows<'a> {
    /// Floats.
    F32(MatrixRef<'a>),
    /// Elements of `F16`.
    F16(MatrixRef<'a, F16>),
    /// Elements of `Bf16`.
    Bf16(MatrixRef<'a, Bf16>),
    /// Elements of `I8`, without their scales.
    I8(MatrixRef<'a, I8>),
}

impl<'a> AnyRows<'a> {
    /// A prefetcher of these rows, if they [`fit_in_l1`] beside `now`; otherwise of `now`, which costs next to nothing.
    #[inline(always)]
    pub(crate) fn prefetcher<'b: 'a, E: Copy>(self, now: MatrixRef<'b, E>) -> Prefetcher<'a, true> {
        match self {
            Self::F32(rows) if fit_in_l1(now, rows) => Prefetcher::new(rows),
            Self::F16(rows) if fit_in_l1(now, rows) => Prefetcher::new(rows),
            Self::Bf16(rows) if fit_in_l1(now, rows) => Prefetcher::new(rows),
            Self::I8(rows) if fit_in_l1(now, rows) => Prefetcher::new(rows),
            _ => Prefetcher::new(now),
        }
    }
}

/// The floats of widened keys or values.
pub(crate) struct Widened<'a> {
    pub(crate) floats: &'a mut [f32],
    /// Whether they already hold the keys or values of the block.
    pub(crate) is_ready: bool,
}

/// Keys and values that are not floats, or not both. Kernels of hosts call it as a trait object.
pub(crate) trait Elements {
    /// Heads, rows and columns of keys, and of values. A ring has other numbers of rows, and of columns of keys.
    fn shapes(&self) -> [[usize; 3]; 2];

    /// The keys (keys × dim) and the values of a block, for layouts that widen what they load.
    fn any(&self, block: Block) -> Option<[AnyRows<'_>; 2]>;

    /// Widens the keys of a block (keys × dim) into `to`, unless they are floats or it is ready.
    fn keys<'t>(&'t self, block: Block, to: &'t mut Widened<'_>) -> Option<MatrixRef<'t>>;

    /// Widens the values of a block into `to`, unless they are floats or it is ready.
    fn values<'t>(&'t self, block: Block, to: &'t mut Widened<'_>) -> Option<MatrixRef<'t>>;

    /// Whether no value of a block is NaN or infinite.
    fn values_are_finite(&self, block: Block) -> bool;

    /// The scales of the keys of a block, in one column, if they have some.
    fn key_scales(&self, block: Block) -> Option<MatrixRef<'_>>;

    /// The scales of the values of a block, in one column, if they have some.
    fn value_scales(&self, block: Block) -> Option<MatrixRef<'_>>;

    /// Multiplies the scores (keys × queries) of a block by the scales of its keys.
    fn scale_scores(&self, block: Block, scores: MatrixMut<'_>);

    /// Multiplies the weights (keys × queries) of a block by the scales of its values.
    fn scale_weights(&self, block: Block, weights: MatrixMut<'_>);
}

impl<E: Elements + ?Sized> Elements for &E {
    #[inline(always)]
    fn shapes(&self) -> [[usize; 3]; 2] {
        (**self).shapes()
    }

    #[inline(always)]
    fn any(&self, block: Block) -> Option<[AnyRows<'_>; 2]> {
        (**self).any(block)
    }

    #[inline(always)]
    fn keys<'t>(&'t self, block: Block, to: &'t mut Widened<'_>) -> Option<MatrixRef<'t>> {
        (**self).keys(block, to)
    }

    #[inline(always)]
    fn values<'t>(&'t self, block: Block, to: &'t mut Widened<'_>) -> Option<MatrixRef<'t>> {
        (**self).values(block, to)
    }

    #[inline(always)]
    fn values_are_finite(&self, block: Block) -> bool {
        (**self).values_are_finite(block)
    }

    #[inline(always)]
    fn key_scales(&self, block: Block) -> Option<MatrixRef<'_>> {
        (**self).key_scales(block)
    }

    #[inline(always)]
    fn value_scales(&self, block: Block) -> Option<MatrixRef<'_>> {
        (**self).value_scales(block)
    }

    #[inline(always)]
    fn scale_scores(&self, block: Block, scores: MatrixMut<'_>) {
        (**self).scale_scores(block, scores);
    }

    #[inline(always)]
    fn scale_weights(&self, block: Block, weights: MatrixMut<'_>) {
        (**self).scale_weights(block, weights);
    }
}

/// No elements: a call over floats contains no code for others.
#[cfg(microcontroller)]
#[derive(Clone, Copy)]
pub(crate) enum Never {}

#[cfg(microcontroller)]
impl Elements for Never {
    fn shapes(&self) -> [[usize; 3]; 2] {
        match *self {}
    }

    fn any(&self, _: Block) -> Option<[AnyRows<'_>; 2]> {
        match *self {}
    }

    fn keys<'t>(&'t self, _: Block, _: &'t mut Widened<'_>) -> Option<MatrixRef<'t>> {
        match *self {}
    }

    fn values<'t>(&'t self, _: Block, _: &'t mut Widened<'_>) -> Option<MatrixRef<'t>> {
        match *self {}
    }

    fn values_are_finite(&self, _: Block) -> bool {
        match *self {}
    }

    fn key_scales(&self, _: Block) -> Option<MatrixRef<'_>> {
        match *self {}
    }

    fn value_scales(&self, _: Block) -> Option<MatrixRef<'_>> {
        match *self {}
    }

    fn scale_scores(&self, _: Block, _: MatrixMut<'_>) {
        match *self {}
    }

    fn scale_weights(&self, _: Block, _: MatrixMut<'_>) {
        match *self {}
    }
}
