//! Software prefetch of the next operand while the current one is read.

use core::marker::PhantomData;

use crate::matrix::MatrixRef;

/// Prefetches the cache lines of a matrix, row after row.
///
/// The hardware prefetcher follows one stream; a second stream in software keeps more memory requests in
/// flight. Prefetching lines that are never read costs as much as prefetching saves.
///
/// `L1` prefetches into the first-level cache, for rows that are contiguous and [`fit_in_l1`]; otherwise into
/// the second-level cache.
pub(crate) struct Prefetcher<'a, const L1: bool> {
    at: *const u8,
    /// Cache lines per row.
    lines: usize,
    /// Cache lines of the current row that are not prefetched yet.
    lines_left: usize,
    /// The distance in bytes from the end of a row's lines to the next row.
    gap: usize,
    borrow: PhantomData<&'a [u8]>,
}

/// Bytes per cache line.
const LINE: usize = 64;

/// Bytes in a first-level cache of 48 KiB.
const L1_BYTES: usize = 49_152;

/// Whether both matrices together fit in the first-level cache.
#[inline(always)]
fn both_fit_l1<E: Copy, N: Copy>(now: MatrixRef<'_, E>, next: MatrixRef<'_, N>) -> bool {
    bytes(now).saturating_add(bytes(next)) <= L1_BYTES
}

#[inline(always)]
fn bytes<E: Copy>(view: MatrixRef<'_, E>) -> usize {
    view.rows().saturating_mul(view.cols()).saturating_mul(size_of::<E>())
}

/// Whether both matrices together fit in the first-level cache and `next` is contiguous: strided rows may map
/// to a few sets of the cache and evict each other. Always true on targets without prefetch.
#[inline(always)]
pub(crate) fn fit_in_l1<E: Copy, N: Copy>(now: MatrixRef<'_, E>, next: MatrixRef<'_, N>) -> bool {
    let prefetches = cfg!(all(target_arch = "x86_64", target_feature = "sse"));
    let rows = by_rows(next);
    !prefetches || ((rows.row_stride() == rows.cols() || next.is_empty()) && both_fit_l1(now, next))
}

/// The view in memory order, row by row. The keys of a KV cache are stored transposed.
#[inline(always)]
fn by_rows<E: Copy>(view: MatrixRef<'_, E>) -> MatrixRef<'_, E> {
    if view.row_stride() == 1 { view.t() } else { view }
}

impl<'a, const L1: bool> Prefetcher<'a, L1> {
    /// Starts at the first element of `view`.
    #[inline(always)]
    pub(crate) fn new<E: Copy>(view: MatrixRef<'a, E>) -> Self {
        let view = by_rows(view);
        let bytes = |elements: usize| elements.wrapping_mul(size_of::<E>());
        let lines = bytes(view.cols()).div_ceil(LINE);
        let gap = bytes(view.row_stride()).wrapping_sub(lines * LINE);
        Self { at: view.at(0, 0).cast(), lines, lines_left: lines, gap, borrow: PhantomData }
    }

    /// Prefetches as many bytes as `floats` floats have: see [`fetch_bytes`](Self::fetch_bytes).
    #[inline(always)]
    pub(crate) fn fetch(&mut self, floats: usize) {
        self.fetch_bytes(floats * size_of::<f32>());
    }

    /// Prefetches the next `bytes` bytes, which may be past the end of the matrix.
    #[inline(always)]
    pub(crate) fn fetch_bytes(&mut self, bytes: usize) {
        if L1 || self.gap == 0 {
            for line in 0..bytes.div_ceil(LINE) {
                prefetch::<L1>(self.at.wrapping_add(line * LINE));
            }
            self.at = self.at.wrapping_add(bytes);
            return;
        }
        for _ in 0..bytes.div_ceil(LINE) {
            prefetch::<L1>(self.at);
            self.at = self.at.wrapping_add(LINE);
            self.lines_left = self.lines_left.wrapping_sub(1);
            if self.lines_left == 0 {
                self.at = self.at.wrapping_add(self.gap);
                self.lines_left = self.lines;
            }
        }
    }
}

impl<'a> Prefetcher<'a, false> {
    /// Prefetches `next`, unless both matrices fit in the first-level cache: then the hardware prefetcher
    /// suffices.
    #[inline(always)]
    pub(crate) fn beyond_l1(now: MatrixRef<'_>, next: MatrixRef<'a>) -> Option<Self> {
        (!both_fit_l1(now, next)).then(|| Self::new(next))
    }
}

/// Prefetches the cache line at `at`, which may be any address.
#[inline(always)]
fn prefetch<const L1: bool>(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", target_feature = "sse"))]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        // SAFETY: the build has SSE; a prefetch of any address is allowed.
        unsafe {
            if L1 {
                _mm_prefetch::<_MM_HINT_T0>(at.cast());
            } else {
                _mm_prefetch::<_MM_HINT_T1>(at.cast());
            }
        }
    }
    let _ = at;
}
