//! Views of keys and values of any element, and how attention reads their blocks. Public API.

use core::ops::Range;

use crate::{
    dispatch::Backend,
    error::Error,
    kernel::blocks::{AnyRows, Block, Elements, Ring, Widened, of_block},
    matrix::{HeadsRef, MatrixMut, MatrixRef},
    narrow::Element,
    number::I8,
};

mod any;

pub use any::AnyElementsRef;

/// Keys or values of any [`Element`], in many heads or one, with their scales: see [`Attention::run_elements`].
///
/// Elements without a scale are viewed by `From`, from a [`MatrixRef`] or [`HeadsRef`].
///
/// [`Attention::run_elements`]: crate::Attention::run_elements
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ElementsRef<'a, E> {
    pub(crate) elements: HeadsRef<'a, E>,
    /// Heads × rows, or nothing.
    pub(crate) scales: MatrixRef<'a>,
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
        let scales = self.scales.submatrix(0..self.scales.rows(), rows);
        Ok(Self { elements, scales: scales.unwrap_or(MatrixRef::EMPTY) })
    }
}

impl<'a, E: Element<Scale = ()>> From<HeadsRef<'a, E>> for ElementsRef<'a, E> {
    fn from(elements: HeadsRef<'a, E>) -> Self {
        Self { elements, scales: MatrixRef::EMPTY }
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
        Ok(Self { elements, scales })
    }
}

/// Keys or values, as attention reads their blocks: with a ring those of a cache.
pub(crate) trait Side {
    /// Heads, rows and columns.
    fn shape(&self) -> [usize; 3];

    /// The rows of a range, in every head.
    fn part(&self, rows: Range<usize>) -> Result<Self, Error>
    where
        Self: Sized;

    /// The same view, if elements are floats.
    fn as_floats(&self) -> Option<HeadsRef<'_>>;

    fn any_keys(&self, ring: Option<&Ring>, block: Block) -> Option<AnyRows<'_>>;

    fn any_values(&self, ring: Option<&Ring>, block: Block) -> Option<AnyRows<'_>>;

    /// See [`Elements::keys`].
    fn keys<'t>(
        &'t self,
        on: (Backend, Option<&Ring>),
        block: Block,
        to: &'t mut Widened<'_>,
    ) -> Option<MatrixRef<'t>>;

    /// See [`Elements::values`].
    fn values<'t>(
        &'t self,
        on: (Backend, Option<&Ring>),
        block: Block,
        to: &'t mut Widened<'_>,
    ) -> Option<MatrixRef<'t>>;

    /// Whether elements are floats, which are not widened.
    fn are_floats(&self) -> bool;

    /// Whether no value of a block is NaN or infinite.
    fn are_finite(&self, ring: Option<&Ring>, block: Block) -> bool;

    /// The scales of a block, in one column, if elements have some.
    fn scales(&self, ring: Option<&Ring>, block: Block) -> Option<MatrixRef<'_>>;

    /// Multiplies `to` (keys × queries) by the scales of a block.
    fn scale(&self, on: (Backend, Option<&Ring>), block: Block, to: MatrixMut<'_>);

    /// [`scale`](Self::scale) where `to` has no rows for the first keys of the block.
    fn scale_from(
        &self,
        on: (Backend, Option<&Ring>),
        block: Block,
        first: usize,
        to: MatrixMut<'_>,
    );
}

impl<'a, E: Element> ElementsRef<'a, E> {
    /// The keys of a block (keys × dim).
    fn key_rows(&self, ring: Option<&Ring>, block: Block) -> Option<MatrixRef<'a, E>> {
        let keys = self.elements.head(block.head)?;
        match ring {
            None => of_block(keys, block),
            Some(ring) => ring.keys(keys, block),
        }
    }

    /// The values of a block.
    fn value_rows(&self, ring: Option<&Ring>, block: Block) -> Option<MatrixRef<'a, E>> {
        of_rows(self.elements.head(block.head)?, ring, block)
    }
}

/// The rows of a block in what has a row per key.
fn of_rows<'a, T: Copy>(
    of: MatrixRef<'a, T>,
    ring: Option<&Ring>,
    block: Block,
) -> Option<MatrixRef<'a, T>> {
    match ring {
        None => of_block(of, block),
        Some(ring) => ring.values(of, block),
    }
}

impl<E: Element> Side for ElementsRef<'_, E> {
    fn shape(&self) -> [usize; 3] {
        [self.elements.heads(), self.elements.rows(), self.elements.cols()]
    }

    fn part(&self, rows: Range<usize>) -> Result<Self, Error> {
        self.rows(rows)
    }

    #[inline(always)]
    fn as_floats(&self) -> Option<HeadsRef<'_>> {
        E::as_floats(self.elements)
    }

    #[inline(always)]
    fn any_keys(&self, ring: Option<&Ring>, block: Block) -> Option<AnyRows<'_>> {
        Some(E::any(self.key_rows(ring, block)?))
    }

    #[inline(always)]
    fn any_values(&self, ring: Option<&Ring>, block: Block) -> Option<AnyRows<'_>> {
        Some(E::any(self.value_rows(ring, block)?))
    }

    fn keys<'t>(
        &'t self,
        (backend, ring): (Backend, Option<&Ring>),
        block: Block,
        to: &'t mut Widened<'_>,
    ) -> Option<MatrixRef<'t>> {
        widened(backend, self.key_rows(ring, block)?, to)
    }

    fn values<'t>(
        &'t self,
        (backend, ring): (Backend, Option<&Ring>),
        block: Block,
        to: &'t mut Widened<'_>,
    ) -> Option<MatrixRef<'t>> {
        widened(backend, self.value_rows(ring, block)?, to)
    }

    fn are_floats(&self) -> bool {
        self.as_floats().is_some()
    }

    fn are_finite(&self, ring: Option<&Ring>, block: Block) -> bool {
        let Some(of) = self.value_rows(ring, block) else { return true };
        (0..of.rows())
            .all(|row| (0..of.cols()).all(|col| of.get(row, col).is_some_and(Element::is_finite)))
    }

    #[inline(always)]
    fn scales(&self, ring: Option<&Ring>, block: Block) -> Option<MatrixRef<'_>> {
        of_rows(self.scales.rows_from(block.head, 1)?.t(), ring, block)
    }

    fn scale(&self, (backend, ring): (Backend, Option<&Ring>), block: Block, to: MatrixMut<'_>) {
        if let Some(scales) = self.scales(ring, block) {
            E::scale_rows(backend, scales, to);
        }
    }

    fn scale_from(
        &self,
        (backend, ring): (Backend, Option<&Ring>),
        block: Block,
        first: usize,
        to: MatrixMut<'_>,
    ) {
        if let Some(scales) = self.scales(ring, block)
            && let Some(scales) = scales.rows_from(first, to.rows())
        {
            E::scale_rows(backend, scales, to);
        }
    }
}

/// Keys and values of any two elements.
#[derive(Clone, Copy)]
pub(crate) struct KeysAndValues<'a, K, V> {
    pub(crate) backend: Backend,
    pub(crate) keys: K,
    pub(crate) values: V,
    pub(crate) ring: Option<&'a Ring>,
}

impl<'a, K: Side, V: Side> KeysAndValues<'a, K, V> {
    /// Both as floats, if they are.
    #[inline(always)]
    pub(crate) fn as_floats(&self) -> Option<[HeadsRef<'_>; 2]> {
        Some([self.keys.as_floats()?, self.values.as_floats()?])
    }

    fn on(&self) -> (Backend, Option<&'a Ring>) {
        (self.backend, self.ring)
    }
}

impl<K: Side, V: Side> Elements for KeysAndValues<'_, K, V> {
    fn shapes(&self) -> [[usize; 3]; 2] {
        [self.keys.shape(), self.values.shape()]
    }

    // Inlined: a kernel for these elements contains no code for others.
    #[inline(always)]
    fn any(&self, block: Block) -> Option<[AnyRows<'_>; 2]> {
        Some([self.keys.any_keys(self.ring, block)?, self.values.any_values(self.ring, block)?])
    }

    fn keys<'t>(&'t self, block: Block, to: &'t mut Widened<'_>) -> Option<MatrixRef<'t>> {
        self.keys.keys(self.on(), block, to)
    }

    fn values<'t>(&'t self, block: Block, to: &'t mut Widened<'_>) -> Option<MatrixRef<'t>> {
        self.values.values(self.on(), block, to)
    }

    fn values_are_finite(&self, block: Block) -> bool {
        self.values.are_finite(self.ring, block)
    }

    fn key_scales(&self, block: Block) -> Option<MatrixRef<'_>> {
        self.keys.scales(self.ring, block)
    }

    fn value_scales(&self, block: Block) -> Option<MatrixRef<'_>> {
        self.values.scales(self.ring, block)
    }

    fn scale_scores(&self, block: Block, scores: MatrixMut<'_>) {
        self.keys.scale(self.on(), block, scores);
    }

    fn scale_weights(&self, block: Block, weights: MatrixMut<'_>) {
        self.values.scale(self.on(), block, weights);
    }
}

/// A view of the elements as floats: `of` itself, or a copy in `to`, which is made unless it is ready. Its rows or columns
/// are contiguous like those of `of`.
fn widened<'t, E: Element>(
    backend: Backend,
    of: MatrixRef<'t, E>,
    to: &'t mut Widened<'_>,
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
    to: &'t mut Widened<'_>,
) -> Option<MatrixRef<'t>> {
    let (rows, cols) = of.shape();
    let floats = to.floats.get_mut(..rows * cols)?;
    if !core::mem::replace(&mut to.is_ready, true) {
        E::widen(backend, of, floats);
    }
    MatrixRef::new(floats, rows, cols).ok()
}
