//! What comes next is asked for before it is read.

use core::marker::PhantomData;

use crate::matrix::MatrixRef;

/// A walk along the rows of what comes next, which asks for its cache lines before they are read.
///
/// A core fetches ahead by itself along one stream; a second one beside it keeps more of its memory
/// requests in flight. Lines that nobody reads cost as much as they would save.
///
/// They go into the second cache, or where they [`fit_in_l1`] into the first: rows lie one behind the other then.
pub(crate) struct Prefetcher<'a, const L1: bool> {
    at: *const f32,
    /// How many lines a row has, and how many of this one are left.
    lines: usize,
    left: usize,
    /// How many floats from behind the lines of a row to the next.
    gap: usize,
    borrow: PhantomData<&'a [f32]>,
}

/// Floats of a cache line.
const LINE: usize = 16;

/// Floats of a first cache, 48 KiB.
const L1_FLOATS: usize = 12_288;

/// Whether the first cache has room for what is read now and what comes next.
#[inline(always)]
fn fits_l1(now: MatrixRef<'_>, next: MatrixRef<'_>) -> bool {
    let floats = |view: MatrixRef<'_>| view.rows().saturating_mul(view.cols());
    floats(now).saturating_add(floats(next)) <= L1_FLOATS
}

/// Whether it holds them: rows of `next` that do not lie one behind the other may meet in a few of its sets.
#[inline(always)]
pub(crate) fn fit_in_l1(now: MatrixRef<'_>, next: MatrixRef<'_>) -> bool {
    let prefetches = cfg!(all(target_arch = "x86_64", target_feature = "sse"));
    let rows = by_rows(next);
    !prefetches || ((rows.row_stride() == rows.cols() || next.is_empty()) && fits_l1(now, next))
}

/// The keys of a cache lie column after column: their rows.
#[inline(always)]
fn by_rows(view: MatrixRef<'_>) -> MatrixRef<'_> {
    if view.row_stride() == 1 { view.t() } else { view }
}

impl<'a, const L1: bool> Prefetcher<'a, L1> {
    /// From the first element of `view` on, row after row.
    #[inline(always)]
    pub(crate) fn new(view: MatrixRef<'a>) -> Self {
        let view = by_rows(view);
        let lines = view.cols().div_ceil(LINE);
        let gap = view.row_stride().wrapping_sub(lines * LINE);
        Self { at: view.at(0, 0), lines, left: lines, gap, borrow: PhantomData }
    }

    /// Asks for the next `floats`, whether they are there or not.
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
            self.left = self.left.wrapping_sub(1);
            if self.left == 0 {
                self.at = self.at.wrapping_add(self.gap);
                self.left = self.lines;
            }
        }
    }
}

impl<'a> Prefetcher<'a, false> {
    /// Through `next`, where the first cache has no room for it beside what is read now.
    #[inline(always)]
    pub(crate) fn beyond_l1(now: MatrixRef<'_>, next: MatrixRef<'a>) -> Option<Self> {
        (!fits_l1(now, next)).then(|| Self::new(next))
    }
}

/// Asks for the cache line at `at`, which need not be there: a hint.
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
