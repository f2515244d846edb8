//! The cache of keys and values, in storage of the caller's.

use core::ptr;

use sdpa::{Backend, CachePositions, Error, KEY_BLOCK, KvCacheMut, KvCacheRef};

use crate::{
    attention::Call,
    library::{backend_of, operation, sdpa_backend_t},
    options::sdpa_options,
    region::{Place, array},
    status::{
        Checked, Failure, SDPA_ERROR_CAPACITY, SDPA_ERROR_SHAPE_CACHE, SDPA_ERROR_SHAPE_DIM,
        SDPA_ERROR_SHAPE_KEYS, SDPA_ERROR_SHAPE_QUERIES, SDPA_ERROR_SHAPE_VALUE_DIM,
        SDPA_ERROR_SHAPE_VALUES, sdpa_status, status,
    },
    views::{
        Operand, Slot, sdpa_heads, sdpa_heads_mut, sdpa_matrix, sdpa_matrix_mut, slice, slice_mut,
    },
};

/// How many keys a block of a cache holds.
pub const SDPA_KEY_BLOCK: usize = 64;

const _: () = assert!(SDPA_KEY_BLOCK == KEY_BLOCK);

/// The keys and values of one key head, in storage of the caller's: made by sdpa_cache_init,
/// changed by the functions below, read by anyone. It holds appended - dropped keys: those at
/// the positions dropped to appended - 1. Blocks form a ring: a cache that slides has room for
/// (blocks - 1) * SDPA_KEY_BLOCK + 1 keys whatever their positions. So for a window of left
/// and chunks of chunk tokens (append a chunk, attend, slide to left) take (left + chunk +
/// SDPA_KEY_BLOCK - 1) / SDPA_KEY_BLOCK + 1 blocks. Copying it does not copy what it holds.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sdpa_cache {
    /// SDPA_CACHE_FLOATS(dim, value_dim, blocks) floats.
    pub storage: *mut f32,
    /// The columns of a key.
    pub dim: usize,
    /// The columns of a value.
    pub value_dim: usize,
    /// For SDPA_KEY_BLOCK keys each.
    pub blocks: usize,
    /// How many keys it has been given in all: the position of the next.
    pub appended: u64,
    /// How many of them, the oldest, it has dropped: the position of the oldest it holds.
    pub dropped: u64,
}

/// How many floats of storage a cache of so many blocks takes; SIZE_MAX where that is more than
/// there can be. SDPA_CACHE_FLOATS is the same number for static arrays.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub extern "C" fn sdpa_cache_floats(dim: usize, value_dim: usize, blocks: usize) -> usize {
    dim.saturating_add(value_dim).saturating_mul(SDPA_KEY_BLOCK).saturating_mul(blocks)
}

/// Makes an empty cache in storage, of as many blocks as it has room for, and clears these
/// to 0. storage_len counts floats; room for no block is SDPA_ERROR_CAPACITY. The storage is the
/// cache's for as long as it is used; there is nothing to free.
///
/// Overlap: cache not with storage. On failure both are as they were.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_cache_init(
    cache: *mut sdpa_cache,
    dim: usize,
    value_dim: usize,
    storage: *mut f32,
    storage_len: usize,
) -> sdpa_status {
    let call = || -> Checked<()> {
        let at_storage = array(storage.cast_const(), storage_len)?;
        array(cache.cast_const(), 1)?.check_apart(&at_storage)?;
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
        // SAFETY: aligned, not NULL, apart, and as the caller promises.
        unsafe {
            storage.write_bytes(0, sdpa_cache_floats(dim, value_dim, blocks));
            cache.write(sdpa_cache { storage, dim, value_dim, blocks, appended: 0, dropped: 0 });
        }
        Ok(())
    };
    status(call())
}

/// Takes keys (keys x dim) and values (keys x value_dim), the newest last, into the cache.
/// SDPA_ERROR_CAPACITY where there is no room for all of them.
///
/// Overlap: cache and its storage with no input. On failure both are as they were.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_cache_append(
    cache: *mut sdpa_cache,
    keys: sdpa_matrix,
    values: sdpa_matrix,
) -> sdpa_status {
    let call = || -> Checked<()> {
        let inputs = [keys.operand()?, values.operand()?];
        // SAFETY: as the caller promises.
        unsafe {
            change(cache, &inputs, |held| {
                let dim = (*cache).dim;
                held.append(keys.view(), values.view()).map_err(|error| {
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

/// Keeps the oldest len keys that the cache holds: takes back what was appended last.
/// SDPA_ERROR_POSITION where it holds fewer.
///
/// On failure the cache is as it was.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_cache_truncate(cache: *mut sdpa_cache, len: usize) -> sdpa_status {
    // SAFETY: as the caller promises.
    status(unsafe { change(cache, &[], |held| Ok(held.truncate(len)?)) })
}

/// Takes back the keys from position on, which becomes that of the next (appended).
/// SDPA_ERROR_POSITION where that is not from dropped to appended.
///
/// On failure the cache is as it was.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_cache_truncate_to(
    cache: *mut sdpa_cache,
    position: u64,
) -> sdpa_status {
    // SAFETY: as the caller promises.
    status(unsafe { change(cache, &[], |held| Ok(held.truncate_to(position)?)) })
}

/// Drops the oldest keys until the cache holds no more than len: their blocks are used again, and the
/// positions of the kept stay what they are.
///
/// On failure the cache is as it was.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_cache_slide(cache: *mut sdpa_cache, len: usize) -> sdpa_status {
    // SAFETY: as the caller promises.
    status(unsafe {
        change(cache, &[], |held| {
            held.slide(len);
            Ok(())
        })
    })
}

operation! {
    /// sdpa_attention over the keys and values of a cache: gives the bits of one call over every
    /// key ever appended, with the dropped ones masked. Query i of queries (queries x dim) sits at
    /// appended - queries.rows + i + query_offset: append a token, then attend with its query. bias
    /// and keep of the options have a row for each key that the cache holds, the oldest first.
    ///
    /// Overlap: out, log_sum_exp and workspace with no input, not with the cache or its storage,
    /// and not with each other. On failure all three are as they were; the cache always is.
    fn sdpa_cache_attend, sdpa_cache_attend_on(
        on, cache: *const sdpa_cache, queries: sdpa_matrix, options: *const sdpa_options,
        out: sdpa_matrix_mut, log_sum_exp: *mut f32, workspace: *mut f32, workspace_len: usize,
    ) {
        let out = Slot::new(out.into());
        let call = Call {
            queries: Slot::new(queries.into()), options, sinks: ptr::null(), out, log_sum_exp, workspace,
            workspace_len,
        };
        // SAFETY: as the caller promises.
        unsafe { attend(on, cache, call) }
    }
}

operation! {
    /// sdpa_cache_attend for the query heads that share the keys and values of a cache: head h of
    /// queries and out is a call of it. sinks, log_sum_exp and workspace are as in
    /// sdpa_attention_heads. A model of more key heads has a cache for each.
    ///
    /// Overlap: out, log_sum_exp and workspace with no input, not with the cache or its storage,
    /// and not with each other. On failure all three are as they were; the cache always is.
    fn sdpa_cache_attend_heads, sdpa_cache_attend_heads_on(
        on, cache: *const sdpa_cache, queries: sdpa_heads, options: *const sdpa_options,
        sinks: *const f32, out: sdpa_heads_mut, log_sum_exp: *mut f32, workspace: *mut f32,
        workspace_len: usize,
    ) {
        let out = Slot::new(out);
        let call = Call {
            queries: Slot::new(queries), options, sinks, out, log_sum_exp, workspace, workspace_len,
        };
        // SAFETY: as the caller promises.
        unsafe { attend(on, cache, call) }
    }
}

impl sdpa_cache {
    /// Keys, and behind them values.
    ///
    /// # Safety
    ///
    /// The storage has been checked, may be read for `'a` and is written by nobody.
    unsafe fn slices<'a>(&self) -> [&'a [f32]; 2] {
        let [keys, values] = self.lens();
        // SAFETY: as the caller promises.
        unsafe { [slice(self.storage, keys), slice(self.storage.wrapping_add(keys), values)] }
    }

    /// How many floats are keys, and how many values.
    fn lens(&self) -> [usize; 2] {
        [self.dim, self.value_dim].map(|dim| sdpa_cache_floats(dim, 0, self.blocks))
    }

    /// Where the storage lies.
    fn place(&self) -> Checked<Place<'static>> {
        array(self.storage.cast_const(), sdpa_cache_floats(self.dim, self.value_dim, self.blocks))
    }

    /// How many keys it holds, where its span is none that cannot be; more than can be counted fit no storage.
    fn len(&self) -> usize {
        usize::try_from(self.appended.wrapping_sub(self.dropped)).unwrap_or(usize::MAX)
    }

    fn span(&self) -> Checked<CachePositions> {
        CachePositions::new(self.appended, self.dropped).map_err(broken)
    }
}

/// Why the crate refuses a cache.
fn broken(error: Error) -> Failure {
    Failure::of(error, || SDPA_ERROR_SHAPE_CACHE)
}

/// A call over the keys and values of a cache.
///
/// # Safety
///
/// What the arguments point to is as the functions of the header have it.
#[inline(always)]
unsafe fn attend(on: Backend, cache: *const sdpa_cache, mut call: Call<'_>) -> Checked<()> {
    // SAFETY: as the caller promises; checked before views are made, and made before it runs.
    unsafe {
        check(cache, &mut call)?;
        call.queries.make_view();
        call.out.make_view();
        run(on, &*cache, &mut call)
    }
}

/// Fails where an argument cannot be, or an output is not apart from another argument.
///
/// # Safety
///
/// As [`attend`], of arguments as they are given.
#[inline(never)]
unsafe fn check(cache: *const sdpa_cache, call: &mut Call<'_>) -> Checked<()> {
    let structure = array(cache, 1)?;
    // SAFETY: aligned, not NULL, and as the caller promises.
    let cache = unsafe { &*cache };
    cache.span()?;
    call.use_workspace_of(cache.dim, cache.value_dim);
    // SAFETY: as the caller promises.
    unsafe {
        call.check(&[], &[structure, cache.place()?])?;
        call.check_options(cache.len())
    }
}

/// # Safety
///
/// As [`attend`], of a checked call with views.
#[inline(never)]
unsafe fn run(on: Backend, cache: &sdpa_cache, call: &mut Call<'_>) -> Checked<()> {
    let &sdpa_cache { dim, value_dim, .. } = cache;
    // SAFETY: as the caller promises.
    let result = unsafe {
        let [keys, values] = cache.slices();
        let held = KvCacheRef::new(keys, values, dim, value_dim, cache.span()?).map_err(broken)?;
        let attention = call.read_options(on, cache.len());
        let (log_sum_exp, workspace) = call.slices();
        let (queries, out) = (call.queries.view(), call.out.view_mut());
        held.attend_views(&attention, queries, out, log_sum_exp, workspace)
    };
    // SAFETY: as the caller promises.
    let whose = || unsafe {
        if call.queries.view().cols() == dim {
            call.whose(cache.len(), value_dim)
        } else {
            SDPA_ERROR_SHAPE_QUERIES
        }
    };
    result.map_err(|error| Failure::of(error, whose))
}

/// Changes what `cache` holds by `change`, which reads `inputs`.
///
/// # Safety
///
/// `cache` is NULL, or it and its storage may be read and written and are used by nobody else.
unsafe fn change(
    cache: *mut sdpa_cache,
    inputs: &[Place<'_>],
    change: impl FnOnce(&mut KvCacheMut<'_>) -> Checked<()>,
) -> Checked<()> {
    let at_cache = array(cache.cast_const(), 1)?;
    // SAFETY: aligned, not NULL, and as the caller promises.
    let held = unsafe { &*cache };
    let (mut span, at_storage) = (held.span()?, held.place()?);
    at_cache.check_apart(&at_storage)?;
    for input in inputs {
        at_cache.check_apart(input)?;
        at_storage.check_apart(input)?;
    }
    let (sdpa_cache { storage, dim, value_dim, .. }, [keys, values]) = (*held, held.lens());
    // SAFETY: as the caller promises; the two lie one behind the other.
    let (keys, values) =
        unsafe { (slice_mut(storage, keys), slice_mut(storage.wrapping_add(keys), values)) };
    let mut as_slices = KvCacheMut::new(keys, values, dim, value_dim, &mut span).map_err(broken)?;
    change(&mut as_slices)?;
    let (appended, dropped) = (as_slices.appended(), as_slices.dropped());
    // SAFETY: aligned, not NULL, and as the caller promises.
    unsafe { ((*cache).appended, (*cache).dropped) = (appended, dropped) };
    Ok(())
}
