//! Where arguments lie, and whether two of them share memory.

use crate::status::{
    Checked, Failure, SDPA_ERROR_ALIAS, SDPA_ERROR_NULL_POINTER, SDPA_ERROR_STRIDE,
};

/// The memory of one argument: elements of `size` bytes, so many along each axis.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Region {
    address: usize,
    size: usize,
    axes: [Axis; 3],
    /// How many bytes from the first to the end of the last; 0 without elements.
    span: usize,
}

/// How many steps, and how many bytes each; an axis without steps has a stride of 0.
#[derive(Clone, Copy, PartialEq)]
struct Axis {
    steps: usize,
    stride: usize,
}

impl Region {
    pub(crate) const EMPTY: Self =
        Self { address: 0, size: 0, axes: [Axis { steps: 0, stride: 0 }; 3], span: 0 };

    /// `counts[i]` elements along axis `i`, `strides[i]` elements apart, from `first` on.
    pub(crate) fn new<T>(
        first: *const T,
        counts: [usize; 3],
        strides: [usize; 3],
    ) -> Checked<Self> {
        let size = size_of::<T>();
        let Self { mut axes, .. } = Self::EMPTY;
        let mut span = size;
        for (axis, (count, stride)) in axes.iter_mut().zip(counts.into_iter().zip(strides)) {
            let Some(steps) = count.checked_sub(1) else { return Ok(Self::EMPTY) };
            if steps > 0 {
                let stride = stride.checked_mul(size).ok_or(Failure(SDPA_ERROR_STRIDE))?;
                let far = steps.checked_mul(stride).and_then(|far| span.checked_add(far));
                span = far.ok_or(Failure(SDPA_ERROR_STRIDE))?;
                *axis = Axis { steps, stride };
            }
        }
        if first.is_null() {
            return Err(Failure(SDPA_ERROR_NULL_POINTER));
        }
        let address = first.addr();
        if span > isize::MAX.cast_unsigned() || address.checked_add(span).is_none() {
            return Err(Failure(SDPA_ERROR_STRIDE));
        }
        Ok(Self { address, size, axes, span })
    }

    /// `count` elements side by side.
    pub(crate) fn array<T>(first: *const T, count: usize) -> Checked<Self> {
        Self::new(first, [1, 1, count], [0, 0, 1])
    }

    /// Whether both are the same elements, at least one, in the same order.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.span > 0 && self == other
    }

    /// Whether both may have a byte in common: never no where they have one. Regions that lie
    /// interleaved are told apart by a stride, modulo which they lie apart.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let (low, high) = if self.address < other.address { (self, other) } else { (other, self) };
        if low.span == 0 || high.span == 0 {
            return false;
        }
        let distance = high.address - low.address;
        let mut strides = low.axes.iter().chain(&high.axes).map(|axis| axis.stride);
        low.span > distance
            && !strides.any(|stride| {
                let Some(from) = distance.checked_rem(stride) else { return false };
                let to = from.saturating_add(high.width_beside(stride));
                low.width_beside(stride) <= from && to <= stride
            })
    }

    /// How many bytes it spans, where steps of whole multiples of `stride` count for nothing.
    fn width_beside(&self, stride: usize) -> usize {
        let steps = self.axes.iter().filter(|axis| axis.stride.checked_rem(stride) != Some(0));
        steps.fold(self.size, |width, axis| {
            width.saturating_add(axis.steps.saturating_mul(axis.stride))
        })
    }
}

/// Fails unless each output lies apart from each input and from each other output.
pub(crate) fn check_apart(outputs: &[Region], inputs: &[Region]) -> Checked<()> {
    for (i, output) in outputs.iter().enumerate() {
        let mut others = inputs.iter().chain(outputs.iter().skip(i + 1));
        if others.any(|other| output.overlaps(other)) {
            return Err(Failure(SDPA_ERROR_ALIAS));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{vec, vec::Vec};

    use super::*;

    /// The places of a matrix of floats that begins `first` floats behind address 4096.
    fn region(first: usize, [rows, cols]: [usize; 2], [row, col]: [usize; 2]) -> (Region, u64) {
        let data = core::ptr::without_provenance::<f32>(4096 + 4 * first);
        let region = Region::new(data, [1, rows, cols], [0, row, col]).unwrap();
        let places = (0..rows).flat_map(|r| (0..cols).map(move |c| first + r * row + c * col));
        (region, places.fold(0, |all, place| all | 1 << place))
    }

    fn all() -> Vec<(Region, u64)> {
        let mut all = vec![];
        for first in [0, 1, 2, 5, 9] {
            for shape in [[1, 1], [1, 4], [3, 1], [2, 3], [3, 2], [4, 4], [0, 3]] {
                for row in [0, 1, 2, 3, 4, 6, 8] {
                    for col in [0, 1, 2, 3, 5] {
                        all.push(region(first, shape, [row, col]));
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
                assert_eq!(a.overlaps(b), b.overlaps(a));
                assert!(!share || a.overlaps(b), "{places_of_a:b} and {places_of_b:b}");
                match (share, a.overlaps(b)) {
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
                        let (a, _) = region(from, [5, to - from], [pitch, 1]);
                        let (b, _) = region(other, [rows, end - other], [pitch, 1]);
                        assert_eq!(a.overlaps(&b), from < end && other < to);
                    }
                }
            }
        }
    }
}
