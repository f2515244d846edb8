//! Keys or values whose elements are known at run time, for the C library. Not part of the API.

use core::ops::Range;

use super::{ElementsRef, Side};
use crate::{
    dispatch::Backend,
    error::Error,
    kernel::blocks::{AnyRows, Block, Ring, Widened},
    matrix::{HeadsRef, MatrixMut, MatrixRef},
    number::{Bf16, F16, I8},
};

/// An [`ElementsRef`] of any element.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum AnyElementsRef<'a> {
    /// Floats.
    F32(ElementsRef<'a, f32>),
    /// Elements of [`F16`].
    F16(ElementsRef<'a, F16>),
    /// Elements of [`Bf16`].
    Bf16(ElementsRef<'a, Bf16>),
    /// Elements of [`I8`].
    I8(ElementsRef<'a, I8>),
}

/// Calls a method of the view.
macro_rules! of_each {
    ($any:expr, $side:ident => $call:expr) => {
        match $any {
            AnyElementsRef::F32($side) => $call,
            AnyElementsRef::F16($side) => $call,
            AnyElementsRef::Bf16($side) => $call,
            AnyElementsRef::I8($side) => $call,
        }
    };
}

impl<'a> AnyElementsRef<'a> {
    /// See [`ElementsRef::with_scales`].
    ///
    /// # Errors
    ///
    /// Those of [`ElementsRef::with_scales`].
    pub fn with_scales(elements: HeadsRef<'a, I8>, scales: MatrixRef<'a>) -> Result<Self, Error> {
        ElementsRef::with_scales(elements, scales).map(Self::I8)
    }

    /// Heads, rows and columns.
    pub fn sizes(&self) -> [usize; 3] {
        of_each!(self, side => side.shape())
    }

    /// The number of rows of a head.
    pub fn rows(&self) -> usize {
        let [_, rows, _] = self.sizes();
        rows
    }
}

impl Side for AnyElementsRef<'_> {
    fn shape(&self) -> [usize; 3] {
        self.sizes()
    }

    fn part(&self, rows: Range<usize>) -> Result<Self, Error> {
        Ok(match self {
            Self::F32(side) => Self::F32(side.part(rows)?),
            Self::F16(side) => Self::F16(side.part(rows)?),
            Self::Bf16(side) => Self::Bf16(side.part(rows)?),
            Self::I8(side) => Self::I8(side.part(rows)?),
        })
    }

    /// None on microcontrollers: one kernel has all elements there.
    fn as_floats(&self) -> Option<HeadsRef<'_>> {
        match self {
            Self::F32(side) if cfg!(not(microcontroller)) => side.as_floats(),
            _ => None,
        }
    }

    fn any_keys(&self, ring: Option<&Ring>, block: Block) -> Option<AnyRows<'_>> {
        of_each!(self, side => side.any_keys(ring, block))
    }

    fn any_values(&self, ring: Option<&Ring>, block: Block) -> Option<AnyRows<'_>> {
        of_each!(self, side => side.any_values(ring, block))
    }

    fn keys<'t>(
        &'t self,
        on: (Backend, Option<&Ring>),
        block: Block,
        to: &'t mut Widened<'_>,
    ) -> Option<MatrixRef<'t>> {
        of_each!(self, side => side.keys(on, block, to))
    }

    fn values<'t>(
        &'t self,
        on: (Backend, Option<&Ring>),
        block: Block,
        to: &'t mut Widened<'_>,
    ) -> Option<MatrixRef<'t>> {
        of_each!(self, side => side.values(on, block, to))
    }

    fn are_floats(&self) -> bool {
        of_each!(self, side => side.are_floats())
    }

    fn are_finite(&self, ring: Option<&Ring>, block: Block) -> bool {
        of_each!(self, side => side.are_finite(ring, block))
    }

    fn scales(&self, ring: Option<&Ring>, block: Block) -> Option<MatrixRef<'_>> {
        of_each!(self, side => side.scales(ring, block))
    }

    fn scale(&self, on: (Backend, Option<&Ring>), block: Block, to: MatrixMut<'_>) {
        of_each!(self, side => side.scale(on, block, to));
    }

    fn scale_from(
        &self,
        on: (Backend, Option<&Ring>),
        block: Block,
        first: usize,
        to: MatrixMut<'_>,
    ) {
        of_each!(self, side => side.scale_from(on, block, first, to));
    }
}
