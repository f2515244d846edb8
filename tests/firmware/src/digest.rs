//! A digest per operation over all output bits of some hundred random cases.

use sdpa::{
    Attention, Backend, Bf16, CachePositions, Element, Error, F16, I8, KEY_BLOCK, KvCacheMut,
    MatrixMut, MatrixRef, Pairs, RotaryTable,
};

use crate::{
    Arena, FLOATS,
    cases::{self, Kind, Layout, Rng},
};

/// The number of cases per operation.
const CASES: usize = 40;

/// The content of buffers outside the elements. It is part of the digest, so that a stray write changes it.
const CANARY: f32 = -7.25e20;

/// The largest number of multiply-adds or elements in a case: a core without FPU emulates each operation.
const MOST: usize = 30_000;

/// The values of the cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// No input is subnormal, and no subnormal intermediate affects a result.
    Normal,
    /// Subnormal inputs, products, sums or weights, which the vector unit of a Cortex-M55 flushes to 0.
    Subnormal,
}

impl Values {
    fn kind(self, rng: &mut Rng) -> Kind {
        match self {
            Self::Subnormal => rng.pick(&[Kind::Deep, Kind::Tiny, Kind::Subnormal]),
            Self::Normal if rng.one_in(3) => Kind::Ordinary,
            Self::Normal => rng.pick(&[
                Kind::Wide,
                Kind::Masked,
                Kind::AllMasked,
                Kind::Equal,
                Kind::Overflowing,
                Kind::Underflowing,
                Kind::Huge,
                Kind::Zeros,
                Kind::OneNan,
                Kind::Infinite,
            ]),
        }
    }
}

/// FNV-1a, 32 bits at a time.
#[derive(Clone, Copy)]
pub struct Digest(u64);

impl Digest {
    pub const NEW: Self = Self(0xcbf2_9ce4_8422_2325);

    /// Every NaN counts as the same.
    pub fn add(&mut self, x: f32) {
        let bits = if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() };
        self.0 = (self.0 ^ u64::from(bits)).wrapping_mul(0x0000_0100_0000_01b3);
        self.0 ^= self.0 >> 29;
    }

    pub fn finish(self) -> u64 {
        self.0
    }
}

/// One case: its random generator and its memory.
pub struct Case<'a> {
    rng: Rng,
    values: Values,
    backend: Backend,
    arena: &'a mut Arena,
}

/// Fills the inputs of the operation, calls it, and returns how many floats of the output buffer it may
/// write.
pub type Run = fn(&mut Case<'_>) -> Result<usize, Error>;

/// The operations and the names of their functions.
pub const OPERATIONS: [(&str, Run); 15] = [
    ("dot", dot),
    ("softmax", softmax),
    ("softmax_in_place", softmax_in_place),
    ("softmax_rows", |case| softmax_matrix(case, |b, x, out| b.softmax_rows(x, out))),
    ("softmax_columns", |case| softmax_matrix(case, |b, x, out| b.softmax_columns(x, out))),
    ("softmax_columns_in_place", softmax_columns_in_place),
    ("project", project),
    ("scores", scores),
    ("weighted_sum", weighted_sum),
    ("rotate", rotate),
    ("attention", attention),
    ("attention_cached", attention_cached),
    ("attention_cached_f16", attention_cached_of::<F16>),
    ("attention_cached_bf16", attention_cached_of::<Bf16>),
    ("attention_cached_i8", attention_cached_of::<I8>),
];

/// Those with kept keys, for boards whose library has the feature `keep-first`.
pub const KEPT: [(&str, Run); 2] = [
    ("attention_kept", |case| attention_of(case, true)),
    ("attention_cached_kept", |case| {
        let kept = 1 + case.rng.below(80);
        attention_cached_after(case, kept)
    }),
];

/// Returns the digest of one operation's outputs.
pub fn digest(run: Run, backend: Backend, values: Values, arena: &mut Arena) -> u64 {
    let mut digest = Digest::NEW;
    for seed in 0..CASES as u64 {
        let mut case = Case { rng: Rng::new(seed), values, backend, arena };
        match run(&mut case) {
            Ok(len) if cfg!(feature = "wrong") && len > 0 && seed == 3 => {
                let (first, others) = (arena.output[0], &arena.output[1..len]);
                digest.add(f32::from_bits(first.to_bits() ^ 1));
                others.iter().for_each(|&x| digest.add(x));
            }
            Ok(len) => arena.output[..len].iter().for_each(|&x| digest.add(x)),
            Err(_) => digest.add(-1.0),
        }
    }
    digest.finish()
}

impl Case<'_> {
    /// Sizes that multiply to at most [`MOST`].
    fn sizes<const N: usize>(&mut self) -> [usize; N] {
        loop {
            let sizes = [(); N].map(|()| cases::size(&mut self.rng));
            if sizes.iter().product::<usize>() <= MOST && sizes.iter().all(|&size| size <= 70) {
                return sizes;
            }
        }
    }

    /// Fills the first `len` floats of an input.
    fn fill(&mut self, input: usize, len: usize) {
        let kind = self.values.kind(&mut self.rng);
        let to = &mut self.arena.inputs[input][..len];
        kind.fill(&mut self.rng, to);
        // The vector unit of the Cortex-M55 loses a NaN that meets an infinity.
        if kind == Kind::Infinite && self.rng.one_in(2) {
            to.iter_mut().filter(|_| self.rng.one_in(16)).for_each(|x| *x = f32::NAN);
        }
    }

    /// Fills an input with a random matrix of any layout.
    fn input(&mut self, input: usize, rows: usize, cols: usize) -> Layout {
        let layout = Layout::of_input(&mut self.rng, rows, cols);
        self.fill(input, layout.len);
        layout
    }

    /// Makes the output a matrix of any layout.
    fn output(&mut self, rows: usize, cols: usize) -> Layout {
        let layout = Layout::of_output(&mut self.rng, rows, cols);
        self.arena.output[..layout.len].fill(CANARY);
        layout
    }
}

fn view(buffer: &[f32], layout: Layout) -> Result<MatrixRef<'_>, Error> {
    let Layout { rows, cols, start, row_stride, col_stride, .. } = layout;
    MatrixRef::with_strides(&buffer[start..], rows, cols, row_stride, col_stride)
}

fn view_mut(buffer: &mut [f32], layout: Layout) -> Result<MatrixMut<'_>, Error> {
    let Layout { rows, cols, start, row_stride, col_stride, .. } = layout;
    MatrixMut::with_strides(&mut buffer[start..], rows, cols, row_stride, col_stride)
}

fn dot(case: &mut Case<'_>) -> Result<usize, Error> {
    let (n, start) = (cases::length(&mut case.rng), case.rng.below(4));
    case.fill(0, n);
    case.fill(1, start + n);
    let [a, b, _] = &case.arena.inputs;
    case.arena.output[0] = case.backend.dot(&a[..n], &b[start..][..n])?;
    Ok(1)
}

fn softmax(case: &mut Case<'_>) -> Result<usize, Error> {
    let (n, start) = (cases::length(&mut case.rng), case.rng.below(4));
    case.fill(0, start + n);
    case.arena.output[..n + 1].fill(CANARY);
    case.backend.softmax(&case.arena.inputs[0][start..][..n], &mut case.arena.output[..n])?;
    Ok(n + 1)
}

fn softmax_in_place(case: &mut Case<'_>) -> Result<usize, Error> {
    let n = cases::length(&mut case.rng);
    case.fill(0, n);
    case.arena.output[..n].copy_from_slice(&case.arena.inputs[0][..n]);
    case.backend.softmax_in_place(&mut case.arena.output[..n]);
    Ok(n)
}

fn softmax_matrix(
    case: &mut Case<'_>,
    softmax: fn(Backend, MatrixRef<'_>, MatrixMut<'_>) -> Result<(), Error>,
) -> Result<usize, Error> {
    let [rows, cols] = case.sizes();
    let (x, out) = (case.input(0, rows, cols), case.output(rows, cols));
    let Arena { inputs: [input, ..], output, .. } = &mut *case.arena;
    softmax(case.backend, view(input, x)?, view_mut(output, out)?)?;
    Ok(out.len)
}

fn softmax_columns_in_place(case: &mut Case<'_>) -> Result<usize, Error> {
    let [rows, cols] = case.sizes();
    let layout = Layout::of_output(&mut case.rng, rows, cols);
    case.fill(0, layout.len);
    let Arena { inputs: [input, ..], output, .. } = &mut *case.arena;
    output[..layout.len].copy_from_slice(&input[..layout.len]);
    case.backend.softmax_columns_in_place(view_mut(output, layout)?);
    Ok(layout.len)
}

fn project(case: &mut Case<'_>) -> Result<usize, Error> {
    let [tokens, inputs, outputs] = case.sizes();
    let (inputs, outputs) = (inputs.max(1), outputs.max(1));
    let (x, w) = (case.input(0, tokens, inputs), case.input(1, inputs, outputs));
    case.fill(2, outputs);
    let out = case.output(tokens, outputs);
    let with_bias = case.rng.one_in(2);
    let Arena { inputs: [xs, ws, bias], output, .. } = &mut *case.arena;
    let bias = with_bias.then_some(&bias[..outputs]);
    case.backend.project(view(xs, x)?, view(ws, w)?, bias, view_mut(output, out)?)?;
    Ok(out.len)
}

fn scores(case: &mut Case<'_>) -> Result<usize, Error> {
    let [keys, queries, dim] = case.sizes();
    let dim = dim.max(1);
    let (k, q) = (case.input(0, keys, dim), case.input(1, queries, dim));
    let out = case.output(keys, queries);
    let scale = match case.rng.below(4) {
        0 => Some(1.0),
        1 => Some(case.rng.between(-2.0, 2.0)),
        _ => None,
    };
    let Arena { inputs: [ks, qs, _], output, .. } = &mut *case.arena;
    case.backend.scores(view(ks, k)?, view(qs, q)?, scale, view_mut(output, out)?)?;
    Ok(out.len)
}

fn weighted_sum(case: &mut Case<'_>) -> Result<usize, Error> {
    let [keys, queries, width] = case.sizes();
    let width = width.max(1);
    let (p, v) = (case.input(0, keys, queries), case.input(1, keys, width));
    let out = case.output(queries, width);
    let Arena { inputs: [ps, vs, _], output, .. } = &mut *case.arena;
    case.backend.weighted_sum(view(ps, p)?, view(vs, v)?, view_mut(output, out)?)?;
    Ok(out.len)
}

/// With few cosines and sines, which take soft doubles.
fn rotate(case: &mut Case<'_>) -> Result<usize, Error> {
    let (tokens, count) = (case.rng.below(12), 1 + case.rng.below(10));
    let dim = 2 * count + case.rng.below(3);
    let (x, out) = (case.input(0, tokens, dim), case.output(tokens, dim));
    let first = case.rng.pick(&[0, 1000, (1 << 24) - 20, (1 << 53) - 20]);
    let pairs = case.rng.pick(&[Pairs::Halves, Pairs::Interleaved]);
    let Arena { inputs: [xs, factors, _], output, .. } = &mut *case.arena;
    let table = RotaryTable::new(10_000.0, count, first..first + tokens as u64, factors)?;
    case.backend.rotate(view(xs, x)?, &table, first, pairs, view_mut(output, out)?)?;
    Ok(out.len)
}

/// The largest numbers of keys (three blocks), queries, and columns of a head.
const KEYS: usize = 150;
const QUERIES: usize = 12;
const COLUMNS: usize = 20;

/// The offset of masks and biases in the buffer of the queries: after all queries.
const BEHIND: usize = FLOATS / 2;

/// One head under any options, and its log-sum-exps.
fn attention(case: &mut Case<'_>) -> Result<usize, Error> {
    attention_of(case, false)
}

/// [`attention`] that may keep its first keys.
fn attention_of(case: &mut Case<'_>, keeps: bool) -> Result<usize, Error> {
    let (keys, queries) = (case.rng.below(KEYS), case.rng.below(QUERIES));
    let (dim, width) = (1 + case.rng.below(COLUMNS), 1 + case.rng.below(COLUMNS));
    let q = case.input(0, queries, dim);
    let (k, v) = (case.input(1, keys, dim), case.input(2, keys, width));
    let out = case.output(queries, width);
    let rng = &mut case.rng;
    let mut keep = [0; KEYS * QUERIES];
    keep.iter_mut().for_each(|keep| *keep = u8::from(!rng.one_in(4)));
    let keep = MatrixRef::new(&keep[..keys * queries], keys, queries)?;
    let Arena { inputs: [qs, ks, vs], output, .. } = &mut *case.arena;
    let (qs, bias) = qs.split_at_mut(BEHIND);
    let bias = &mut bias[..keys * queries];
    Kind::Masked.fill(rng, bias);
    let mut options = Attention::new().on(case.backend);
    // Positions near the end of 32 bits: the queries are around `far`, and windows reach back from there.
    let far = rng.pick(&[0, 0, i32::MAX as isize, -(i32::MAX as isize)]);
    let offset = rng.below(2 * KEYS) as isize - KEYS as isize;
    options =
        options.query_offset(far.clamp(-i32::MAX as isize + 300, i32::MAX as isize - 300) + offset);
    if rng.one_in(3) {
        options = options.causal();
    }
    if rng.one_in(3) {
        let reach = far.unsigned_abs();
        options = options.window(reach + rng.below(KEYS), reach + rng.below(KEYS));
    }
    if rng.one_in(3) {
        options = options.softcap(rng.between(0.5, 30.0));
    }
    if rng.one_in(3) {
        options = options.sink(rng.between(-3.0, 3.0));
    }
    if rng.one_in(3) {
        options = options.keep(keep);
    }
    if rng.one_in(3) {
        options = options.bias(MatrixRef::new(bias, keys, queries)?);
    }
    let slope = [rng.between(-2.0, 2.0)];
    if rng.one_in(3) {
        options = options.slopes(&slope);
    }
    if keeps {
        // A window that hides keys between the kept ones and itself.
        let position = keys as isize - rng.below(QUERIES) as isize;
        options = options.query_offset(position).window(rng.below(60), rng.below(QUERIES));
        options = options.keep_first(rng.below(70));
    }
    let (to, behind) = output.split_at_mut(out.len + queries);
    let (to, log_sum_exp) = to.split_at_mut(out.len);
    let (queries, keys, values) = (view(qs, q)?, view(ks, k)?, view(vs, v)?);
    options.run_with_log_sum_exp(queries, keys, values, view_mut(to, out)?, log_sum_exp, behind)?;
    Ok(out.len + queries.rows())
}

/// The most keys for which a cache has storage.
const STORED: usize = 128;

/// Appends a few tokens at a time to a cache that slides, and attends with their queries.
fn attention_cached(case: &mut Case<'_>) -> Result<usize, Error> {
    attention_cached_after(case, 0)
}

/// [`attention_cached`] with so many kept keys.
fn attention_cached_after(case: &mut Case<'_>, kept: usize) -> Result<usize, Error> {
    let Arena { inputs: [rows, keys, values], output, .. } = &mut *case.arena;
    let (kinds, storage, scales) =
        (case.values, (&mut keys[..], &mut values[..]), Default::default());
    attend_from::<f32>(&mut case.rng, (kinds, kept), case.backend, rows, storage, scales, output)
}

/// [`attention_cached`] with keys and values of these elements.
fn attention_cached_of<E: Element>(case: &mut Case<'_>) -> Result<usize, Error> {
    let [mut keys, mut values] = [[E::ZERO; STORED * COLUMNS]; 2];
    let [mut of_keys, mut of_values] = [[E::NO_SCALE; STORED]; 2];
    let Arena { inputs: [rows, ..], output, .. } = &mut *case.arena;
    let (rng, kinds) = (&mut case.rng, case.values);
    let (storage, scales) =
        ((&mut keys[..], &mut values[..]), (&mut of_keys[..], &mut of_values[..]));
    attend_from::<E>(rng, (kinds, 0), case.backend, rows, storage, scales, output)
}

fn attend_from<E: Element>(
    rng: &mut Rng,
    (kinds, kept): (Values, usize),
    backend: Backend,
    rows: &mut [f32],
    (keys, values): (&mut [E], &mut [E]),
    scales: (&mut [E::Scale], &mut [E::Scale]),
    output: &mut [f32],
) -> Result<usize, Error> {
    let (dim, width) = (1 + rng.below(COLUMNS), 1 + rng.below(COLUMNS));
    let (tokens, left) = (rng.below(KEYS), rng.below(64 - QUERIES));
    let kind = kinds.kind(rng);
    kind.fill(rng, &mut rows[..tokens * COLUMNS]);
    let row = |first: usize, count: usize, cols| {
        MatrixRef::with_strides(&rows[first * COLUMNS..], count, cols, COLUMNS, 1)
    };
    // No block more than the window and the kept keys need, which take blocks of the kernel.
    let pinned = kept.div_ceil(64) * 64;
    let stored = pinned + ((left + QUERIES).div_ceil(KEY_BLOCK) + 1) * KEY_BLOCK;
    let (keys, values) = (&mut keys[..stored * dim], &mut values[..stored * width]);
    // After a long run time positions exceed 32 bits.
    let begin = rng.pick(&[0, (1 << 31) - 100, (1 << 32) - 100]) + rng.below(200) as u64;
    let begin = if kept > 0 { 0 } else { begin };
    let mut span = CachePositions::new(begin, begin)?;
    let mut cache = KvCacheMut::with_scales(keys, values, scales, [dim, width], &mut span)?;
    if kept > 0 {
        cache.keep_first(kept)?;
    }
    let mut options = Attention::new().on(backend).causal().window(left, 0);
    let slope = [rng.between(-2.0, 2.0)];
    if rng.one_in(3) {
        options = options.slopes(&slope);
    }
    let (to, workspace) = output.split_at_mut(BEHIND);
    let (mut first, mut written) = (0, 0);
    while first < tokens {
        let chunk = (1 + rng.below(QUERIES)).min(tokens - first);
        cache.append(row(first, chunk, dim)?, row(first, chunk, width)?)?;
        let out = MatrixMut::new(&mut to[written..], chunk, width)?;
        cache.view().attend(&options, row(first, chunk, dim)?, out, workspace)?;
        written += chunk * width;
        cache.slide(kept + left);
        first += chunk;
    }
    Ok(written)
}

/// Fills the inputs with ordinary values, for measurements.
pub fn fill(arena: &mut Arena) {
    let mut rng = Rng::new(0);
    arena.inputs.iter_mut().for_each(|input| Kind::Ordinary.fill(&mut rng, input));
    let Arena { inputs: [keys, values, _], caches, .. } = arena;
    caches.fill(&keys[..64 * 64], &values[..64 * 64]).expect("in range");
}
