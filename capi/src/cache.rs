//! The KV cache, in caller-provided storage.

use core::ptr;

use sdpa::{Backend, CachePositions, Error, KEY_BLOCK, KvCacheMut, KvCacheRef};

use crate::{
    attention::CommonArguments,
    library::{backend_of, operation, sdpa_backend_t},
    options::sdpa_options,
    region::{Region, Span, array},
    states::arguments,
    status::{
        Checked, Failure, SDPA_ERROR_CAPACITY, SDPA_ERROR_SHAPE_CACHE, SDPA_ERROR_SHAPE_DIM,
        SDPA_ERROR_SHAPE_KEYS, SDPA_ERROR_SHAPE_QUERIES, SDPA_ERROR_SHAPE_VALUE_DIM,
        SDPA_ERROR_SHAPE_VALUES, sdpa_status, status,
    },
    views::{
        Operand, Slot, sdpa_heads, sdpa_heads_mut, sdpa_matrix, sdpa_matrix_mut, slice, slice_mut,
    },
};

/// The number of keys in a block of a cache: the header has it for each target.
/// cbindgen:ignore
pub const SDPA_KEY_BLOCK: usize = KEY_BLOCK;

/// A KV cache: the keys and values of one KV head in caller-provided storage. sdpa_cache_init
/// initializes it, the functions below change it, and callers may read its fields. It holds
/// appended - dropped keys, those at positions dropped to appended - 1. As the oldest block may
/// hold a single key, a cache that slides is only certain to hold
/// (blocks - 1) * SDPA_KEY_BLOCK + 1 keys. For a window of left keys and chunks of chunk tokens
/// (append a chunk, attend with its queries, slide to left keys) use
/// (left + chunk + SDPA_KEY_BLOCK - 1) / SDPA_KEY_BLOCK + 1 blocks. Copying the structure does not
/// copy the storage.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sdpa_cache {
    /// SDPA_CACHE_FLOATS(dim, value_dim, blocks) floats.
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
    let call = || -> Checked<()> {
        let storage_span = array(storage.cast_const(), storage_len)?;
        array(cache.cast_const(), 1)?.check_disjoint(storage_span)?;
        if dim == 0 {
            return Err(Failure(SDPA_ERROR_SHAPE_DIM));
        }
        if value_dim == 0 {
            return Err(Failure(SDPA_ERROR_SHAPE_VALUE_DIM));
        }
        let blocks = storage_len.checked_div(sdpa_cache_floats(dim, value_dim, 1)).unwrap_or(0);
        if blocks == 0 {
            return Err(Failure(SDPA_ERROR_CAPACITY));
        }
        // SAFETY: aligned, not NULL, disjoint, and as the caller promises.
        unsafe {
            storage.write_bytes(0, sdpa_cache_floats(dim, value_dim, blocks));
            let (appended, dropped) = (position, position);
            cache.write(sdpa_cache { storage, dim, value_dim, blocks, appended, dropped });
        }
        Ok(())
    };
    status(call())
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
            change(cache, &inputs, |view| {
                let dim = (*cache).dim;
                view.append(keys.view(), values.view()).map_err(|error| {
                    Failure::of(error, || {
                        if keys.cols == dim {
                            SDPA_ERROR_SHAPE_VALUES
                        } else {
                            SDPA_ERROR_SHAPE_KEYS
                        }
                    })
                })
            })
        }
    };
    status(call())
}

/// Removes the newest keys so that the oldest len keys in the cache remain. SDPA_ERROR_POSITION if
/// the cache holds fewer than len keys.
///
/// On failure the cache is unchanged.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub unsafe extern "C" fn sdpa_cache_truncate(cache: *mut sdpa_cache, len: usize) -> sdpa_status {
    // SAFETY: as the caller promises.
    status(unsafe { change(cache, &[], |view| Ok(view.truncate(len)?)) })
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
    status(unsafe { change(cache, &[], |view| Ok(view.truncate_to(position)?)) })
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
        change(cache, &[], |view| {
            view.slide(len);
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
        unsafe { attend(on, cache, call) }
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
        unsafe { attend(on, cache, call) }
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
        unsafe { compute_states(on, cache, call) }
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
        unsafe { compute_states(on, cache, call) }
    }
}

impl sdpa_cache {
    /// Returns the two parts of the storage: keys, then values.
    ///
    /// # Safety
    ///
    /// The storage has been checked, and for `'a` it may be read and nobody writes it.
    unsafe fn slices<'a>(&self) -> [&'a [f32]; 2] {
        let [keys, values] = self.lens();
        // SAFETY: as the caller promises.
        unsafe { [slice(self.storage, keys), slice(self.storage.wrapping_add(keys), values)] }
    }

    /// Returns the view of the cache.
    ///
    /// # Safety
    ///
    /// As [`slices`](Self::slices).
    #[inline(always)]
    unsafe fn view<'a>(&self) -> Checked<KvCacheRef<'a>> {
        // SAFETY: as the caller promises.
        let [keys, values] = unsafe { self.slices() };
        KvCacheRef::new(keys, values, self.dim, self.value_dim, self.positions()?)
            .map_err(cache_failure)
    }

    /// Returns the number of floats of the keys and of the values.
    fn lens(&self) -> [usize; 2] {
        [self.dim, self.value_dim].map(|dim| sdpa_cache_floats(dim, 0, self.blocks))
    }

    /// Returns the span of the storage.
    fn span(&self) -> Checked<Span> {
        array(self.storage.cast_const(), sdpa_cache_floats(self.dim, self.value_dim, self.blocks))
    }

    /// Returns the number of keys in the cache. Its positions have been checked; a number above `usize::MAX`
    /// saturates, and no storage has room for so many.
    fn len(&self) -> usize {
        usize::try_from(self.appended.wrapping_sub(self.dropped)).unwrap_or(usize::MAX)
    }

    fn positions(&self) -> Checked<CachePositions> {
        CachePositions::new(self.appended, self.dropped).map_err(cache_failure)
    }
}

/// The failure of a cache that the crate rejects.
fn cache_failure(error: Error) -> Failure {
    Failure::of(error, || SDPA_ERROR_SHAPE_CACHE)
}

/// Attention over the keys and values in a cache.
///
/// # Safety
///
/// The arguments meet the requirements of the header.
#[inline(always)]
pub(crate) unsafe fn attend(
    on: Backend,
    cache: *const sdpa_cache,
    mut call: CommonArguments<'_>,
) -> Checked<()> {
    // SAFETY: as the caller promises; `check` comes before the views are made, and these before `run`.
    unsafe {
        check(cache, &mut call)?;
        call.queries.make_view();
        call.out.make_view();
        run(on, &*cache, &mut call)
    }
}

/// The states of the spans in a cache.
///
/// # Safety
///
/// The arguments meet the requirements of the header; `call` is one of [`arguments`].
#[inline(always)]
unsafe fn compute_states(
    on: Backend,
    cache: *const sdpa_cache,
    mut call: CommonArguments<'_>,
) -> Checked<()> {
    // SAFETY: as the caller promises; `check` comes before the view is made, and this before `run_states`.
    unsafe {
        check(cache, &mut call)?;
        call.queries.make_view();
        run_states(on, &*cache, &mut call)
    }
}

/// Fails if an argument is invalid, or if an output overlaps another argument.
///
/// # Safety
///
/// As [`attend`], before the views are made.
#[inline(never)]
unsafe fn check(cache: *const sdpa_cache, call: &mut CommonArguments<'_>) -> Checked<()> {
    let structure = array(cache, 1)?;
    // SAFETY: aligned, not NULL, and as the caller promises.
    let cache = unsafe { &*cache };
    cache.positions()?;
    call.trim_workspace(cache.dim, cache.value_dim);
    // SAFETY: as the caller promises.
    unsafe {
        call.check(&[], &[structure, cache.span()?])?;
        call.check_options(cache.len())
    }
}

/// # Safety
///
/// As [`compute_states`], after [`check`], with the view of the queries made.
#[inline(never)]
unsafe fn run_states(
    on: Backend,
    cache: &sdpa_cache,
    call: &mut CommonArguments<'_>,
) -> Checked<()> {
    // SAFETY: as the caller promises.
    let result = unsafe {
        let view = cache.view()?;
        let attention = call.read_options(on, cache.len());
        let (states, workspace) = call.state_slices();
        view.run_spans_views(&attention, call.queries.view(), states, workspace)
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
unsafe fn run(on: Backend, cache: &sdpa_cache, call: &mut CommonArguments<'_>) -> Checked<()> {
    let &sdpa_cache { dim, value_dim, .. } = cache;
    // SAFETY: as the caller promises.
    let result = unsafe {
        let view = cache.view()?;
        let attention = call.read_options(on, cache.len());
        let (log_sum_exp, workspace) = call.slices();
        let (queries, out) = (call.queries.view(), call.out.view_mut());
        view.attend_views(&attention, queries, out, log_sum_exp, workspace)
    };
    // SAFETY: as the caller promises.
    let shape_status = || unsafe {
        if call.queries.view().cols() == dim {
            call.shape_status(cache.len(), value_dim)
        } else {
            SDPA_ERROR_SHAPE_QUERIES
        }
    };
    result.map_err(|error| Failure::of(error, shape_status))
}

/// Calls `change`, which reads `inputs`, with a view of `cache`, and writes the new positions back.
///
/// # Safety
///
/// `cache` is NULL, or it and its storage may be read and written and nobody else uses them.
unsafe fn change(
    cache: *mut sdpa_cache,
    inputs: &[Region<'_>],
    change: impl FnOnce(&mut KvCacheMut<'_>) -> Checked<()>,
) -> Checked<()> {
    let structure_span = array(cache.cast_const(), 1)?;
    // SAFETY: aligned, not NULL, and as the caller promises.
    let fields = unsafe { &*cache };
    let (mut positions, storage_span) = (fields.positions()?, fields.span()?);
    structure_span.check_disjoint(storage_span)?;
    for input in inputs {
        input.check_disjoint(structure_span)?;
        input.check_disjoint(storage_span)?;
    }
    let (sdpa_cache { storage, dim, value_dim, .. }, [keys, values]) = (*fields, fields.lens());
    // SAFETY: as the caller promises; the values follow the keys, so the slices are disjoint.
    let (keys, values) =
        unsafe { (slice_mut(storage, keys), slice_mut(storage.wrapping_add(keys), values)) };
    let view = KvCacheMut::new(keys, values, dim, value_dim, &mut positions);
    let mut view = view.map_err(cache_failure)?;
    change(&mut view)?;
    let (appended, dropped) = (view.appended(), view.dropped());
    // SAFETY: aligned, not NULL, and as the caller promises.
    unsafe { ((*cache).appended, (*cache).dropped) = (appended, dropped) };
    Ok(())
}
