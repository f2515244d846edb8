//! The peers, and what a library of products makes of attention.

#[cfg(feature = "burn")]
mod burn;
#[cfg(feature = "candle")]
mod candle;
mod loops;
#[cfg(onednn)]
mod onednn;
#[cfg(openblas)]
mod openblas;
mod ours;
mod ours_c;
mod products;
mod slices;

use std::{hint::black_box, marker::PhantomData};

use crate::jobs::{Along, Attention, Inputs, Job, Stored};

/// Does a job so many times.
pub(crate) type Call<'a> = Box<dyn FnMut(u32) + 'a>;

/// The loop is compiled with what it repeats, so that a call of a few nanoseconds is timed without another.
fn repeated<'a>(mut job: impl FnMut() + 'a) -> Call<'a> {
    Box::new(move |times| (0..times).for_each(|_| job()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This library on its best back end, from Rust.
    Ours,
    /// This library on AVX2, where that is not the best.
    OursOnAvx2,
    /// This library on its best back end, through the functions of the C library.
    OursFromC,
    Other,
}

/// A library that does some of the jobs.
pub(crate) trait Peer {
    fn name(&self) -> String;

    fn kind(&self) -> Kind {
        Kind::Other
    }

    /// The job with its arguments prepared, unless the library does not do it.
    fn prepare<'a>(&self, job: &Job, inputs: &'a Inputs, out: &'a mut [f32]) -> Option<Call<'a>>;

    /// Whether it does the job by a product, [`loops::softmax_rows`] and another product.
    fn composes(&self, _job: &Job) -> bool {
        false
    }
}

/// Every peer of this build and machine.
pub(crate) fn peers() -> Vec<Box<dyn Peer>> {
    #[allow(unused_mut, reason = "features and what is installed add to it")]
    let mut peers: Vec<Box<dyn Peer>> = vec![
        Box::new(ours::Ours::best()),
        Box::new(ours_c::OursFromC),
        of::<products::Gemm>(),
        of::<products::MatrixMultiply>(),
        of::<products::NdArray>(),
        of::<products::Rten>(),
        of::<slices::SimSimd>(),
        of::<slices::Iterator>(),
        of::<loops::Loops>(),
    ];
    if let Some(avx2) = ours::Ours::on_avx2() {
        peers.insert(1, Box::new(avx2));
    }
    #[cfg(openblas)]
    peers.push(of::<openblas::OpenBlas>());
    #[cfg(onednn)]
    peers.push(of::<onednn::OneDnn>());
    #[cfg(feature = "candle")]
    peers.push(Box::new(candle::Candle));
    #[cfg(feature = "burn")]
    peers.push(Box::new(burn::BurnFlex));
    peers
}

/// What this build or machine lacks, and how to get it.
pub(crate) fn missing() -> Vec<&'static str> {
    let candidates = [
        (cfg!(openblas), "OpenBLAS: not installed (Debian: libopenblas-serial-dev)"),
        (cfg!(onednn), "oneDNN: not installed (Debian: libdnnl-dev, cmake)"),
        (cfg!(feature = "candle"), "candle: not in this build (--features candle)"),
        (cfg!(feature = "burn"), "burn-flex: not in this build (--features burn)"),
    ];
    candidates.into_iter().filter(|(here, _)| !here).map(|(_, text)| text).collect()
}

/// `out = a · b`, row-major.
trait Multiply: FnMut(&[f32], &[f32], &mut [f32]) + 'static {}

impl<F: FnMut(&[f32], &[f32], &mut [f32]) + 'static> Multiply for F {}

/// Functions over slices, each for one shape. What a library does not have it leaves out.
trait Library {
    fn name() -> String;

    fn dot() -> Option<impl FnMut(&[f32], &[f32]) -> f32 + 'static> {
        None::<fn(&[f32], &[f32]) -> f32>
    }

    fn product(_: Product) -> Option<impl Multiply> {
        None::<fn(&[f32], &[f32], &mut [f32])>
    }

    /// Of a matrix of so many rows and columns.
    fn softmax(_: [usize; 2], _: Along) -> Option<impl FnMut(&[f32], &mut [f32]) + 'static> {
        None::<fn(&[f32], &mut [f32])>
    }
}

/// The product of a dense m × k matrix and a k × n matrix with any strides.
#[derive(Clone, Copy)]
struct Product {
    m: usize,
    n: usize,
    k: usize,
    /// Row and column stride of the second operand; one of them is 1.
    strides: [usize; 2],
}

/// A library as a peer.
struct Of<L>(PhantomData<L>);

fn of<L: Library + 'static>() -> Box<dyn Peer> {
    Box::new(Of::<L>(PhantomData))
}

impl<L: Library + 'static> Peer for Of<L> {
    fn name(&self) -> String {
        L::name()
    }

    fn composes(&self, job: &Job) -> bool {
        matches!(job, Job::Attention(_))
    }

    fn prepare<'a>(&self, job: &Job, inputs: &'a Inputs, out: &'a mut [f32]) -> Option<Call<'a>> {
        let [x, y, z] = inputs.operands();
        match *job {
            Job::Dot { .. } => {
                let mut dot = L::dot()?;
                Some(repeated(move || out[0] = dot(black_box(x), black_box(y))))
            }
            Job::Scores { keys, queries, dim } => {
                let of = Product { m: keys, n: queries, k: dim, strides: [1, dim] };
                let mut product = L::product(of)?;
                Some(repeated(move || product(black_box(x), black_box(y), black_box(out))))
            }
            Job::Softmax { rows, cols, along } => {
                let mut softmax = L::softmax([rows, cols], along)?;
                Some(repeated(move || softmax(black_box(x), black_box(out))))
            }
            Job::Attention(of) => composed::<L>(of, [x, y, z], out),
        }
    }
}

/// Attention as one writes it with a library of products: scores, weights, output, head by head.
fn composed<'a, L: Library>(
    of: Attention,
    [queries, keys, values]: [&'a [f32]; 3],
    out: &'a mut [f32],
) -> Option<Call<'a>> {
    let Attention { heads: _, queries: tokens, keys: count, dim, causal, stored } = of;
    let (of_key, strides) = match stored {
        Stored::Rows | Stored::Cache => (count * dim, [1, dim]),
        Stored::Columns { stride } => (dim * stride, [stride, 1]),
    };
    let mut product = L::product(Product { m: tokens, n: count, k: dim, strides })?;
    let mut weighted_sum = L::product(Product { m: tokens, n: dim, k: count, strides: [dim, 1] })?;
    let mut grid = crate::aligned::Aligned::new((tokens * count).next_multiple_of(16), 0.0);
    let scale = 1.0 / (dim as f32).sqrt();
    Some(repeated(move || {
        let grid = &mut grid.floats_mut()[..tokens * count];
        let heads = black_box(queries).chunks(tokens * dim).zip(black_box(keys).chunks(of_key));
        let heads = heads.zip(black_box(values).chunks(count * dim));
        for (((queries, keys), values), out) in heads.zip(out.chunks_mut(tokens * dim)) {
            product(queries, keys, grid);
            loops::attention_weights(grid, count, scale, causal);
            weighted_sum(grid, values, out);
        }
    }))
}
