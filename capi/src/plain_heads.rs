//! Attention over heads, and over a cache, that links little.
//!
//! On microcontrollers make compiles this with the feature `plain-heads` and LTO, into an object of its own. No other
//! function is exported then, and no option is read but the numbers: the compiler drops the code of the others.

use core::ptr;

use sdpa::{Backend, KvCacheRef};

use crate::{
    attention::{AttentionCall, CommonArguments},
    cache::{self, sdpa_cache},
    options::{check_plain, sdpa_options},
    status::{sdpa_status, status},
    views::{Slot, sdpa_heads, sdpa_heads_mut},
};

/// sdpa_attention_heads without sinks and log_sum_exp, and without softcap, bias, slopes, keep and sink of
/// the options (else SDPA_ERROR_OPTION): the same bits from half the flash. On microcontrollers gcc and clang,
/// when they optimise, call it for sdpa_attention_heads if they see that this is enough: write a NULL each
/// into the call, and let options be NULL or a static const.
///
/// Overlap: out and workspace must not overlap any input or each other. On failure both are unchanged.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub unsafe extern "C" fn sdpa_attention_heads_plain(
    queries: sdpa_heads,
    keys: sdpa_heads,
    values: sdpa_heads,
    options: *const sdpa_options,
    out: sdpa_heads_mut,
    workspace: *mut f32,
    workspace_len: usize,
) -> sdpa_status {
    let call = arguments(queries, options, out, workspace, workspace_len);
    // SAFETY: as the caller promises.
    let attend = || unsafe {
        check_plain(options)?;
        let (keys, values) = (Slot::new(keys), Slot::new(values));
        AttentionCall { call, keys, values }.attend(Backend::best())
    };
    status(attend())
}

/// sdpa_cache_attend_heads likewise: what sdpa_attention_heads_plain is to sdpa_attention_heads. On
/// microcontrollers it is called for sdpa_cache_attend too.
///
/// Overlap: out and workspace must not overlap any input, the cache, its storage or each other. On failure
/// both are unchanged. The cache is never changed.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub unsafe extern "C" fn sdpa_cache_attend_heads_plain(
    cache: *const sdpa_cache,
    queries: sdpa_heads,
    options: *const sdpa_options,
    out: sdpa_heads_mut,
    workspace: *mut f32,
    workspace_len: usize,
) -> sdpa_status {
    let call = arguments(queries, options, out, workspace, workspace_len);
    // SAFETY: as the caller promises.
    let attend = || unsafe {
        check_plain(options)?;
        cache::attend::<KvCacheRef<'_>>(Backend::best(), cache, call)
    };
    status(attend())
}

#[inline(always)]
fn arguments<'a>(
    queries: sdpa_heads,
    options: *const sdpa_options,
    out: sdpa_heads_mut,
    workspace: *mut f32,
    workspace_len: usize,
) -> CommonArguments<'a> {
    CommonArguments {
        queries: Slot::new(queries),
        options,
        sinks: ptr::null(),
        out: Slot::new(out),
        log_sum_exp: ptr::null_mut(),
        workspace,
        workspace_len,
    }
}
