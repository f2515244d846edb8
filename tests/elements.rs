//! Keys, values and weights of 16 and 8 bits: conversions, and calls that have the bits of the same call with widened
//! elements; on every back end.

use std::{fs, path::Path};

use crate::common::{
    assert_same_bits,
    cases::{self, Kind, Rng},
    elements::{Elements, Tested},
    grid::Grid,
    options::Options,
    reference::Reference,
    same,
};
use sdpa::{
    Attention, Backend, Bf16, CachePositions, ElementsRef, Error, F16, HeadsMut, HeadsRef, I8,
    KEY_BLOCK, KvCache, KvCacheMut, KvCacheRef, MatrixRef, SPAN, narrow, project_elements,
};

suite! {
    every_element_is_widened,
    projections_have_the_bits_of_widened_weights,
    attention_has_the_bits_of_widened_elements,
    groups_of_tiles_have_the_bits_of_widened_elements,
    patterns_have_the_bits_of_widened_keys,
    caches_have_the_bits_of_arrays,
    spans_join_to_the_bits_of_one_call,
    masked_elements_change_no_bit,
    rounding_costs_what_the_docs_say,
    refuses_what_disagrees,
}

/// Every number of 16 bits, those between two of them, and random floats: the bits of the crate `half`.
#[test]
fn conversions_have_the_bits_of_another_library() {
    let both = |x: f32| {
        let (ours, theirs) = (F16::from_f32(x), half::f16::from_f32(x));
        let is_nan = |bits: u16| bits & 0x7fff > 0x7c00;
        assert!(
            ours.to_bits() == theirs.to_bits()
                || (x.is_nan() && is_nan(ours.to_bits()) && is_nan(theirs.to_bits())),
            "{x:e}: {:04x}, not {:04x}",
            ours.to_bits(),
            theirs.to_bits()
        );
        let (ours, theirs) = (Bf16::from_f32(x), half::bf16::from_f32(x));
        assert!(
            ours.to_bits() == theirs.to_bits() || (x.is_nan() && ours.to_f32().is_nan()),
            "{x:e}: {:04x}, not {:04x}",
            ours.to_bits(),
            theirs.to_bits()
        );
    };
    let mut rng = Rng::new(1);
    for bits in 0..=u16::MAX {
        assert!(same(F16::from_bits(bits).to_f32(), half::f16::from_bits(bits).to_f32()));
        assert!(same(Bf16::from_bits(bits).to_f32(), half::bf16::from_bits(bits).to_f32()));
        for x in [F16::from_bits(bits).to_f32(), Bf16::from_bits(bits).to_f32()] {
            // The number and its neighbours, the number halfway to the next one and its neighbours.
            for middle in [0, 1 << 12, 1 << 15] {
                for offset in [-1, 0, 1] {
                    both(f32::from_bits(
                        x.to_bits().wrapping_add(middle).wrapping_add_signed(offset),
                    ));
                }
            }
        }
        both(f32::from_bits(rng.bits() as u32));
    }
    for (x, bits) in [(65519.99, 0x7bff), (65520.0, 0x7c00), (-65520.0, 0xfc00), (2.98e-8, 0)] {
        assert_eq!(F16::from_f32(x).to_bits(), bits);
    }
    assert_eq!(F16::from_f32(-0.0).to_bits(), 0x8000);
    assert_eq!(Bf16::from_f32(f32::MAX).to_bits(), 0x7f80);
}

/// The elements and scales of `I8`, by definition.
#[test]
fn i8_is_symmetric() {
    let mut rng = Rng::new(2);
    for _ in 0..2000 {
        let cols = rng.below(40);
        let kind = rng.pick(&[Kind::Ordinary, Kind::Wide, Kind::Tiny]);
        let row = Grid::random(&mut rng, kind, 1, cols);
        let (mut elements, mut scale) = (vec![I8::default(); cols], [f32::NAN]);
        narrow(row.view(), &mut elements, &mut scale).unwrap();
        let [scale] = scale;
        let largest = row.data.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        let exact = largest / 127.0;
        assert_eq!(scale, if exact < f32::MIN_POSITIVE { 0.0 } else { exact });
        for (x, element) in row.data.iter().zip(elements) {
            let want = if scale == 0.0 { 0.0 } else { (x / scale).round_ties_even() };
            assert_eq!(f32::from(element.get()), want, "{x:e} of {scale:e}");
            let error = f64::from(*x) - f64::from(scale) * f64::from(element.get());
            assert!(error.abs() <= 0.50001 * f64::from(exact), "{x:e} of {scale:e}");
        }
    }
    // Ties to even: a scale of 1.
    let row = [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -127.0];
    let (mut elements, mut scale) = ([I8::default(); 7], [0.0]);
    narrow(MatrixRef::from_row(&row), &mut elements, &mut scale).unwrap();
    assert_eq!((elements.map(I8::get), scale), ([127, 0, 2, 2, 0, -2, -127], [1.0]));
}

/// Each element as a weight of one input: what a kernel widens it to.
fn every_element_is_widened(backend: Backend) {
    fn check<E: Tested>(backend: Backend, elements: &[E], scales: &[E::Scale]) {
        let widened: Vec<f32> = elements.iter().map(|x| x.widen()).collect();
        let one = [1.0];
        for len in [elements.len(), 1, 7, 8, 9, 15, 17] {
            let run = |out: &mut [f32], transposed: bool| {
                let w = &elements[elements.len() - len..];
                let w = if transposed {
                    MatrixRef::new(w, len, 1).unwrap().t()
                } else {
                    MatrixRef::from_row(w)
                };
                let scales = scales.get(..len).unwrap_or_default();
                let (x, out) = (MatrixRef::from_row(&one), sdpa::MatrixMut::from_row(out));
                backend.project_elements(x, w, scales, None, out).unwrap();
            };
            let mut want = vec![0.0; len];
            let w = MatrixRef::from_row(&widened[elements.len() - len..]);
            let out = sdpa::MatrixMut::from_row(&mut want);
            backend.project(MatrixRef::from_row(&one), w, None, out).unwrap();
            for transposed in [false, true] {
                let mut got = vec![0.0; len];
                run(&mut got, transposed);
                assert_same_bits("widened", &got, &want);
            }
        }
    }
    let halves: Vec<F16> = (0..=u16::MAX).map(F16::from_bits).collect();
    check(backend, &halves, &[]);
    let halves: Vec<Bf16> = (0..=u16::MAX).map(Bf16::from_bits).collect();
    check(backend, &halves, &[]);
    let bytes: Vec<I8> = (i8::MIN..=i8::MAX).map(I8::new).collect();
    check(backend, &bytes, &[1.0; 256]);
}

fn projections_have_the_bits_of_widened_weights(backend: Backend) {
    fn check<E: Tested>(backend: Backend, rng: &mut Rng) {
        let [tokens, inputs, outputs] = [cases::size(rng), cases::size(rng), cases::size(rng)];
        let (inputs, outputs) = (inputs.max(1), outputs.max(1));
        let transposed = rng.one_in(2) || !E::room(1).is_empty();
        // A scale for each row of what is narrowed: for each output.
        let shape = if transposed { [outputs, inputs] } else { [inputs, outputs] };
        let w = Elements::<E>::random(rng, shape[0], shape[1]);
        let x = Grid::random(rng, Kind::Ordinary, tokens, inputs);
        let bias = Grid::random(rng, Kind::Ordinary, 1, outputs);
        let bias = rng.one_in(2).then_some(&bias.data[..]);
        let view = if transposed { w.matrix().t() } else { w.matrix() };
        let widened = if transposed { w.widened.t() } else { w.widened.clone() };

        let mut out = Grid::zeros(tokens, outputs);
        let scales = if E::room(1).is_empty() { &[] } else { &w.scales[..] };
        backend.project_elements(x.view(), view, scales, bias, out.view_mut()).unwrap();
        let reference = Reference::of(backend.family());
        let mut want = reference.project(&x, &widened, None);
        for (i, want) in want.data.iter_mut().enumerate() {
            if let Some(scales) = E::floats(&w.scales) {
                *want *= scales[i % outputs];
            }
            if let Some(bias) = bias {
                *want += bias[i % outputs];
            }
        }
        let what = format!("{tokens} of {inputs} to {outputs}, transposed: {transposed}");
        assert_same_bits(&what, &out.data, &want.data);

        // The lanes of an output that is written by columns.
        let mut by_columns = Grid::zeros(outputs, tokens);
        let out = by_columns.view_mut().t();
        backend.project_elements(x.view(), view, scales, bias, out).unwrap();
        assert_same_bits(&what, &by_columns.t().data, &want.data);
    }
    let mut rng = Rng::new(3);
    for _ in 0..150 {
        check::<F16>(backend, &mut rng);
        check::<Bf16>(backend, &mut rng);
        check::<I8>(backend, &mut rng);
        check::<f32>(backend, &mut rng);
    }
}

/// A call over elements.
struct Case<K: Tested, V: Tested> {
    options: Options,
    /// KV heads, query heads per KV head.
    heads: [usize; 2],
    queries: Vec<Grid>,
    keys: Elements<K>,
    values: Elements<V>,
    what: String,
}

impl<K: Tested, V: Tested> Case<K, V> {
    fn random(rng: &mut Rng) -> Self {
        let [kv_heads, group] = [rng.pick(&[1, 1, 2]), rng.pick(&[1, 1, 2])];
        let any = cases::size(rng);
        let tokens = rng.pick(&[1, 1, 2, 3, 4, 9, 17, any]);
        let near = 64 * rng.below(3) + rng.pick(&[0, 1, 63]);
        let keys = rng.pick(&[near, near, 130, SPAN + 70]);
        let (dim, width) = (1 + rng.below(40), 1 + rng.below(40));
        Self::of(rng, [kv_heads, group, tokens, keys, dim, width])
    }

    fn of(rng: &mut Rng, sizes: [usize; 6]) -> Self {
        let [kv_heads, group, tokens, keys, dim, width] = sizes;
        let options = Options::random(rng, kv_heads * group, keys, tokens);
        let queries =
            (0..kv_heads * group).map(|_| Grid::random(rng, Kind::Ordinary, tokens, dim)).collect();
        let what = format!("{sizes:?}, {options:?}");
        let keys = Elements::random(rng, kv_heads * keys, dim);
        let values = Elements::random(rng, kv_heads * values_of(&keys, kv_heads), width);
        Self { options, heads: [kv_heads, group], queries, keys, values, what }
    }

    fn outputs(&self) -> usize {
        self.queries.len() * self.queries[0].rows * self.values.widened.cols
    }

    fn stacked(&self) -> Vec<f32> {
        self.queries.iter().flat_map(|grid| grid.data.clone()).collect()
    }

    fn workspace(&self) -> Vec<f32> {
        let (dim, width) = (self.keys.widened.cols, self.values.widened.cols);
        vec![f32::NAN; Attention::elements_workspace(dim, width)]
    }

    /// Outputs and log-sum-exps.
    fn run(&self, backend: Backend) -> [Vec<f32>; 2] {
        let Grid { rows: tokens, cols: dim, .. } = self.queries[0];
        let (heads, width) = (self.queries.len(), self.values.widened.cols);
        let stacked = self.stacked();
        let queries = HeadsRef::stacked(&stacked, heads, tokens, dim).unwrap();
        let (mut out, mut logarithms) = (vec![0.0; self.outputs()], vec![0.0; heads * tokens]);
        let (keys, values) = (self.keys.heads(self.heads[0]), self.values.heads(self.heads[0]));
        let to = HeadsMut::stacked(&mut out, heads, tokens, width).unwrap();
        let attention = self.options.attention(backend);
        let workspace = &mut self.workspace();
        attention
            .run_elements(queries, keys, values, to, Some(&mut logarithms), workspace)
            .unwrap();
        [out, logarithms]
    }

    /// [`run`](Self::run) in plain scalar code.
    fn reference(&self, backend: Backend) -> [Vec<f32>; 2] {
        let [kv_heads, group] = self.heads;
        let (mut out, mut logarithms) = (Vec::new(), Vec::new());
        let keys = self.keys.widened.rows / kv_heads;
        for (head, queries) in self.queries.iter().enumerate() {
            let rows = head / group * keys..(head / group + 1) * keys;
            let part = |of: &Grid| {
                let data = of.data[rows.start * of.cols..rows.end * of.cols].to_vec();
                Grid { rows: keys, cols: of.cols, data }
            };
            let scales = [K::floats(&self.keys.scales), V::floats(&self.values.scales)];
            let answer = Reference::of(backend.family()).attention_with_scales(
                &self.options,
                head,
                [queries, &part(&self.keys.widened), &part(&self.values.widened)],
                scales.map(|scales| scales.map(|scales| &scales[rows.clone()])),
            );
            out.extend(answer.out.data);
            logarithms.extend(answer.log_sum_exp);
        }
        [out, logarithms]
    }
}

/// The number of values in a head with as many keys.
fn values_of<K: Tested>(keys: &Elements<K>, heads: usize) -> usize {
    keys.widened.rows / heads
}

/// Calls a function with every pair of elements that a test tries.
macro_rules! for_each_pair {
    ($function:ident($($argument:expr),*)) => {
        $function::<F16, F16>($($argument),*);
        $function::<Bf16, Bf16>($($argument),*);
        $function::<I8, I8>($($argument),*);
        $function::<F16, I8>($($argument),*);
        $function::<I8, f32>($($argument),*);
        $function::<f32, Bf16>($($argument),*);
        $function::<f32, f32>($($argument),*);
    };
}

fn attention_has_the_bits_of_widened_elements(backend: Backend) {
    fn check<K: Tested, V: Tested>(backend: Backend, rng: &mut Rng) {
        let case = Case::<K, V>::random(rng);
        let ([out, logarithms], [want, want_logarithms]) =
            (case.run(backend), case.reference(backend));
        assert_same_bits(&case.what, &out, &want);
        assert_same_bits(&case.what, &logarithms, &want_logarithms);
    }
    let mut rng = Rng::new(4);
    for _ in 0..60 {
        for_each_pair!(check(backend, &mut rng));
    }
}

/// Many queries, whose tiles see different blocks and spans.
fn groups_of_tiles_have_the_bits_of_widened_elements(backend: Backend) {
    fn check<K: Tested, V: Tested>(backend: Backend, rng: &mut Rng) {
        for tokens in [33, 64, 73, 130] {
            let keys = SPAN + 70;
            let mut case = Case::<K, V>::of(rng, [1, 1, tokens, keys, 5, 6]);
            let offset = (SPAN - rng.below(tokens)) as isize;
            for window in [[usize::MAX, 0], [70, 0], [rng.below(20), rng.below(20)]] {
                case.options = Options { window, offset, ..Options::new() };
                let what = format!("{tokens} queries, {:?}", case.options);
                let ([out, logarithms], [want, want_logarithms]) =
                    (case.run(backend), case.reference(backend));
                assert_same_bits(&what, &out, &want);
                assert_same_bits(&what, &logarithms, &want_logarithms);
            }
        }
    }
    let mut rng = Rng::new(9);
    for_each_pair!(check(backend, &mut rng));
}

/// The patterns of heads and their mean. Scales are powers of two: a score that is multiplied by one has the bits of that of
/// the floats.
fn patterns_have_the_bits_of_widened_keys(backend: Backend) {
    fn check<E: Tested>(backend: Backend, rng: &mut Rng) {
        let [kv_heads, group, tokens, dim] =
            [1 + rng.below(2), 1 + rng.below(3), rng.below(20), 1 + rng.below(40)];
        let any = 64 * rng.below(3) + rng.pick(&[0, 1, 63]);
        let (heads, keys) = (kv_heads * group, rng.pick(&[0, 1, 16, 17, any, any]));
        let floats = Grid::random(rng, Kind::Ordinary, kv_heads * keys, dim);
        let floats = E::near(&floats).unwrap();
        let elements = Elements::<E>::of(&floats);
        let options = Options { scale: None, ..Options::random(rng, heads, keys, tokens) };
        let what = format!("{heads} of {kv_heads}, {keys} × {tokens}, {dim}, {options:?}");
        let attention = options.attention(backend);
        let queries = Grid::random(rng, Kind::Ordinary, heads * tokens, dim);
        let q = HeadsRef::stacked(&queries.data, heads, tokens, dim).unwrap();
        let floats = HeadsRef::stacked(&floats.data, kv_heads, keys, dim).unwrap();
        let elements = elements.heads(kv_heads);
        let [mut got, mut want] = [0; 2].map(|_| vec![f32::NAN; heads * keys * tokens]);
        let [mut mean, mut want_mean] = [0; 2].map(|_| Grid::zeros(keys, tokens));

        let to = HeadsMut::stacked(&mut want, heads, keys, tokens).unwrap();
        attention.pattern(q, floats, to).unwrap();
        let cells = keys * tokens;
        let workspace = &mut vec![f32::NAN; cells];
        attention.mean_pattern(q, floats, want_mean.view_mut(), workspace).unwrap();

        let is_widened = size_of::<E>() < size_of::<f32>();
        let floats = if is_widened { KEY_BLOCK * dim } else { 0 };
        let workspace = &mut vec![f32::NAN; cells + floats];
        if is_widened {
            let to = HeadsMut::stacked(&mut got, heads, keys, tokens).unwrap();
            let result = attention.pattern_elements(q, elements, to, &mut workspace[..floats - 1]);
            assert_eq!(result, Err(Error::Workspace));
            assert!(got.iter().all(|weight| weight.is_nan()), "an error wrote");
        }
        if cells + floats > 0 {
            let (to, short) = (mean.view_mut(), cells + floats - 1);
            let result = attention.mean_pattern_elements(q, elements, to, &mut workspace[..short]);
            assert_eq!(result, Err(Error::Workspace));
            assert!(mean.data.iter().all(|weight| *weight == 0.0), "an error wrote");
        }
        let to = HeadsMut::stacked(&mut got, heads, keys, tokens).unwrap();
        attention.pattern_elements(q, elements, to, &mut workspace[..floats]).unwrap();
        attention.mean_pattern_elements(q, elements, mean.view_mut(), workspace).unwrap();
        assert_same_bits(&what, &got, &want);
        assert_same_bits(&format!("mean: {what}"), &mean.data, &want_mean.data);
    }
    let mut rng = Rng::new(12);
    for _ in 0..60 {
        check::<F16>(backend, &mut rng);
        check::<Bf16>(backend, &mut rng);
        check::<I8>(backend, &mut rng);
        check::<f32>(backend, &mut rng);
    }
}

/// Tokens one by one and in chunks, with sliding and truncating: the same bits as arrays of all that was appended.
fn caches_have_the_bits_of_arrays(backend: Backend) {
    const DIM: usize = 6;
    const WIDTH: usize = 5;
    const BLOCKS: usize = 3 * 64 / KEY_BLOCK;
    fn check<K: Tested, V: Tested>(backend: Backend, rng: &mut Rng) {
        let mut cache = KvCache::<DIM, WIDTH, BLOCKS, K, V>::default();
        let (mut keys, mut values) =
            (vec![K::ZERO; DIM * BLOCKS * KEY_BLOCK], vec![V::ZERO; WIDTH * BLOCKS * KEY_BLOCK]);
        let (mut key_scales, mut value_scales) =
            (K::room(BLOCKS * KEY_BLOCK), V::room(BLOCKS * KEY_BLOCK));
        let mut positions = CachePositions::default();
        let mut history = [Grid::zeros(0, DIM), Grid::zeros(0, WIDTH)];
        for _ in 0..12 {
            let chunk = 1 + rng.below(60);
            let new = [DIM, WIDTH].map(|cols| Grid::random(rng, Kind::Ordinary, chunk, cols));
            let room = (BLOCKS - 1) * KEY_BLOCK + 1 - chunk;
            cache.slide(room);
            cache.append(new[0].view(), new[1].view()).unwrap();
            let scales = (&mut key_scales[..], &mut value_scales[..]);
            let mut slices = KvCacheMut::with_scales(
                &mut keys,
                &mut values,
                scales,
                [DIM, WIDTH],
                &mut positions,
            )
            .unwrap();
            slices.slide(room);
            slices.append(new[0].view(), new[1].view()).unwrap();
            for (history, new) in history.iter_mut().zip(new) {
                history.data.extend(new.data);
                history.rows += new.rows;
            }

            let dropped = cache.dropped() as usize;
            let tokens = rng.pick(&[1, 1, 4, 9, 20]).min(chunk);
            let keep = Grid::from_fn(history[0].rows, tokens, |key, _| u8::from(key >= dropped));
            let options = Options {
                keep: Some(keep.into()),
                causal: true,
                offset: (history[0].rows - tokens) as isize,
                ..Options::new()
            };
            let case = Case {
                options,
                heads: [1, 1],
                queries: vec![Grid::random(rng, Kind::Ordinary, tokens, DIM)],
                keys: Elements::<K>::of(&history[0]),
                values: Elements::<V>::of(&history[1]),
                what: format!("{tokens} of {} keys, {dropped} dropped", history[0].rows),
            };
            let [want, want_logarithms] = case.reference(backend);
            let attention = Attention::new().on(backend).causal();
            let scales = (&key_scales[..], &value_scales[..]);
            let slices =
                KvCacheRef::with_scales(&keys, &values, scales, [DIM, WIDTH], positions).unwrap();
            for view in [cache.view(), slices] {
                let (mut out, mut logarithms) = (Grid::zeros(tokens, WIDTH), vec![0.0; tokens]);
                let (queries, to) = (case.queries[0].view(), out.view_mut());
                view.attend_with_log_sum_exp(
                    &attention,
                    queries,
                    to,
                    &mut logarithms,
                    &mut case.workspace(),
                )
                .unwrap();
                assert_same_bits(&case.what, &out.data, &want);
                assert_same_bits(&case.what, &logarithms, &want_logarithms);

                let (rows, all) = (view.len(), history[0].rows);
                let [mut got, mut want] = [rows, all].map(|rows| Grid::zeros(rows, tokens));
                let workspace = &mut case.workspace();
                view.pattern(&attention, queries, got.view_mut(), workspace).unwrap();
                let over_all = case.options.attention(backend);
                let keys = case.keys.heads(1);
                over_all.pattern_elements(queries, keys, want.view_mut(), workspace).unwrap();
                assert_same_bits(&case.what, &got.data, &want.data[dropped * tokens..]);
                let mut mean = Grid::zeros(rows, tokens);
                let workspace = &mut vec![f32::NAN; rows * tokens + KEY_BLOCK * DIM];
                view.mean_pattern(&attention, queries, mean.view_mut(), workspace).unwrap();
                assert_same_bits(&case.what, &mean.data, &got.data);
            }
            let mut copy = KvCache::<DIM, WIDTH, BLOCKS, K, V>::EMPTY;
            copy.copy_from(&cache);
            let mut out = Grid::zeros(tokens, WIDTH);
            let (queries, to) = (case.queries[0].view(), out.view_mut());
            copy.attend(&attention, queries, to, &mut case.workspace()).unwrap();
            assert_same_bits(&case.what, &out.data, &want);
        }
    }
    let mut rng = Rng::new(5);
    for_each_pair!(check(backend, &mut rng));
}

fn spans_join_to_the_bits_of_one_call(backend: Backend) {
    fn check<K: Tested, V: Tested>(backend: Backend, rng: &mut Rng) {
        let tokens = rng.pick(&[1, 3, 20]);
        let mut case = Case::<K, V>::of(rng, [1, 1, tokens, 2 * SPAN + 100, 7, 9]);
        case.options = Options { causal: true, offset: 2 * SPAN as isize, ..Options::new() };
        let [want, want_logarithms] = case.run(backend);
        let attention = case.options.attention(backend);
        let queries = case.queries[0].view();
        let state = Attention::state_floats(9);
        let mut states = vec![0.0; 3 * tokens * state];
        let (first, others) = states.split_at_mut(tokens * state);
        let part = |first: usize, end: usize| {
            let (keys, values) = (case.keys.heads(1), case.values.heads(1));
            (keys.rows(first..end).unwrap(), values.rows(first..end).unwrap())
        };
        let workspace = &mut case.workspace();
        let (keys, values) = part(SPAN, 2 * SPAN + 100);
        attention
            .run_elements_spans(queries, keys, values, SPAN as u64, others, workspace)
            .unwrap();
        let (keys, values) = part(0, SPAN);
        attention.run_elements_spans(queries, keys, values, 0, first, workspace).unwrap();
        let (mut out, mut logarithms) = (Grid::zeros(tokens, 9), vec![0.0; tokens]);
        attention.join(&states, out.view_mut(), Some(&mut logarithms)).unwrap();
        assert_same_bits(&case.what, &out.data, &want);
        assert_same_bits(&case.what, &logarithms, &want_logarithms);
    }
    let mut rng = Rng::new(6);
    for_each_pair!(check(backend, &mut rng));
}

/// NaN and ∞ in masked keys and values of 16 bits.
fn masked_elements_change_no_bit(backend: Backend) {
    fn check<E: Tested>(backend: Backend, rng: &mut Rng, of: impl Fn(f32) -> E) {
        for tokens in [1, 3, 9, 100] {
            let mut case = Case::<E, E>::of(rng, [1, 1, tokens, 100, 8, 9]);
            let keep = Grid::from_fn(100, tokens, |key, _| u8::from(key % 7 != 3));
            case.options = Options { keep: Some(keep.into()), ..Options::new() };
            let want = case.run(backend);
            for key in (3..100).step_by(7) {
                let x = rng.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
                case.keys.data[key * 8..][..8].fill(of(x));
                case.values.data[key * 9..][..9].fill(of(x));
            }
            let got = case.run(backend);
            assert_same_bits("masked", &got[0], &want[0]);
            assert_same_bits("masked", &got[1], &want[1]);
            // Visible, they are seen.
            case.options = Options::new();
            assert!(case.run(backend)[0].iter().all(|x| x.is_nan()));
        }
    }
    let mut rng = Rng::new(7);
    check(backend, &mut rng, F16::from_f32);
    check(backend, &mut rng, Bf16::from_f32);

    // Scales with which masked scores and values overflow.
    for tokens in [1, 3, 9, 100] {
        let mut case = Case::<I8, I8>::of(&mut rng, [1, 1, tokens, 100, 8, 9]);
        let keep = Grid::from_fn(100, tokens, |key, _| u8::from(key % 7 != 3));
        case.options = Options { keep: Some(keep.into()), ..Options::new() };
        let want = case.run(backend);
        for key in (3..100).step_by(7) {
            // Scores of +∞ and of −∞: whatever the query, some weights are not 0.
            let x = if key % 2 == 0 { 127 } else { -127 };
            case.keys.data[key * 8..][..8].fill(I8::new(x));
            case.values.data[key * 9..][..9].fill(I8::new(127));
            case.keys.scales[key] = f32::MAX;
            case.values.scales[key] = f32::MAX;
        }
        let got = case.run(backend);
        assert_same_bits("masked", &got[0], &want[0]);
        assert_same_bits("masked", &got[1], &want[1]);
        case.options = Options::new();
        assert!(case.run(backend)[0].iter().any(|x| !x.is_finite()));
    }
}

/// Attention without options, in f64: outputs, and for each output the bound of `docs/numerics.md` on what the rounding
/// of keys and values changes. `of_element` returns the largest error of an
/// element of a row.
fn cost_of_rounding(
    [queries, keys, values]: [&Grid; 3],
    of_element: impl Fn(&[f32], f32) -> f64,
) -> [Vec<f64>; 2] {
    let scale = 1.0 / (queries.cols as f64).sqrt();
    let [mut out, mut bound] = [Vec::new(), Vec::new()];
    for query in 0..queries.rows {
        let query = queries.row(query);
        let pairs = |key| query.iter().zip(keys.row(key)).map(|(&q, &k)| (q, k));
        let scores: Vec<f64> = (0..keys.rows)
            .map(|key| scale * pairs(key).map(|(q, k)| f64::from(q) * f64::from(k)).sum::<f64>())
            .collect();
        let delta = (0..keys.rows).map(|key| {
            let error = |(q, k): (f32, f32)| f64::from(q.abs()) * of_element(keys.row(key), k);
            scale * pairs(key).map(error).sum::<f64>()
        });
        let delta = delta.fold(0.0, f64::max);
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for col in 0..values.cols {
            let all =
                || weights.iter().zip(0..).map(|(w, key)| (w / sum, values.at(key, col), key));
            let mean: f64 = all().map(|(w, v, _)| w * f64::from(v)).sum();
            let spread: f64 = all().map(|(w, v, _)| w * (f64::from(v) - mean).abs()).sum();
            let rounding: f64 = all().map(|(w, v, key)| w * of_element(values.row(key), v)).sum();
            let factor = (2.0 * delta).exp();
            out.push(mean);
            bound.push((factor - 1.0) * spread + factor * rounding);
        }
    }
    [out, bound]
}

/// The largest error of an element `x` of a row.
fn error_of<E: Tested>(row: &[f32], x: f32) -> f64 {
    let largest = row.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    let x = f64::from(x.abs());
    match std::any::type_name::<E>().rsplit("::").next() {
        Some("F16") => (x * 2.0_f64.powi(-11)).max(2.0_f64.powi(-25)),
        Some("Bf16") => x * 2.0_f64.powi(-8),
        Some("I8") => f64::from(largest) / 254.0 * 1.000001,
        name => panic!("no bound for {name:?}"),
    }
}

/// The largest deviation of an output from f64, after it was seen to be within its bound.
fn deviation<E: Tested>(backend: Backend, grids: [&Grid; 3]) -> f64 {
    let [queries, keys, values] = grids;
    let (of_keys, of_values) = (Elements::<E>::of(keys), Elements::<E>::of(values));
    let mut out = Grid::zeros(queries.rows, values.cols);
    let workspace = &mut vec![0.0; Attention::elements_workspace(keys.cols, values.cols)];
    let (keys, values) = (of_keys.heads(1), of_values.heads(1));
    let attention = Attention::new().on(backend);
    attention.run_elements(queries.view(), keys, values, out.view_mut(), None, workspace).unwrap();
    let [want, bound] = cost_of_rounding(grids, error_of::<E>);
    let mut largest = 0.0;
    for ((got, want), bound) in out.data.iter().zip(want).zip(bound) {
        let error = (f64::from(*got) - want).abs();
        // The arithmetic in f32 is measured elsewhere; here it is far below.
        assert!(error <= bound + 1e-5, "{error:e} is above {bound:e}");
        largest = f64::max(largest, error);
    }
    largest
}

fn rounding_costs_what_the_docs_say(backend: Backend) {
    let mut rng = Rng::new(8);
    for _ in 0..40 {
        let [tokens, keys] = [1 + rng.below(20), 1 + rng.below(150)];
        let [dim, width] = [1 + rng.below(64), 1 + rng.below(64)];
        let kind = Kind::Ordinary;
        let queries = Grid::random(&mut rng, kind, tokens, dim);
        let [keys, values] = [dim, width].map(|cols| Grid::random(&mut rng, kind, keys, cols));
        deviation::<F16>(backend, [&queries, &keys, &values]);
        deviation::<Bf16>(backend, [&queries, &keys, &values]);
        deviation::<I8>(backend, [&queries, &keys, &values]);
    }

    // The trained head of the example, and the table of docs/numerics.md.
    let grid = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/minilm-l2h1");
        let file = fs::read(folder.join(name)).unwrap();
        let file = npyz::NpyFile::new(&file[..]).unwrap();
        let shape = file.shape().to_vec();
        let cols = shape.get(1).map_or(1, |&cols| cols as usize);
        Grid { rows: shape[0] as usize, cols, data: file.into_vec::<f32>().unwrap() }
    };
    let embeddings = grid("embeddings.npy");
    let project = |name: &str| {
        let (w, bias) = (grid(&format!("w_{name}.npy")), grid(&format!("b_{name}.npy")));
        let w = if w.rows == embeddings.cols { w } else { w.t() };
        let mut out = Grid::zeros(embeddings.rows, w.cols);
        backend.project(embeddings.view(), w.view(), Some(&bias.data), out.view_mut()).unwrap();
        out
    };
    let [queries, keys, values] = ["query", "key", "value"].map(project);
    let grids = [&queries, &keys, &values];
    let largest = [
        deviation::<F16>(backend, grids),
        deviation::<Bf16>(backend, grids),
        deviation::<I8>(backend, grids),
    ];
    let docs = include_str!("../docs/numerics.md");
    let line = docs.lines().find(|line| line.starts_with("| largest deviation of an output"));
    let cells: Vec<f64> =
        line.expect("the table").split('|').filter_map(|cell| cell.trim().parse().ok()).collect();
    assert_eq!(cells.len(), 3);
    for (largest, said) in largest.into_iter().zip(cells) {
        assert!(largest <= said && said <= 1.2 * largest, "{largest:e}, the docs say {said}");
    }
}

fn refuses_what_disagrees(backend: Backend) {
    let floats = Grid::from_fn(2, 3, |row, col| (row + col) as f32);
    let view = floats.view();
    assert_eq!(narrow(view, &mut [F16::default(); 5], &mut []), Err(Error::Shape));
    assert_eq!(narrow(view, &mut [I8::default(); 6], &mut [0.0]), Err(Error::Shape));
    for x in [f32::NAN, f32::INFINITY, 65520.0, f32::MAX] {
        let row = [1.0, x];
        let row = MatrixRef::from_row(&row);
        let (mut to, mut scale) = ([I8::new(7); 2], [3.0]);
        let want = if x.is_finite() { Ok(()) } else { Err(Error::Range) };
        assert_eq!(narrow(row, &mut to, &mut scale), want, "{x}");
        assert_eq!(scale == [3.0], want.is_err());
        assert_eq!(to[0].get() == 7, want.is_err());
        let mut to = [F16::from_bits(7); 2];
        let want = if x.is_finite() { Err(Error::Range) } else { Ok(()) };
        assert_eq!(narrow(row, &mut to, &mut []), want, "{x}");
        assert_eq!(to[0].to_bits() == 7, want.is_err());
        let mut to = [Bf16::from_bits(7); 2];
        let want = if x == f32::MAX { Err(Error::Range) } else { Ok(()) };
        assert_eq!(narrow(row, &mut to, &mut []), want, "{x}");

        let mut cache = KvCache::<2, 2, 1, F16, I8>::EMPTY;
        let good = [1.0, 1.0];
        let good = MatrixRef::from_row(&good);
        assert_eq!(cache.append(good, row).is_err(), !x.is_finite(), "{x}");
        let len = cache.len();
        assert_eq!(cache.append(row, good).is_err(), x.is_finite(), "{x}");
        assert_eq!(cache.len(), len + usize::from(!x.is_finite()));
    }

    let elements = Elements::<I8>::of(&floats);
    let x = Grid::zeros(1, 2);
    let mut out = Grid::zeros(1, 3);
    for scales in [&[][..], &[1.0; 2], &[1.0; 4]] {
        let result =
            backend.project_elements(x.view(), elements.matrix(), scales, None, out.view_mut());
        assert_eq!(result, Err(Error::Shape));
    }
    let bias = Some(&[0.0; 2][..]);
    let w = elements.matrix();
    assert_eq!(project_elements(x.view(), w, &[1.0; 3], bias, out.view_mut()), Err(Error::Shape));
    assert_eq!(
        project_elements(x.view(), w.t(), &[1.0; 2], None, out.view_mut()),
        Err(Error::Shape)
    );

    let scales = [1.0, f32::NAN];
    let of = |len| ElementsRef::with_scales(w, MatrixRef::from_row(&scales[..len])).map(|_| ());
    assert_eq!((of(1), of(2)), (Err(Error::Shape), Err(Error::Range)));

    let cache = |key_scales: usize, value_scales: usize| {
        let [mut keys, mut values] = [[I8::default(); 3 * KEY_BLOCK]; 2];
        let (mut key_scales, mut value_scales) = (vec![0.0; key_scales], vec![0.0; value_scales]);
        let scales = (&mut key_scales[..], &mut value_scales[..]);
        let mut positions = CachePositions::default();
        KvCacheMut::with_scales(&mut keys, &mut values, scales, [3, 3], &mut positions).map(|_| ())
    };
    assert_eq!(cache(KEY_BLOCK, KEY_BLOCK - 1), Err(Error::Shape));
    assert_eq!(cache(KEY_BLOCK - 1, KEY_BLOCK), Err(Error::Shape));
    assert_eq!(cache(KEY_BLOCK, KEY_BLOCK), Ok(()));

    let keys = elements.heads(1);
    let queries = Grid::zeros(1, 3);
    let mut short = vec![0.0; Attention::elements_workspace(3, 3) - 1];
    let attention = Attention::new().on(backend);
    let result =
        attention.run_elements(queries.view(), keys, keys, out.view_mut(), None, &mut short);
    assert_eq!(result, Err(Error::Workspace));
}
