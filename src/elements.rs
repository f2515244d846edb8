//! Views of keys and values of any element, and how attention reads their blocks. Public API.

use core::ops::Range;

use crate::{
    dispatch::Backend,
    error::Error,
    kernel::blocks::{AnyRows, Block, Elements, Ring, of_block},
    matrix::{HeadsRef, MatrixMut, MatrixRef},
    narrow::Element,
    number::I8,
};

/// Keys or values of any [`Element`], in many heads or one, with their scales: see [`Attention::run_elements`].
///
/// Elements without a scale are viewed by `From`, from a [`MatrixRef`] or [`HeadsRef`].
///
/// [`Attention::run_elements`]: crate::Attention::run_elements
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ElementsRef<'a, E> {
    pub(crate) elements: HeadsRef<'a, E>,
    /// Heads × rows × 1, or nothing.
    pub(crate) scales: HeadsRef<'a>,
}

impl<E: Element> ElementsRef<'_, E> {
    /// The rows (tokens) of a range, in every head: for [`Attention::run_elements_spans`] over a part of the keys.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the range is not within the rows.
    ///
    /// [`Attention::run_elements_spans`]: crate::Attention::run_elements_spans
    pub fn rows(self, rows: Range<usize>) -> Result<Self, Error> {
        let elements = self.elements.rows_of(rows.clone())?;
        let scales =
            if self.scales.heads() == 0 { self.scales } else { self.scales.rows_of(rows)? };
        Ok(Self { elements, scales })
    }
}

impl<'a, E: Element<Scale = ()>> From<HeadsRef<'a, E>> for ElementsRef<'a, E> {
    fn from(elements: HeadsRef<'a, E>) -> Self {
        Self { elements, scales: HeadsRef::EMPTY }
    }
}

impl<'a, E: Element<Scale = ()>> From<MatrixRef<'a, E>> for ElementsRef<'a, E> {
    fn from(elements: MatrixRef<'a, E>) -> Self {
        Self::from(HeadsRef::from(elements))
    }
}

impl<'a> ElementsRef<'a, I8> {
    /// Elements with a scale per row: heads × rows.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the shape of `scales` is not heads × rows; [`Error::Range`] if a scale is NaN or ∞.
    pub fn with_scales(
        elements: impl Into<HeadsRef<'a, I8>>,
        scales: MatrixRef<'a>,
    ) -> Result<Self, Error> {
        let elements = elements.into();
        if scales.shape() != (elements.heads(), elements.rows()) {
            return Err(Error::Shape);
        }
        for head in 0..scales.rows() {
            let are_finite =
                (0..scales.cols()).all(|row| scales.get(head, row).is_some_and(f32::is_finite));
            if !are_finite {
                return Err(Error::Range);
            }
        }
        Ok(Self { elements, scales: HeadsRef::of_rows(scales) })
    }
}

/// Keys and values of any two elements.
#[derive(Clone, Copy)]
pub(crate) struct KeysAndValues<'a, K, V> {
    pub(crate) backend: Backend,
    pub(crate) keys: ElementsRef<'a, K>,
    pub(crate) values: ElementsRef<'a, V>,
    pub(crate) ring: Option<&'a Ring>,
}

impl<'a, K: Element, V: Element> KeysAndValues<'a, K, V> {
    /// Both as floats, if they are.
    #[inline(always)]
    pub(crate) fn as_floats(&self) -> Option<[HeadsRef<'a>; 2]> {
        Some([K::as_floats(self.keys.elements)?, V::as_floats(self.values.elements)?])
    }

    /// The keys of a block (keys × dim).
    fn key_rows(&self, block: Block) -> Option<MatrixRef<'a, K>> {
        let keys = self.keys.elements.head(block.head)?;
        match self.ring {
            None => of_block(keys, block),
            Some(ring) => ring.keys(keys, block),
        }
    }

    /// The rows of a block in what has a row per key.
    fn rows<T: Copy>(&self, of: &HeadsRef<'a, T>, block: Block) -> Option<MatrixRef<'a, T>> {
        let of = of.head(block.head)?;
        match self.ring {
            None => of_block(of, block),
            Some(ring) => ring.values(of, block),
        }
    }
}

impl<K: Element, V: Element> Elements for KeysAndValues<'_, K, V> {
    fn shapes(&self) -> [[usize; 3]; 2] {
        let Self { keys: ElementsRef { elements: keys, .. }, values, .. } = self;
        let values = &values.elements;
        [[keys.heads(), keys.rows(), keys.cols()], [values.heads(), values.rows(), values.cols()]]
    }

    fn any(&self, block: Block) -> Option<[AnyRows<'_>; 2]> {
        let values = self.rows(&self.values.elements, block)?;
        Some([K::any(self.key_rows(block)?), V::any(values)])
    }

    fn keys<'t>(
        &'t self,
        block: Block,
        keys: Range<usize>,
        to: &'t mut [f32],
    ) -> Option<MatrixRef<'t>> {
        let of = self.key_rows(block)?.rows_from(keys.start, keys.len())?;
        widened(self.backend, of, to)
    }

    fn values<'t>(
        &'t self,
        block: Block,
        cols: Range<usize>,
        to: &'t mut [f32],
    ) -> Option<MatrixRef<'t>> {
        let of = self.rows(&self.values.elements, block)?;
        widened(self.backend, of.submatrix(0..block.count, cols)?, to)
    }

    fn values_are_finite(&self, block: Block) -> bool {
        let Some(of) = self.rows(&self.values.elements, block) else { return true };
        (0..of.rows())
            .all(|row| (0..of.cols()).all(|col| of.get(row, col).is_some_and(Element::is_finite)))
    }

    fn scale_scores(&self, block: Block, scores: MatrixMut<'_>) {
        if let Some(scales) = self.rows(&self.keys.scales, block) {
            K::scale_rows(self.backend, scales, scores);
        }
    }

    fn scale_weights(&self, block: Block, weights: MatrixMut<'_>) {
        if let Some(scales) = self.rows(&self.values.scales, block) {
            V::scale_rows(self.backend, scales, weights);
        }
    }
}

/// A view of the elements as floats: `of` itself or a copy in `to`, whose rows or columns are contiguous like those of
/// `of`.
fn widened<'t, E: Element>(
    backend: Backend,
    of: MatrixRef<'t, E>,
    to: &'t mut [f32],
) -> Option<MatrixRef<'t>> {
    if let Some(floats) = E::as_floats(of.into()) {
        return floats.head(0);
    }
    if of.row_stride() == 1 && of.col_stride() != 1 {
        let floats = widened_rows(backend, of.t(), to)?;
        return Some(floats.t());
    }
    widened_rows(backend, of, to)
}

fn widened_rows<'t, E: Element>(
    backend: Backend,
    of: MatrixRef<'t, E>,
    to: &'t mut [f32],
) -> Option<MatrixRef<'t>> {
    let (rows, cols) = of.shape();
    let to = to.get_mut(..rows * cols)?;
    E::widen(backend, of, to);
    MatrixRef::new(to, rows, cols).ok()
}
