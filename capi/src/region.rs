//! The memory of an argument, and whether two arguments overlap.
//!
//! The span of an argument is the byte range from its first element to the end of its last. Most spans are
//! disjoint, which two comparisons show. An array uses every byte of its span. If the spans of two arguments
//! with strides intersect, the elements may still be interleaved without sharing a byte; `may_share_a_byte`
//! decides that.

use crate::status::{
    Checked, Failure, SDPA_ERROR_ALIAS, SDPA_ERROR_NULL_POINTER, SDPA_ERROR_POINTER,
    SDPA_ERROR_STRIDE,
};

/// An argument with strides: the offset of element `(i, j, k)` is
/// `i * strides[0] + j * strides[1] + k * strides[2]` elements.
pub(crate) trait Strided {
    type Element;

    fn first(&self) -> *const Self::Element;
    fn counts(&self) -> [usize; 3];
    fn strides(&self) -> [usize; 3];

    /// The size of an element in bytes.
    #[inline]
    fn size(&self) -> usize {
        size_of::<Self::Element>()
    }

    /// Checks the pointer and the strides.
    #[inline]
    fn span(&self) -> Checked<Span> {
        Span::of(self.first(), self.counts(), self.strides())
    }

    /// Checks the pointer and the strides, and returns the region.
    #[inline]
    fn region(&self) -> Checked<Region<'_>>
    where
        Self: Sized,
    {
        Ok(Region { span: self.span()?, elements: Some(self) })
    }
}

/// Checks the pointer, and returns the span of `len` contiguous elements.
#[inline]
pub(crate) fn array<T>(first: *const T, len: usize) -> Checked<Span> {
    Span::of(first, [1, 1, len], [0, 0, 1])
}

/// The memory of an argument that may have strides.
#[derive(Clone, Copy)]
pub(crate) struct Region<'a> {
    span: Span,
    /// `None`: the region is every byte of the span.
    elements: Option<&'a dyn Elements>,
}

impl Region<'_> {
    pub(crate) const EMPTY: Self = Self { span: Span::EMPTY, elements: None };

    /// Whether the argument has no elements.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.span.end == 0
    }

    #[inline(never)]
    fn fill(&self, axes: &mut Axes) {
        axes.size = self.span.end - self.span.start;
        if let Some(elements) = self.elements {
            elements.fill(axes);
        }
    }

    /// Fails if the two regions may share a byte.
    #[inline]
    pub(crate) fn check_disjoint(self, other: impl Into<Self>) -> Checked<()> {
        let other = other.into();
        // By value: the address of a region would keep it in memory.
        if self.span.intersects(other.span) && may_share_a_byte(self, other) {
            return Err(Failure(SDPA_ERROR_ALIAS));
        }
        Ok(())
    }
}

impl From<Span> for Region<'_> {
    #[inline]
    fn from(span: Span) -> Self {
        Self { span, elements: None }
    }
}

/// Fails if an output may share a byte with `other`.
#[inline]
pub(crate) fn check_disjoint<'a>(
    outputs: &[Region<'a>],
    other: impl Into<Region<'a>>,
) -> Checked<()> {
    let other = other.into();
    outputs.iter().try_for_each(|output| output.check_disjoint(other))
}

/// A range of byte addresses; `0..0` for an argument without elements.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    start: usize,
    end: usize,
}

impl Span {
    pub(crate) const EMPTY: Self = Self { start: 0, end: 0 };

    #[inline]
    pub(crate) fn of<T>(first: *const T, counts: [usize; 3], strides: [usize; 3]) -> Checked<Self> {
        let ([heads, rows, cols], [head, row, col]) = (counts, strides);
        if !first.is_aligned() {
            return Err(Failure(SDPA_ERROR_POINTER));
        }
        if heads == 0 || rows == 0 || cols == 0 {
            return Ok(Self::EMPTY);
        }
        if first.is_null() {
            return Err(Failure(SDPA_ERROR_NULL_POINTER));
        }
        let end = || {
            let (heads, rows) = ((heads - 1).checked_mul(head)?, (rows - 1).checked_mul(row)?);
            let last = heads.checked_add(rows)?.checked_add((cols - 1).checked_mul(col)?)?;
            let fits = last < isize::MAX.cast_unsigned() / size_of::<T>();
            fits.then(|| first.addr().checked_add((last + 1) * size_of::<T>()))?
        };
        let end = end().ok_or(Failure(SDPA_ERROR_STRIDE))?;
        Ok(Self { start: first.addr(), end })
    }

    /// Returns the span of `rows` rows of `row` floats one after another, if a few comparisons show that there is one
    /// and that it is valid; whatever is not usual is left to [`of`](Self::of). Always `None` on microcontrollers,
    /// where flash is scarce.
    #[inline(always)]
    pub(crate) fn plain(first: *const f32, rows: usize, row: usize) -> Option<Self> {
        /// So many rows of so many floats take up a quarter of the address space.
        const MOST: usize = 1 << (usize::BITS / 2 - 2);
        let is_plain = first.is_aligned()
            && first.addr().cast_signed() > 0
            && (1..=MOST).contains(&rows)
            && (1..=MOST).contains(&row);
        if cfg!(microcontroller) || !is_plain {
            return None;
        }
        let (start, bytes) = (first.addr(), rows.wrapping_mul(row).wrapping_mul(size_of::<f32>()));
        // No overflow: begins in the lower half of the address space.
        Some(Self { start, end: start.wrapping_add(bytes) })
    }

    /// Fails if two arrays share a byte.
    #[inline]
    pub(crate) fn check_disjoint(self, other: Self) -> Checked<()> {
        if self.intersects(other) { Err(Failure(SDPA_ERROR_ALIAS)) } else { Ok(()) }
    }

    #[inline]
    pub(crate) const fn intersects(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// The positions of the elements, needed only if two spans intersect.
trait Elements {
    fn fill(&self, axes: &mut Axes);
}

impl<S: Strided> Elements for S {
    fn fill(&self, axes: &mut Axes) {
        let size = self.size();
        *axes = Axes { steps: self.counts(), strides: self.strides(), size };
        for (steps, stride) in axes.steps.iter_mut().zip(&mut axes.strides) {
            *steps = steps.wrapping_sub(1);
            // No overflow: `Span::of` has computed the larger total.
            *stride = if *steps == 0 { 0 } else { stride.wrapping_mul(size) };
        }
    }
}

/// Elements of `size` bytes: along each axis, `steps` steps of `strides` bytes. The stride of an axis
/// without steps is 0.
#[derive(Clone, Copy)]
struct Axes {
    steps: [usize; 3],
    strides: [usize; 3],
    size: usize,
}

impl Axes {
    /// Returns the bytes that the elements span modulo `stride`; steps by a multiple of `stride` do not count.
    #[inline(never)]
    fn width_modulo(&self, stride: usize) -> usize {
        let mut width = self.size;
        for (steps, own) in self.steps.iter().zip(&self.strides) {
            if own.checked_rem(stride) != Some(0) {
                width = width.saturating_add(steps.saturating_mul(*own));
            }
        }
        width
    }
}

/// Whether two regions whose spans intersect may share a byte. `false` is certain; `true` may be wrong for
/// an unusual interleaving. Elements are disjoint if they are disjoint modulo one of the strides.
#[cold]
#[inline(never)]
fn may_share_a_byte(a: Region<'_>, b: Region<'_>) -> bool {
    let (low, high) = if a.span.start < b.span.start { (&a, &b) } else { (&b, &a) };
    let distance = high.span.start - low.span.start;
    let mut axes = [Axes { steps: [0; 3], strides: [0; 3], size: 0 }; 2];
    let [low_axes, high_axes] = &mut axes;
    low.fill(low_axes);
    high.fill(high_axes);
    let [low, high] = &axes;
    for axes in &axes {
        for &stride in &axes.strides {
            if let Some(from) = distance.checked_rem(stride) {
                let to = from.saturating_add(high.width_modulo(stride));
                if low.width_modulo(stride) <= from && to <= stride {
                    return false;
                }
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{vec, vec::Vec};

    use super::*;
    use crate::sdpa_matrix;

    /// A matrix that begins `first` floats after address 4096, and the set of floats that it covers.
    fn matrix(
        first: usize,
        [rows, cols]: [usize; 2],
        [row_stride, col_stride]: [usize; 2],
    ) -> (sdpa_matrix, u64) {
        let data = core::ptr::without_provenance::<f32>(4096 + 4 * first);
        let matrix = sdpa_matrix { data, rows, cols, row_stride, col_stride };
        let [_, row, col] = matrix.strides();
        let offsets = (0..rows).flat_map(|r| (0..cols).map(move |c| first + r * row + c * col));
        (matrix, offsets.fold(0, |set, offset| set | 1 << offset))
    }

    fn overlap(a: &sdpa_matrix, b: &sdpa_matrix) -> bool {
        a.region().unwrap().check_disjoint(b.region().unwrap()).is_err()
    }

    fn all() -> Vec<(sdpa_matrix, u64)> {
        let mut all = vec![];
        for first in [0, 1, 2, 5, 9] {
            for shape in [[1, 1], [1, 4], [3, 1], [2, 3], [3, 2], [4, 4], [0, 3]] {
                for row in [0, 1, 2, 3, 4, 6, 8] {
                    for col in [0, 1, 2, 3, 5] {
                        all.push(matrix(first, shape, [row, col]));
                    }
                }
            }
        }
        all
    }

    /// Every overlap is found, and most disjoint pairs are accepted.
    #[test]
    fn overlap_check_matches_brute_force() {
        let all = all();
        let [mut overlapping, mut disjoint, mut refused] = [0, 0, 0];
        for (a, floats_of_a) in &all {
            for (b, floats_of_b) in &all {
                let share = floats_of_a & floats_of_b != 0;
                assert_eq!(overlap(a, b), overlap(b, a));
                assert!(!share || overlap(a, b), "{floats_of_a:b} and {floats_of_b:b}");
                match (share, overlap(a, b)) {
                    (true, _) => overlapping += 1,
                    (_, false) => disjoint += 1,
                    _ => refused += 1,
                }
            }
        }
        assert!(overlapping > 100_000 && disjoint > 100_000, "{overlapping}, {disjoint}");
        assert!(refused < disjoint / 5, "{refused} of {disjoint} disjoint pairs refused");
    }

    /// Column ranges of one buffer overlap exactly if they share a column.
    #[test]
    fn column_ranges_of_one_pitch_are_checked_exactly() {
        for pitch in 1..9 {
            for (from, to) in
                (0..pitch).flat_map(|from| (from + 1..=pitch).map(move |to| (from, to)))
            {
                for (other, end) in
                    (0..pitch).flat_map(|at| (at + 1..=pitch).map(move |to| (at, to)))
                {
                    for rows in [1, 2, 5] {
                        let (a, _) = matrix(from, [5, to - from], [pitch, 1]);
                        let (b, _) = matrix(other, [rows, end - other], [pitch, 1]);
                        assert_eq!(overlap(&a, &b), from < end && other < to);
                    }
                }
            }
        }
    }

    /// An array covers every byte of its span.
    #[test]
    fn arrays_overlap_where_one_begins_within_the_other() {
        let at = |address| core::ptr::without_provenance::<u8>(address);
        for (other, len, want) in [(90, 10, false), (90, 11, true), (109, 1, true), (110, 1, false)]
        {
            let array = |first, len| array(at(first), len).unwrap();
            assert_eq!(array(100, 10).check_disjoint(array(other, len)).is_err(), want);
            assert_eq!(array(other, len).check_disjoint(array(100, 10)).is_err(), want);
            assert!(array(100, 10).check_disjoint(array(other, 0)).is_ok());
        }
    }
}
