//! Matrices of the examples.

use sdpa::{MatrixMut, MatrixRef};

/// A contiguous row-major matrix of f32.
pub(crate) struct Array {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    data: Vec<f32>,
}

impl Array {
    pub(crate) fn new(rows: usize, cols: usize, data: Vec<f32>) -> Self {
        assert_eq!(rows * cols, data.len());
        Self { rows, cols, data }
    }

    pub(crate) fn filled(rows: usize, cols: usize, value: f32) -> Self {
        Self::new(rows, cols, vec![value; rows * cols])
    }

    pub(crate) fn view(&self) -> Result<MatrixRef<'_>, sdpa::Error> {
        MatrixRef::new(&self.data, self.rows, self.cols)
    }

    pub(crate) fn view_mut(&mut self) -> Result<MatrixMut<'_>, sdpa::Error> {
        MatrixMut::new(&mut self.data, self.rows, self.cols)
    }

    pub(crate) fn get(&self, row: usize, col: usize) -> f32 {
        self.data[row * self.cols + col]
    }

    pub(crate) fn set(&mut self, row: usize, col: usize, value: f32) {
        self.data[row * self.cols + col] = value;
    }

    /// All elements in row-major order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = f32> + '_ {
        self.data.iter().copied()
    }

    /// Large finite inputs can overflow in intermediate results.
    pub(crate) fn check_finite(&self, name: &str) -> Result<(), String> {
        match self.data.iter().all(|x| x.is_finite()) {
            true => Ok(()),
            false => Err(format!("{name} overflow float32: the arrays hold too large numbers")),
        }
    }

    /// The largest element of each block of `height` × `width` elements.
    pub(crate) fn block_maxima(&self, height: usize, width: usize) -> Self {
        let (rows, cols) = (self.rows.div_ceil(height), self.cols.div_ceil(width));
        let mut maxima = Self::filled(rows, cols, f32::NEG_INFINITY);
        for (row, elements) in self.data.chunks(self.cols).enumerate() {
            let maxima = &mut maxima.data[row / height * cols..][..cols];
            for (maximum, block) in maxima.iter_mut().zip(elements.chunks(width)) {
                *maximum = block.iter().fold(*maximum, |most, &x| most.max(x));
            }
        }
        maxima
    }
}
