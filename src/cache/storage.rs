//! How a cache stores keys and values: what is written where, and the views that attention reads.

use super::{CachePositions, KEY_BLOCK, LARGEST, STORED, slot};
use crate::{
    elements::ElementsRef, error::Error, kernel::blocks::IS_RING, matrix::MatrixRef,
    narrow::Element,
};

#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Sizes {
    pub(super) dim: usize,
    pub(super) value_dim: usize,
    /// The number of blocks of [`KEY_BLOCK`] keys.
    pub(super) blocks: usize,
}

impl Sizes {
    /// The number of keys whose elements of one column are adjacent.
    pub(super) fn row(self) -> usize {
        if IS_RING { KEY_BLOCK } else { KEY_BLOCK * self.blocks }
    }

    /// The sizes of a cache in slices of these lengths: as many blocks as fit into all of them.
    pub(super) fn of<K: Element, V: Element>(
        [keys, values]: [usize; 2],
        [key_scales, value_scales]: [usize; 2],
        [dim, value_dim]: [usize; 2],
    ) -> Result<Self, Error> {
        let elements = |width: usize| width.checked_mul(KEY_BLOCK).filter(|&n| n > 0);
        let blocks = |len: usize, width| elements(width).and_then(|block| len.checked_div(block));
        let of_scales = |len: usize, size| if size == 0 { usize::MAX } else { len / KEY_BLOCK };
        let (keys, values) =
            blocks(keys, dim).zip(blocks(values, value_dim)).ok_or(Error::Shape)?;
        let scales = of_scales(key_scales, size_of::<K::Scale>())
            .min(of_scales(value_scales, size_of::<V::Scale>()));
        match keys.min(values).min(scales) {
            0 => Err(Error::Shape),
            blocks => Ok(Self { dim, value_dim, blocks }),
        }
    }
}

/// Moves `count` elements to the front behind the first `from`, by `by`: blocks of `BLOCK`, of which `from` and `by` are
/// multiples. A block of floats takes a few instructions, and `memmove` would take 1.5 KB of flash.
#[doc(hidden)]
pub fn shift<const BLOCK: usize, T: Copy>(of: &mut [T], from: usize, by: usize, count: usize) {
    let (blocks, _) = of.as_chunks_mut::<BLOCK>();
    for i in from / BLOCK..from / BLOCK + count.div_ceil(BLOCK) {
        let Some((to, [from, ..])) = blocks.split_at_mut_checked(i + by / BLOCK) else {
            return;
        };
        if let Some(to) = to.get_mut(i) {
            *to = *from;
        }
    }
}

/// What keys or values are written to.
pub(super) trait Storage {
    /// Whether elements can represent a row of floats.
    fn represents(&mut self, floats: MatrixRef<'_>, row: usize) -> bool;

    /// Writes a key: `key` of the slot, whose columns have `length` elements.
    fn write_key(&mut self, floats: MatrixRef<'_>, row: usize, at: [usize; 2], length: usize);

    /// Writes a value as row `at`.
    fn write_value(&mut self, floats: MatrixRef<'_>, row: usize, at: usize);
}

pub(super) struct Slices<'a, E: Element> {
    pub(super) elements: &'a mut [E],
    pub(super) scales: &'a mut [E::Scale],
}

impl<E: Element> Slices<'_, E> {
    /// Writes the scale of row `at`, and returns it.
    #[inline(always)]
    fn write_scale(&mut self, floats: MatrixRef<'_>, row: usize, at: usize) -> Option<E::Scale> {
        let scale = E::scale_of(floats, row)?;
        if let Some(to) = self.scales.get_mut(at) {
            *to = scale;
        }
        Some(scale)
    }
}

impl<E: Element> Storage for Slices<'_, E> {
    #[inline(always)]
    fn represents(&mut self, floats: MatrixRef<'_>, row: usize) -> bool {
        E::scale_of(floats, row).is_some()
    }

    #[inline(always)]
    fn write_key(
        &mut self,
        floats: MatrixRef<'_>,
        row: usize,
        [slot, key]: [usize; 2],
        length: usize,
    ) {
        let dim = floats.cols();
        let Some(scale) = self.write_scale(floats, row, slot * length + key) else { return };
        let storage = self.elements.chunks_mut(length.max(1)).skip(slot * dim);
        for (col, lanes) in storage.take(dim).enumerate() {
            if let (Some(lane), Some(x)) = (lanes.get_mut(key), floats.get(row, col)) {
                *lane = E::round(x, scale);
            }
        }
    }

    #[inline(always)]
    fn write_value(&mut self, floats: MatrixRef<'_>, row: usize, at: usize) {
        let dim = floats.cols();
        let Some(scale) = self.write_scale(floats, row, at) else { return };
        for (col, to) in self.elements.iter_mut().skip(at * dim).take(dim).enumerate() {
            if let Some(x) = floats.get(row, col) {
                *to = E::round(x, scale);
            }
        }
    }
}

/// See [`KvCache::append`](super::KvCache::append).
#[inline(always)]
pub(super) fn append(
    mut to_keys: impl Storage,
    mut to_values: impl Storage,
    sizes: Sizes,
    positions: &mut CachePositions,
    [keys, values]: [MatrixRef<'_>; 2],
) -> Result<(), Error> {
    let Sizes { dim, value_dim, blocks } = sizes;
    let shaped = keys.rows() == values.rows() && keys.cols() == dim && values.cols() == value_dim;
    let appended = positions.appended;
    let largest = if positions.kept() > 0 { LARGEST } else { u64::MAX };
    let end = appended.saturating_add(keys.rows() as u64).min(largest);
    let fits = CachePositions { appended: end, ..*positions }.fits(blocks);
    // One branch: after several in turn the compiler takes what follows for rare.
    if !(shaped & fits & (end - appended == keys.rows() as u64)) {
        return Err(match () {
            () if !shaped => Error::Shape,
            () if !fits => Error::Capacity,
            () => Error::Position,
        });
    }
    let are_representable =
        |row| to_keys.represents(keys, row) && to_values.represents(values, row);
    if !(0..keys.rows()).all(are_representable) {
        return Err(Error::Range);
    }
    let length = sizes.row();
    // Exact: no more than `blocks`.
    let pinned = (positions.pinned() / STORED) as usize;
    let (mut slot, mut key) = if IS_RING {
        let block = appended / STORED;
        let slot = match block.checked_sub(pinned as u64) {
            Some(block) => pinned + slot(block, blocks - pinned),
            None => block as usize,
        };
        (slot, (appended % STORED) as usize)
    } else {
        (0, (appended + positions.pinned() - positions.first_stored()) as usize)
    };
    for row in 0..keys.rows() {
        to_keys.write_key(keys, row, [slot, key], length);
        to_values.write_value(values, row, slot * length + key);
        key += 1;
        if key == length {
            slot = if slot + 1 == blocks { pinned } else { slot + 1 };
            key = 0;
        }
    }
    positions.appended = end;
    Ok(())
}

/// The keys in storage: a row for each column of each block, or of all.
#[inline(always)]
pub(super) fn of_keys<'a, E: Element>(
    keys: &'a [E],
    scales: &'a [f32],
    sizes: Sizes,
) -> Result<ElementsRef<'a, E>, Error> {
    let length = sizes.row();
    let elements =
        MatrixRef::new(keys, keys.len().checked_div(length).unwrap_or(0), length)?.into();
    Ok(ElementsRef { elements, scales: MatrixRef::from_row(scales) })
}

/// The values in storage: a row for each key.
#[inline(always)]
pub(super) fn of_values<'a, E: Element>(
    values: &'a [E],
    scales: &'a [f32],
    value_dim: usize,
) -> Result<ElementsRef<'a, E>, Error> {
    let rows = values.len().checked_div(value_dim).ok_or(Error::Shape)?;
    let elements = MatrixRef::new(values, rows, value_dim)?.into();
    Ok(ElementsRef { elements, scales: MatrixRef::from_row(scales) })
}
