//! Every operation over small matrices that end at the end of their allocation, in every layout, so that Miri
//! detects each access out of bounds:
//!
//! ```text
//! RUSTFLAGS="-C target-feature=+avx2,+fma" cargo +$(cat .ci/nightly) miri test --test all memory::avx2
//! ```
//!
//! Without Miri it checks that all layouts have the same bits.

use crate::common::{
    assert_same_bits,
    cases::{Kind, Layout, Rng},
    elements::{Elements, Tested},
    grid::{Grid, GuardedMatrix},
    mask::Mask,
    options::Options,
};
use sdpa::{
    Attention, Backend, Bf16, CachePositions, F16, HeadsMut, HeadsRef, I8, KvCacheMut, MatrixMut,
    MatrixRef, Pairs, RotaryTable,
};

suite! {
    slices,
    softmax_of_rows_and_columns,
    products,
    attention_of_a_head,
    attention_of_heads,
    attention_from_a_cache,
    projections_of_elements,
    attention_of_elements,
    attention_from_a_cache_of_elements,
    merged_parts,
    rotated_rows,
}

/// Contiguous, with padded rows, transposed, transposed with gaps; the buffer ends with the last element.
fn layouts(rows: usize, cols: usize) -> Vec<Layout> {
    let of = |row_stride, col_stride| {
        let len = (rows - 1) * row_stride + (cols - 1) * col_stride + 1;
        Layout { rows, cols, start: 0, row_stride, col_stride, len }
    };
    let (r, c) = (rows, cols);
    vec![of(c, 1), of(c + 3, 1), of(1, r), of(2, 2 * r)]
}

fn random(rng: &mut Rng, rows: usize, cols: usize) -> Grid {
    Grid::random(rng, Kind::Ordinary, rows, cols)
}

/// Calls `run` with its operands in every layout: each result has the bits of the first.
fn in_every_layout<const N: usize>(
    what: &str,
    inputs: [&Grid; N],
    out: [usize; 2],
    mut run: impl FnMut([&GuardedMatrix; N], MatrixMut<'_>),
) -> Grid {
    let [rows, cols] = out;
    let mut first: Option<Grid> = None;
    for i in 0..layouts(1, 1).len() {
        // Each operand has another layout than the one before.
        let held: Vec<GuardedMatrix> = (inputs.iter().enumerate())
            .map(|(at, grid)| {
                let layouts = layouts(grid.rows, grid.cols);
                GuardedMatrix::of(grid, layouts[(i + at * usize::from(i > 0)) % layouts.len()])
            })
            .collect();
        let mut to = GuardedMatrix::empty(layouts(rows, cols)[i]);
        run(std::array::from_fn(|at| &held[at]), to.view_mut());
        let got = to.checked(what);
        let first = first.get_or_insert_with(|| got.clone());
        assert_same_bits(&format!("{what}, layout {i}"), &got.data, &first.data);
    }
    first.expect("layouts")
}

fn slices(backend: Backend) {
    let rng = &mut Rng::new(1);
    for n in [1, 3, 8, 17, 40, 67] {
        let (a, b) = (random(rng, 1, n), random(rng, 1, n));
        assert!(backend.dot(&a.data, &b.data).expect("shape").is_finite());
        let mut out = vec![0.0; n];
        backend.softmax(&a.data, &mut out).expect("shape");
        let mut x = a.data.clone();
        backend.softmax_in_place(&mut x);
        assert_same_bits("softmax", &x, &out);
    }
}

fn softmax_of_rows_and_columns(backend: Backend) {
    let rng = &mut Rng::new(2);
    for [rows, cols] in [[1, 1], [9, 3], [3, 19]] {
        let x = random(rng, rows, cols);
        let out = in_every_layout("rows", [&x], [rows, cols], |[x], out| {
            backend.softmax_rows(x.view(), out).expect("shape");
        });
        let mut there = x.clone();
        backend.softmax_rows_in_place(there.view_mut());
        assert_same_bits("rows in place", &there.data, &out.data);
        let out = in_every_layout("columns", [&x], [rows, cols], |[x], out| {
            backend.softmax_columns(x.view(), out).expect("shape");
        });
        let mut there = x;
        backend.softmax_columns_in_place(there.view_mut());
        assert_same_bits("columns in place", &there.data, &out.data);
    }
}

fn products(backend: Backend) {
    let rng = &mut Rng::new(3);
    for [rows, cols, depth] in [[1, 1, 1], [2, 9, 5], [9, 3, 4], [3, 7, 65]] {
        let (left, right) = (random(rng, rows, depth), random(rng, depth, cols));
        let bias = random(rng, 1, cols);
        in_every_layout("project", [&left, &right], [rows, cols], |[x, w], out| {
            backend.project(x.view(), w.view(), Some(&bias.data), out).expect("shape");
        });
        let queries = right.t();
        in_every_layout("scores", [&left, &queries], [rows, cols], |[keys, queries], out| {
            backend.scores(keys.view(), queries.view(), None, out).expect("shape");
        });
        let pattern = left.t();
        in_every_layout("weighted sum", [&pattern, &right], [rows, cols], |[p, values], out| {
            backend.weighted_sum(p.view(), values.view(), out).expect("shape");
        });
    }
}

/// Queries, keys, dim and width: every kind of tile of 4 and of 8 lanes, and keys of two blocks.
const SHAPES: [[usize; 4]; 5] =
    [[1, 65, 5, 9], [2, 9, 9, 3], [4, 3, 3, 17], [7, 7, 8, 8], [18, 8, 5, 7]];

fn attention_of_a_head(backend: Backend) {
    let rng = &mut Rng::new(4);
    for [tokens, keys, dim, width] in SHAPES {
        let (q, k) = (random(rng, tokens, dim), random(rng, keys, dim));
        let mut v = random(rng, keys, width);
        let mut workspace = vec![f32::NAN; Attention::workspace(dim, width)];
        // A value that some queries see and others do not.
        v.data[(keys - 1) * width] = f32::INFINITY;
        let options = Options {
            softcap: 3.0,
            bias: Some(random(rng, keys, tokens).into()),
            slopes: vec![0.25],
            keep: Some(
                Grid::from_fn(keys, tokens, |key, token| u8::from((key + token) % 3 > 0)).into(),
            ),
            causal: true,
            offset: isize::try_from(keys / 2).expect("few"),
            window: [40, 0],
            sinks: vec![0.5],
            ..Options::new()
        };
        for attention in [Attention::new().on(backend), options.attention(backend)] {
            in_every_layout("attention", [&q, &k, &v], [tokens, width], |[q, k, v], out| {
                let mut log_sum_exp = vec![0.0; tokens];
                let [q, k, v] = [q.view(), k.view(), v.view()];
                attention
                    .run_with_log_sum_exp(q, k, v, out, &mut log_sum_exp, &mut workspace)
                    .expect("shape");
            });
        }
    }
}

/// Four query heads share two KV heads; [tokens][heads][dim].
fn attention_of_heads(backend: Backend) {
    let rng = &mut Rng::new(5);
    let (tokens, keys, dim, width) = (3, 9, 5, 7);
    let (q, k, v) =
        (random(rng, 4, tokens * dim), random(rng, 2, keys * dim), random(rng, 2, keys * width));
    let queries = HeadsRef::interleaved(&q.data, 4, tokens, dim).expect("shape");
    let key_heads = HeadsRef::stacked(&k.data, 2, keys, dim).expect("shape");
    let values = HeadsRef::interleaved(&v.data, 2, keys, width).expect("shape");
    let attention = Attention::new().on(backend);
    let mut workspace = vec![f32::NAN; Attention::workspace(dim, width)];
    let mut together = vec![0.0; tokens * 4 * width];
    let out = HeadsMut::interleaved(&mut together, 4, tokens, width).expect("shape");
    attention.run(queries, key_heads, values, out, &mut workspace).expect("shape");
    let together = HeadsRef::interleaved(&together, 4, tokens, width).expect("shape");
    for head in 0..4 {
        let mut alone = Grid::zeros(tokens, width);
        attention
            .run(
                queries.head(head).expect("there"),
                key_heads.head(head / 2).expect("there"),
                values.head(head / 2).expect("there"),
                alone.view_mut(),
                &mut workspace,
            )
            .expect("shape");
        let got = together.head(head).expect("there");
        for row in 0..tokens {
            assert_same_bits("a head", got.row(row).expect("dense"), alone.row(row));
        }
    }
}

/// A cache of two blocks, whose ring wraps around once.
fn attention_from_a_cache(backend: Backend) {
    let rng = &mut Rng::new(6);
    let (dim, width) = (5, 9);
    let (keys, values) = (random(rng, 150, dim), random(rng, 150, width));
    let query = random(rng, 1, dim);
    let mut storage = [dim, width].map(|n| vec![f32::NAN; 2 * 64 * n]);
    let mut span = CachePositions::default();
    let [to_keys, to_values] = &mut storage;
    let mut cache = KvCacheMut::new(to_keys, to_values, dim, width, &mut span).expect("room");
    let attention = Attention::new().on(backend);
    let mut workspace = vec![f32::NAN; Attention::workspace(dim, width)];
    let part = |grid: &Grid, from: usize, to: usize| {
        Grid::from_fn(to - from, grid.cols, |row, col| grid.at(from + row, col))
    };
    for (from, to) in [(0, 1), (1, 70), (70, 128), (128, 150)] {
        cache.slide(40);
        let (k, v) = (part(&keys, from, to), part(&values, from, to));
        cache.append(k.view(), v.view()).expect("room");
        let mut got = Grid::zeros(1, width);
        let view = cache.view();
        view.attend(&attention, query.view(), got.view_mut(), &mut workspace).expect("shape");
        let mut want = Grid::zeros(1, width);
        let seen = attention.window(view.len() - 1, 0).query_offset(to as isize - 1);
        let (k, v) = (part(&keys, 0, to), part(&values, 0, to));
        seen.run(query.view(), k.view(), v.view(), want.view_mut(), &mut workspace).expect("shape");
        assert_same_bits("from the cache", &got.data, &want.data);
    }
}

/// Elements in a layout, in an allocation that ends with the last of them; and their scales.
struct Held<E: Tested> {
    layout: Layout,
    data: Box<[E]>,
    scales: Box<[E::Scale]>,
}

impl<E: Tested> Held<E> {
    fn of(elements: &Elements<E>, layout: Layout) -> Self {
        let mut data = vec![E::ZERO; layout.len];
        for row in 0..layout.rows {
            for col in 0..layout.cols {
                data[layout.index(row, col)] = elements.data[row * layout.cols + col];
            }
        }
        Self { layout, data: data.into(), scales: elements.scales.clone().into() }
    }

    fn view(&self) -> MatrixRef<'_, E> {
        let Layout { rows, cols, row_stride, col_stride, .. } = self.layout;
        MatrixRef::with_strides(&self.data, rows, cols, row_stride, col_stride).expect("fits")
    }
}

/// A function over each type of element that is not `f32`.
macro_rules! for_each_element {
    ($function:ident($backend:ident, $rng:ident)) => {
        $function::<F16>($backend, $rng);
        $function::<Bf16>($backend, $rng);
        $function::<I8>($backend, $rng);
    };
}

fn projections_of_elements(backend: Backend) {
    fn check<E: Tested>(backend: Backend, rng: &mut Rng) {
        for [tokens, outputs, inputs] in [[1, 1, 1], [2, 9, 5], [9, 3, 4], [1, 19, 65]] {
            let x = random(rng, tokens, inputs);
            // A scale for each output.
            let w = Elements::<E>::of(&random(rng, outputs, inputs));
            let mut first = None;
            for (i, layout) in layouts(outputs, inputs).into_iter().enumerate() {
                let held = Held::of(&w, layout);
                let x = GuardedMatrix::of(&x, layouts(tokens, inputs)[i]);
                let mut out = GuardedMatrix::empty(layouts(tokens, outputs)[i]);
                let (w, scales, to) = (held.view().t(), &held.scales, out.view_mut());
                backend.project_elements(x.view(), w, scales, None, to).expect("shape");
                let out = out.checked("project");
                assert_same_bits("project", &out.data, &first.get_or_insert(out.clone()).data);
            }
        }
    }
    let rng = &mut Rng::new(8);
    for_each_element!(check(backend, rng));
}

fn attention_of_elements(backend: Backend) {
    fn check<E: Tested>(backend: Backend, rng: &mut Rng) {
        for [tokens, keys, dim, width] in SHAPES {
            let q = random(rng, tokens, dim);
            let k = Elements::<E>::of(&random(rng, keys, dim));
            let v = Elements::<E>::of(&random(rng, keys, width));
            let attention = Attention::new().on(backend).causal().query_offset(keys as isize / 2);
            let mut workspace = vec![f32::NAN; Attention::elements_workspace(dim, width)];
            let mut first = None;
            for i in 0..layouts(1, 1).len() {
                let k = Held::of(&k, layouts(keys, dim)[i]);
                let v = Held::of(&v, layouts(keys, width)[i]);
                let q = GuardedMatrix::of(&q, layouts(tokens, dim)[i]);
                let mut out = GuardedMatrix::empty(layouts(tokens, width)[i]);
                let mut log_sum_exp = vec![0.0; tokens];
                let of_keys = E::with_scales(k.view().into(), &k.scales);
                let of_values = E::with_scales(v.view().into(), &v.scales);
                let (to, logarithms) = (out.view_mut(), Some(&mut log_sum_exp[..]));
                attention
                    .run_elements(q.view(), of_keys, of_values, to, logarithms, &mut workspace)
                    .expect("shape");
                let out = out.checked("elements");
                assert_same_bits("elements", &out.data, &first.get_or_insert(out.clone()).data);
            }
        }
    }
    let rng = &mut Rng::new(9);
    for_each_element!(check(backend, rng));
}

/// [`attention_from_a_cache`], for several queries too; the last block of the storage is full.
fn attention_from_a_cache_of_elements(backend: Backend) {
    fn check<E: Tested>(backend: Backend, rng: &mut Rng) {
        let (dim, width) = (5, 9);
        let mut storage = [dim, width].map(|n| vec![E::ZERO; 2 * 64 * n]);
        let mut scales = [0; 2].map(|_| E::room(2 * 64));
        let mut positions = CachePositions::default();
        let ([keys, values], [key_scales, value_scales]) = (&mut storage, &mut scales);
        let scales = (&mut key_scales[..], &mut value_scales[..]);
        let mut cache =
            KvCacheMut::<E>::with_scales(keys, values, scales, [dim, width], &mut positions)
                .expect("room");
        let attention = Attention::new().on(backend).causal();
        let mut workspace = vec![f32::NAN; Attention::elements_workspace(dim, width)];
        let mut kept = [Grid::zeros(0, dim), Grid::zeros(0, width)];
        for count in [1, 69, 58, 22] {
            cache.slide(40);
            let new = [dim, width].map(|cols| random(rng, count, cols));
            cache.append(new[0].view(), new[1].view()).expect("room");
            for (kept, new) in kept.iter_mut().zip(&new) {
                kept.data.extend(&new.data);
                kept.rows += count;
            }
            let [k, v] = kept.each_ref().map(Elements::<E>::of);
            for tokens in [1, 7] {
                let queries = random(rng, tokens, dim);
                let [mut got, mut want] = [0; 2].map(|_| Grid::zeros(tokens, width));
                let (q, into) = (queries.view(), got.view_mut());
                cache.view().attend(&attention, q, into, &mut workspace).expect("shape");
                let (all, dropped) = (kept[0].rows, cache.dropped() as usize);
                let keep = Grid::from_fn(all, tokens, |key, _| u8::from(key >= dropped));
                let keep = Mask::from(keep);
                let over_all =
                    attention.keep(keep.view()).query_offset(all as isize - tokens as isize);
                let (k, v, into) = (k.heads(1), v.heads(1), want.view_mut());
                over_all.run_elements(q, k, v, into, None, &mut workspace).expect("shape");
                assert_same_bits("from the cache", &got.data, &want.data);
            }
        }
    }
    let rng = &mut Rng::new(10);
    for_each_element!(check(backend, rng));
}

fn merged_parts(backend: Backend) {
    let rng = &mut Rng::new(7);
    let (out, other) = (random(rng, 5, 9), random(rng, 5, 9));
    let logits = random(rng, 2, 5);
    in_every_layout("merged", [&out, &other], [5, 9], |[out, other], mut to| {
        let mut log_sum_exp = logits.row(0).to_vec();
        for row in 0..5 {
            for col in 0..9 {
                *to.get_mut(row, col).expect("there") = out.view().get(row, col).expect("there");
            }
        }
        backend.merge(to, &mut log_sum_exp, other.view(), logits.row(1)).expect("shape");
    });
}

fn rotated_rows(backend: Backend) {
    let rng = &mut Rng::new(11);
    for [tokens, dim, count] in [[1, 2, 1], [2, 9, 4], [3, 18, 9], [2, 45, 17]] {
        let x = random(rng, tokens, dim);
        let mut memory = vec![0.0; RotaryTable::floats(tokens, count)];
        let table = RotaryTable::new(1e4, count, 0..tokens as u64, &mut memory).expect("long");
        let [cosines, sines] = [table.cosines(), table.sines()]
            .map(|x| Grid::from_fn(tokens, count, |row, pair| x.get(row, pair).expect("there")));
        for pairs in [Pairs::Halves, Pairs::Interleaved] {
            let out = [tokens, dim];
            let out = in_every_layout("rotate", [&x, &cosines, &sines], out, |x, out| {
                let [x, cosines, sines] = x.map(GuardedMatrix::view);
                let table = RotaryTable::from_parts(cosines, sines, 0).expect("one shape");
                backend.rotate(x, &table, 0, pairs, out).expect("shape");
            });
            in_every_layout("rotate in place", [&x], [tokens, dim], |[x], mut there| {
                for (row, col) in (0..tokens).flat_map(|row| (0..dim).map(move |col| (row, col))) {
                    *there.get_mut(row, col).expect("there") = x.grid().at(row, col);
                }
                backend.rotate_in_place(there.view_mut(), &table, 0, pairs).expect("shape");
                let there = Grid::from_fn(tokens, dim, |row, col| {
                    there.view().get(row, col).expect("there")
                });
                assert_same_bits("rotate in place", &there.data, &out.data);
            });
        }
    }
}

/// Reads one float past an allocation, to show that Miri detects it.
#[test]
#[ignore = "only Miri fails, as it must"]
#[allow(unsafe_code, reason = "the negative case")]
fn behind_the_end() {
    let floats = Box::new([1.0f32; 4]);
    // SAFETY: none: the undefined behavior is the test.
    assert!(unsafe { floats.as_ptr().wrapping_add(4).read_volatile() }.to_bits() > 0);
}
