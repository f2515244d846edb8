//! The files of weights: where they are, safetensors, GGUF.

use std::{
    env,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use gguf::{GGMLType, GGUFFile, GGUFMetadataValue, GGUFTensorInfo};
use safetensors::{Dtype, SafeTensors};
use sdpa::F16;

use crate::layers::Rows;

/// The folder of weights: `given`, or that of `SDPA_MODELS`, or the one that `get.sh` fills by default.
pub fn folder(given: Option<PathBuf>) -> PathBuf {
    given
        .or_else(|| env::var_os("SDPA_MODELS").map(PathBuf::from))
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/weights"))
}

/// Says where weights come from.
fn context(path: &Path) -> String {
    let get = concat!(env!("CARGO_MANIFEST_DIR"), "/get.sh");
    let folder = path.parent().and_then(Path::parent).unwrap_or(path);
    format!("{}: no such weights; get them with: {get} {}", path.display(), folder.display())
}

/// Reads a file of the weights' folder.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| context(path))
}

/// The tensors of a safetensors file, as floats.
pub struct Safetensors<'a>(SafeTensors<'a>);

impl<'a> Safetensors<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        Ok(Self(SafeTensors::deserialize(bytes)?))
    }

    /// A matrix, or a vector as one row.
    pub fn rows(&self, name: &str) -> Result<Rows> {
        let tensor = self.0.tensor(name)?;
        ensure!(tensor.dtype() == Dtype::F32, "{name} is of {:?}, not F32", tensor.dtype());
        let (floats, _) = tensor.data().as_chunks();
        let floats = floats.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        Rows::from_data(floats, tensor.shape().last().copied().unwrap_or(1))
    }

    /// A vector.
    pub fn vector(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.rows(name)?.data().to_vec())
    }
}

/// An open GGUF file: its metadata, and tensors that are read and dequantised one by one.
pub struct Gguf {
    file: File,
    content: GGUFFile,
    /// Where the tensors begin.
    start: u64,
}

/// What the metadata and the tensors are aligned to.
const ALIGNMENT: u64 = 32;

impl Gguf {
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).with_context(|| context(path))?;
        let (head, content) = header(&mut file).with_context(|| path.display().to_string())?;
        let ends = content.tensors.iter().map(|tensor| Ok(tensor.offset + bytes(tensor)?));
        let end = ends.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0);
        // The parser does not say where the header ends. The tensors end with the file, and begin less than the
        // alignment after the header.
        let start = file.metadata()?.len().checked_sub(end.next_multiple_of(ALIGNMENT));
        let is_whole = |end: u64| {
            let head = head.get(..end as usize).unwrap_or(&head);
            matches!(GGUFFile::read(head), Ok(Some(_)))
        };
        let follows = |&start: &u64| is_whole(start) && !is_whole(start.saturating_sub(ALIGNMENT));
        let start = start.filter(follows);
        let start = start.with_context(|| format!("{} is cut off", path.display()))?;
        Ok(Self { file, content, start })
    }

    fn value(&self, key: &str) -> Result<&GGUFMetadataValue> {
        let mut metadata = self.content.header.metadata.iter();
        let found = metadata.find(|entry| entry.key == key);
        Ok(&found.with_context(|| format!("no {key} in the GGUF file"))?.value)
    }

    /// A whole number of the metadata.
    pub fn number(&self, key: &str) -> Result<usize> {
        match self.value(key)? {
            &GGUFMetadataValue::Uint32(number) => Ok(number as usize),
            other => bail!("{key} is {other:?}, no whole number"),
        }
    }

    /// A float of the metadata.
    pub fn float(&self, key: &str) -> Result<f32> {
        match self.value(key)? {
            &GGUFMetadataValue::Float32(float) => Ok(float),
            other => bail!("{key} is {other:?}, no float"),
        }
    }

    /// A list of strings or of numbers, as strings.
    pub fn list(&self, key: &str) -> Result<Vec<String>> {
        let GGUFMetadataValue::Array(array) = self.value(key)? else { bail!("{key} is no list") };
        let string = |value: &GGUFMetadataValue| match value {
            GGUFMetadataValue::String(string) => string.clone(),
            other => format!("{other:?}"),
        };
        Ok(array.value.iter().map(string).collect())
    }

    /// A matrix, dequantised to floats; a vector as one row. The first dimension of GGUF is that of columns.
    pub fn rows(&mut self, name: &str) -> Result<Rows> {
        let tensor = self.content.tensors.iter().find(|tensor| tensor.name == name);
        let tensor = tensor.with_context(|| format!("no {name} in the GGUF file"))?;
        let mut data = vec![0; bytes(tensor)? as usize];
        self.file.seek(SeekFrom::Start(self.start + tensor.offset))?;
        self.file.read_exact(&mut data).with_context(|| format!("{name} is cut off"))?;
        let floats = dequantised(tensor.tensor_type, &data)?;
        Rows::from_data(floats, tensor.dimensions.first().map_or(1, |&width| width as usize))
    }

    /// A vector.
    pub fn vector(&mut self, name: &str) -> Result<Vec<f32>> {
        Ok(self.rows(name)?.data().to_vec())
    }
}

/// Reads and parses the beginning of a file, more of it until the header is whole.
fn header(file: &mut File) -> Result<(Vec<u8>, GGUFFile)> {
    const STEP: u64 = 4 << 20;
    let mut head = Vec::new();
    loop {
        ensure!(file.take(STEP).read_to_end(&mut head)? > 0, "its header is cut off");
        // An error of the parser prints the whole input.
        let content = GGUFFile::read(&head).map_err(|_| anyhow!("this is no GGUF file"))?;
        if let Some(content) = content {
            return Ok((head, content));
        }
    }
}

/// The bytes of a tensor.
fn bytes(tensor: &GGUFTensorInfo) -> Result<u64> {
    let elements: u64 = tensor.dimensions.iter().product();
    let (elements_of_block, bytes) = block(tensor.tensor_type)?;
    Ok(elements / elements_of_block as u64 * bytes as u64)
}

/// The elements and the bytes of a block.
fn block(kind: GGMLType) -> Result<(usize, usize)> {
    match kind {
        GGMLType::F32 => Ok((1, 4)),
        GGMLType::Q4_1 => Ok((32, 20)),
        GGMLType::Q8_0 => Ok((32, 34)),
        other => bail!("tensors of {other:?} are not read here"),
    }
}

/// The formats are those of `ggml-quants.c`, `dequantize_row_*`:
///
/// | type | a block of 32 |
/// | --- | --- |
/// | Q4_1 | scale and minimum in f16, then 16 bytes; byte `i` has element `i` in its lower half, `i + 16` in its upper: `q · scale + minimum` |
/// | Q8_0 | scale in f16, then 32 signed bytes: `q · scale` |
fn dequantised(kind: GGMLType, data: &[u8]) -> Result<Vec<f32>> {
    let half = |low: u8, high: u8| F16::from_bits(u16::from_le_bytes([low, high])).to_f32();
    let mut floats = Vec::new();
    for block in data.chunks_exact(block(kind)?.1) {
        match (kind, block) {
            (GGMLType::F32, &[a, b, c, d]) => floats.push(f32::from_le_bytes([a, b, c, d])),
            (GGMLType::Q4_1, &[a, b, c, d, ref quants @ ..]) => {
                let (scale, minimum) = (half(a, b), half(c, d));
                let of = |quant: u8| f32::from(quant) * scale + minimum;
                floats.extend(quants.iter().map(|byte| of(byte & 15)));
                floats.extend(quants.iter().map(|byte| of(byte >> 4)));
            }
            (GGMLType::Q8_0, &[a, b, ref quants @ ..]) => {
                let scale = half(a, b);
                floats.extend(quants.iter().map(|&byte| f32::from(byte as i8) * scale));
            }
            _ => bail!("tensors of {kind:?} are not read here"),
        }
    }
    Ok(floats)
}
