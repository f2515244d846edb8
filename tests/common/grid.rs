//! The matrices of the tests: contiguous ones, and ones of any layout in a buffer whose other floats are
//! canaries.

use sdpa::{MatrixMut, MatrixRef};

use super::cases::{Kind, Layout, Rng};

/// A contiguous row-major matrix.
#[derive(Clone, Debug)]
pub(crate) struct Grid<T = f32> {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) data: Vec<T>,
}

impl<T: Copy> Grid<T> {
    pub(crate) fn from_fn(rows: usize, cols: usize, mut f: impl FnMut(usize, usize) -> T) -> Self {
        let data = (0..rows * cols).map(|i| f(i / cols, i % cols)).collect();
        Self { rows, cols, data }
    }

    pub(crate) fn at(&self, row: usize, col: usize) -> T {
        self.data[row * self.cols + col]
    }

    pub(crate) fn row(&self, row: usize) -> &[T] {
        &self.data[row * self.cols..][..self.cols]
    }

    pub(crate) fn column(&self, col: usize) -> Vec<T> {
        (0..self.rows).map(|row| self.at(row, col)).collect()
    }

    pub(crate) fn t(&self) -> Self {
        Self::from_fn(self.cols, self.rows, |row, col| self.at(col, row))
    }

    /// The first `cols` columns.
    pub(crate) fn first_columns(&self, cols: usize) -> Self {
        Self::from_fn(self.rows, cols, |row, col| self.at(row, col))
    }
}

impl Grid {
    pub(crate) fn zeros(rows: usize, cols: usize) -> Self {
        Self::from_fn(rows, cols, |_, _| 0.0)
    }

    pub(crate) fn random(rng: &mut Rng, kind: Kind, rows: usize, cols: usize) -> Self {
        let mut grid = Self::zeros(rows, cols);
        kind.fill(rng, &mut grid.data);
        grid
    }

    pub(crate) fn view(&self) -> MatrixRef<'_> {
        MatrixRef::new(&self.data, self.rows, self.cols).expect("dense")
    }

    pub(crate) fn view_mut(&mut self) -> MatrixMut<'_> {
        MatrixMut::new(&mut self.data, self.rows, self.cols).expect("dense")
    }
}

/// The content of a buffer outside the elements: a NaN, so that reads reach the result, with bits that no
/// operation makes, so that writes are detected.
pub(crate) const CANARY: f32 = f32::from_bits(0x7fc5_a5a5);

/// A matrix in a buffer, with a layout, surrounded by canaries.
#[derive(Clone, Debug)]
pub(crate) struct GuardedMatrix {
    layout: Layout,
    buffer: Vec<f32>,
}

impl GuardedMatrix {
    /// An output: the buffer contains canaries only.
    pub(crate) fn empty(layout: Layout) -> Self {
        Self { layout, buffer: vec![CANARY; layout.len] }
    }

    /// Copies the elements of `grid`; where elements share an address, the last one stays.
    pub(crate) fn of(grid: &Grid, layout: Layout) -> Self {
        let mut held = Self::empty(layout);
        for row in 0..layout.rows {
            for col in 0..layout.cols {
                held.buffer[layout.index(row, col)] = grid.at(row, col);
            }
        }
        held
    }

    /// An input of any layout.
    pub(crate) fn random(rng: &mut Rng, kind: Kind, rows: usize, cols: usize) -> Self {
        let grid = Grid::random(rng, kind, rows, cols);
        Self::of(&grid, Layout::of_input(rng, rows, cols))
    }

    /// An output of any layout with distinct elements.
    pub(crate) fn output(rng: &mut Rng, rows: usize, cols: usize) -> Self {
        Self::empty(Layout::of_output(rng, rows, cols))
    }

    pub(crate) fn grid(&self) -> Grid {
        let Layout { rows, cols, .. } = self.layout;
        Grid::from_fn(rows, cols, |row, col| self.buffer[self.layout.index(row, col)])
    }

    pub(crate) fn view(&self) -> MatrixRef<'_> {
        let Layout { rows, cols, start, row_stride, col_stride, .. } = self.layout;
        MatrixRef::with_strides(&self.buffer[start..], rows, cols, row_stride, col_stride)
            .expect("a layout that fits")
    }

    pub(crate) fn view_mut(&mut self) -> MatrixMut<'_> {
        let Layout { rows, cols, start, row_stride, col_stride, .. } = self.layout;
        MatrixMut::with_strides(&mut self.buffer[start..], rows, cols, row_stride, col_stride)
            .expect("a layout that fits and keeps elements apart")
    }

    /// Returns the elements; fails if another float has been written.
    #[track_caller]
    pub(crate) fn checked(&self, what: &str) -> Grid {
        let mut rest = self.buffer.clone();
        for row in 0..self.layout.rows {
            for col in 0..self.layout.cols {
                rest[self.layout.index(row, col)] = CANARY;
            }
        }
        assert!(is_untouched(&rest), "{what}: wrote outside its elements: {:?}", self.layout);
        self.grid()
    }
}

/// Whether all floats are still canaries.
pub(crate) fn is_untouched(floats: &[f32]) -> bool {
    floats.iter().all(|x| x.to_bits() == CANARY.to_bits())
}
