//! The cache of keys and values, in storage of the caller's.

use sdpa::{Attention, CacheSpan, HeadsMut, HeadsRef, KEY_BLOCK, KvCacheMut, KvCacheRef};

use crate::{
    attention::{Extras, product},
    options::{self, Options, sdpa_options},
    region::{Region, check_apart},
    status::{
        Checked, Failure, SDPA_ERROR_CAPACITY, SDPA_ERROR_NULL_POINTER, SDPA_ERROR_SHAPE,
        sdpa_status, status,
    },
    views::{sdpa_heads, sdpa_heads_mut, sdpa_matrix, sdpa_matrix_mut, slice, slice_mut},
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
        if dim == 0 || value_dim == 0 {
            return Err(Failure(SDPA_ERROR_SHAPE));
        }
        let block = sdpa_cache_floats(dim, value_dim, 1);
        let blocks = storage_len.checked_div(block).unwrap_or(0);
        let len = sdpa_cache_floats(dim, value_dim, blocks);
        let outputs = [Region::array(cache, 1)?, Region::array(storage, storage_len)?];
        check_apart(&outputs, &[])?;
        if blocks == 0 {
            return Err(Failure(SDPA_ERROR_CAPACITY));
        }
        // SAFETY: not NULL, apart, and as the caller promises.
        unsafe {
            storage.write_bytes(0, len);
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
    let inputs = || -> Checked<_> { Ok([keys.region()?, values.region()?]) };
    // SAFETY: as the caller promises.
    let call = || unsafe {
        change(cache, inputs()?, |held| Ok(held.append(keys.view()?, values.view()?)?))
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
    let call = || unsafe { change(cache, [Region::EMPTY; 2], |held| Ok(held.truncate(len)?)) };
    status(call())
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
    let call =
        || unsafe { change(cache, [Region::EMPTY; 2], |held| Ok(held.truncate_to(position)?)) };
    status(call())
}

/// Drops the oldest keys until the cache holds no more than len: their blocks are used again, and the
/// positions of the kept stay what they are.
///
/// On failure the cache is as it was.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_cache_slide(cache: *mut sdpa_cache, len: usize) -> sdpa_status {
    // SAFETY: as the caller promises.
    let call = || unsafe {
        change(cache, [Region::EMPTY; 2], |held| {
            held.slide(len);
            Ok(())
        })
    };
    status(call())
}

/// sdpa_attention over the keys and values of a cache: gives the bits of one call over every
/// key ever appended, with the dropped ones masked. Query i of queries (queries x dim) sits at
/// appended - queries.rows + i + query_offset: append a token, then attend with its query. bias
/// and keep of the options have a row for each key that the cache holds, the oldest first.
///
/// Overlap: out, log_sum_exp and workspace with no input, not with the cache or its storage,
/// and not with each other. On failure all three are as they were; the cache always is.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_cache_attend(
    cache: *const sdpa_cache,
    queries: sdpa_matrix,
    options: *const sdpa_options,
    out: sdpa_matrix_mut,
    log_sum_exp: *mut f32,
    workspace: *mut f32,
    workspace_len: usize,
) -> sdpa_status {
    let call = || -> Checked<()> {
        // SAFETY: as the caller promises.
        let held = unsafe { Held::read(cache) }?;
        let need = Attention::workspace(held.cache.dim, held.cache.value_dim);
        let extras = Extras { log_sum_exp, queries: queries.rows, workspace, workspace_len, need };
        let outputs = extras.beside(out.region()?)?;
        check_apart(&outputs, &[queries.region()?, held.region, held.storage])?;
        let grid = [held.len, queries.rows];
        // SAFETY: as the caller promises.
        let Options { attention, regions } =
            unsafe { options::read(options, core::ptr::null(), 1, grid) }?;
        check_apart(&outputs, &regions)?;
        // SAFETY: not NULL, apart, and as the caller promises.
        unsafe { held.attend(&attention, queries.view()?.into(), out.view()?.into(), &extras) }
    };
    status(call())
}

/// sdpa_cache_attend for the query heads that share the keys and values of a cache: head h of
/// queries and out is a call of it. sinks, log_sum_exp and workspace are as in
/// sdpa_attention_heads. A model of more key heads has a cache for each.
///
/// Overlap: out, log_sum_exp and workspace with no input, not with the cache or its storage,
/// and not with each other. On failure all three are as they were; the cache always is.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_cache_attend_heads(
    cache: *const sdpa_cache,
    queries: sdpa_heads,
    options: *const sdpa_options,
    sinks: *const f32,
    out: sdpa_heads_mut,
    log_sum_exp: *mut f32,
    workspace: *mut f32,
    workspace_len: usize,
) -> sdpa_status {
    let call = || -> Checked<()> {
        // SAFETY: as the caller promises.
        let held = unsafe { Held::read(cache) }?;
        let need = Attention::workspace(held.cache.dim, held.cache.value_dim);
        let count = product(queries.heads, queries.rows)?;
        let extras = Extras { log_sum_exp, queries: count, workspace, workspace_len, need };
        let outputs = extras.beside(out.region()?)?;
        check_apart(&outputs, &[queries.region()?, held.region, held.storage])?;
        let grid = [held.len, queries.rows];
        // SAFETY: as the caller promises.
        let Options { attention, regions } =
            unsafe { options::read(options, sinks, queries.heads, grid) }?;
        check_apart(&outputs, &regions)?;
        // SAFETY: not NULL, apart, and as the caller promises.
        unsafe { held.attend(&attention, queries.view()?, out.view()?, &extras) }
    };
    status(call())
}

/// A cache as it is, with its sizes checked.
struct Held {
    cache: sdpa_cache,
    span: CacheSpan,
    /// How many floats of the storage are keys, and how many values.
    lens: [usize; 2],
    /// How many keys there are.
    len: usize,
    /// Where the structure and the storage lie.
    region: Region,
    storage: Region,
}

impl Held {
    /// # Safety
    ///
    /// `cache` is NULL or may be read.
    unsafe fn read(cache: *const sdpa_cache) -> Checked<Self> {
        if cache.is_null() {
            return Err(Failure(SDPA_ERROR_NULL_POINTER));
        }
        let region = Region::array(cache, 1)?;
        // SAFETY: not NULL, and as the caller promises.
        let cache = unsafe { cache.read() };
        let sdpa_cache { storage, dim, value_dim, blocks, appended, dropped } = cache;
        let len = sdpa_cache_floats(dim, value_dim, blocks);
        let storage = Region::array(storage, len)?;
        let [keys, values] = [dim, value_dim].map(|dim| sdpa_cache_floats(dim, 0, blocks));
        let span = CacheSpan::new(appended, dropped)?;
        // Where there are more than can be counted they fit no storage.
        let len = usize::try_from(appended - dropped).map_err(|_| Failure(SDPA_ERROR_CAPACITY))?;
        Ok(Self { cache, span, lens: [keys, values], len, region, storage })
    }

    /// # Safety
    ///
    /// The storage may be read and is written by nobody for the time of the call; and as
    /// [`Extras::slices`].
    unsafe fn attend(
        &self,
        attention: &Attention<'_>,
        queries: HeadsRef<'_>,
        out: HeadsMut<'_>,
        extras: &Extras,
    ) -> Checked<()> {
        let sdpa_cache { storage, dim, value_dim, .. } = self.cache;
        let [keys, values] = self.lens;
        // SAFETY: as the caller promises.
        let (keys, values) =
            unsafe { (slice(storage, keys), slice(storage.wrapping_add(keys), values)) };
        let cache = KvCacheRef::new(keys, values, dim, value_dim, self.span)?;
        // SAFETY: as the caller promises.
        let (workspace, log_sum_exp) = unsafe { extras.slices() };
        Ok(match log_sum_exp {
            None => cache.attend(attention, queries, out, workspace),
            Some(log_sum_exp) => {
                cache.attend_with_log_sum_exp(attention, queries, out, log_sum_exp, workspace)
            }
        }?)
    }
}

/// Changes what `cache` holds by `change`, which reads `inputs`.
///
/// # Safety
///
/// `cache` is NULL, or it and its storage may be read and written and are used by nobody else.
unsafe fn change(
    cache: *mut sdpa_cache,
    inputs: [Region; 2],
    change: impl FnOnce(&mut KvCacheMut<'_>) -> Checked<()>,
) -> Checked<()> {
    // SAFETY: as the caller promises.
    let mut held = unsafe { Held::read(cache) }?;
    check_apart(&[held.region, held.storage], &inputs)?;
    let sdpa_cache { storage, dim, value_dim, .. } = held.cache;
    let [keys, values] = held.lens;
    // SAFETY: as the caller promises; the two lie one behind the other.
    let (keys, values) =
        unsafe { (slice_mut(storage, keys), slice_mut(storage.wrapping_add(keys), values)) };
    let mut as_slices = KvCacheMut::new(keys, values, dim, value_dim, &mut held.span)?;
    change(&mut as_slices)?;
    let (appended, dropped) = (as_slices.appended(), as_slices.dropped());
    // SAFETY: not NULL, and as the caller promises.
    unsafe { cache.write(sdpa_cache { appended, dropped, ..held.cache }) };
    Ok(())
}
