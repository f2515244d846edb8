//! Arrays, the `.npy` files that hold them, and the built-in head.

use std::{io, path::Path};

use npyz::{DType, NpyFile, NpyHeader, Order, TypeChar, WriterBuilder};
use sdpa::{MatrixMut, MatrixRef};

/// A matrix of f32: element `(r, c)` is `data[r * row_stride + c * col_stride]`.
pub(crate) struct Array {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    row_stride: usize,
    col_stride: usize,
    data: Vec<f32>,
}

impl Array {
    pub(crate) fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, row_stride: cols, col_stride: 1, data: vec![0.0; rows * cols] }
    }

    pub(crate) fn view(&self) -> Result<MatrixRef<'_>, sdpa::Error> {
        let Self { rows, cols, row_stride, col_stride, ref data } = *self;
        MatrixRef::with_strides(data, rows, cols, row_stride, col_stride)
    }

    pub(crate) fn view_mut(&mut self) -> Result<MatrixMut<'_>, sdpa::Error> {
        let Self { rows, cols, row_stride, col_stride, ref mut data } = *self;
        MatrixMut::with_strides(data, rows, cols, row_stride, col_stride)
    }

    pub(crate) fn get(&self, row: usize, col: usize) -> f32 {
        self.data[row * self.row_stride + col * self.col_stride]
    }

    pub(crate) fn set(&mut self, row: usize, col: usize, value: f32) {
        self.data[row * self.row_stride + col * self.col_stride] = value;
    }

    /// All elements, row after row.
    pub(crate) fn iter(&self) -> impl Iterator<Item = f32> + '_ {
        (0..self.rows).flat_map(move |row| (0..self.cols).map(move |col| self.get(row, col)))
    }

    /// Large finite inputs can still overflow on the way.
    pub(crate) fn check_finite(&self, name: &str) -> Result<(), String> {
        match self.data.iter().all(|x| x.is_finite()) {
            true => Ok(()),
            false => Err(format!("{name} overflow float32: the arrays hold too large numbers")),
        }
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

    fn shape(&self) -> String {
        format!("{} × {}", self.rows, self.cols)
    }
}

/// A user's file.
pub(crate) fn read(path: &Path) -> Result<Array, String> {
    // A path in quotes, as Debug writes it, is one line whatever it holds.
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {path:?}: {error}"))?;
    matrix(&bytes).map_err(|error| format!("{path:?} {error}"))
}

fn matrix(bytes: &[u8]) -> Result<Array, String> {
    let (header, data) = parse(bytes)?;
    let (&[rows, cols], &[row_stride, col_stride]) = (header.shape(), header.strides()) else {
        return Err(format!("has shape {:?}, not two dimensions", header.shape()));
    };
    if let Some((at, x)) = data.iter().enumerate().find(|(_, x)| !x.is_finite()) {
        let at = at as u64;
        let (row, col) = match header.order() {
            Order::C => (at / cols, at % cols),
            Order::Fortran => (at % rows, at / rows),
        };
        return Err(format!("holds {x} in row {row}, column {col}"));
    }
    // Each is at most the length of `data`.
    let [rows, cols, row_stride, col_stride] =
        [rows, cols, row_stride, col_stride].map(|n| n as usize);
    Ok(Array { rows, cols, row_stride, col_stride, data })
}

/// The header, and the numbers in the order of the file.
fn parse(bytes: &[u8]) -> Result<(NpyHeader, Vec<f32>), String> {
    // npyz multiplies the sizes unchecked and follows brackets by recursion: 10¹⁹ fits
    // in 64 bits, and no matrix needs more digits and brackets than that.
    let text = bytes.iter().skip(12).take_while(|byte| **byte != b'\n');
    if text.filter(|byte| byte.is_ascii_digit() || b"([{".contains(byte)).count() > 19 {
        return Err("has a header that is too long for two dimensions".to_string());
    }
    let mut rest = bytes;
    // What npyz says of a bad header can run over several lines.
    let header = NpyHeader::from_reader(&mut rest).map_err(|_| "is not a .npy file")?;

    let dtype = header.dtype();
    let width = match &dtype {
        DType::Plain(plain) if plain.type_char() == TypeChar::Float => plain.size_field(),
        _ => 0,
    };
    if width != 4 && width != 8 {
        return Err(format!("holds {:?}, not '<f4'", dtype.descr().replace('\'', "")));
    }
    let shape = header.shape();
    if shape.contains(&0) {
        return Err(format!("has shape {shape:?}: nothing in it"));
    }
    let size = shape.iter().try_fold(width, |size, &n| size.checked_mul(n));
    if size != Some(rest.len() as u64) {
        let length = rest.len();
        return Err(format!("has shape {shape:?} but {length} bytes of data: cut off or damaged"));
    }

    let file = NpyFile::with_header(header.clone(), rest);
    let data = match width {
        4 => file.into_vec::<f32>(),
        _ => file.into_vec::<f64>().map(|data| data.iter().map(|&x| x as f32).collect()),
    };
    Ok((header, data.map_err(|error| error.to_string())?))
}

/// Every shape that the user can get wrong, with the sizes in the message.
pub(crate) fn check_shapes(queries: &Array, keys: &Array, values: &Array) -> Result<(), String> {
    let [q, k, v] = [queries, keys, values].map(Array::shape);
    if queries.cols != keys.cols {
        return Err(format!("queries are {q} and keys are {k}: their widths differ"));
    }
    if keys.rows != values.rows {
        return Err(format!("keys are {k} and values are {v}: a value per key is needed"));
    }
    Ok(())
}

/// The labels of the keys and of the queries.
///
/// Given labels name the keys, and the queries too when there are as many.
pub(crate) fn labels(
    given: Option<Vec<String>>,
    keys: usize,
    queries: usize,
) -> Result<(Vec<String>, Vec<String>), String> {
    let numbered = |letter, count| (0..count).map(|i| format!("{letter}{i}")).collect();
    match given {
        None => Ok((numbered('k', keys), numbered('q', queries))),
        Some(given) if given.len() != keys => {
            Err(format!("{} labels for {keys} keys: one per key is needed", given.len()))
        }
        Some(given) => {
            let given: Vec<_> = given.iter().map(|label| printable(label)).collect();
            let for_queries = if keys == queries { given.clone() } else { numbered('q', queries) };
            Ok((given, for_queries))
        }
    }
}

/// No terminal codes, and nothing that XML forbids.
fn printable(label: &str) -> String {
    let forbidden = |c: char| c.is_control() || matches!(c, '\u{FFFE}' | '\u{FFFF}');
    label.chars().map(|c| if forbidden(c) { '\u{FFFD}' } else { c }).collect()
}

/// At most `max` characters of a label, the last a `…` when there were more.
pub(crate) fn shortened(label: &str, max: usize) -> String {
    match label.chars().count() > max {
        true => label.chars().take(max - 1).chain(['…']).collect(),
        false => label.to_string(),
    }
}

/// A linear layer: inputs × outputs, and a bias per output.
pub(crate) struct Linear {
    pub(crate) weights: Array,
    pub(crate) bias: Vec<f32>,
}

/// A trained head and a sentence for it.
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

    let linear =
        |weights, bias| Ok::<_, String>(Linear { weights: matrix(weights)?, bias: parse(bias)?.1 });
    Ok(Head {
        title: format!("“{SENTENCE}” in layer 2, head 1 of all-MiniLM-L6-v2"),
        words: SENTENCE.split(' ').map(str::to_string).collect(),
        embeddings: matrix(file!("embeddings"))?,
        query: linear(file!("w_query"), file!("b_query"))?,
        key: linear(file!("w_key"), file!("b_key"))?,
        value: linear(file!("w_value"), file!("b_value"))?,
    })
}
