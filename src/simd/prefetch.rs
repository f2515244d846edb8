//! Software prefetch of the next operand while the current one is read.

use core::marker::PhantomData;

use crate::matrix::MatrixRef;

/// Prefetches the cache lines of a matrix, row after row.
///
/// The hardware prefetcher follows one stream; a second stream in software keeps more memory requests in
/// flight. Prefetching lines that are never read costs as much as prefetching saves.
///
/// `L1` prefetches into the first-level cache, for matrices that are contiguous and [`fit_in_l1`]; of others it prefetches
/// the first line again and again, which costs next to nothing. Otherwise it prefetches into the second-level cache, unless
/// it is [`ahead`](Self::ahead).
pub(crate) struct Prefetcher<'a, const L1: bool> {
    at: *const u8,
    /// Cache lines per row.
    lines: usize,
    /// Cache lines of the current row that are not prefetched yet.
    lines_left: usize,
    /// The distance in bytes from the end of a row's lines to the next row.
    gap: usize,
    /// All bits, or none where `L1` stays at the first line.
    moves: usize,
    /// What [`ahead`](Self::ahead) goes on with, and the bytes before it.
    then: Option<(*const u8, usize)>,
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
        let at = view.at(0, 0).cast();
        let moves = if !L1 || view.row_stride() == view.cols() { usize::MAX } else { 0 };
        Self { at, lines, lines_left: lines, gap, moves, then: None, borrow: PhantomData }
    }

    /// Prefetches into the first-level cache what is read [`rows_ahead`] rows later: the rest of `now`, then `next`. If they
    /// are not contiguous, only `next`, into the second-level cache.
    #[inline(always)]
    pub(crate) fn ahead(now: MatrixRef<'a>, next: MatrixRef<'a>) -> Self {
        let mut prefetcher = Self::new(next);
        let rows = by_rows(now);
        if rows.row_stride() == rows.cols() && prefetcher.gap == 0 {
            let ahead = rows_ahead(rows);
            let rest = rows
                .rows_from(ahead, rows.rows().saturating_sub(ahead))
                .unwrap_or(MatrixRef::EMPTY);
            prefetcher.then = Some((prefetcher.at, bytes(rest)));
            prefetcher.at = rows.at(ahead, 0).cast();
        }
        prefetcher
    }

    /// Prefetches as many bytes as `floats` floats have: see [`fetch_bytes`](Self::fetch_bytes).
    #[inline(always)]
    pub(crate) fn fetch(&mut self, floats: usize) {
        self.fetch_bytes(floats * size_of::<f32>());
    }

    /// Prefetches the next `bytes` bytes, which may be past the end of the matrix.
    #[inline(always)]
    pub(crate) fn fetch_bytes(&mut self, bytes: usize) {
        if L1 {
            self.fetch_contiguous::<true>(bytes);
            return;
        }
        if self.then.is_some() {
            self.fetch_contiguous::<true>(bytes);
            if let Some((next, left)) = &mut self.then {
                if *left > bytes {
                    *left -= bytes;
                } else {
                    (self.at, *left) = (*next, usize::MAX);
                }
            }
            return;
        }
        if self.gap == 0 {
            self.fetch_contiguous::<false>(bytes);
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

    #[inline(always)]
    fn fetch_contiguous<const INTO_L1: bool>(&mut self, bytes: usize) {
        for line in 0..bytes.div_ceil(LINE) {
            prefetch::<INTO_L1>(self.at.wrapping_add(line * LINE));
        }
        self.at = self.at.wrapping_add(if L1 { bytes & self.moves } else { bytes });
    }
}

/// How many rows before they are read the rows of a contiguous matrix are prefetched: as many as take half of the
/// first-level cache, at least an eighth of them and at least one.
#[inline(always)]
pub(crate) fn rows_ahead(rows: MatrixRef<'_>) -> usize {
    let mut ahead = rows.rows();
    let mut bytes = bytes(rows);
    for _ in 0..3 {
        if bytes > L1_BYTES / 2 {
            (ahead, bytes) = (ahead / 2, bytes / 2);
        }
    }
    ahead.max(1)
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
