//! Matrices of the example, and its built-in head.

use std::io;

use npyz::WriterBuilder;
use sdpa::{MatrixMut, MatrixRef};

use crate::npy;

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

    pub(crate) fn to_npy(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let shape = [self.rows as u64, self.cols as u64];
        let options = npyz::WriteOptions::new().default_dtype().shape(&shape);
        let mut writer = options.writer(&mut bytes).begin_nd()?;
        writer.extend(self.iter())?;
        writer.finish()?;
        Ok(bytes)
    }
}

/// A linear layer: weights (inputs × outputs), and a bias per output.
pub(crate) struct Linear {
    pub(crate) weights: Array,
    pub(crate) bias: Vec<f32>,
}

/// A trained head and the embeddings of a sentence.
pub(crate) struct Head {
    pub(crate) title: String,
    pub(crate) words: Vec<String>,
    pub(crate) embeddings: Array,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
}

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("../data/minilm-l2h1/", $name, ".npy"))
    };
}

/// Layer 2, head 1 of all-MiniLM-L6-v2; `examples/data/minilm-l2h1` says more.
pub(crate) fn minilm() -> Result<Head, String> {
    const SENTENCE: &str = "a fluffy blue creature roamed the verdant forest";

    let linear = |weights, bias| {
        Ok::<_, String>(Linear { weights: npy::matrix(weights)?, bias: npy::vector(bias)? })
    };
    Ok(Head {
        title: format!("“{SENTENCE}” in layer 2, head 1 of all-MiniLM-L6-v2"),
        words: SENTENCE.split(' ').map(str::to_string).collect(),
        embeddings: npy::matrix(file!("embeddings"))?,
        query: linear(file!("w_query"), file!("b_query"))?,
        key: linear(file!("w_key"), file!("b_key"))?,
        value: linear(file!("w_value"), file!("b_value"))?,
    })
}
