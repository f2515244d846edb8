//! Makes the calls of tests/calls.c to the Rust crate: both must print the same, on each back end.
//!
//! With `SDPA_BREAK_BITS=1` in the environment one bit of one result is flipped.

use sdpa::{
    Attention, Backend, Bf16, CachePositions, Element, ElementsRef, Error, F16, HeadsMut, HeadsRef,
    I8, KvCacheMut, MatrixMut, MatrixRef, Pairs, RotaryTable, narrow,
};

struct Calls {
    on: Backend,
    state: u64,
    digest: u64,
}

/// A matrix in a buffer, with its shape and strides.
struct TestMatrix {
    data: Vec<f32>,
    shape: [usize; 2],
    strides: [usize; 2],
}

impl TestMatrix {
    fn view(&self) -> MatrixRef<'_> {
        let ([rows, cols], [row, col]) = (self.shape, self.strides);
        MatrixRef::with_strides(&self.data, rows, cols, row, col).unwrap()
    }

    fn view_mut(&mut self) -> MatrixMut<'_> {
        let ([rows, cols], [row, col]) = (self.shape, self.strides);
        MatrixMut::with_strides(&mut self.data, rows, cols, row, col).unwrap()
    }
}

/// The options of a call, with the memory that they refer to.
struct Options {
    flags: usize,
    scale: f32,
    softcap: f32,
    query_offset: isize,
    window: [usize; 2],
    bias: Option<TestMatrix>,
    keep: Option<Vec<u8>>,
    sink: Option<f32>,
    shape: [usize; 2],
}

impl Options {
    fn attention(&self) -> Attention<'_> {
        let [keys, queries] = self.shape;
        let mut attention = Attention::new().query_offset(self.query_offset);
        if self.flags & 1 != 0 {
            attention = attention.causal();
        }
        if self.flags & 2 != 0 {
            attention = attention.window(self.window[0], self.window[1]);
        }
        if self.scale != 0.0 {
            attention = attention.scale(self.scale);
        }
        if self.softcap != 0.0 {
            attention = attention.softcap(self.softcap);
        }
        if let Some(bias) = &self.bias {
            attention = attention.bias(bias.view());
        }
        if let Some(keep) = &self.keep {
            attention = attention.keep(MatrixRef::new(keep, keys, queries).unwrap());
        }
        self.sink.map_or(attention, |sink| attention.sink(sink))
    }
}

/// An element with its scales, if it has some.
trait Scaled: Element {
    fn room(rows: usize) -> Vec<Self::Scale>;
    fn view<'a>(of: MatrixRef<'a, Self>, scales: &'a [Self::Scale]) -> ElementsRef<'a, Self>;
}

macro_rules! unscaled {
    ($($element:ty)+) => {
        $(impl Scaled for $element {
            fn room(_: usize) -> Vec<()> {
                vec![]
            }

            fn view<'a>(of: MatrixRef<'a, Self>, _: &'a [()]) -> ElementsRef<'a, Self> {
                of.into()
            }
        })+
    };
}
unscaled! { f32 F16 Bf16 }

impl Scaled for I8 {
    fn room(rows: usize) -> Vec<f32> {
        vec![0.0; rows]
    }

    fn view<'a>(of: MatrixRef<'a, Self>, scales: &'a [f32]) -> ElementsRef<'a, Self> {
        ElementsRef::with_scales(of, MatrixRef::from_row(scales)).unwrap()
    }
}

impl Calls {
    /// Rows of random floats, rounded.
    fn narrowed<E: Scaled>(&mut self, rows: usize, cols: usize) -> (Vec<E>, Vec<E::Scale>) {
        let floats = self.take(rows * cols);
        let (mut to, mut scales) = (vec![E::ZERO; rows * cols], E::room(rows));
        let floats = MatrixRef::new(&floats, rows, cols).unwrap();
        self.note_status(narrow(floats, &mut to, &mut scales));
        (to, scales)
    }

    fn elements<K: Scaled, V: Scaled>(&mut self, workspace: &mut [f32]) {
        let (n, tokens) = (1 + self.below(40), 1 + self.below(9));
        let (dim, width) = (1 + self.below(20), 1 + self.below(20));
        let (keys, key_scales) = self.narrowed::<K>(n, dim);
        let (values, value_scales) = self.narrowed::<V>(n, width);
        let keys = K::view(MatrixRef::new(&keys, n, dim).unwrap(), &key_scales);
        let values = V::view(MatrixRef::new(&values, n, width).unwrap(), &value_scales);
        let (q, mut out) = (self.take(tokens * dim), self.take(tokens * width));
        let (mut lse, mut states) =
            (self.take(tokens), self.take(tokens * Attention::state_floats(width)));
        let q = MatrixRef::new(&q, tokens, dim).unwrap();
        let attention = Attention::new().on(self.on).causal().query_offset(7);
        let logs = Some(&mut lse[..]);
        let to = MatrixMut::new(&mut out, tokens, width).unwrap();
        let result = attention.run_elements(q, keys, values, to, logs, workspace);
        self.note_status(result);
        self.note_floats(&out);
        self.note_floats(&lse);
        let lengths = [[1, n / 2], [tokens - 1, n - n / 2]];
        let to = MatrixMut::new(&mut out, tokens, width).unwrap();
        let logs = Some(&mut lse[..]);
        let result = attention.run_elements_packed(q, keys, values, &lengths, to, logs, workspace);
        self.note_status(result);
        self.note_floats(&out);
        self.note_floats(&lse);
        let result = attention.run_elements_spans(q, keys, values, 0, &mut states, workspace);
        self.note_status(result);
        self.note_floats(&states);

        let (keys, values) = (self.take(n * dim), self.take(n * width));
        let (mut keys_held, mut values_held) = (vec![K::ZERO; dim * 64], vec![V::ZERO; width * 64]);
        let mut scales = (K::room(64), V::room(64));
        let mut span = CachePositions::new(3, 3).unwrap();
        let mut cache = KvCacheMut::<K, V>::with_scales(
            &mut keys_held,
            &mut values_held,
            (&mut scales.0, &mut scales.1),
            [dim, width],
            &mut span,
        )
        .unwrap();
        self.note_status(Ok(()));
        for count in [n, n.min(21)] {
            let keys = MatrixRef::new(&keys[..count * dim], count, dim).unwrap();
            let values = MatrixRef::new(&values[..count * width], count, width).unwrap();
            self.note_status(cache.append(keys, values));
            let result = cache.view().attend_with_log_sum_exp(
                &attention,
                q,
                MatrixMut::new(&mut out, tokens, width).unwrap(),
                &mut lse,
                workspace,
            );
            self.note_status(result);
            self.note_floats(&out);
            self.note_floats(&lse);
            cache.slide(self.below(25));
            self.note_status(Ok(()));
        }

        let (w, scales) = self.narrowed::<K>(width, dim);
        let w = MatrixRef::new(&w, width, dim).unwrap().t();
        let bias = self.one_in(2).then(|| self.take(width));
        let to = MatrixMut::new(&mut out, tokens, width).unwrap();
        let result = self.on.project_elements(q, w, &scales, bias.as_deref(), to);
        self.note_status(result);
        self.note_floats(&out);
    }

    fn rotation(&mut self, tokens: usize, dim: usize) {
        let (count, positions) = (1 + self.below(dim / 2), tokens + self.below(3));
        let first = 1 << self.below(53);
        let pairs = [Pairs::Halves, Pairs::Interleaved][self.below(2)];
        let (mut x, mut out) = (self.matrix(tokens, dim), self.matrix(tokens, dim));
        let mut memory = self.take(RotaryTable::floats(positions, count));
        let range = first..first + positions as u64;
        let table = match self.one_in(2) {
            true => RotaryTable::with_frequencies(&self.take(count), range, &mut memory),
            false => RotaryTable::new(1e4, count, range, &mut memory),
        };
        self.note_status(table.map(drop));
        let Ok(table) = table else { return };
        let position = first + (positions - tokens) as u64;
        self.note_status(self.on.rotate(x.view(), &table, position, pairs, out.view_mut()));
        self.note_matrix(&out);
        self.note_status(self.on.rotate_in_place(x.view_mut(), &table, position, pairs));
        self.note_matrix(&x);
    }

    fn elements_of<K: Scaled>(&mut self, workspace: &mut [f32]) {
        match self.below(4) {
            0 => self.elements::<K, f32>(workspace),
            1 => self.elements::<K, F16>(workspace),
            2 => self.elements::<K, Bf16>(workspace),
            _ => self.elements::<K, I8>(workspace),
        }
    }

    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (((self.bits() >> 32) * end as u64) >> 32) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn value(&mut self) -> f32 {
        (self.bits() >> 40) as f32 * (1.0 / 4_194_304.0) - 2.0
    }

    fn note(&mut self, word: u64) {
        self.digest = (self.digest ^ word).wrapping_mul(0x100_0000_01b3);
    }

    fn note_status(&mut self, result: Result<(), Error>) {
        self.note(match result {
            Ok(()) => 0,
            Err(Error::Shape) => unreachable!("shapes agree"),
            Err(Error::Stride) => 3,
            Err(Error::Alias) => 4,
            Err(Error::Workspace) => 5,
            Err(Error::Capacity) => 6,
            Err(_) => 7,
        });
    }

    fn note_floats(&mut self, floats: &[f32]) {
        for x in floats {
            self.note(u64::from(if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }));
        }
    }

    fn note_matrix(&mut self, matrix: &TestMatrix) {
        for row in 0..matrix.shape[0] {
            for col in 0..matrix.shape[1] {
                self.note_floats(&[matrix.view().get(row, col).unwrap()]);
            }
        }
    }

    fn take(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }

    fn matrix(&mut self, rows: usize, cols: usize) -> TestMatrix {
        let shape = [rows, cols];
        if self.one_in(3) {
            let pitch = rows + self.below(3);
            TestMatrix { data: self.take(cols * pitch), shape, strides: [1, pitch] }
        } else {
            let pitch = cols + self.below(3);
            TestMatrix { data: self.take(rows * pitch), shape, strides: [pitch, 1] }
        }
    }

    fn options(&mut self, keys: usize, queries: usize) -> Options {
        let flags = self.below(4);
        let scale = if self.one_in(2) { 0.0 } else { self.value() };
        let softcap = if self.one_in(4) { 2.5 + self.value() } else { 0.0 };
        let query_offset = self.below(80) as isize - 40;
        let window = if flags & 2 == 0 { [0; 2] } else { [self.below(50), self.below(50)] };
        let bias = self.one_in(3).then(|| self.matrix(keys, queries));
        let keep = self
            .one_in(3)
            .then(|| (0..keys * queries).map(|_| u8::from(!self.one_in(4))).collect());
        let sink = self.one_in(3).then(|| self.value());
        let shape = [keys, queries];
        Options { flags, scale, softcap, query_offset, window, bias, keep, sink, shape }
    }

    fn cache(&mut self, workspace: &mut [f32]) {
        let (dim, width) = (1 + self.below(20), 1 + self.below(20));
        let _ = self.take((dim + width) * 192);
        let mut keys_held = vec![0.0; dim * 192];
        let mut values_held = vec![0.0; width * 192];
        let mut span = CachePositions::default();
        let mut cache =
            KvCacheMut::new(&mut keys_held, &mut values_held, dim, width, &mut span).unwrap();
        self.note_status(Ok(()));
        for _ in 0..8 {
            let (n, count) = (1 + self.below(30), 1 + self.below(3));
            let (keys, values) = (self.matrix(n, dim), self.matrix(n, width));
            self.note_status(cache.append(keys.view(), values.view()));
            cache.slide(10 + self.below(60));
            self.note_status(Ok(()));
            let (queries, mut out) = (self.matrix(count, dim), self.matrix(count, width));
            let mut lse = self.take(count);
            let result = cache.view().attend_with_log_sum_exp(
                &Attention::new().on(self.on).causal(),
                queries.view(),
                out.view_mut(),
                &mut lse,
                workspace,
            );
            self.note_status(result);
            self.note_matrix(&out);
            self.note_floats(&lse);
        }
    }

    fn heads(&mut self, workspace: &mut [f32]) {
        let (groups, key_heads) = (1 + self.below(3), 1 + self.below(2));
        let count = groups * key_heads;
        let (keys, tokens) = (1 + self.below(40), 1 + self.below(9));
        let (dim, width) = (1 + self.below(20), 1 + self.below(20));
        let (q, k) = (self.take(tokens * count * dim), self.take(keys * key_heads * dim));
        let (v, mut out) = (self.take(keys * key_heads * width), self.take(tokens * count * width));
        let mut options = self.options(keys, tokens);
        let sinks = self.one_in(2).then(|| self.take(count));
        if sinks.is_some() {
            options.sink = None;
        }
        let slopes = self.one_in(2).then(|| self.take(count));
        let masks = self.one_in(3).then(|| {
            let bias = self.take(count * keys * tokens);
            let keep: Vec<u8> =
                (0..count * keys * tokens).map(|_| u8::from(!self.one_in(4))).collect();
            (bias, keep)
        });
        let mut lse = self.take(count * tokens);
        let mut attention = options.attention().on(self.on);
        if let Some(sinks) = &sinks {
            attention = attention.sinks(sinks);
        }
        if let Some(slopes) = &slopes {
            attention = attention.slopes(slopes);
        }
        if let Some((bias, keep)) = &masks {
            let bias = HeadsRef::stacked(bias, count, keys, tokens).unwrap();
            let keep = HeadsRef::stacked(keep, count, keys, tokens).unwrap();
            attention = attention.bias(bias).keep(keep);
        }
        let result = attention.run_with_log_sum_exp(
            HeadsRef::interleaved(&q, count, tokens, dim).unwrap(),
            HeadsRef::stacked(&k, key_heads, keys, dim).unwrap(),
            HeadsRef::stacked(&v, key_heads, keys, width).unwrap(),
            HeadsMut::interleaved(&mut out, count, tokens, width).unwrap(),
            &mut lse,
            workspace,
        );
        self.note_status(result);
        self.note_floats(&out);
        self.note_floats(&lse);
        let [first_queries, first_keys] = [tokens, keys].map(|n| self.below(n + 1));
        let lengths = [[first_queries, first_keys], [tokens - first_queries, keys - first_keys]];
        let result = attention.run_packed(
            HeadsRef::interleaved(&q, count, tokens, dim).unwrap(),
            HeadsRef::stacked(&k, key_heads, keys, dim).unwrap(),
            HeadsRef::stacked(&v, key_heads, keys, width).unwrap(),
            &lengths,
            HeadsMut::interleaved(&mut out, count, tokens, width).unwrap(),
            Some(&mut lse),
            workspace,
        );
        self.note_status(result);
        self.note_floats(&out);
        self.note_floats(&lse);
    }

    fn call(&mut self, workspace: &mut [f32]) {
        let op = self.below(14);
        let (rows, cols, depth) = (1 + self.below(40), 1 + self.below(40), 1 + self.below(70));
        match op {
            0 | 1 => {
                let n = self.below(300);
                let (a, b, mut out) = (self.take(n), self.take(n), self.take(n + 1));
                if op == 0 {
                    out = vec![self.on.dot(&a, &b).unwrap()];
                    self.note_status(Ok(()));
                } else {
                    out.truncate(n);
                    self.note_status(self.on.softmax(&a, &mut out));
                }
                self.note_floats(&out);
            }
            2 | 3 => {
                let (x, mut out) = (self.matrix(rows, cols), self.matrix(rows, cols));
                let (from, to, on) = (x.view(), out.view_mut(), self.on);
                let rows = op == 2;
                let result =
                    if rows { on.softmax_rows(from, to) } else { on.softmax_columns(from, to) };
                self.note_status(result);
                self.note_matrix(&out);
            }
            4 => {
                let (x, w) = (self.matrix(rows, depth), self.matrix(depth, cols));
                let bias = self.one_in(2).then(|| self.take(cols));
                let mut out = self.matrix(rows, cols);
                let result = self.on.project(x.view(), w.view(), bias.as_deref(), out.view_mut());
                self.note_status(result);
                self.note_matrix(&out);
            }
            5 => {
                let (keys, queries) = (self.matrix(rows, depth), self.matrix(cols, depth));
                let scale = (!self.one_in(2)).then(|| self.value());
                let mut out = self.matrix(rows, cols);
                let result = self.on.scores(keys.view(), queries.view(), scale, out.view_mut());
                self.note_status(result);
                self.note_matrix(&out);
            }
            6 => {
                let (pattern, values) = (self.matrix(rows, cols), self.matrix(rows, depth));
                let mut out = self.matrix(cols, depth);
                let result = self.on.weighted_sum(pattern.view(), values.view(), out.view_mut());
                self.note_status(result);
                self.note_matrix(&out);
            }
            7 | 8 => {
                let (queries, keys) = (self.matrix(cols, depth), self.matrix(rows, depth));
                let options = self.options(rows, cols);
                if op == 7 {
                    let mut out = self.matrix(rows, cols);
                    let attention = options.attention().on(self.on);
                    let result = attention.pattern(queries.view(), keys.view(), out.view_mut());
                    self.note_status(result);
                    self.note_matrix(&out);
                    return;
                }
                let width = 1 + self.below(40);
                let (values, mut out) = (self.matrix(rows, width), self.matrix(cols, width));
                let mut lse = self.take(cols);
                let result = options.attention().on(self.on).run_with_log_sum_exp(
                    queries.view(),
                    keys.view(),
                    values.view(),
                    out.view_mut(),
                    &mut lse,
                    workspace,
                );
                self.note_status(result);
                self.note_matrix(&out);
                self.note_floats(&lse);
            }
            9 => self.heads(workspace),
            10 => {
                let (mut out, mut lse) = (self.matrix(rows, cols), self.take(rows));
                let (other, other_lse) = (self.matrix(rows, cols), self.take(rows));
                let result = self.on.merge(out.view_mut(), &mut lse, other.view(), &other_lse);
                self.note_status(result);
                self.note_matrix(&out);
                self.note_floats(&lse);
            }
            11 => self.cache(workspace),
            12 => self.rotation(rows, 1 + depth),
            _ => match self.below(4) {
                0 => self.elements_of::<f32>(workspace),
                1 => self.elements_of::<F16>(workspace),
                2 => self.elements_of::<Bf16>(workspace),
                _ => self.elements_of::<I8>(workspace),
            },
        }
    }
}

fn main() {
    let mut workspace = vec![0.0; Attention::elements_workspace(70, 40)];
    let mut calls = |on: Backend, name: &str| {
        let mut calls = Calls { on, state: 2017, digest: 0xcbf2_9ce4_8422_2325 };
        for _ in 0..1000 {
            calls.call(&mut workspace);
        }
        calls.digest ^= u64::from(std::env::var_os("SDPA_BREAK_BITS").is_some());
        println!("1000 calls on {name}: {:016x}", calls.digest);
    };
    calls(Backend::best(), "the best");
    Backend::available().for_each(|on| calls(on, on.name()));
}
