//! Reads and writes `.npy` files, and selects one head from larger arrays.

use std::{fmt, fs, io, path::Path};

use half::{bf16, f16};
use npyz::{
    DType, Deserialize, Endianness, FixedSizeBytes, NpyHeader, TypeChar, TypeRead, WriterBuilder,
};

use crate::drawing::Array;

/// The selected matrix of an array that contains several.
#[derive(clap::Args)]
pub(crate) struct Pick {
    /// The batch, counted from 0, of arrays of three or four dimensions
    #[arg(long, value_name = "N", requires = "queries")]
    batch: Option<u64>,

    /// The query head, counted from 0, of arrays of three or four dimensions, or of a model
    #[arg(long, value_name = "N", requires = "drawn")]
    pub(crate) head: Option<u64>,
}

/// Formats the selection for the end of a title.
impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (axis, index) in [("batch", self.batch), ("head", self.head)] {
            if let Some(index) = index {
                write!(f, ", {axis} {index}")?;
            }
        }
        Ok(())
    }
}

impl Pick {
    /// Returns the indices of the selected matrix, and the number of heads in the array.
    ///
    /// `sharing` is the number of query heads that share these heads in groups.
    fn leading(
        &self,
        shape: &[u64],
        sharing: Option<u64>,
    ) -> Result<(Vec<u64>, Option<u64>), String> {
        let fail = |why: &str| Err(format!("has shape {shape:?}: {why}"));
        let (batches, heads) = match (shape, self.batch, self.head) {
            ([_, _], None, None) => (None, None),
            ([_, _], _, _) => {
                return fail("two dimensions leave --batch and --head nothing to pick");
            }
            ([_, _, _], Some(_), Some(_)) => {
                return fail("three dimensions take --batch or --head, not both");
            }
            ([many, _, _], None, None) if *many != 1 => {
                return fail("pick one matrix with --head or --batch");
            }
            (&[batches, _, _], Some(_), None) => (Some(batches), None),
            (&[heads, _, _], None, _) => (None, Some(heads)),
            (&[batches, heads, _, _], _, _) => (Some(batches), Some(heads)),
            _ => return fail("two, three or four dimensions are needed"),
        };

        let mut leading = Vec::new();
        if let Some(batches) = batches {
            leading.push(index("batch", self.batch, batches)?);
        }
        if let Some(heads) = heads {
            let query_heads = sharing.unwrap_or(heads);
            if !query_heads.is_multiple_of(heads) {
                return fail(&format!(
                    "{query_heads} query heads cannot share {heads} heads in groups"
                ));
            }
            leading.push(index("head", self.head, query_heads)? / (query_heads / heads));
        }
        Ok((leading, heads))
    }
}

fn index(axis: &str, given: Option<u64>, count: u64) -> Result<u64, String> {
    match given {
        Some(index) if index < count => Ok(index),
        Some(index) => Err(format!("has no {axis} {index}: --{axis} is at most {}", count - 1)),
        None if count == 1 => Ok(0),
        None => Err(format!("has more than one {axis}: pick one of {count} with --{axis}")),
    }
}

/// Reads the queries, keys and values of a head.
pub(crate) fn read(
    [q_path, k_path, v_path]: [&Path; 3],
    pick: &Pick,
) -> Result<[Array; 3], String> {
    let (queries, query_heads) = read_one(q_path, pick, None)?;
    let (keys, key_heads) = read_one(k_path, pick, query_heads)?;
    let (values, value_heads) = read_one(v_path, pick, query_heads)?;

    let shape = |array: &Array| format!("{} × {}", array.rows, array.cols);
    let [q, k, v] = [&queries, &keys, &values].map(shape);
    let q = format!("the queries of {q_path:?} are {q}");
    let k = format!("the keys of {k_path:?} are {k}");
    let v = format!("the values of {v_path:?} are {v}");
    if queries.cols != keys.cols {
        return Err(format!("{q} and {k}: their widths differ"));
    }
    if keys.rows != values.rows {
        return Err(format!("{k} and {v}: a value per key is needed"));
    }
    if let (Some(k), Some(v)) = (key_heads, value_heads)
        && k != v
    {
        return Err(format!("{k_path:?} has {k} heads and {v_path:?} has {v}: as many are needed"));
    }
    Ok([queries, keys, values])
}

/// Reads a user's file: the selected matrix, and the number of heads in the file.
fn read_one(
    path: &Path,
    pick: &Pick,
    sharing: Option<u64>,
) -> Result<(Array, Option<u64>), String> {
    let picked = |bytes: &[u8]| {
        let file = Npy::parse(bytes)?;
        let (leading, heads) = pick.leading(file.header.shape(), sharing)?;
        Ok((file.matrix(&leading)?, heads))
    };
    // `Debug` escapes line breaks in the path, so that the message is one line.
    let bytes = fs::read(path).map_err(|error| format!("cannot read {path:?}: {error}"))?;
    picked(&bytes).map_err(|error: String| format!("{path:?} {error}"))
}

/// Reads a file of one matrix.
pub(crate) fn matrix(bytes: &[u8]) -> Result<Array, String> {
    Npy::parse(bytes)?.matrix(&[])
}

/// Reads a file of one vector.
pub(crate) fn vector(bytes: &[u8]) -> Result<Vec<f32>, String> {
    let file = Npy::parse(bytes)?;
    file.numbers(0..file.header.len())
}

#[derive(Clone, Copy)]
enum Element {
    F16,
    /// As ml_dtypes writes it: two bytes of a type unknown to numpy.
    Bf16(Endianness),
    F32,
    F64,
}

/// A file whose length agrees with its header.
struct Npy<'a> {
    header: NpyHeader,
    element: Element,
    /// Bytes per element.
    width: u64,
    data: &'a [u8],
}

impl<'a> Npy<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        // npyz multiplies sizes without overflow checks and parses brackets by recursion. Limits the digits,
        // as 10¹⁹ fits 64 bits, and the brackets: no array of heads needs more.
        let text = bytes.iter().skip(12).take_while(|byte| **byte != b'\n');
        if text.filter(|byte| byte.is_ascii_digit() || b"([{".contains(byte)).count() > 19 {
            return Err("has a header that is too long for an array of heads".to_string());
        }
        let mut data = bytes;
        // The error message of npyz for a bad header can have several lines.
        let header = NpyHeader::from_reader(&mut data).map_err(|_| "is not a .npy file")?;

        let dtype = header.dtype();
        let (element, width): (_, u64) = match &dtype {
            DType::Plain(plain) => match (plain.type_char(), plain.size_field()) {
                (TypeChar::Float, 2) => (Element::F16, 2),
                (TypeChar::RawData, 2) => (Element::Bf16(plain.endianness()), 2),
                (TypeChar::Float, 4) => (Element::F32, 4),
                (TypeChar::Float, 8) => (Element::F64, 8),
                _ => return Err(unknown(&dtype)),
            },
            _ => return Err(unknown(&dtype)),
        };
        let shape = header.shape();
        if shape.contains(&0) {
            return Err(format!("has shape {shape:?}: nothing in it"));
        }
        let size = shape.iter().try_fold(width, |size, &n| size.checked_mul(n));
        if size != Some(data.len() as u64) {
            let length = data.len();
            return Err(format!(
                "has shape {shape:?} but {length} bytes of data: cut off or damaged"
            ));
        }
        Ok(Self { header, element, width, data })
    }

    /// Returns the matrix at these indices.
    fn matrix(&self, leading: &[u64]) -> Result<Array, String> {
        let (shape, strides) = (self.header.shape(), self.header.strides());
        let (Some(&[rows, cols]), Some(&[row_stride, col_stride])) =
            (shape.get(leading.len()..), strides.get(leading.len()..))
        else {
            return Err(format!("has shape {shape:?}, not two dimensions behind {leading:?}"));
        };
        let start: u64 = leading.iter().zip(strides).map(|(index, stride)| index * stride).sum();
        let numbers = self.numbers((0..rows).flat_map(|row| {
            (0..cols).map(move |col| start + row * row_stride + col * col_stride)
        }))?;
        if let Some((at, x)) = (0u64..).zip(&numbers).find(|(_, x)| !x.is_finite()) {
            let place = [leading, &[at / cols, at % cols]].concat();
            return Err(format!("holds {x} at {place:?}"));
        }
        // Each is at most the length of `data`.
        Ok(Array::new(rows as usize, cols as usize, numbers))
    }

    /// Returns the elements at these offsets, counted in elements in the order of the file.
    fn numbers(&self, places: impl Iterator<Item = u64>) -> Result<Vec<f32>, String> {
        match self.element {
            Element::F16 => self.elements(places, f16::to_f32),
            Element::Bf16(Endianness::Big) => {
                self.elements(places, |x: FixedSizeBytes<2>| bf16::from_be_bytes(*x).to_f32())
            }
            Element::Bf16(_) => {
                self.elements(places, |x: FixedSizeBytes<2>| bf16::from_le_bytes(*x).to_f32())
            }
            Element::F32 => self.elements(places, |x: f32| x),
            Element::F64 => self.elements(places, |x: f64| x as f32),
        }
        .map_err(|error| error.to_string())
    }

    fn elements<T: Deserialize>(
        &self,
        places: impl Iterator<Item = u64>,
        to_f32: impl Fn(T) -> f32,
    ) -> io::Result<Vec<f32>> {
        let reader = T::reader(&self.header.dtype()).map_err(io::Error::other)?;
        let number = |place| {
            let bytes = &self.data[(place * self.width) as usize..];
            reader.read_one(bytes).map(&to_f32)
        };
        places.map(number).collect()
    }
}

fn unknown(dtype: &DType) -> String {
    let found = dtype.descr().replace('\'', "");
    format!("holds {found:?}, not float16 (<f2), bfloat16 (<V2), float32 (<f4) or float64 (<f8)")
}

/// Encodes a file of float32.
pub(crate) fn write(array: &Array) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let shape = [array.rows as u64, array.cols as u64];
    let options = npyz::WriteOptions::new().default_dtype().shape(&shape);
    let mut writer = options.writer(&mut bytes).begin_nd()?;
    writer.extend(array.iter())?;
    writer.finish()?;
    Ok(bytes)
}
