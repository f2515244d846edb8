//! What both models are made of. Shapes are tokens × width.

use anyhow::{Context, Result};
use sdpa::{Attention, Error, HeadsMut, HeadsRef, MatrixMut, MatrixRef, project};

/// A matrix that owns its elements, in row-major order.
#[derive(Clone, Debug)]
pub struct Rows {
    data: Vec<f32>,
    width: usize,
}

impl Rows {
    /// Zeros.
    pub fn new(rows: usize, width: usize) -> Self {
        Self { data: vec![0.0; rows * width], width }
    }

    /// Elements in row-major order; the last row is full.
    pub fn from_data(data: Vec<f32>, width: usize) -> Result<Self> {
        anyhow::ensure!(width > 0 && data.len().is_multiple_of(width), "no rows of {width}");
        Ok(Self { data, width })
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.data.len() / self.width
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All elements.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// One row.
    pub fn row(&self, row: usize) -> Result<&[f32]> {
        self.data
            .chunks_exact(self.width)
            .nth(row)
            .with_context(|| format!("there is no row {row}"))
    }

    /// The rows, for writing.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.data.chunks_exact_mut(self.width)
    }

    /// A view for `sdpa`.
    pub fn view(&self) -> Result<MatrixRef<'_>, Error> {
        MatrixRef::new(&self.data, self.len(), self.width)
    }

    /// A mutable view for `sdpa`.
    pub fn view_mut(&mut self) -> Result<MatrixMut<'_>, Error> {
        let rows = self.len();
        MatrixMut::new(&mut self.data, rows, self.width)
    }

    /// Adds `other`, of the same shape: a residual connection.
    pub fn add(&mut self, other: &Self) {
        self.data.iter_mut().zip(&other.data).for_each(|(x, y)| *x += y);
    }

    /// Applies `f` to each element.
    pub fn map(&mut self, f: impl Fn(f32) -> f32) {
        self.data.iter_mut().for_each(|x| *x = f(*x));
    }
}

/// A linear layer, `x · wᵀ + bias`: weights are outputs × inputs, as checkpoints store them.
#[derive(Debug)]
pub struct Linear {
    pub weights: Rows,
    pub bias: Option<Vec<f32>>,
}

impl Linear {
    /// tokens × inputs → tokens × outputs.
    pub fn run(&self, x: &Rows) -> Result<Rows> {
        let mut out = Rows::new(x.len(), self.weights.len());
        let (weights, bias) = (self.weights.view()?.t(), self.bias.as_deref());
        project_on(threads(), x.view()?, weights, bias, out.view_mut()?)?;
        Ok(out)
    }
}

/// The threads that work is split for: those of the pool around it.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// [`project`] on many threads: each computes a range of the outputs.
fn project_on(
    threads: usize,
    x: MatrixRef<'_>,
    w: MatrixRef<'_>,
    bias: Option<&[f32]>,
    out: MatrixMut<'_>,
) -> Result<(), Error> {
    let (some, at) = (threads / 2, w.cols() * (threads / 2) / threads);
    if at == 0 {
        return project(x, w, bias, out);
    }
    let (w, other_w) = w.split_columns(at)?;
    let (out, other_out) = out.split_columns(at)?;
    let (bias, other_bias) = bias.map(|bias| bias.split_at(at)).unzip();
    let (one, other) = rayon::join(
        || project_on(some, x, w, bias, out),
        || project_on(threads - some, x, other_w, other_bias, other_out),
    );
    one.and(other)
}

/// [`Attention::run`] on many threads: each computes some of the heads, which are as many for queries as for keys.
pub fn attend_on(
    threads: usize,
    attention: &Attention<'_>,
    [queries, keys, values]: [HeadsRef<'_>; 3],
    out: HeadsMut<'_>,
) -> Result<(), Error> {
    let (some, at) = (threads / 2, queries.heads() * (threads / 2) / threads);
    if at == 0 {
        let mut workspace = vec![0.0; Attention::workspace(keys.cols(), values.cols())];
        return attention.run(queries, keys, values, out, &mut workspace);
    }
    let (queries, other_queries) = queries.split_heads(at)?;
    let (keys, other_keys) = keys.split_heads(at)?;
    let (values, other_values) = values.split_heads(at)?;
    let (out, other_out) = out.split_heads(at)?;
    let (one, other) = rayon::join(
        || attend_on(some, attention, [queries, keys, values], out),
        || {
            let others = [other_queries, other_keys, other_values];
            attend_on(threads - some, attention, others, other_out)
        },
    );
    one.and(other)
}

/// Layer normalisation (Ba, Kiros and Hinton, 2016): `(x − mean) / √(variance + ε) · weight + bias`, row by row.
#[derive(Debug)]
pub struct LayerNorm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub epsilon: f32,
}

impl LayerNorm {
    pub fn run(&self, x: &mut Rows) {
        let width = x.width as f32;
        for row in x.rows_mut() {
            let mean = row.iter().sum::<f32>() / width;
            let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / width;
            let factor = 1.0 / (variance + self.epsilon).sqrt();
            for ((x, weight), bias) in row.iter_mut().zip(&self.weight).zip(&self.bias) {
                *x = (*x - mean) * factor * weight + bias;
            }
        }
    }
}

/// Root mean square normalisation (Zhang and Sennrich, 2019): `x / √(mean of x² + ε) · weight`, row by row.
#[derive(Debug)]
pub struct RmsNorm {
    pub weight: Vec<f32>,
    pub epsilon: f32,
}

impl RmsNorm {
    pub fn run(&self, x: &Rows) -> Rows {
        let mut out = x.clone();
        for row in out.rows_mut() {
            let mean = row.iter().map(|x| x * x).sum::<f32>() / row.len() as f32;
            let factor = 1.0 / (mean + self.epsilon).sqrt();
            row.iter_mut().zip(&self.weight).for_each(|(x, weight)| *x *= factor * weight);
        }
        out
    }
}

/// The Gaussian error linear unit (Hendrycks and Gimpel, 2016): `x / 2 · (1 + erf(x / √2))`.
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The gated unit SwiGLU (Shazeer, 2020): `gate / (1 + e^−gate) · up`, in place of `gate`.
pub fn swiglu(gate: &mut Rows, up: &Rows) {
    for (gate, up) in gate.data.iter_mut().zip(&up.data) {
        *gate = *gate / (1.0 + (-*gate).exp()) * up;
    }
}

/// Scales each row to length 1.
pub fn normalise(x: &mut Rows) {
    for row in x.rows_mut() {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        row.iter_mut().for_each(|x| *x /= length);
    }
}
