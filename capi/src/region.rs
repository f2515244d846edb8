//! Where arguments lie, and whether two of them share memory.
//!
//! An argument spans the bytes from its first element to behind its last. Most spans lie apart, and two
//! comparisons say so. Where they meet, the elements may still lie interleaved: that is looked at apart.

use crate::status::{
    Checked, Failure, SDPA_ERROR_ALIAS, SDPA_ERROR_NULL_POINTER, SDPA_ERROR_POINTER,
    SDPA_ERROR_STRIDE,
};

/// An argument with strides: element `(i, j, k)` lies `i * strides[0] + j * strides[1] + k * strides[2]`
/// elements behind the first.
pub(crate) trait Strided {
    type Element;

    fn first(&self) -> *const Self::Element;
    fn counts(&self) -> [usize; 3];
    fn strides(&self) -> [usize; 3];

    /// Where it lies, once its pointer and strides have been checked.
    #[inline]
    fn place(&self) -> Checked<Place<'_>>
    where
        Self: Sized,
    {
        let span = Span::of(self.first(), self.counts(), self.strides())?;
        Ok(Place { span, elements: Some(self) })
    }
}

/// The place of `len` elements side by side.
#[inline]
pub(crate) fn array<T>(first: *const T, len: usize) -> Checked<Place<'static>> {
    Ok(Place { span: Span::of(first, [1, 1, len], [0, 0, 1])?, elements: None })
}

/// Where an argument lies.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    span: Span,
    /// `None`: every byte of the span.
    elements: Option<&'a dyn Elements>,
}

impl Place<'_> {
    pub(crate) const EMPTY: Self = Self { span: Span { start: 0, end: 0 }, elements: None };

    /// Whether no element lies there.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.span.end == 0
    }

    /// Fails where both may share a byte.
    #[inline]
    pub(crate) fn check_apart(&self, other: &Self) -> Checked<()> {
        if self.span.meets(other.span) && may_share_a_byte(self, other) {
            return Err(Failure(SDPA_ERROR_ALIAS));
        }
        Ok(())
    }
}

/// Fails unless each output lies apart from `other`.
#[inline]
pub(crate) fn check_apart(outputs: &[Place<'_>], other: &Place<'_>) -> Checked<()> {
    for output in outputs {
        output.check_apart(other)?;
    }
    Ok(())
}

/// Bytes; none, at 0, for an argument without elements.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    #[inline]
    fn of<T>(first: *const T, counts: [usize; 3], strides: [usize; 3]) -> Checked<Self> {
        let ([heads, rows, cols], [head, row, col]) = (counts, strides);
        if !first.is_aligned() {
            return Err(Failure(SDPA_ERROR_POINTER));
        }
        if heads == 0 || rows == 0 || cols == 0 {
            return Ok(Self { start: 0, end: 0 });
        }
        if first.is_null() {
            return Err(Failure(SDPA_ERROR_NULL_POINTER));
        }
        let end = || {
            let (heads, rows) = ((heads - 1).checked_mul(head)?, (rows - 1).checked_mul(row)?);
            let last = heads.checked_add(rows)?.checked_add((cols - 1).checked_mul(col)?)?;
            let bytes = last.checked_add(1)?.checked_mul(size_of::<T>())?;
            first.addr().checked_add(bytes).filter(|_| bytes <= isize::MAX.cast_unsigned())
        };
        let end = end().ok_or(Failure(SDPA_ERROR_STRIDE))?;
        Ok(Self { start: first.addr(), end })
    }

    #[inline]
    const fn meets(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// What is looked at where spans meet.
trait Elements {
    fn fill(&self, axes: &mut Axes);
}

impl<S: Strided> Elements for S {
    fn fill(&self, axes: &mut Axes) {
        let size = size_of::<S::Element>();
        *axes = Axes { steps: self.counts(), strides: self.strides(), size };
        for (steps, stride) in axes.steps.iter_mut().zip(&mut axes.strides) {
            *steps = steps.wrapping_sub(1);
            // Nothing overflows: the span is known.
            *stride = if *steps == 0 { 0 } else { stride.wrapping_mul(size) };
        }
    }
}

/// Elements of `size` bytes, so many steps of so many bytes along each axis; without steps the stride is 0.
#[derive(Clone, Copy)]
struct Axes {
    steps: [usize; 3],
    strides: [usize; 3],
    size: usize,
}

impl Axes {
    /// How many bytes they span, where steps of whole multiples of `stride` count for nothing.
    #[inline(never)]
    fn width_beside(&self, stride: usize) -> usize {
        let mut width = self.size;
        for (steps, own) in self.steps.iter().zip(&self.strides) {
            if own.checked_rem(stride) != Some(0) {
                width = width.saturating_add(steps.saturating_mul(*own));
            }
        }
        width
    }
}

/// Whether two places whose spans meet share a byte: never no where they do. Elements that lie
/// interleaved are told apart by a stride, modulo which they lie apart.
#[cold]
#[inline(never)]
fn may_share_a_byte(a: &Place<'_>, b: &Place<'_>) -> bool {
    let (low, high) = if a.span.start < b.span.start { (a, b) } else { (b, a) };
    let distance = high.span.start - low.span.start;
    let mut axes = [Axes { steps: [0; 3], strides: [0; 3], size: 0 }; 2];
    for (place, axes) in [low, high].iter().zip(&mut axes) {
        axes.size = place.span.end - place.span.start;
        if let Some(elements) = place.elements {
            elements.fill(axes);
        }
    }
    let [low, high] = &axes;
    for axes in &axes {
        for &stride in &axes.strides {
            if let Some(from) = distance.checked_rem(stride) {
                let to = from.saturating_add(high.width_beside(stride));
                if low.width_beside(stride) <= from && to <= stride {
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

    /// A matrix of floats that begins `first` floats behind address 4096, and its places.
    fn matrix(
        first: usize,
        [rows, cols]: [usize; 2],
        [row_stride, col_stride]: [usize; 2],
    ) -> (sdpa_matrix, u64) {
        let data = core::ptr::without_provenance::<f32>(4096 + 4 * first);
        let matrix = sdpa_matrix { data, rows, cols, row_stride, col_stride };
        let [_, row, col] = matrix.strides();
        let places = (0..rows).flat_map(|r| (0..cols).map(move |c| first + r * row + c * col));
        (matrix, places.fold(0, |all, place| all | 1 << place))
    }

    fn overlap(a: &sdpa_matrix, b: &sdpa_matrix) -> bool {
        a.place().unwrap().check_apart(&b.place().unwrap()).is_err()
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

    /// Never no where there is one, and no for most that have none.
    #[test]
    fn overlaps_are_seen_as_by_brute_force() {
        let all = all();
        let [mut shared, mut apart, mut refused] = [0, 0, 0];
        for (a, places_of_a) in &all {
            for (b, places_of_b) in &all {
                let share = places_of_a & places_of_b != 0;
                assert_eq!(overlap(a, b), overlap(b, a));
                assert!(!share || overlap(a, b), "{places_of_a:b} and {places_of_b:b}");
                match (share, overlap(a, b)) {
                    (true, _) => shared += 1,
                    (_, false) => apart += 1,
                    _ => refused += 1,
                }
            }
        }
        assert!(shared > 100_000 && apart > 100_000 && refused < apart / 5, "{apart}, {refused}");
    }

    /// Rows of one buffer of any slots: exactly those that share a float.
    #[test]
    fn slots_of_one_pitch_are_told_apart_exactly() {
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

    /// Arrays are every byte of their span.
    #[test]
    fn arrays_overlap_where_one_begins_within_the_other() {
        let at = |address| core::ptr::without_provenance::<u8>(address);
        for (other, len, want) in [(90, 10, false), (90, 11, true), (109, 1, true), (110, 1, false)]
        {
            let array = |first, len| array(at(first), len).unwrap();
            assert_eq!(array(100, 10).check_apart(&array(other, len)).is_err(), want);
            assert_eq!(array(other, len).check_apart(&array(100, 10)).is_err(), want);
            assert!(array(100, 10).check_apart(&array(other, 0)).is_ok());
        }
    }
}
