//! Caches whose elements are known at run time, for the C library. Not part of the API.

use super::{
    BLOCK, CachePositions,
    storage::{Sizes, Slices, Storage, append, of_keys, of_values},
};
use crate::{
    attention::{Attention, LOGARITHM, grid::BlockKeys},
    elements::{AnyElementsRef, KeysAndValues},
    error::Error,
    matrix::{HeadsMut, HeadsRef, MatrixMut, MatrixRef},
    number::{Bf16, F16, I8},
};

/// The keys or values of a cache, for reading; [`I8`] with scales.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum AnySlice<'a> {
    /// Floats.
    F32(&'a [f32]),
    /// Elements of [`F16`].
    F16(&'a [F16]),
    /// Elements of [`Bf16`].
    Bf16(&'a [Bf16]),
    /// Elements of [`I8`].
    I8(&'a [I8], &'a [f32]),
}

/// The keys or values of a cache, for writing; [`I8`] with scales.
#[doc(hidden)]
#[derive(Debug)]
pub enum AnySliceMut<'a> {
    /// Floats.
    F32(&'a mut [f32]),
    /// Elements of [`F16`].
    F16(&'a mut [F16]),
    /// Elements of [`Bf16`].
    Bf16(&'a mut [Bf16]),
    /// Elements of [`I8`].
    I8(&'a mut [I8], &'a mut [f32]),
}

/// Calls a method of [`Slices`].
macro_rules! of_each {
    ($any:expr, $slices:ident => $call:expr) => {
        match $any {
            AnySliceMut::F32(elements) => of_each!($slices, elements, &mut [], $call),
            AnySliceMut::F16(elements) => of_each!($slices, elements, &mut [], $call),
            AnySliceMut::Bf16(elements) => of_each!($slices, elements, &mut [], $call),
            AnySliceMut::I8(elements, scales) => of_each!($slices, elements, scales, $call),
        }
    };
    ($slices:ident, $elements:expr, $scales:expr, $call:expr) => {{
        let $slices = &mut Slices { elements: $elements, scales: $scales };
        $call
    }};
}

impl Storage for AnySliceMut<'_> {
    fn represents(&mut self, floats: MatrixRef<'_>, row: usize) -> bool {
        of_each!(self, slices => slices.represents(floats, row))
    }

    fn write_key(&mut self, floats: MatrixRef<'_>, row: usize, at: [usize; 2], length: usize) {
        of_each!(self, slices => slices.write_key(floats, row, at, length));
    }

    fn write_value(&mut self, floats: MatrixRef<'_>, row: usize, at: usize) {
        of_each!(self, slices => slices.write_value(floats, row, at));
    }
}

/// [`append_any`] to a cache of floats.
///
/// # Errors
///
/// Those of [`KvCache::append`](crate::KvCache::append).
#[doc(hidden)]
pub fn append_floats(
    to_keys: &mut [f32],
    to_values: &mut [f32],
    [dim, value_dim, blocks]: [usize; 3],
    positions: &mut CachePositions,
    floats: [MatrixRef<'_>; 2],
) -> Result<(), Error> {
    let to_keys = Slices { elements: to_keys, scales: &mut [] };
    let to_values = Slices { elements: to_values, scales: &mut [] };
    append(to_keys, to_values, Sizes { dim, value_dim, blocks }, positions, floats)
}

/// Appends keys and values to a cache of these widths and blocks: see [`KvCache::append`](crate::KvCache::append).
///
/// # Errors
///
/// Those of [`KvCache::append`](crate::KvCache::append).
#[doc(hidden)]
pub fn append_any(
    to_keys: AnySliceMut<'_>,
    to_values: AnySliceMut<'_>,
    [dim, value_dim, blocks]: [usize; 3],
    positions: &mut CachePositions,
    floats: [MatrixRef<'_>; 2],
) -> Result<(), Error> {
    append(to_keys, to_values, Sizes { dim, value_dim, blocks }, positions, floats)
}

/// A [`KvCacheRef`](crate::KvCacheRef) of any elements, which have room for the keys.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct AnyCacheRef<'a> {
    /// The keys.
    pub keys: AnySlice<'a>,
    /// The values.
    pub values: AnySlice<'a>,
    /// Columns of keys and of values, and blocks.
    pub sizes: [usize; 3],
    /// Which keys are held.
    pub positions: CachePositions,
}

impl<'a> AnyCacheRef<'a> {
    /// See [`Attention::run_any`].
    ///
    /// # Errors
    ///
    /// Those of [`KvCache::attend`](crate::KvCache::attend).
    pub fn attend_views(
        &self,
        attention: &Attention<'_>,
        queries: &HeadsRef<'_>,
        out: &mut HeadsMut<'_>,
        log_sum_exp: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let log_sum_exp = log_sum_exp.map(|out| (out, LOGARITHM));
        self.with_elements(attention, queries, |elements| {
            attention.run_elements_call(queries, elements, out, log_sum_exp, workspace)
        })
    }

    /// See [`Attention::run_any_spans`].
    ///
    /// # Errors
    ///
    /// Those of [`KvCache::run_spans`](crate::KvCache::run_spans).
    pub fn run_spans_views(
        &self,
        attention: &Attention<'_>,
        queries: &HeadsRef<'_>,
        states: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let first_key = self.positions.first_block() * BLOCK;
        self.with_elements(attention, queries, |elements| {
            attention.run_elements_spans_call(queries, elements, first_key, states, workspace)
        })
    }

    /// See [`Attention::pattern_any`].
    ///
    /// # Errors
    ///
    /// Those of [`KvCache::pattern`](crate::KvCache::pattern).
    pub fn pattern_views(
        &self,
        attention: &Attention<'_>,
        queries: &HeadsRef<'_>,
        out: &mut HeadsMut<'_>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.with_elements(attention, queries, |&KeysAndValues { keys, ring, .. }| {
            let [dim, ..] = self.sizes;
            attention.pattern_of(queries, &BlockKeys { keys, dim, ring }, out, workspace)
        })
    }

    /// See [`Attention::mean_pattern_any`].
    ///
    /// # Errors
    ///
    /// Those of [`KvCache::mean_pattern`](crate::KvCache::mean_pattern).
    pub fn mean_pattern_views(
        &self,
        attention: &Attention<'_>,
        queries: &HeadsRef<'_>,
        out: MatrixMut<'_>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.with_elements(attention, queries, |&KeysAndValues { keys, ring, .. }| {
            let [dim, ..] = self.sizes;
            attention.mean_pattern_of(queries, &BlockKeys { keys, dim, ring }, out, workspace)
        })
    }

    #[inline(always)]
    fn with_elements(
        &self,
        attention: &Attention<'_>,
        queries: &HeadsRef<'_>,
        run: impl FnOnce(
            &KeysAndValues<'_, AnyElementsRef<'a>, AnyElementsRef<'a>>,
        ) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let [dim, value_dim, blocks] = self.sizes;
        if queries.cols() != dim {
            return Err(Error::Shape);
        }
        let sizes = Sizes { dim, value_dim, blocks };
        let keys = match self.keys {
            AnySlice::F32(keys) => AnyElementsRef::F32(of_keys(keys, &[], sizes)?),
            AnySlice::F16(keys) => AnyElementsRef::F16(of_keys(keys, &[], sizes)?),
            AnySlice::Bf16(keys) => AnyElementsRef::Bf16(of_keys(keys, &[], sizes)?),
            AnySlice::I8(keys, scales) => AnyElementsRef::I8(of_keys(keys, scales, sizes)?),
        };
        let values = match self.values {
            AnySlice::F32(values) => AnyElementsRef::F32(of_values(values, &[], value_dim)?),
            AnySlice::F16(values) => AnyElementsRef::F16(of_values(values, &[], value_dim)?),
            AnySlice::Bf16(values) => AnyElementsRef::Bf16(of_values(values, &[], value_dim)?),
            AnySlice::I8(values, scales) => {
                AnyElementsRef::I8(of_values(values, scales, value_dim)?)
            }
        };
        run(&attention.elements(keys, values, Some(&self.positions.ring(blocks))))
    }
}
