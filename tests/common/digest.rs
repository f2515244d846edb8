//! A digest per operation over all output bits of a hundred random cases.
//!
//! Uses only `core` and caller-provided buffers, so that firmware can include this file and `cases.rs` by
//! `#[path]`. Users may compare the digests: from version 1 on, a changed digest requires a major version.

use sdpa::{
    Attention, Backend, CachePositions, Error, KvCacheMut, MatrixMut, MatrixRef, Pairs,
    RotaryTable, SPAN,
};

use super::cases::{Kind, Layout, Rng};

/// The number of cases per operation.
const CASES: u64 = 100;

/// The minimum length of each slice of [`Buffers`].
pub(crate) const FLOATS: usize = 4096;

/// The digests of the FMA and the non-FMA family.
/// `SDPA_PRINT_DIGESTS=1 cargo test --test all digests:: -- --nocapture` prints the current ones.
#[rustfmt::skip]
pub(crate) const DIGESTS: [(Operation, u64, u64); 16] = [
    (Operation::Dot,                   0x8621_9a95_8f26_6ae1, 0x4671_a893_95f5_0ac9),
    (Operation::Softmax,               0xc9b9_224d_1baf_2006, 0x721f_b9cc_07e8_b877),
    (Operation::SoftmaxInPlace,        0xc9b9_224d_1baf_2006, 0x721f_b9cc_07e8_b877),
    (Operation::SoftmaxRows,           0x0f0e_325b_7dd3_0909, 0x6ef4_6f27_9169_fbad),
    (Operation::SoftmaxRowsInPlace,    0xbd31_9d4c_288a_2437, 0xe1dc_e8e3_98db_7523),
    (Operation::SoftmaxColumns,        0x6d30_d387_a11b_55a4, 0x5f89_0f4b_e022_798c),
    (Operation::SoftmaxColumnsInPlace, 0xdf26_5440_7617_992b, 0x84e1_2f41_9ed9_ccc7),
    (Operation::Project,               0x340a_5b54_a787_5a12, 0x0766_da31_8c2e_4e4d),
    (Operation::Scores,                0xd7ef_00ca_8155_ba27, 0x33bd_d755_e26a_1b6e),
    (Operation::WeightedSum,           0x3443_decb_179f_a2ac, 0xbf91_32e9_fba2_3d98),
    (Operation::Attention,             0x0247_efda_7733_1448, 0xd6e8_fa60_ead0_5ec3),
    (Operation::Spans,                 0x6f44_90fe_d781_2034, 0xa413_687a_5e84_bdb1),
    (Operation::SpansJoined,           0x6f44_90fe_d781_2034, 0xa413_687a_5e84_bdb1),
    (Operation::SpansOfCache,          0x7a91_d10b_83dc_a618, 0x8e6e_8dc0_834c_b8b3),
    (Operation::Merge,                 0xafd2_5915_2ea8_7898, 0x6aba_ed57_0b0a_7dac),
    (Operation::Rotate,                0xacc0_c014_a460_ffdb, 0x63ac_71b9_548a_f8e8),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Dot,
    Softmax,
    SoftmaxInPlace,
    SoftmaxRows,
    SoftmaxRowsInPlace,
    SoftmaxColumns,
    SoftmaxColumnsInPlace,
    Project,
    Scores,
    WeightedSum,
    Attention,
    /// Attention over the keys of two or three spans.
    Spans,
    /// The same calls in two parts, joined, the later part first: the same digest.
    SpansJoined,
    /// Attention over a cache that begins at any position and has dropped keys.
    SpansOfCache,
    Merge,
    /// Rotary position embedding, and its tables.
    Rotate,
}

/// Memory for the operands, [`FLOATS`] floats each.
pub(crate) struct Buffers<'a> {
    pub(crate) left: &'a mut [f32],
    pub(crate) right: &'a mut [f32],
    pub(crate) out: &'a mut [f32],
}

impl Operation {
    /// Returns the digest of the results on `backend`. `broken` flips one bit of the first result, to test
    /// that one bit changes the digest.
    pub(crate) fn digest(
        self,
        backend: Backend,
        buffers: &mut Buffers<'_>,
        broken: bool,
    ) -> Result<u64, Error> {
        let mut digest = Digest { hash: 0xcbf2_9ce4_8422_2325, flip: u32::from(broken) };
        for case in 0..CASES {
            self.run(&mut Rng::new(case), backend, buffers, &mut digest)?;
        }
        Ok(digest.hash)
    }

    fn run(
        self,
        rng: &mut Rng,
        backend: Backend,
        buffers: &mut Buffers<'_>,
        digest: &mut Digest,
    ) -> Result<(), Error> {
        let Buffers { left, right, out } = buffers;
        match self {
            Self::Dot => {
                let n = rng.below(1000);
                let (a, b) = (slice(rng, left, n), slice(rng, right, n));
                digest.add(backend.dot(a, b)?);
            }
            Self::Softmax => {
                let n = rng.below(1000);
                let (x, out) = (slice(rng, left, n), slice(rng, out, n));
                backend.softmax(x, out)?;
                out.iter().for_each(|&x| digest.add(x));
            }
            Self::SoftmaxInPlace => {
                let n = rng.below(1000);
                let x = slice(rng, out, n);
                backend.softmax_in_place(x);
                x.iter().for_each(|&x| digest.add(x));
            }
            Self::SoftmaxRows | Self::SoftmaxColumns => {
                let [rows, cols, _] = sizes(rng);
                let x = input(rng, left, rows, cols)?;
                let mut out = output(rng, out, rows, cols)?;
                match self {
                    Self::SoftmaxRows => backend.softmax_rows(x, out.view_mut())?,
                    _ => backend.softmax_columns(x, out.view_mut())?,
                }
                digest.add_all(out.view());
            }
            Self::SoftmaxRowsInPlace | Self::SoftmaxColumnsInPlace => {
                let [rows, cols, _] = sizes(rng);
                let mut x = output(rng, out, rows, cols)?;
                match self {
                    Self::SoftmaxRowsInPlace => backend.softmax_rows_in_place(x.view_mut()),
                    _ => backend.softmax_columns_in_place(x.view_mut()),
                }
                digest.add_all(x.view());
            }
            Self::Project => {
                let [tokens, outputs, inputs] = sizes(rng).map(|size| size.max(1));
                let mut bias = [0.0; LONGEST];
                let bias = slice(rng, &mut bias, outputs);
                let bias = rng.one_in(2).then_some(&*bias);
                let x = input(rng, left, tokens, inputs)?;
                let w = input(rng, right, inputs, outputs)?;
                let mut out = output(rng, out, tokens, outputs)?;
                backend.project(x, w, bias, out.view_mut())?;
                digest.add_all(out.view());
            }
            Self::Scores => {
                let [keys, queries, dim] = sizes(rng);
                let dim = dim.max(1);
                let scale = rng.pick(&[None, Some(1.0), Some(-0.3), Some(0.0)]);
                let k = input(rng, left, keys, dim)?;
                let q = input(rng, right, queries, dim)?;
                let mut out = output(rng, out, keys, queries)?;
                backend.scores(k, q, scale, out.view_mut())?;
                digest.add_all(out.view());
            }
            Self::WeightedSum => {
                let [keys, queries, width] = sizes(rng);
                let width = width.max(1);
                let p = input(rng, left, keys, queries)?;
                let v = input(rng, right, keys, width)?;
                let mut out = output(rng, out, queries, width)?;
                backend.weighted_sum(p, v, out.view_mut())?;
                digest.add_all(out.view());
            }
            Self::Attention => {
                let [keys, queries, dim] = sizes(rng);
                let (dim, width) = (dim.max(1), 1 + rng.below(10));
                let [mut bias, mut values] = [[0.0; FLOATS]; 2];
                let bias = input(rng, &mut bias, keys, queries)?;
                let attention = options(rng, backend, keys, bias);
                let q = input(rng, left, queries, dim)?;
                let k = input(rng, right, keys, dim)?;
                let v = input(rng, &mut values, keys, width)?;
                let mut out = output(rng, out, queries, width)?;
                let mut logarithms = [0.0; LONGEST];
                let logarithms = &mut logarithms[..queries];
                let mut workspace = [0.0; Attention::workspace(LONGEST, LONGEST)];
                let heads = out.view_mut();
                attention.run_with_log_sum_exp(q, k, v, heads, logarithms, &mut workspace)?;
                digest.add_all(out.view());
                logarithms.iter().for_each(|&x| digest.add(x));
            }
            Self::Spans | Self::SpansJoined => {
                let keys = SPAN + 1 + rng.below(2 * SPAN);
                let [queries, dim, width] = [(); 3].map(|()| 1 + rng.below(4));
                let [mut bias, mut q] = [[0.0; FLOATS]; 2];
                let (q, bias) =
                    (input(rng, &mut q, queries, dim)?, rows(rng, &mut bias, keys, queries)?);
                let (k, v) = (rows(rng, left, keys, dim)?, rows(rng, right, keys, width)?);
                let attention = |bias| options(&mut rng.clone(), backend, keys, bias);
                let (results, states) = out.split_at_mut(queries * (width + 1));
                let (out, logarithms) = results.split_at_mut(queries * width);
                let out = MatrixMut::new(out, queries, width)?;
                let mut workspace = [0.0; Attention::workspace(LONGEST, LONGEST)];
                if self == Self::Spans {
                    let attention = attention(bias);
                    attention.run_with_log_sum_exp(q, k, v, out, logarithms, &mut workspace)?;
                } else {
                    let span = queries * Attention::state_floats(width);
                    let states = &mut states[..keys.div_ceil(SPAN) * span];
                    let (later, first) = states.split_at_mut(states.len() - span);
                    for (states, [from, to]) in [(later, [SPAN, keys]), (first, [0, SPAN])] {
                        let [k, v, bias] = [k, v, bias].map(|x| part(x, [from, to]));
                        let attention = attention(bias?);
                        attention.run_spans(q, k?, v?, from as u64, states, &mut workspace)?;
                    }
                    attention(bias).join(states, out, Some(logarithms))?;
                }
                results.iter().for_each(|&x| digest.add(x));
            }
            Self::SpansOfCache => {
                const KEYS: usize = 21 * 64;
                let [queries, dim, width] = [(); 3].map(|()| 1 + rng.below(3));
                let begin = rng.pick(&[0, 5000, (1 << 31) - 1300, (1 << 32) - 1300, 1 << 57]);
                let begin = begin + rng.below(SPAN) as u64;
                let mut positions = CachePositions::new(begin, begin)?;
                let keys = &mut left[..dim * KEYS];
                let values = &mut right[..width * KEYS];
                let mut cache = KvCacheMut::new(keys, values, dim, width, &mut positions)?;
                let [mut buffer, mut other] = [[0.0; FLOATS]; 2];
                for _ in 0..4 + rng.below(4) {
                    let tokens = 1 + rng.below(600);
                    let k = rows(rng, &mut buffer, tokens, dim)?;
                    let v = rows(rng, &mut other, tokens, width)?;
                    cache.slide(KEYS - 64 - tokens);
                    cache.append(k, v)?;
                }
                let cache = cache.view();
                let bias = rows(rng, &mut buffer, cache.len(), queries)?;
                let attention = options(rng, backend, cache.len(), bias)
                    .query_offset(-(rng.below(cache.len()) as isize));
                let q = input(rng, &mut other, queries, dim)?;
                let results = &mut out[..queries * (width + 1)];
                let (out, logarithms) = results.split_at_mut(queries * width);
                let out = MatrixMut::new(out, queries, width)?;
                let mut workspace = [0.0; Attention::workspace(LONGEST, LONGEST)];
                cache.attend_with_log_sum_exp(&attention, q, out, logarithms, &mut workspace)?;
                results.iter().for_each(|&x| digest.add(x));
            }
            Self::Merge => {
                let [queries, width, _] = sizes(rng).map(|size| size.max(1));
                let [mut ours, mut theirs] = [[0.0; LONGEST]; 2];
                let (ours, theirs) =
                    (slice(rng, &mut ours, queries), slice(rng, &mut theirs, queries));
                let other = input(rng, left, queries, width)?;
                let mut out = output(rng, out, queries, width)?;
                backend.merge(out.view_mut(), ours, other, theirs)?;
                digest.add_all(out.view());
                ours.iter().for_each(|&x| digest.add(x));
            }
            Self::Rotate => {
                let [tokens, dim, _] = sizes(rng);
                let dim = dim.max(2);
                let count = 1 + rng.below(dim / 2);
                let first = rng.pick(&[0, 1000, (1 << 24) - 110, 1 << 31, (1 << 53) - 110]);
                let (before, positions) = (rng.below(3), first..first + 2 + tokens as u64);
                let table = if rng.one_in(2) {
                    let base = rng.pick(&[1.0, 10_000.0, 500_000.0]);
                    RotaryTable::new(base, count, positions, right)?
                } else {
                    let mut frequencies = [0.0; LONGEST];
                    let frequencies = &mut frequencies[..count];
                    frequencies.iter_mut().for_each(|x| *x = rng.between(-2.0, 2.0));
                    RotaryTable::with_frequencies(frequencies, positions, right)?
                };
                let pairs = rng.pick(&[Pairs::Halves, Pairs::Interleaved]);
                let (position, in_place) = (first + before as u64, rng.one_in(2));
                let x = input(rng, left, tokens, dim)?;
                let mut out = output(rng, out, tokens, dim)?;
                if in_place {
                    backend.rotate_in_place(out.view_mut(), &table, position, pairs)?;
                } else {
                    backend.rotate(x, &table, position, pairs, out.view_mut())?;
                }
                digest.add_all(out.view());
            }
        }
        Ok(())
    }
}

/// FNV-1a with 64 bits over the little-endian bytes of floats; every NaN counts as the same.
struct Digest {
    hash: u64,
    /// XORed into the next float.
    flip: u32,
}

impl Digest {
    fn add(&mut self, x: f32) {
        let bits = if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() };
        for byte in (bits ^ self.flip).to_le_bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.flip = 0;
    }

    fn add_all(&mut self, view: MatrixRef<'_>) {
        for row in 0..view.rows() {
            for col in 0..view.cols() {
                view.get(row, col).into_iter().for_each(|x| self.add(x));
            }
        }
    }
}

/// The largest size of a dimension.
const LONGEST: usize = 100;

/// Three sizes, of which any two fit a buffer in any layout.
fn sizes(rng: &mut Rng) -> [usize; 3] {
    let long = rng.below(3);
    let mut sizes = [0; 3];
    for (i, size) in sizes.iter_mut().enumerate() {
        *size = rng.below(if i == long { LONGEST + 1 } else { 11 });
        if rng.one_in(4) {
            *size = (*size).min(rng.pick(&[1, 4, 8]));
        }
    }
    sizes
}

/// Any options of one head, except a boolean mask.
fn options<'a>(rng: &mut Rng, backend: Backend, keys: usize, bias: MatrixRef<'a>) -> Attention<'a> {
    let mut options = Attention::new().on(backend).query_offset(rng.below(keys + 1) as isize);
    if rng.one_in(2) {
        options = options.causal();
    }
    if rng.one_in(3) {
        options = options.window(rng.below(LONGEST), rng.below(LONGEST));
    }
    if rng.one_in(3) {
        options = options.scale(rng.pick(&[1.0, -0.3, 0.0]));
    }
    if rng.one_in(3) {
        options = options.softcap(rng.between(0.5, 30.0));
    }
    if rng.one_in(3) {
        options = options.sink(rng.between(-3.0, 3.0));
    }
    if rng.one_in(3) { options.bias(bias) } else { options }
}

/// Fills the first `n` floats of `buffer` with random values and returns them.
fn slice<'a>(rng: &mut Rng, buffer: &'a mut [f32], n: usize) -> &'a mut [f32] {
    let floats = &mut buffer[..n];
    Kind::any(rng).fill(rng, floats);
    floats
}

fn input<'a>(
    rng: &mut Rng,
    buffer: &'a mut [f32],
    rows: usize,
    cols: usize,
) -> Result<MatrixRef<'a>, Error> {
    let Layout { start, row_stride, col_stride, len, .. } = Layout::of_input(rng, rows, cols);
    let floats = slice(rng, buffer, len);
    MatrixRef::with_strides(&floats[start..], rows, cols, row_stride, col_stride)
}

/// Many rows in a small buffer: each begins one float after the row before.
fn rows<'a>(
    rng: &mut Rng,
    buffer: &'a mut [f32],
    rows: usize,
    cols: usize,
) -> Result<MatrixRef<'a>, Error> {
    MatrixRef::with_strides(slice(rng, buffer, rows + cols), rows, cols, 1, 1)
}

/// The rows from `from` to `to`.
fn part(x: MatrixRef<'_>, [from, to]: [usize; 2]) -> Result<MatrixRef<'_>, Error> {
    Ok(x.split_rows(to)?.0.split_rows(from)?.1)
}

/// An output or in-place operand, with random content.
fn output<'a>(
    rng: &mut Rng,
    buffer: &'a mut [f32],
    rows: usize,
    cols: usize,
) -> Result<MatrixMut<'a>, Error> {
    let Layout { start, row_stride, col_stride, len, .. } = Layout::of_output(rng, rows, cols);
    let floats = slice(rng, buffer, len);
    MatrixMut::with_strides(&mut floats[start..], rows, cols, row_stride, col_stride)
}
