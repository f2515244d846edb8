//! The KV cache: keys and values of past tokens in blocks. Public API.

use crate::{
    attention::{Attention, LOGARITHM, Logarithm, grid::BlockKeys},
    elements::{ElementsRef, KeysAndValues},
    error::Error,
    kernel::{
        blocks::{IS_RING, Ring, STORAGE_BLOCK},
        mask,
    },
    matrix::{HeadsMut, HeadsRef, MatrixMut, MatrixRef},
    narrow::Element,
};

mod any;
#[cfg(feature = "defmt")]
mod format;
mod storage;

pub use any::{AnyCacheRef, AnySlice, AnySliceMut, append_any, append_floats};
pub use storage::shift;

use storage::{Sizes, Slices, append, of_keys, of_values};

/// The number of keys in a block of a KV cache: 64, and on microcontrollers 16.
pub const KEY_BLOCK: usize = STORAGE_BLOCK;

/// The state of a KV cache: the number of keys ever appended, which is the position of the next key, and
/// the number of keys dropped, which is the position of the oldest key held; with kept keys, of the oldest behind
/// those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CachePositions {
    appended: u64,
    /// 0, or greater than `kept`.
    dropped: u64,
    #[cfg(kept_keys)]
    kept: usize,
}

impl CachePositions {
    const EMPTY: Self = Self {
        appended: 0,
        dropped: 0,
        #[cfg(kept_keys)]
        kept: 0,
    };

    /// Restores positions that [`appended`](KvCache::appended) and [`dropped`](KvCache::dropped) returned,
    /// for callers that store the state of a cache themselves.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if more keys were dropped than appended.
    pub const fn new(appended: u64, dropped: u64) -> Result<Self, Error> {
        if dropped > appended {
            return Err(Error::Shape);
        }
        Ok(Self { appended, dropped, ..Self::EMPTY })
    }

    /// These positions in a cache that [keeps its first keys](KvCache::keep_first).
    ///
    /// # Errors
    ///
    /// [`Error::Position`] if some of those were dropped, or positions exceed `isize::MAX`.
    pub const fn keeping(self, keys: usize) -> Result<Self, Error> {
        Self::restored(self.appended, self.dropped, keys)
    }

    /// [`new`](Self::new) and [`keeping`](Self::keeping) at once, for the C library. Not part of the API.
    #[doc(hidden)]
    pub const fn restored(appended: u64, dropped: u64, kept: usize) -> Result<Self, Error> {
        if dropped > appended {
            return Err(Error::Shape);
        }
        let are_kept = dropped == 0 || dropped > kept as u64;
        if kept > 0 && !(are_kept && appended <= LARGEST && kept as u64 <= LARGEST) {
            return Err(Error::Position);
        }
        if !cfg!(kept_keys) && kept > 0 {
            return Err(Error::Option);
        }
        Ok(Self {
            appended,
            dropped,
            #[cfg(kept_keys)]
            kept,
        })
    }

    // What the C library calls; not part of the API.

    /// Whether `blocks` blocks have room for these keys.
    #[doc(hidden)]
    pub fn fits(self, blocks: usize) -> bool {
        let pinned = self.pinned();
        let stored = self.appended.max(pinned).div_ceil(STORED) - self.first_stored() / STORED;
        usize::try_from(stored + pinned / STORED).is_ok_and(|used| used <= blocks)
    }

    #[doc(hidden)]
    pub const fn appended(&self) -> u64 {
        self.appended
    }

    #[doc(hidden)]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    #[doc(hidden)]
    #[inline(always)]
    pub const fn kept(&self) -> usize {
        #[cfg(kept_keys)]
        return self.kept;
        #[cfg(not(kept_keys))]
        0
    }

    /// See [`KvCache::keep_first`].
    #[doc(hidden)]
    pub fn keep_first(&mut self, keys: usize, blocks: usize) -> Result<(), Error> {
        if self.dropped > 0 && keys != self.kept() {
            return Err(Error::Position);
        }
        let keeping = self.keeping(keys)?;
        if !keeping.fits(blocks) {
            return Err(Error::Capacity);
        }
        *self = keeping;
        Ok(())
    }

    /// See [`KvCache::truncate`].
    #[doc(hidden)]
    pub fn truncate(&mut self, len: usize) -> Result<(), Error> {
        if len > self.len() {
            return Err(Error::Position);
        }
        let between = if len < self.kept() { 0 } else { self.dropped_keys() };
        self.truncate_to(between + len as u64)
    }

    /// See [`KvCache::truncate_to`].
    #[doc(hidden)]
    pub fn truncate_to(&mut self, position: u64) -> Result<(), Error> {
        if self.kept() > 0 && position <= self.kept() as u64 {
            self.dropped = 0; // only kept keys are left
        }
        if !(self.dropped..=self.appended).contains(&position) {
            return Err(Error::Position);
        }
        self.appended = position;
        Ok(())
    }

    /// See [`KvCache::slide`]. Returns the number of pinned keys, behind which keys with storage then move to the front
    /// of it, by how many keys they move, which are multiples of [`KEY_BLOCK`], and their number.
    #[doc(hidden)]
    pub fn slide(&mut self, len: usize) -> Option<[usize; 3]> {
        let first = self.first_stored();
        let oldest = self.appended.saturating_sub(len.saturating_sub(self.kept()) as u64);
        if self.kept() == 0 || oldest > self.kept() as u64 {
            self.dropped = self.dropped.max(oldest);
        }
        let stored = self.first_stored();
        let moves = !IS_RING && stored > first;
        moves.then(|| {
            // Only pinned keys may be left.
            let count = if self.kept() > 0 {
                self.appended.saturating_sub(stored)
            } else {
                self.appended - stored
            };
            [self.pinned() as usize, (stored - first) as usize, count as usize]
        })
    }

    /// The number of keys dropped.
    const fn dropped_keys(self) -> u64 {
        self.dropped.saturating_sub(self.kept() as u64)
    }

    /// The number of keys in the blocks of the kernel that hold kept ones; those blocks are never dropped.
    const fn pinned(self) -> u64 {
        (self.kept() as u64).div_ceil(BLOCK) * BLOCK
    }

    /// The number of keys held. The cast is exact if they [fit](Self::fits) into a cache.
    const fn len(self) -> usize {
        (self.appended - self.dropped_keys()) as usize
    }

    /// The number of spans with keys held. The cast is exact like that of [`len`](Self::len).
    const fn spans(self) -> usize {
        let (appended, dropped, kept) = (self.appended, self.dropped, self.kept());
        let kept = if dropped == 0 { 0 } else { (kept as u64).div_ceil(SPAN) };
        let before = if dropped / SPAN > kept { dropped / SPAN } else { kept };
        let others = if appended == dropped { 0 } else { appended.div_ceil(SPAN) - before };
        (kept + others) as usize
    }

    /// The keys held in a cache of `blocks` blocks.
    #[inline(always)]
    fn ring(self, blocks: usize) -> Ring {
        // Attention counts keys in `usize`: index 0 is the first key of the first block in use.
        let first_block = self.first_block();
        let index = |position: u64| (position - first_block * BLOCK) as usize;
        let pinned = (self.pinned() / BLOCK) as usize;
        let blocks = blocks.saturating_sub(pinned);
        // Block `pinned` is the first of the ring.
        let before = blocks - pinned.checked_rem(blocks).unwrap_or(0);
        Ring {
            blocks,
            #[cfg(kept_keys)]
            kept: self.kept,
            #[cfg(kept_keys)]
            pinned,
            first: if IS_RING { slot(first_block, blocks) + before } else { 0 },
            keys: [index(self.dropped), index(self.appended)],
            first_stored: index(self.first_stored()),
            blocks_before: (first_block % (SPAN / BLOCK)) as usize,
        }
    }

    /// The block of the oldest key held, counted from position 0.
    const fn first_block(self) -> u64 {
        if self.kept() > 0 { 0 } else { self.dropped / BLOCK }
    }

    /// The position of the first key that has storage, but for pinned ones.
    const fn first_stored(self) -> u64 {
        let pinned = self.pinned();
        let first = if self.dropped > pinned { self.dropped } else { pinned };
        first / STORED * STORED
    }
}

/// The largest position in a cache with kept keys: they are counted from position 0, in `isize`.
const LARGEST: u64 = isize::MAX as u64;

/// The number of keys in a block of the kernel, in the type of positions.
const BLOCK: u64 = mask::KEY_BLOCK as u64;

/// [`KEY_BLOCK`] in the type of positions.
const STORED: u64 = KEY_BLOCK as u64;

/// The number of keys in a span, in the type of positions.
const SPAN: u64 = mask::SPAN as u64;

/// The slot of `block` in a ring of `blocks` slots: `block % blocks`.
fn slot(block: u64, blocks: usize) -> usize {
    if let Ok(block) = usize::try_from(block) {
        return block.checked_rem(blocks).unwrap_or(0);
    }
    // Bit by bit: on a 32-bit target a 64-bit division is 600 bytes of code, and this path is taken
    // only after 2^38 keys. No sum overflows, because a block takes more than two bytes.
    (0..u64::BITS).rev().fold(0, |slot, bit| {
        let slot = 2 * slot + (block >> bit & 1) as usize;
        if slot >= blocks { slot - blocks } else { slot }
    })
}

/// The getters that all three cache types share.
macro_rules! position_getters {
    ($positions:ident) => {
        /// The number of keys held.
        #[inline]
        pub const fn len(&self) -> usize {
            self.$positions.len()
        }

        /// Whether the cache holds no key.
        #[inline]
        pub const fn is_empty(&self) -> bool {
            self.len() == 0
        }

        /// The number of keys ever appended, dropped ones included, less those taken back by `truncate`:
        /// the position of the next key.
        #[inline]
        pub const fn appended(&self) -> u64 {
            self.$positions.appended
        }

        /// The position of the oldest key held: the number of keys dropped and of those before the cache began. With
        /// [kept](KvCache::keep_first) keys, the position of the oldest behind those once a key is dropped.
        #[inline]
        pub const fn dropped(&self) -> u64 {
            self.$positions.dropped
        }

        /// The number of first keys that are [kept](KvCache::keep_first).
        #[inline]
        pub const fn kept(&self) -> usize {
            self.$positions.kept()
        }

        /// The number of spans in which this cache holds keys: see [`run_spans`](KvCache::run_spans).
        #[inline]
        pub const fn spans(&self) -> usize {
            self.$positions.spans()
        }
    };
}

/// A KV cache for one KV head that owns its storage: `BLOCKS` blocks of
/// [`KEY_BLOCK`] keys, `4 · KEY_BLOCK · BLOCKS · (DIM + VALUE_DIM)` bytes.
///
/// Keys may be of any [`Element`] `K` and values of any `V`: with [`F16`](crate::F16) or [`Bf16`](crate::Bf16) the
/// cache takes half of that, with [`I8`](crate::I8) a quarter and 4 bytes a key and a value for their scales. Floats
/// are rounded when they are appended. Such a cache begins as [`EMPTY`](Self::EMPTY), and its calls take
/// [`Attention::elements_workspace`] floats.
///
/// [`slide`](Self::slide) drops the oldest keys and makes room: the blocks form a ring, and on microcontrollers the
/// keys that are left move, once per block. The oldest block may hold a single key, so a cache that slides has room for
/// `(BLOCKS - 1) · KEY_BLOCK + 1` keys at any positions. For a window of `left` keys
/// and chunks of `chunk` tokens (append a chunk, attend with its queries, slide to `left`
/// keys) choose `BLOCKS = (left + chunk).div_ceil(KEY_BLOCK) + 1`: every query of the
/// chunk then sees all keys of its window.
///
/// [`attend`](Self::attend) returns the same bits as [`Attention::run`] over every key ever appended, with
/// the dropped ones masked.
///
/// ```
/// use sdpa::{Attention, KvCache, Matrix, MatrixRef};
///
/// let mut cache = KvCache::<2, 1, 2>::new();
/// let mut workspace = [0.0; Attention::workspace(2, 1)];
/// let mut out = Matrix::<1, 1>::ZERO;
/// for token in [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]] {
///     cache.append(MatrixRef::from_row(&token), MatrixRef::from_row(&token[..1]))?;
///     let query = MatrixRef::from_row(&token);
///     cache.attend(&Attention::new().causal(), query, out.view_mut(), &mut workspace)?;
/// }
/// assert_eq!(cache.len(), 3);
/// # Ok::<(), sdpa::Error>(())
/// ```
///
/// ```
/// use sdpa::{Bf16, I8, KEY_BLOCK, KvCache};
///
/// const BLOCKS: usize = 256 / KEY_BLOCK;
/// let cache: KvCache<64, 64, BLOCKS> = KvCache::new();
/// let half: KvCache<64, 64, BLOCKS, Bf16> = KvCache::EMPTY;
/// let quarter: KvCache<64, 64, BLOCKS, I8> = KvCache::EMPTY;
/// assert_eq!(size_of_val(&cache), 131096);
/// assert_eq!(size_of_val(&half), 65560);
/// assert_eq!(size_of_val(&quarter), 34840);
/// ```
#[derive(Debug)]
pub struct KvCache<
    const DIM: usize,
    const VALUE_DIM: usize,
    const BLOCKS: usize,
    K: Element = f32,
    V: Element = K,
> {
    keys: [[[K; KEY_BLOCK]; DIM]; BLOCKS],
    values: [[[V; VALUE_DIM]; KEY_BLOCK]; BLOCKS],
    key_scales: [[K::Scale; KEY_BLOCK]; BLOCKS],
    value_scales: [[V::Scale; KEY_BLOCK]; BLOCKS],
    positions: CachePositions,
}

impl<const DIM: usize, const VALUE_DIM: usize, const BLOCKS: usize, K: Element, V: Element> Default
    for KvCache<DIM, VALUE_DIM, BLOCKS, K, V>
{
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<const DIM: usize, const VALUE_DIM: usize, const BLOCKS: usize>
    KvCache<DIM, VALUE_DIM, BLOCKS>
{
    /// Creates an empty cache.
    pub const fn new() -> Self {
        Self::EMPTY
    }

    /// Creates an empty cache that begins at a position: the first key appended has this position. For a machine
    /// that holds a later part of the keys.
    pub const fn starting_at(position: u64) -> Self {
        let mut cache = Self::EMPTY;
        cache.positions = CachePositions::EMPTY;
        (cache.positions.appended, cache.positions.dropped) = (position, position);
        cache
    }
}

impl<const DIM: usize, const VALUE_DIM: usize, const BLOCKS: usize, K: Element, V: Element>
    KvCache<DIM, VALUE_DIM, BLOCKS, K, V>
{
    /// An empty cache. A constant, so that creating a cache needs no array on the stack.
    pub const EMPTY: Self = {
        assert!(DIM > 0 && VALUE_DIM > 0, "keys and values have columns");
        Self {
            keys: [[[K::ZERO; KEY_BLOCK]; DIM]; BLOCKS],
            values: [[[V::ZERO; VALUE_DIM]; KEY_BLOCK]; BLOCKS],
            key_scales: [[K::NO_SCALE; KEY_BLOCK]; BLOCKS],
            value_scales: [[V::NO_SCALE; KEY_BLOCK]; BLOCKS],
            positions: CachePositions::EMPTY,
        }
    };

    position_getters!(positions);

    /// Appends keys (keys × `DIM`) and their values (keys × `VALUE_DIM`), the newest last.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if sizes disagree; [`Error::Capacity`] if there is no room for all of them;
    /// [`Error::Position`] if [`appended`](Self::appended) would exceed `u64::MAX`; [`Error::Range`] if an element
    /// type cannot represent one: see [`narrow`](crate::narrow()). Nothing is changed then.
    pub fn append(&mut self, keys: MatrixRef<'_>, values: MatrixRef<'_>) -> Result<(), Error> {
        self.view_mut().append(keys, values)
    }

    /// Removes the newest keys until `len` are left, for example rejected speculative tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Position`] if the cache holds fewer than `len`. Nothing is changed then.
    pub fn truncate(&mut self, len: usize) -> Result<(), Error> {
        self.view_mut().truncate(len)
    }

    /// Removes the keys from `position` on; `position` becomes that of the next key.
    ///
    /// # Errors
    ///
    /// [`Error::Position`] if `position` is less than [`dropped`](Self::dropped) or greater than
    /// [`appended`](Self::appended). Nothing is changed then.
    pub fn truncate_to(&mut self, position: u64) -> Result<(), Error> {
        self.view_mut().truncate_to(position)
    }

    /// Keeps the first keys (attention sinks, as in streaming models): [`slide`](Self::slide) drops none of the `keys`
    /// first ones, and every query sees them, as with [`Attention::keep_first`]. They take whole blocks of 64 keys.
    ///
    /// ```
    /// use sdpa::{KEY_BLOCK, KvCache, Matrix};
    ///
    /// let mut cache = KvCache::<1, 1, { 256 / KEY_BLOCK }>::new();
    /// cache.keep_first(4)?;
    /// for _ in 0..10 {
    ///     let tokens = Matrix::<64, 1>::ZERO;
    ///     cache.append(tokens.view(), tokens.view())?;
    ///     cache.slide(4 + 100); // the first 4 keys and the last 100
    /// }
    /// assert_eq!((cache.len(), cache.dropped(), cache.appended()), (104, 540, 640));
    /// # Ok::<(), sdpa::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Position`] if keys were dropped already, or the cache began at another position than 0;
    /// [`Error::Capacity`] if the blocks of these keys are more than the cache has; [`Error::Option`] on microcontrollers
    /// without the feature `keep-first`. Nothing is changed then. Positions of such a cache end at `isize::MAX`.
    pub fn keep_first(&mut self, keys: usize) -> Result<(), Error> {
        self.view_mut().keep_first(keys)
    }

    /// Drops the oldest keys until at most `len` are left (sliding window), those that are
    /// [kept](Self::keep_first) included.
    pub fn slide(&mut self, len: usize) {
        self.view_mut().slide(len);
    }

    /// Removes all keys: the next key has position 0.
    pub fn clear(&mut self) {
        (self.positions.appended, self.positions.dropped) = (0, 0);
    }

    /// Copies `other` into this cache. There is no `Clone`, because its result would pass through the stack.
    pub fn copy_from(&mut self, other: &Self) {
        /// One by one: at opt-level 0 the assignment of an array goes through the stack.
        fn copy<T: Copy>(to: &mut [T], from: &[T]) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
        let (to, from) = (self.view_mut(), other.view());
        copy(to.keys, from.keys);
        copy(to.values, from.values);
        copy(to.key_scales, from.key_scales);
        copy(to.value_scales, from.value_scales);
        *to.positions = from.positions;
    }

    /// Computes attention over the keys and values of this cache: [`Attention::run`] for decoding and chunked
    /// prefill.
    ///
    /// `queries` belong to the newest positions, in one head or in many heads that share
    /// these keys: query `i` has position `appended - queries + i + query_offset`. A
    /// bias or keep has a row for each key that the cache holds, the oldest first; slopes multiply the distances of
    /// absolute positions.
    ///
    /// # Errors
    ///
    /// Those of [`Attention::run`].
    pub fn attend<'b>(
        &self,
        attention: &Attention<'_>,
        queries: impl Into<HeadsRef<'b>>,
        out: impl Into<HeadsMut<'b>>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.view().attend(attention, queries, out, workspace)
    }

    /// [`attend`](Self::attend) that also writes the log-sum-exp of each query, head after head.
    ///
    /// # Errors
    ///
    /// Those of [`Attention::run_with_log_sum_exp`].
    pub fn attend_with_log_sum_exp<'b>(
        &self,
        attention: &Attention<'_>,
        queries: impl Into<HeadsRef<'b>>,
        out: impl Into<HeadsMut<'b>>,
        log_sum_exp: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.view().attend_with_log_sum_exp(attention, queries, out, log_sum_exp, workspace)
    }

    /// Computes the states of the spans in which this cache holds keys: [`Attention::run_spans`] from a cache.
    ///
    /// `states` is spans × query heads × queries × [`Attention::state_floats`]`(VALUE_DIM)`, with
    /// [`spans`](Self::spans) spans; keys that a span lacks count as masked. Queries are positioned as in
    /// [`attend`](Self::attend): where the newest keys are elsewhere, `query_offset` is their number.
    ///
    /// # Errors
    ///
    /// Those of [`Attention::run_spans`].
    pub fn run_spans<'b>(
        &self,
        attention: &Attention<'_>,
        queries: impl Into<HeadsRef<'b>>,
        states: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.view().run_spans(attention, queries, states, workspace)
    }

    /// Computes the attention weights of every head over the keys of this cache: [`Attention::pattern`] with query
    /// positions and masks as in [`attend`](Self::attend), and with a row for each key that the cache holds, the oldest
    /// first.
    ///
    /// `workspace`: [`KEY_BLOCK`] · `DIM` floats of any content; of keys that are floats none.
    ///
    /// # Errors
    ///
    /// Those of [`Attention::pattern_elements`].
    pub fn pattern<'b>(
        &self,
        attention: &Attention<'_>,
        queries: impl Into<HeadsRef<'b>>,
        out: impl Into<HeadsMut<'b>>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.view().pattern(attention, queries, out, workspace)
    }

    /// Computes the mean [`pattern`](Self::pattern) of all query heads, as [`Attention::mean_pattern`] does.
    ///
    /// `workspace`: keys · queries floats, and those of [`pattern`](Self::pattern).
    ///
    /// # Errors
    ///
    /// Those of [`Attention::mean_pattern`].
    pub fn mean_pattern<'b>(
        &self,
        attention: &Attention<'_>,
        queries: impl Into<HeadsRef<'b>>,
        out: MatrixMut<'_>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.view().mean_pattern(attention, queries, out, workspace)
    }

    /// A read-only view of the cache.
    pub fn view(&self) -> KvCacheRef<'_, K, V> {
        KvCacheRef {
            keys: self.keys.as_flattened().as_flattened(),
            values: self.values.as_flattened().as_flattened(),
            key_scales: self.key_scales.as_flattened(),
            value_scales: self.value_scales.as_flattened(),
            sizes: Sizes { dim: DIM, value_dim: VALUE_DIM, blocks: BLOCKS },
            positions: self.positions,
        }
    }

    /// A mutable view of the cache.
    fn view_mut(&mut self) -> KvCacheMut<'_, K, V> {
        KvCacheMut {
            keys: self.keys.as_flattened_mut().as_flattened_mut(),
            values: self.values.as_flattened_mut().as_flattened_mut(),
            key_scales: self.key_scales.as_flattened_mut(),
            value_scales: self.value_scales.as_flattened_mut(),
            sizes: Sizes { dim: DIM, value_dim: VALUE_DIM, blocks: BLOCKS },
            positions: &mut self.positions,
        }
    }
}

/// A KV cache in caller-provided storage: [`KvCache`] with sizes chosen at run time.
#[derive(Debug)]
pub struct KvCacheMut<'a, K: Element = f32, V: Element = K> {
    keys: &'a mut [K],
    values: &'a mut [V],
    key_scales: &'a mut [K::Scale],
    value_scales: &'a mut [V::Scale],
    sizes: Sizes,
    positions: &'a mut CachePositions,
}

impl<'a, K: Element<Scale = ()>, V: Element<Scale = ()>> KvCacheMut<'a, K, V> {
    /// Creates a cache of as many blocks as fit into both slices: a block takes `dim · KEY_BLOCK` elements of
    /// `keys` and `value_dim · KEY_BLOCK` of `values`. A new cache begins with [`CachePositions::default`];
    /// an existing one is opened again with the same storage, sizes and `positions`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if a slice is too short for one block, or a width is 0; [`Error::Capacity`] if
    /// `positions` hold more keys than there is room for.
    pub fn new(
        keys: &'a mut [K],
        values: &'a mut [V],
        dim: usize,
        value_dim: usize,
        positions: &'a mut CachePositions,
    ) -> Result<Self, Error> {
        Self::with_scales(keys, values, (&mut [], &mut []), [dim, value_dim], positions)
    }
}

impl<'a, K: Element, V: Element> KvCacheMut<'a, K, V> {
    /// [`new`](KvCacheMut::new) for elements with a scale ([`I8`](crate::I8)): a block also takes `KEY_BLOCK` floats
    /// of `key_scales` or `value_scales`; elements without a scale take `&mut []`.
    ///
    /// # Errors
    ///
    /// Those of [`new`](KvCacheMut::new).
    pub fn with_scales(
        keys: &'a mut [K],
        values: &'a mut [V],
        (key_scales, value_scales): (&'a mut [K::Scale], &'a mut [V::Scale]),
        [dim, value_dim]: [usize; 2],
        positions: &'a mut CachePositions,
    ) -> Result<Self, Error> {
        let scales = [K::scales(key_scales).len(), V::scales(value_scales).len()];
        let sizes = Sizes::of::<K, V>([keys.len(), values.len()], scales, [dim, value_dim])?;
        if !positions.fits(sizes.blocks) {
            return Err(Error::Capacity);
        }
        Ok(Self { keys, values, key_scales, value_scales, sizes, positions })
    }

    position_getters!(positions);

    /// See [`KvCache::append`].
    ///
    /// # Errors
    ///
    /// Those of [`KvCache::append`].
    pub fn append(&mut self, keys: MatrixRef<'_>, values: MatrixRef<'_>) -> Result<(), Error> {
        append(
            Slices { elements: self.keys, scales: self.key_scales },
            Slices { elements: self.values, scales: self.value_scales },
            self.sizes,
            self.positions,
            [keys, values],
        )
    }

    /// See [`KvCache::truncate`].
    ///
    /// # Errors
    ///
    /// Those of [`KvCache::truncate`].
    pub fn truncate(&mut self, len: usize) -> Result<(), Error> {
        self.positions.truncate(len)
    }

    /// See [`KvCache::truncate_to`].
    ///
    /// # Errors
    ///
    /// Those of [`KvCache::truncate_to`].
    pub fn truncate_to(&mut self, position: u64) -> Result<(), Error> {
        self.positions.truncate_to(position)
    }

    /// See [`KvCache::keep_first`].
    ///
    /// # Errors
    ///
    /// Those of [`KvCache::keep_first`].
    pub fn keep_first(&mut self, keys: usize) -> Result<(), Error> {
        self.positions.keep_first(keys, self.sizes.blocks)
    }

    /// See [`KvCache::slide`].
    pub fn slide(&mut self, len: usize) {
        if let Some([from, by, count]) = self.positions.slide(len) {
            let Sizes { dim, value_dim, .. } = self.sizes;
            for column in self.keys.chunks_mut(self.sizes.row().max(1)).take(dim) {
                shift::<KEY_BLOCK, _>(column, from, by, count);
            }
            let values = |keys: usize| keys * value_dim;
            shift::<KEY_BLOCK, _>(self.values, values(from), values(by), values(count));
            shift::<KEY_BLOCK, _>(self.key_scales, from, by, count);
            shift::<KEY_BLOCK, _>(self.value_scales, from, by, count);
        }
    }

    /// A read-only view of the cache.
    pub fn view(&self) -> KvCacheRef<'_, K, V> {
        KvCacheRef {
            keys: self.keys,
            values: self.values,
            key_scales: self.key_scales,
            value_scales: self.value_scales,
            sizes: self.sizes,
            positions: *self.positions,
        }
    }
}

/// A read-only view of a KV cache for attention. Threads can share it.
#[derive(Clone, Copy, Debug)]
pub struct KvCacheRef<'a, K: Element = f32, V: Element = K> {
    keys: &'a [K],
    values: &'a [V],
    key_scales: &'a [K::Scale],
    value_scales: &'a [V::Scale],
    sizes: Sizes,
    positions: CachePositions,
}

/// What the C library calls: compiled in this crate, as it has floats only.
impl<'a> KvCacheRef<'a> {
    /// A cache of these columns of keys and of values and blocks, which has room for the keys.
    #[doc(hidden)]
    #[inline(always)]
    pub fn of_checked(
        keys: &'a [f32],
        values: &'a [f32],
        [dim, value_dim, blocks]: [usize; 3],
        positions: CachePositions,
    ) -> Self {
        let sizes = Sizes { dim, value_dim, blocks };
        Self { keys, values, key_scales: &[], value_scales: &[], sizes, positions }
    }

    /// See [`Attention::run_views`].
    #[doc(hidden)]
    pub fn attend_views(
        &self,
        attention: &Attention<'_>,
        queries: &HeadsRef<'_>,
        out: &mut HeadsMut<'_>,
        log_sum_exp: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let log_sum_exp = log_sum_exp.map(|out| (out, LOGARITHM));
        self.run(attention, queries, out, log_sum_exp, workspace)
    }

    /// See [`Attention::run_views`].
    #[doc(hidden)]
    pub fn run_spans_views(
        &self,
        attention: &Attention<'_>,
        queries: &HeadsRef<'_>,
        states: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.run_states(attention, queries, states, workspace)
    }
}

impl<'a, K: Element<Scale = ()>, V: Element<Scale = ()>> KvCacheRef<'a, K, V> {
    /// Opens an existing cache for reading: see [`KvCacheMut::new`].
    ///
    /// # Errors
    ///
    /// Those of [`KvCacheMut::new`].
    pub fn new(
        keys: &'a [K],
        values: &'a [V],
        dim: usize,
        value_dim: usize,
        positions: CachePositions,
    ) -> Result<Self, Error> {
        Self::with_scales(keys, values, (&[], &[]), [dim, value_dim], positions)
    }
}

impl<'a, K: Element, V: Element> KvCacheRef<'a, K, V> {
    /// Opens an existing cache with scales for reading: see [`KvCacheMut::with_scales`].
    ///
    /// # Errors
    ///
    /// Those of [`KvCacheMut::with_scales`].
    // Inlined: the C library has no stack for a second copy of the view.
    #[inline(always)]
    pub fn with_scales(
        keys: &'a [K],
        values: &'a [V],
        (key_scales, value_scales): (&'a [K::Scale], &'a [V::Scale]),
        [dim, value_dim]: [usize; 2],
        positions: CachePositions,
    ) -> Result<Self, Error> {
        let scales = [K::scales(key_scales).len(), V::scales(value_scales).len()];
        let sizes = Sizes::of::<K, V>([keys.len(), values.len()], scales, [dim, value_dim])?;
        if !positions.fits(sizes.blocks) {
            return Err(Error::Capacity);
        }
        Ok(Self { keys, values, key_scales, value_scales, sizes, positions })
    }

    position_getters!(positions);

    /// See [`KvCache::attend`].
    ///
    /// # Errors
    ///
    /// Those of [`KvCache::attend`].
    pub fn attend<'b>(
        &self,
        attention: &Attention<'_>,
        queries: impl Into<HeadsRef<'b>>,
        out: impl Into<HeadsMut<'b>>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.run(attention, &queries.into(), &mut out.into(), None, workspace)
    }

    /// See [`KvCache::attend_with_log_sum_exp`].
    ///
    /// # Errors
    ///
    /// Those of [`KvCache::attend_with_log_sum_exp`].
    pub fn attend_with_log_sum_exp<'b>(
        &self,
        attention: &Attention<'_>,
        queries: impl Into<HeadsRef<'b>>,
        out: impl Into<HeadsMut<'b>>,
        log_sum_exp: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let log_sum_exp = Some((log_sum_exp, LOGARITHM));
        self.run(attention, &queries.into(), &mut out.into(), log_sum_exp, workspace)
    }

    /// See [`KvCache::run_spans`].
    ///
    /// # Errors
    ///
    /// Those of [`KvCache::run_spans`].
    pub fn run_spans<'b>(
        &self,
        attention: &Attention<'_>,
        queries: impl Into<HeadsRef<'b>>,
        states: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.run_states(attention, &queries.into(), states, workspace)
    }

    /// See [`KvCache::pattern`].
    ///
    /// # Errors
    ///
    /// Those of [`KvCache::pattern`].
    pub fn pattern<'b>(
        &self,
        attention: &Attention<'_>,
        queries: impl Into<HeadsRef<'b>>,
        out: impl Into<HeadsMut<'b>>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let (queries, mut out) = (queries.into(), out.into());
        self.with_elements(attention, &queries, |&KeysAndValues { keys, ring, .. }| {
            let keys = BlockKeys { keys, dim: self.sizes.dim, ring };
            attention.pattern_of(&queries, &keys, &mut out, workspace)
        })
    }

    /// See [`KvCache::mean_pattern`].
    ///
    /// # Errors
    ///
    /// Those of [`KvCache::mean_pattern`].
    pub fn mean_pattern<'b>(
        &self,
        attention: &Attention<'_>,
        queries: impl Into<HeadsRef<'b>>,
        out: MatrixMut<'_>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let queries = queries.into();
        self.with_elements(attention, &queries, |&KeysAndValues { keys, ring, .. }| {
            let keys = BlockKeys { keys, dim: self.sizes.dim, ring };
            attention.mean_pattern_of(&queries, &keys, out, workspace)
        })
    }

    fn run_states(
        &self,
        attention: &Attention<'_>,
        queries: &HeadsRef<'_>,
        states: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let first_key = self.positions.first_block() * BLOCK;
        self.with_elements(attention, queries, |elements| {
            attention.run_elements_spans_call(queries, elements, first_key, states, workspace)
        })
    }

    fn run(
        &self,
        attention: &Attention<'_>,
        queries: &HeadsRef<'_>,
        out: &mut HeadsMut<'_>,
        log_sum_exp: Option<(&mut [f32], Logarithm)>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.with_elements(attention, queries, |elements| {
            attention.run_elements_call(queries, elements, out, log_sum_exp, workspace)
        })
    }

    /// Calls `run` with the keys and values of this cache.
    #[inline(always)]
    fn with_elements(
        &self,
        attention: &Attention<'_>,
        queries: &HeadsRef<'_>,
        run: impl FnOnce(
            &KeysAndValues<'_, ElementsRef<'a, K>, ElementsRef<'a, V>>,
        ) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if queries.cols() != self.sizes.dim {
            return Err(Error::Shape);
        }
        let keys = of_keys(self.keys, K::scales(self.key_scales), self.sizes)?;
        let values = of_values(self.values, V::scales(self.value_scales), self.sizes.value_dim)?;
        run(&attention.elements(keys, values, Some(&self.positions.ring(self.sizes.blocks))))
    }
}
