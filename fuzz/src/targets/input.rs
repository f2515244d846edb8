//! Decodes input bytes to sizes, values and layouts. After the last byte zeros follow.
//!
//! `fuzz/seeds.sh` and the files of `fuzz/regressions/` depend on this byte format.

use std::collections::HashSet;

use sdpa::{Error, MatrixMut};

use crate::common::{
    cases::{Kind, Layout, Rng},
    grid::{CANARY, Grid, GuardedMatrix, is_untouched},
};

/// The values that a byte selects, for the kind with one byte per value.
const SPECIAL: [f32; 16] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    f32::from_bits(1),
    f32::from_bits(0x8000_0001),
    1e-30,
    -80.0,
    80.0,
];

/// Bytes, read from the front.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let n = N.min(self.0.len());
        taken[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        taken
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    fn u16(&mut self) -> usize {
        usize::from(u16::from_le_bytes(self.take()))
    }

    pub(crate) fn f32(&mut self) -> f32 {
        f32::from_le_bytes(self.take())
    }

    fn rng(&mut self) -> Rng {
        Rng::new(u64::from(u32::from_le_bytes(self.take())))
    }

    /// One byte: a dimension of a matrix, at most 70.
    pub(crate) fn size(&mut self) -> usize {
        usize::from(self.u8()) % 71
    }

    /// Two bytes: the length of a slice, at most 1024.
    pub(crate) fn length(&mut self) -> usize {
        self.u16() % 1025
    }

    /// Three bytes: rows, columns, and a depth with at most 2¹⁵ multiply-adds in total.
    pub(crate) fn shape(&mut self) -> (usize, usize, usize) {
        let (rows, cols, mut depth) = (self.size(), self.size(), self.size());
        while rows * cols * depth > 1 << 15 {
            depth /= 2;
        }
        (rows, cols, depth)
    }

    /// Values: one byte for the kind, its arguments, then up to three patches of single values.
    pub(crate) fn values(&mut self, n: usize) -> Vec<f32> {
        let mut values = vec![0.0; n];
        match usize::from(self.u8()) % (4 + Kind::ALL.len()) {
            // Any bits for each value.
            0 => values.fill_with(|| self.f32()),
            // One value for all.
            1 => values.fill(self.f32()),
            // One byte per value.
            2 => values.fill_with(|| SPECIAL[usize::from(self.u8()) % SPECIAL.len()]),
            // The first value, and one for all others.
            3 => {
                let first = self.f32();
                values.fill(self.f32());
                values.iter_mut().take(1).for_each(|x| *x = first);
            }
            kind => Kind::ALL[kind - 4].fill(&mut self.rng(), &mut values),
        }
        for _ in 0..self.u8() % 4 {
            let (i, x) = (self.u16(), self.f32());
            if n > 0 {
                values[i % n] = x;
            }
        }
        values
    }

    /// A boolean mask: one byte for its kind, then the arguments. Zeros are all rows from one on (0), half of
    /// the elements at random (1), or one run per column (2).
    pub(crate) fn mask(&mut self, rows: usize, cols: usize) -> Grid<u8> {
        let kind = self.u8() % 3;
        if kind == 0 {
            let end = usize::from(self.u8());
            return Grid::from_fn(rows, cols, |row, _| u8::from(row < end));
        }
        let mut rng = self.rng();
        let runs: Vec<[usize; 2]> =
            (0..cols).map(|_| [rng.below(rows + 9), rng.below(rows + 1)]).collect();
        Grid::from_fn(rows, cols, |row, col| match (kind, runs[col]) {
            (1, _) => rng.pick(&[0, 0, 1, 255]),
            (_, [from, len]) => u8::from(row < from || row >= from + len),
        })
    }

    /// An input matrix: its values, then its layout, with any strides up to 200.
    pub(crate) fn matrix(&mut self, rows: usize, cols: usize) -> GuardedMatrix {
        let grid = Grid { rows, cols, data: self.values(rows * cols) };
        let layout = match self.u8() % 4 {
            2 => Layout::of_input(&mut self.rng(), rows, cols),
            kind => self.exact_layout(kind, rows, cols),
        };
        GuardedMatrix::of(&grid, layout)
    }

    /// An output layout, whose elements are distinct. Strides that overlap are tried first, and must be
    /// refused.
    pub(crate) fn output(&mut self, rows: usize, cols: usize) -> Layout {
        let layout = match self.u8() % 4 {
            2 => Layout::of_output(&mut self.rng(), rows, cols),
            kind => self.exact_layout(kind, rows, cols),
        };
        if has_distinct_elements(layout) {
            return layout;
        }
        let mut buffer = vec![CANARY; layout.len];
        let Layout { start, row_stride, col_stride, .. } = layout;
        let refused =
            MatrixMut::with_strides(&mut buffer[start..], rows, cols, row_stride, col_stride);
        assert!(matches!(refused, Err(Error::Alias)), "{layout:?} gives {refused:?}");
        assert!(is_untouched(&buffer));
        Layout { row_stride: cols, col_stride: 1, ..layout }.exact()
    }

    /// Contiguous (0), transposed (1), or any strides (3); the buffer ends with the last element.
    fn exact_layout(&mut self, kind: u8, rows: usize, cols: usize) -> Layout {
        let mut stride = || usize::from(self.u8()) % 201;
        let (start, row_stride, col_stride) = match kind {
            0 => (0, cols, 1),
            1 => (1, 1, rows),
            _ => (3, stride(), stride()),
        };
        Layout { rows, cols, start, row_stride, col_stride, len: 0 }.exact()
    }
}

impl Layout {
    fn exact(self) -> Self {
        let last = match (self.rows.checked_sub(1), self.cols.checked_sub(1)) {
            (Some(row), Some(col)) => self.index(row, col) + 1,
            _ => self.start,
        };
        Self { len: last, ..self }
    }
}

fn has_distinct_elements(layout: Layout) -> bool {
    let mut seen = HashSet::new();
    (0..layout.rows)
        .flat_map(|row| (0..layout.cols).map(move |col| layout.index(row, col)))
        .all(|i| seen.insert(i))
}
