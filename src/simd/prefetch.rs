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
    at: *const f32,
    /// Cache lines per row.
    lines: usize,
    /// Cache lines of the current row that are not prefetched yet.
    lines_left: usize,
    /// The distance in floats from the end of a row's lines to the next row.
    gap: usize,
    borrow: PhantomData<&'a [f32]>,
}

/// Floats per cache line.
const LINE: usize = 16;

/// Floats in a first-level cache of 48 KiB.
const L1_FLOATS: usize = 12_288;

/// Whether both matrices together fit in the first-level cache.
#[inline(always)]
fn both_fit_l1(now: MatrixRef<'_>, next: MatrixRef<'_>) -> bool {
    let floats = |view: MatrixRef<'_>| view.rows().saturating_mul(view.cols());
    floats(now).saturating_add(floats(next)) <= L1_FLOATS
}

/// Whether both matrices together fit in the first-level cache and `next` is contiguous: strided rows may map
/// to a few sets of the cache and evict each other. Always true on targets without prefetch.
#[inline(always)]
pub(crate) fn fit_in_l1(now: MatrixRef<'_>, next: MatrixRef<'_>) -> bool {
    let prefetches = cfg!(all(target_arch = "x86_64", target_feature = "sse"));
    let rows = by_rows(next);
    !prefetches || ((rows.row_stride() == rows.cols() || next.is_empty()) && both_fit_l1(now, next))
}

/// The view in memory order, row by row. The keys of a KV cache are stored transposed.
#[inline(always)]
fn by_rows(view: MatrixRef<'_>) -> MatrixRef<'_> {
    if view.row_stride() == 1 { view.t() } else { view }
}

impl<'a, const L1: bool> Prefetcher<'a, L1> {
    /// Starts at the first element of `view`.
    #[inline(always)]
    pub(crate) fn new(view: MatrixRef<'a>) -> Self {
        let view = by_rows(view);
        let lines = view.cols().div_ceil(LINE);
        let gap = view.row_stride().wrapping_sub(lines * LINE);
        Self { at: view.at(0, 0), lines, lines_left: lines, gap, borrow: PhantomData }
    }

    /// Prefetches the next `floats` floats, which may be past the end of the matrix.
    #[inline(always)]
    pub(crate) fn fetch(&mut self, floats: usize) {
        if L1 || self.gap == 0 {
            for line in 0..floats.div_ceil(LINE) {
                prefetch::<L1>(self.at.wrapping_add(line * LINE));
            }
            self.at = self.at.wrapping_add(floats);
            return;
        }
        for _ in 0..floats.div_ceil(LINE) {
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
fn prefetch<const L1: bool>(at: *const f32) {
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
