//! The KV cache, in caller-provided storage.

use core::ptr;

use sdpa::{
    AnyCacheRef, AnySlice, AnySliceMut, Attention, Backend, CachePositions, Error, HeadsMut,
    HeadsRef, KEY_BLOCK, KvCacheRef, append_any, append_floats, shift,
};

use crate::{
    attention::CommonArguments,
    elements::{SDPA_BF16, SDPA_F16, SDPA_F32, SDPA_I8, sdpa_format},
    library::{backend_of, operation, sdpa_backend_t},
    options::sdpa_options,
    region::{Region, Span, array},
    states::arguments,
    status::{
        Checked, Failure, SDPA_ERROR_CAPACITY, SDPA_ERROR_FORMAT, SDPA_ERROR_SHAPE_CACHE,
        SDPA_ERROR_SHAPE_DIM, SDPA_ERROR_SHAPE_KEYS, SDPA_ERROR_SHAPE_QUERIES,
        SDPA_ERROR_SHAPE_VALUE_DIM, SDPA_ERROR_SHAPE_VALUES, sdpa_status, status,
    },
    views::{
        Operand, Slot, sdpa_heads, sdpa_heads_mut, sdpa_matrix, sdpa_matrix_mut, slice, slice_mut,
    },
};

/// The number of keys in a block of a cache: the header has it for each target.
/// cbindgen:ignore
pub const SDPA_KEY_BLOCK: usize = KEY_BLOCK;

/// A KV cache: the keys and values of one KV head in caller-provided storage. sdpa_cache_init or
/// sdpa_cache_init_elements initializes it, the functions below change it, and callers may read its fields. It holds
/// appended - dropped keys, those at positions dropped to appended - 1, and kept ones before. As the oldest block may
/// hold a single key, a cache that slides is only certain to hold
/// (blocks - 1) * SDPA_KEY_BLOCK + 1 keys. For a window of left keys and chunks of chunk tokens
/// (append a chunk, attend with its queries, slide to left keys) use
/// (left + chunk + SDPA_KEY_BLOCK - 1) / SDPA_KEY_BLOCK + 1 blocks. Copying the structure does not
/// copy the storage.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sdpa_cache {
    /// SDPA_CACHE_FLOATS_OF(dim, value_dim, blocks, key_format, value_format) floats.
    pub storage: *mut f32,
    /// Columns per key.
    pub dim: usize,
    /// Columns per value.
    pub value_dim: usize,
    /// Number of blocks, of SDPA_KEY_BLOCK keys each.
    pub blocks: usize,
    /// Number of keys ever appended: the position of the next key.
    pub appended: u64,
    /// Number of keys dropped, oldest first: the position of the oldest key in the cache.
    pub dropped: u64,
    /// The format of the keys; 0, which is SDPA_F32, unless sdpa_cache_init_elements has set it.
    pub key_format: sdpa_format,
    /// The format of the values.
    pub value_format: sdpa_format,
    /// Number of first keys that are kept: see sdpa_cache_keep_first.
    pub kept: usize,
}

/// Returns the number of floats of storage that a cache of blocks blocks needs; SIZE_MAX if the
/// number overflows. SDPA_CACHE_FLOATS is the same number as a constant expression, for static
/// arrays.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub extern "C" fn sdpa_cache_floats(dim: usize, value_dim: usize, blocks: usize) -> usize {
    dim.saturating_add(value_dim).saturating_mul(SDPA_KEY_BLOCK).saturating_mul(blocks)
}

/// Initializes an empty cache with as many blocks as fit in storage, and sets these to 0.
/// storage_len counts floats; SDPA_ERROR_CAPACITY if not even one block fits. The storage must live
/// as long as the cache, and only the cache functions may write it. There is nothing to free.
///
/// Overlap: cache must not overlap storage. On failure both are unchanged.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub unsafe extern "C" fn sdpa_cache_init(
    cache: *mut sdpa_cache,
    dim: usize,
    value_dim: usize,
    storage: *mut f32,
    storage_len: usize,
) -> sdpa_status {
    // SAFETY: as the caller promises.
    unsafe { sdpa_cache_init_at(cache, dim, value_dim, storage, storage_len, 0) }
}

/// Initializes an empty cache that begins at a position: sdpa_cache_init, but the first key appended has
/// that position. For a machine that holds a later part of the keys: see sdpa_cache_states.
///
/// Overlap: cache must not overlap storage. On failure both are unchanged.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub unsafe extern "C" fn sdpa_cache_init_at(
    cache: *mut sdpa_cache,
    dim: usize,
    value_dim: usize,
    storage: *mut f32,
    storage_len: usize,
    position: u64,
) -> sdpa_status {
    let sizes = [dim, value_dim, sdpa_cache_floats(dim, value_dim, 1)];
    // SAFETY: as the caller promises.
    status(unsafe { init(cache, sizes, [SDPA_F32; 2], (storage, storage_len), position) })
}

/// Returns the number of floats of storage that a cache of blocks blocks needs whose keys and values have these
/// formats; SIZE_MAX if the number overflows or a format is unknown. SDPA_CACHE_FLOATS_OF is the same number
/// as a constant expression.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub extern "C" fn sdpa_cache_floats_of(
    dim: usize,
    value_dim: usize,
    blocks: usize,
    key_format: sdpa_format,
    value_format: sdpa_format,
) -> usize {
    let of = |dim, format| floats_of(dim, format).unwrap_or(usize::MAX);
    of(dim, key_format).saturating_add(of(value_dim, value_format)).saturating_mul(blocks)
}

/// The floats that a block of keys or values takes: its elements, and for each key a scale of SDPA_I8.
fn floats_of(dim: usize, format: sdpa_format) -> Checked<usize> {
    let elements = |size| dim.saturating_mul(SDPA_KEY_BLOCK * size / size_of::<f32>());
    match format {
        SDPA_F32 => Ok(elements(4)),
        SDPA_F16 | SDPA_BF16 => Ok(elements(2)),
        SDPA_I8 => Ok(elements(1).saturating_add(SDPA_KEY_BLOCK)),
        _ => Err(Failure(SDPA_ERROR_FORMAT)),
    }
}

/// Initializes an empty cache whose keys and values have these formats, of which each is any: half or a
/// quarter of the memory. Otherwise as sdpa_cache_init_at; position is 0 for a new sequence.
///
/// Such a cache is for sdpa_cache_append_elements, sdpa_cache_attend_elements and
/// sdpa_cache_states_elements, which take a cache of floats too, and for sdpa_cache_truncate,
/// sdpa_cache_truncate_to and sdpa_cache_slide. The other functions are for floats alone
/// (SDPA_ERROR_FORMAT), so that a program that calls only these does not link what formats need.
///
/// Overlap: cache must not overlap storage. On failure both are unchanged.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub unsafe extern "C" fn sdpa_cache_init_elements(
    cache: *mut sdpa_cache,
    dim: usize,
    value_dim: usize,
    key_format: sdpa_format,
    value_format: sdpa_format,
    storage: *mut f32,
    storage_len: usize,
    position: u64,
) -> sdpa_status {
    let call = || -> Checked<()> {
        floats_of(dim, key_format)?;
        floats_of(value_dim, value_format)?;
        let formats = [key_format, value_format];
        let block = sdpa_cache_floats_of(dim, value_dim, 1, key_format, value_format);
        // SAFETY: as the caller promises.
        unsafe { init(cache, [dim, value_dim, block], formats, (storage, storage_len), position) }
    };
    status(call())
}

/// Initializes a cache whose blocks take `block` floats.
///
/// # Safety
///
/// `cache` is NULL, or it and its storage may be read and written and nobody else uses them.
unsafe fn init(
    cache: *mut sdpa_cache,
    [dim, value_dim, block]: [usize; 3],
    [key_format, value_format]: [sdpa_format; 2],
    (storage, storage_len): (*mut f32, usize),
    position: u64,
) -> Checked<()> {
    let storage_span = array(storage.cast_const(), storage_len)?;
    array(cache.cast_const(), 1)?.check_disjoint(storage_span)?;
    if dim == 0 {
        return Err(Failure(SDPA_ERROR_SHAPE_DIM));
    }
    if value_dim == 0 {
        return Err(Failure(SDPA_ERROR_SHAPE_VALUE_DIM));
    }
    let blocks = storage_len.checked_div(block).unwrap_or(0);
    if blocks == 0 {
        return Err(Failure(SDPA_ERROR_CAPACITY));
    }
    // SAFETY: aligned, not NULL, disjoint, and as the caller promises.
    unsafe {
        storage.write_bytes(0, block.wrapping_mul(blocks)); // at most storage_len
        let (appended, dropped) = (position, position);
        cache.write(sdpa_cache {
            storage,
            dim,
            value_dim,
            blocks,
            appended,
            dropped,
            key_format,
            value_format,
            kept: 0,
        });
    }
    Ok(())
}

/// Appends keys (keys x dim) and their values (keys x value_dim) to the cache, newest last.
/// SDPA_ERROR_CAPACITY if there is no room for all of them.
///
/// Overlap: cache and its storage must not overlap any input. On failure both are unchanged.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub unsafe extern "C" fn sdpa_cache_append(
    cache: *mut sdpa_cache,
    keys: sdpa_matrix,
    values: sdpa_matrix,
) -> sdpa_status {
    let call = || -> Checked<()> {
        let inputs = [keys.operand()?, values.operand()?];
        // SAFETY: as the caller promises.
        unsafe {
            change::<KvCacheRef<'_>>(cache, &inputs, |cache, positions| {
                let [first, second] = cache.lens();
                let to_values = cache.storage.wrapping_add(first);
                // The values follow the keys, so the slices are disjoint.
                let (to_keys, to_values) =
                    (slice_mut(cache.storage, first), slice_mut(to_values, second));
                let &sdpa_cache { dim, value_dim, blocks, .. } = cache;
                let floats = [keys.view(), values.view()];
                append_floats(to_keys, to_values, [dim, value_dim, blocks], positions, floats)
                    .map_err(|error| append_failure(error, &keys, dim))
            })
        }
    };
    status(call())
}

/// Appends floats to a cache of any formats, rounded as by sdpa_narrow: sdpa_cache_append for a cache of
/// sdpa_cache_init_elements. SDPA_ERROR_RANGE if a format cannot represent a number.
///
/// Overlap: cache and its storage must not overlap any input. On failure both are unchanged.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub unsafe extern "C" fn sdpa_cache_append_elements(
    cache: *mut sdpa_cache,
    keys: sdpa_matrix,
    values: sdpa_matrix,
) -> sdpa_status {
    let call = || -> Checked<()> {
        let inputs = [keys.operand()?, values.operand()?];
        // SAFETY: as the caller promises.
        unsafe {
            change::<AnyCacheRef<'_>>(cache, &inputs, |cache, positions| {
                let &sdpa_cache { dim, value_dim, blocks, .. } = cache;
                let [to_keys, to_values] = cache.sides()?;
                let (to_keys, to_values) = (cache.slice_mut(to_keys), cache.slice_mut(to_values));
                let floats = [keys.view(), values.view()];
                append_any(to_keys, to_values, [dim, value_dim, blocks], positions, floats)
                    .map_err(|error| append_failure(error, &keys, dim))
            })
        }
    };
    status(call())
}

/// The failure of an append.
fn append_failure(error: Error, keys: &sdpa_matrix, dim: usize) -> Failure {
    let is_dim = keys.cols == dim;
    Failure::of(error, || if is_dim { SDPA_ERROR_SHAPE_VALUES } else { SDPA_ERROR_SHAPE_KEYS })
}

/// Removes the newest keys so that the oldest len keys in the cache remain. SDPA_ERROR_POSITION if
/// the cache holds fewer than len keys.
///
/// On failure the cache is unchanged.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub unsafe extern "C" fn sdpa_cache_truncate(cache: *mut sdpa_cache, len: usize) -> sdpa_status {
    // SAFETY: as the caller promises.
    status(unsafe {
        change::<AnyCacheRef<'_>>(cache, &[], |_, positions| Ok(positions.truncate(len)?))
    })
}

/// Removes the keys at position and after it; the next key appended has that position.
/// SDPA_ERROR_POSITION if position is below dropped or above appended.
///
/// On failure the cache is unchanged.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub unsafe extern "C" fn sdpa_cache_truncate_to(
    cache: *mut sdpa_cache,
    position: u64,
) -> sdpa_status {
    // SAFETY: as the caller promises.
    status(unsafe {
        change::<AnyCacheRef<'_>>(cache, &[], |_, positions| Ok(positions.truncate_to(position)?))
    })
}

/// Keeps the first keys (attention sinks, as in streaming models): sdpa_cache_slide drops none of the keys
/// first ones, and every query sees them, whatever its window. They take whole blocks of 64 keys.
/// SDPA_ERROR_POSITION if keys were dropped already or the cache began at another position than 0, and
/// beyond PTRDIFF_MAX, where positions of such a cache end; SDPA_ERROR_CAPACITY if the cache has fewer
/// blocks; SDPA_ERROR_OPTION on microcontrollers, but for a library that was made with
/// FEATURES=keep-first.
///
/// On failure the cache is unchanged.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub unsafe extern "C" fn sdpa_cache_keep_first(cache: *mut sdpa_cache, keys: usize) -> sdpa_status {
    // SAFETY: as the caller promises.
    status(unsafe {
        change::<AnyCacheRef<'_>>(cache, &[], |cache, positions| {
            Ok(positions.keep_first(keys, cache.blocks)?)
        })
    })
}

/// Drops the oldest keys until the cache holds at most len (sliding window). Blocks without keys are
/// reused; on microcontrollers the other keys move in the storage, once per block. The remaining
/// keys keep their positions.
///
/// On failure the cache is unchanged.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub unsafe extern "C" fn sdpa_cache_slide(cache: *mut sdpa_cache, len: usize) -> sdpa_status {
    // SAFETY: as the caller promises.
    status(unsafe {
        change::<AnyCacheRef<'_>>(cache, &[], |cache, positions| {
            if let Some(keys) = positions.slide(len) {
                for (side, columns) in cache.sides()?.into_iter().zip([cache.dim, 1]) {
                    cache.shift(side, columns, keys);
                }
            }
            Ok(())
        })
    })
}

operation! {
    /// Computes sdpa_attention over the keys and values in a cache. Its bits are those of
    /// sdpa_attention over every key ever appended, with the dropped keys masked. Query i of queries
    /// (queries x dim) is at position appended - queries.rows + i + query_offset: append a token,
    /// then attend with its query. bias and keep of the options have one row per key in the cache,
    /// oldest first.
    ///
    /// Overlap: out, log_sum_exp and workspace must not overlap any input, the cache, its storage or
    /// each other. On failure all three are unchanged. The cache is never changed.
    fn sdpa_cache_attend, sdpa_cache_attend_on(
        on, cache: *const sdpa_cache, queries: sdpa_matrix, options: *const sdpa_options,
        out: sdpa_matrix_mut, log_sum_exp: *mut f32, workspace: *mut f32, workspace_len: usize,
    ) {
        let out = Slot::new(out.into());
        let call = CommonArguments {
            queries: Slot::new(queries.into()), options, sinks: ptr::null(), out, log_sum_exp, workspace,
            workspace_len,
        };
        // SAFETY: as the caller promises.
        unsafe { attend::<KvCacheRef<'_>>(on, cache, call) }
    }
}

operation! {
    /// Computes sdpa_cache_attend for several query heads that share the KV head of a cache
    /// (grouped-query attention). sinks, log_sum_exp and workspace are as in sdpa_attention_heads. A
    /// model with several KV heads has one cache per KV head.
    ///
    /// Overlap: out, log_sum_exp and workspace must not overlap any input, the cache, its storage or
    /// each other. On failure all three are unchanged. The cache is never changed.
    fn sdpa_cache_attend_heads, sdpa_cache_attend_heads_on(
        on, cache: *const sdpa_cache, queries: sdpa_heads, options: *const sdpa_options,
        sinks: *const f32, out: sdpa_heads_mut, log_sum_exp: *mut f32, workspace: *mut f32,
        workspace_len: usize,
    ) {
        let out = Slot::new(out);
        let call = CommonArguments {
            queries: Slot::new(queries), options, sinks, out, log_sum_exp, workspace, workspace_len,
        };
        // SAFETY: as the caller promises.
        unsafe { attend::<KvCacheRef<'_>>(on, cache, call) }
    }
}

operation! {
    /// Computes the states of the spans in which a cache holds keys: sdpa_attention_states over a cache.
    /// Query positions, bias and keep are as in sdpa_cache_attend; where newer keys are elsewhere, their
    /// number is the query_offset. There are
    /// (appended + SDPA_SPAN - 1) / SDPA_SPAN - dropped / SDPA_SPAN spans, none in an empty cache; the
    /// keys that a span lacks count as masked.
    ///
    /// Overlap: states and workspace must not overlap any input, the cache, its storage or each other.
    /// On failure both are unchanged. The cache is never changed.
    fn sdpa_cache_states, sdpa_cache_states_on(
        on, cache: *const sdpa_cache, queries: sdpa_matrix, options: *const sdpa_options,
        states: *mut f32, states_len: usize, workspace: *mut f32, workspace_len: usize,
    ) {
        let call =
            arguments(queries.into(), options, [states, workspace], [states_len, workspace_len]);
        // SAFETY: as the caller promises.
        unsafe { compute_states::<KvCacheRef<'_>>(on, cache, call) }
    }
}

operation! {
    /// Computes sdpa_cache_states for several query heads that share the KV head of a cache. states:
    /// spans * queries.heads * queries.rows * sdpa_state_floats(value_dim) floats, in that order.
    ///
    /// Overlap: states and workspace must not overlap any input, the cache, its storage or each other.
    /// On failure both are unchanged. The cache is never changed.
    fn sdpa_cache_states_heads, sdpa_cache_states_heads_on(
        on, cache: *const sdpa_cache, queries: sdpa_heads, options: *const sdpa_options,
        states: *mut f32, states_len: usize, workspace: *mut f32, workspace_len: usize,
    ) {
        let call = arguments(queries, options, [states, workspace], [states_len, workspace_len]);
        // SAFETY: as the caller promises.
        unsafe { compute_states::<KvCacheRef<'_>>(on, cache, call) }
    }
}

operation! {
    /// Computes sdpa_cache_attend_heads over a cache of any formats. workspace: at least
    /// sdpa_elements_workspace(dim, value_dim) floats.
    ///
    /// Overlap: out, log_sum_exp and workspace must not overlap any input, the cache, its storage or
    /// each other. On failure all three are unchanged. The cache is never changed.
    fn sdpa_cache_attend_elements, sdpa_cache_attend_elements_on(
        on, cache: *const sdpa_cache, queries: sdpa_heads, options: *const sdpa_options,
        sinks: *const f32, out: sdpa_heads_mut, log_sum_exp: *mut f32, workspace: *mut f32,
        workspace_len: usize,
    ) {
        let out = Slot::new(out);
        let call = CommonArguments {
            queries: Slot::new(queries), options, sinks, out, log_sum_exp, workspace, workspace_len,
        };
        // SAFETY: as the caller promises.
        unsafe { attend::<AnyCacheRef<'_>>(on, cache, call) }
    }
}

operation! {
    /// Computes sdpa_cache_states_heads over a cache of any formats. workspace: at least
    /// sdpa_elements_workspace(dim, value_dim) floats.
    ///
    /// Overlap: states and workspace must not overlap any input, the cache, its storage or each other.
    /// On failure both are unchanged. The cache is never changed.
    fn sdpa_cache_states_elements, sdpa_cache_states_elements_on(
        on, cache: *const sdpa_cache, queries: sdpa_heads, options: *const sdpa_options,
        states: *mut f32, states_len: usize, workspace: *mut f32, workspace_len: usize,
    ) {
        let call = arguments(queries, options, [states, workspace], [states_len, workspace_len]);
        // SAFETY: as the caller promises.
        unsafe { compute_states::<AnyCacheRef<'_>>(on, cache, call) }
    }
}

operation! {
    /// Computes sdpa_pattern_heads over the keys in a cache of any formats: out is query heads x keys in the
    /// cache x queries, the oldest key first. Query positions, bias and keep are as in sdpa_cache_attend.
    /// workspace: at least SDPA_KEY_BLOCK * dim floats of any content; none if the keys are SDPA_F32.
    ///
    /// Overlap: out and workspace must not overlap any input, the cache, its storage or each other. On
    /// failure both are unchanged. The cache is never changed.
    fn sdpa_cache_pattern_heads, sdpa_cache_pattern_heads_on(
        on, cache: *const sdpa_cache, queries: sdpa_heads, options: *const sdpa_options,
        sinks: *const f32, out: sdpa_heads_mut, workspace: *mut f32, workspace_len: usize,
    ) {
        let call = CommonArguments::of_pattern(queries, (options, sinks), out, (workspace, workspace_len));
        // SAFETY: as the caller promises.
        unsafe { compute_pattern::<false>(on, cache, call) }
    }
}

operation! {
    /// Computes the mean over all query heads of what sdpa_cache_pattern_heads gives, as sdpa_pattern_mean
    /// does. out: keys in the cache x queries. workspace: keys in the cache * queries.rows floats, and those of
    /// sdpa_cache_pattern_heads.
    ///
    /// Overlap: out and workspace must not overlap any input, the cache, its storage or each other. On
    /// failure both are unchanged. The cache is never changed.
    fn sdpa_cache_pattern_mean, sdpa_cache_pattern_mean_on(
        on, cache: *const sdpa_cache, queries: sdpa_heads, options: *const sdpa_options,
        sinks: *const f32, out: sdpa_matrix_mut, workspace: *mut f32, workspace_len: usize,
    ) {
        let call = CommonArguments::of_pattern(
            queries, (options, sinks), out.into(), (workspace, workspace_len),
        );
        // SAFETY: as the caller promises.
        unsafe { compute_pattern::<true>(on, cache, call) }
    }
}

/// The first float of keys or values, their width and format.
type Side = (*mut f32, usize, sdpa_format);

impl sdpa_cache {
    /// Fails unless keys and values are floats.
    fn check_floats(&self) -> Checked<()> {
        let is_float = self.key_format == SDPA_F32 && self.value_format == SDPA_F32;
        if is_float { Ok(()) } else { Err(Failure(SDPA_ERROR_FORMAT)) }
    }

    /// Returns the number of floats of the keys and of the values, if they are floats.
    fn lens(&self) -> [usize; 2] {
        [self.dim, self.value_dim].map(|dim| sdpa_cache_floats(dim, 0, self.blocks))
    }

    /// Returns where the keys and the values are.
    fn sides(&self) -> Checked<[Side; 2]> {
        let keys = floats_of(self.dim, self.key_format)?;
        let values = self.storage.wrapping_add(keys.wrapping_mul(self.blocks)); // `span` has checked it
        Ok([(self.storage, self.dim, self.key_format), (values, self.value_dim, self.value_format)])
    }

    /// Returns keys or values.
    ///
    /// # Safety
    ///
    /// The storage has been checked, and for `'a` it may be read and nobody writes it; `side` is one of
    /// [`sides`](Self::sides).
    #[inline(always)]
    unsafe fn slice<'a>(&self, side: Side) -> AnySlice<'a> {
        let (first, dim, format) = side;
        // No overflow: the storage has them all.
        let rows = self.blocks.wrapping_mul(SDPA_KEY_BLOCK);
        let len = rows.wrapping_mul(dim);
        // SAFETY: as the caller promises; elements have any bits, and take no more than floats.
        unsafe {
            match format {
                SDPA_F16 => AnySlice::F16(slice(first.cast(), len)),
                SDPA_BF16 => AnySlice::Bf16(slice(first.cast(), len)),
                SDPA_I8 => {
                    AnySlice::I8(slice(first.wrapping_add(rows).cast(), len), slice(first, rows))
                }
                _ => AnySlice::F32(slice(first, len)),
            }
        }
    }

    /// Returns keys or values.
    ///
    /// # Safety
    ///
    /// As [`slice`](Self::slice), and for `'a` nobody else uses the storage.
    #[inline(always)]
    unsafe fn slice_mut<'a>(&self, side: Side) -> AnySliceMut<'a> {
        let (first, dim, format) = side;
        let rows = self.blocks.wrapping_mul(SDPA_KEY_BLOCK);
        let len = rows.wrapping_mul(dim);
        // SAFETY: as in `slice`; scales and elements are disjoint.
        unsafe {
            match format {
                SDPA_F16 => AnySliceMut::F16(slice_mut(first.cast(), len)),
                SDPA_BF16 => AnySliceMut::Bf16(slice_mut(first.cast(), len)),
                SDPA_I8 => AnySliceMut::I8(
                    slice_mut(first.wrapping_add(rows).cast(), len),
                    slice_mut(first, rows),
                ),
                _ => AnySliceMut::F32(slice_mut(first, len)),
            }
        }
    }

    /// Moves `count` keys, or their values, to the front behind the first `from`, by `by`; these are multiples of
    /// [`KEY_BLOCK`]. Elements of any format move as the floats that have their memory.
    ///
    /// # Safety
    ///
    /// As [`slice_mut`](Self::slice_mut); `columns` is 1 for values, whose rows are adjacent, and dim for keys.
    unsafe fn shift(&self, side: Side, columns: usize, [from, by, count]: [usize; 3]) {
        let (mut first, dim, format) = side;
        let rows = self.blocks.wrapping_mul(SDPA_KEY_BLOCK);
        let size = match format {
            SDPA_F16 | SDPA_BF16 => 2,
            SDPA_I8 => 1,
            _ => 4,
        };
        if format == SDPA_I8 {
            // SAFETY: as the caller promises.
            shift::<4, _>(unsafe { slice_mut(first, rows) }, from, by, count);
            first = first.wrapping_add(rows);
        }
        // No overflow: the storage has them all.
        let floats = |keys: usize| keys.wrapping_mul(dim / columns.max(1)).wrapping_mul(size) / 4;
        for column in 0..columns {
            let first = first.wrapping_add(floats(rows).wrapping_mul(column));
            // SAFETY: as the caller promises.
            let floats_of_column = unsafe { slice_mut(first, floats(rows)) };
            shift::<4, _>(floats_of_column, floats(from), floats(by), floats(count + 3));
        }
    }

    /// Returns the span of the storage.
    fn span(&self) -> Checked<Span> {
        let Self { dim, value_dim, blocks, key_format, value_format, .. } = *self;
        let floats =
            floats_of(dim, key_format)?.saturating_add(floats_of(value_dim, value_format)?);
        array(self.storage.cast_const(), floats.saturating_mul(blocks))
    }

    /// Returns the number of keys in the cache. Its positions have been checked; a number above `usize::MAX`
    /// saturates, and no storage has room for so many.
    #[inline(never)]
    fn len(&self) -> usize {
        let newest = self.appended.wrapping_sub(self.dropped);
        let kept = if self.dropped == 0 { 0 } else { self.kept };
        usize::try_from(newest).map_or(usize::MAX, |newest| newest.saturating_add(kept))
    }

    fn positions(&self) -> Checked<CachePositions> {
        CachePositions::restored(self.appended, self.dropped, self.kept).map_err(cache_failure)
    }

    /// Fails if the fields are none of a cache, whose positions these are.
    fn check_fields(&self, positions: CachePositions) -> Checked<()> {
        if self.dim == 0 || self.value_dim == 0 || self.blocks == 0 {
            Err(Failure(SDPA_ERROR_SHAPE_CACHE))
        } else if !positions.fits(self.blocks) {
            Err(Failure(SDPA_ERROR_CAPACITY))
        } else {
            Ok(())
        }
    }
}

/// The failure of a cache that the crate rejects.
fn cache_failure(error: Error) -> Failure {
    Failure::of(error, || SDPA_ERROR_SHAPE_CACHE)
}

/// The view of a cache: of floats, or of any formats.
pub(crate) trait View: Sized {
    /// The floats of workspace that a call needs.
    fn workspace(dim: usize, value_dim: usize) -> usize;

    /// Returns the span of the storage.
    fn span(cache: &sdpa_cache) -> Checked<Span>;

    /// # Safety
    ///
    /// [`span`](Self::span) has returned `Ok`, and while the view is used the storage may be read and nobody writes it.
    unsafe fn of(cache: &sdpa_cache) -> Checked<Self>;

    fn attend(
        &self,
        attention: &Attention<'_>,
        queries: &HeadsRef<'_>,
        out: &mut HeadsMut<'_>,
        log_sum_exp: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error>;

    fn states(
        &self,
        attention: &Attention<'_>,
        queries: &HeadsRef<'_>,
        states: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error>;
}

macro_rules! calls {
    () => {
        #[inline(always)]
        fn attend(
            &self,
            attention: &Attention<'_>,
            queries: &HeadsRef<'_>,
            out: &mut HeadsMut<'_>,
            log_sum_exp: Option<&mut [f32]>,
            workspace: &mut [f32],
        ) -> Result<(), Error> {
            self.attend_views(attention, queries, out, log_sum_exp, workspace)
        }

        #[inline(always)]
        fn states(
            &self,
            attention: &Attention<'_>,
            queries: &HeadsRef<'_>,
            states: &mut [f32],
            workspace: &mut [f32],
        ) -> Result<(), Error> {
            self.run_spans_views(attention, queries, states, workspace)
        }
    };
}

impl View for KvCacheRef<'_> {
    fn workspace(dim: usize, value_dim: usize) -> usize {
        Attention::workspace(dim, value_dim)
    }

    fn span(cache: &sdpa_cache) -> Checked<Span> {
        cache.check_floats()?;
        let sdpa_cache { dim, value_dim, blocks, .. } = *cache;
        array(cache.storage.cast_const(), sdpa_cache_floats(dim, value_dim, blocks))
    }

    #[inline(always)]
    unsafe fn of(cache: &sdpa_cache) -> Checked<Self> {
        let positions = cache.positions()?;
        cache.check_fields(positions)?;
        let [keys, values] = cache.lens();
        // SAFETY: as the caller promises.
        let (keys, values) = unsafe {
            (slice(cache.storage, keys), slice(cache.storage.wrapping_add(keys), values))
        };
        let sizes = [cache.dim, cache.value_dim, cache.blocks];
        Ok(Self::of_checked(keys, values, sizes, positions))
    }

    calls! {}
}

impl View for AnyCacheRef<'_> {
    fn workspace(dim: usize, value_dim: usize) -> usize {
        Attention::elements_workspace(dim, value_dim)
    }

    fn span(cache: &sdpa_cache) -> Checked<Span> {
        cache.span()
    }

    #[inline(always)]
    unsafe fn of(cache: &sdpa_cache) -> Checked<Self> {
        let positions = cache.positions()?;
        cache.check_fields(positions)?;
        let [keys, values] = cache.sides()?;
        let sizes = [cache.dim, cache.value_dim, cache.blocks];
        // SAFETY: as the caller promises.
        Ok(unsafe {
            Self { keys: cache.slice(keys), values: cache.slice(values), sizes, positions }
        })
    }

    calls! {}
}

/// Attention over the keys and values in a cache.
///
/// # Safety
///
/// The arguments meet the requirements of the header.
#[inline(always)]
pub(crate) unsafe fn attend<V: View>(
    on: Backend,
    cache: *const sdpa_cache,
    mut call: CommonArguments<'_>,
) -> Checked<()> {
    // SAFETY: as the caller promises; `check` comes before the views are made, and these before `run`.
    unsafe {
        check::<V>(cache, &mut call)?;
        call.queries.make_view();
        call.out.make_view();
        run::<V>(on, &*cache, &mut call)
    }
}

/// The states of the spans in a cache.
///
/// # Safety
///
/// The arguments meet the requirements of the header; `call` is one of [`arguments`].
#[inline(always)]
unsafe fn compute_states<V: View>(
    on: Backend,
    cache: *const sdpa_cache,
    mut call: CommonArguments<'_>,
) -> Checked<()> {
    // SAFETY: as the caller promises; `check` comes before the view is made, and this before `run_states`.
    unsafe {
        check::<V>(cache, &mut call)?;
        call.queries.make_view();
        run_states::<V>(on, &*cache, &mut call)
    }
}

/// The pattern of each head over the keys in a cache, or the mean of all.
///
/// # Safety
///
/// The arguments meet the requirements of the header.
#[inline(always)]
unsafe fn compute_pattern<const MEAN: bool>(
    on: Backend,
    cache: *const sdpa_cache,
    mut call: CommonArguments<'_>,
) -> Checked<()> {
    // SAFETY: as the caller promises; the check comes before the views are made, and these before `run_pattern`.
    unsafe {
        check_pattern::<MEAN>(cache, &mut call)?;
        call.queries.make_view();
        call.out.make_view();
        run_pattern::<MEAN>(on, &*cache, &mut call)
    }
}

/// Fails if an argument is invalid, or if an output overlaps another argument.
///
/// # Safety
///
/// As [`compute_pattern`], before the views are made.
#[inline(never)]
unsafe fn check_pattern<const MEAN: bool>(
    cache: *const sdpa_cache,
    call: &mut CommonArguments<'_>,
) -> Checked<()> {
    let structure = array(cache, 1)?;
    // SAFETY: aligned, not NULL, and as the caller promises.
    let cache = unsafe { &*cache };
    cache.positions()?;
    // SAFETY: as the caller promises.
    unsafe {
        let cells = if MEAN { call.cells(cache.len()) } else { 0 };
        let are_floats = cache.key_format == SDPA_F32;
        let widened = if are_floats { 0 } else { cache.dim.saturating_mul(SDPA_KEY_BLOCK) };
        call.trim_workspace(cells.saturating_add(widened));
        call.check(&[], &[structure, cache.span()?])?;
        call.check_options(cache.len())
    }
}

/// # Safety
///
/// As [`compute_pattern`], after [`check_pattern`], with the views made.
#[inline(never)]
unsafe fn run_pattern<const MEAN: bool>(
    on: Backend,
    cache: &sdpa_cache,
    call: &mut CommonArguments<'_>,
) -> Checked<()> {
    // SAFETY: as the caller promises.
    let result = unsafe {
        let view = <AnyCacheRef<'_> as View>::of(cache)?;
        let mut attention = Attention::new();
        call.read_options(on, cache.len(), &mut attention);
        let (_, workspace) = call.slices();
        let (queries, out) = (call.queries.view(), call.out.view_mut());
        match out.head_mut(0) {
            Some(out) if MEAN => view.mean_pattern_views(&attention, queries, out, workspace),
            _ => view.pattern_views(&attention, queries, out, workspace),
        }
    };
    // SAFETY: as the caller promises.
    let shape_status = || unsafe {
        if call.queries.view().cols() == cache.dim {
            call.pattern_status::<MEAN>([1, cache.len(), cache.dim])
        } else {
            SDPA_ERROR_SHAPE_QUERIES
        }
    };
    result.map_err(|error| Failure::of(error, shape_status))
}

/// Fails if an argument is invalid, or if an output overlaps another argument.
///
/// # Safety
///
/// As [`attend`], before the views are made.
#[inline(never)]
unsafe fn check<V: View>(cache: *const sdpa_cache, call: &mut CommonArguments<'_>) -> Checked<()> {
    let structure = array(cache, 1)?;
    // SAFETY: aligned, not NULL, and as the caller promises.
    let cache = unsafe { &*cache };
    cache.positions()?;
    call.trim_workspace(V::workspace(cache.dim, cache.value_dim));
    // SAFETY: as the caller promises.
    unsafe {
        call.check(&[], &[structure, V::span(cache)?])?;
        call.check_options(cache.len())
    }
}

/// # Safety
///
/// As [`compute_states`], after [`check`], with the view of the queries made.
#[inline(never)]
unsafe fn run_states<V: View>(
    on: Backend,
    cache: &sdpa_cache,
    call: &mut CommonArguments<'_>,
) -> Checked<()> {
    // SAFETY: as the caller promises.
    let result = unsafe {
        let view = V::of(cache)?;
        let mut attention = Attention::new();
        call.read_options(on, cache.len(), &mut attention);
        let (states, workspace) = call.state_slices();
        view.states(&attention, call.queries.view(), states, workspace)
    };
    // SAFETY: as the caller promises.
    let shape_status = || unsafe {
        if call.queries.view().cols() == cache.dim {
            call.state_status(cache.len())
        } else {
            SDPA_ERROR_SHAPE_QUERIES
        }
    };
    result.map_err(|error| Failure::of(error, shape_status))
}

/// # Safety
///
/// As [`attend`], after [`check`], with the views made.
#[inline(never)]
unsafe fn run<V: View>(
    on: Backend,
    cache: &sdpa_cache,
    call: &mut CommonArguments<'_>,
) -> Checked<()> {
    // SAFETY: as the caller promises.
    let result = unsafe {
        let view = V::of(cache)?;
        let mut attention = Attention::new();
        call.read_options(on, cache.len(), &mut attention);
        let (log_sum_exp, workspace) = call.slices();
        let (queries, out) = (call.queries.view(), call.out.view_mut());
        view.attend(&attention, queries, out, log_sum_exp, workspace)
    };
    // SAFETY: as the caller promises.
    let shape_status = || unsafe {
        if call.queries.view().cols() == cache.dim {
            call.shape_status(cache.len(), cache.value_dim)
        } else {
            SDPA_ERROR_SHAPE_QUERIES
        }
    };
    result.map_err(|error| Failure::of(error, shape_status))
}

/// Calls `change`, which reads `inputs`, with the fields of `cache` and its positions, and writes these back. The cache
/// is one of `V`.
///
/// # Safety
///
/// `cache` is NULL, or it and its storage may be read and written and nobody else uses them.
unsafe fn change<V: View>(
    cache: *mut sdpa_cache,
    inputs: &[Region<'_>],
    change: impl FnOnce(&sdpa_cache, &mut CachePositions) -> Checked<()>,
) -> Checked<()> {
    let structure_span = array(cache.cast_const(), 1)?;
    // SAFETY: aligned, not NULL, and as the caller promises.
    let fields = unsafe { &*cache };
    let (mut positions, storage_span) = (fields.positions()?, V::span(fields)?);
    structure_span.check_disjoint(storage_span)?;
    for input in inputs {
        input.check_disjoint(structure_span)?;
        input.check_disjoint(storage_span)?;
    }
    fields.check_fields(positions)?;
    change(fields, &mut positions)?;
    let (appended, dropped, kept) = (positions.appended(), positions.dropped(), positions.kept());
    // SAFETY: aligned, not NULL, and as the caller promises.
    unsafe { ((*cache).appended, (*cache).dropped, (*cache).kept) = (appended, dropped, kept) };
    Ok(())
}
