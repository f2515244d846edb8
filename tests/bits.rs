//! Every operation, bit for bit, against the scalar reference of its family, over random shapes, values and
//! layouts; on every back end.
//!
//! Two back ends of a family that both equal the reference equal each other.
//! `SDPA_BREAK_BITS=1 cargo test --test all bits::` fails: see `assert_same_bits`.

use crate::common::{
    assert_same_bits,
    cases::{self, Kind, Layout, Rng},
    grid::{Grid, GuardedMatrix},
    reference::Reference,
};
use sdpa::{Backend, MatrixMut, MatrixRef};

suite! {
    dot,
    dot_of_products_that_underflow,
    softmax,
    softmax_at_the_cutoff,
    softmax_of_every_maximum,
    softmax_whose_sum_is_a_tie,
    softmax_rows,
    softmax_columns,
    softmax_columns_2_kib_apart,
    project,
    scores,
    scores_of_wide_rows,
    weighted_sum,
    a_row_has_the_bits_of_a_slice,
    a_column_does_not_depend_on_others,
    a_query_does_not_depend_on_others,
    layout_does_not_matter,
}

/// Rows, columns and a depth that make at most 2¹⁶ multiply-adds.
fn shape(rng: &mut Rng) -> (usize, usize, usize) {
    let (rows, cols, mut depth) = (cases::size(rng), cases::size(rng), cases::size(rng));
    while rows * cols * depth > 1 << 16 {
        depth /= 2;
    }
    (rows, cols, depth)
}

fn random_scale(rng: &mut Rng) -> Option<f32> {
    let any = rng.between(-2.0, 2.0);
    rng.pick(&[None, Some(1.0), Some(0.0), Some(-0.0), Some(1e-30), Some(any)])
}

fn dot(backend: Backend) {
    let reference = Reference::of(backend.family());
    let mut rng = Rng::new(1);
    for _ in 0..6000 {
        let (n, a_start, b_start) = (cases::length(&mut rng), rng.below(4), rng.below(4));
        let mut a = vec![0.0; n + a_start];
        let mut b = vec![0.0; n + b_start];
        Kind::any(&mut rng).fill(&mut rng, &mut a);
        Kind::any(&mut rng).fill(&mut rng, &mut b);
        let (a, b) = (&a[a_start..], &b[b_start..]);
        let got = backend.dot(a, b).unwrap();
        assert_same_bits(&format!("dot of {n}"), &[got], &[reference.dot(a, b)]);
    }
}

/// An FMA of a negative product that underflows returns −0. The sign of a sum of such products depends on how
/// the partial sums are initialized and added.
fn dot_of_products_that_underflow(backend: Backend) {
    let reference = Reference::of(backend.family());
    for n in 0..200 {
        let (a, b) = (vec![1e-30; n], vec![-1e-30; n]);
        let got = backend.dot(&a, &b).unwrap();
        assert_same_bits(&format!("dot of {n}"), &[got], &[reference.dot(&a, &b)]);
    }
}

fn softmax(backend: Backend) {
    let reference = Reference::of(backend.family());
    let mut rng = Rng::new(2);
    for _ in 0..5000 {
        let (n, start, kind) = (cases::length(&mut rng), rng.below(4), rng.pick(&Kind::ALL));
        let what = format!("softmax of {n}, {kind:?}");
        let mut x = vec![0.0; n + start];
        kind.fill(&mut rng, &mut x);
        let want = reference.softmax(&x[start..]);
        let mut out = vec![0.0; n];
        backend.softmax(&x[start..], &mut out).unwrap();
        assert_same_bits(&what, &out, &want);
        backend.softmax_in_place(&mut x[start..]);
        assert_same_bits(&format!("{what}, in place"), &x[start..], &want);
    }
}

/// Weights within a few ULP of the smallest normal number.
fn softmax_at_the_cutoff(backend: Backend) {
    let reference = Reference::of(backend.family());
    let mut rng = Rng::new(12);
    for _ in 0..5000 {
        let second = rng.between(-3.0, 0.0);
        let edge = (1.0 + second.exp()).ln() - 126.0 * std::f32::consts::LN_2;
        let edge = |_| f32::from_bits(edge.to_bits() + rng.below(33) as u32 - 16);
        let mut x: Vec<f32> = [0.0, second].into_iter().chain((0..20).map(edge)).collect();
        let want = reference.softmax(&x);
        backend.softmax_in_place(&mut x);
        assert_same_bits("at the cutoff", &x, &want);
    }
}

/// Maxima below and above the limit from which they are subtracted, and weights down to the smallest: along
/// a row the kernels use another shift than the reference.
fn softmax_of_every_maximum(backend: Backend) {
    let reference = Reference::of(backend.family());
    let mut rng = Rng::new(13);
    for i in 0..6000 {
        let m = (i as f32 / 10.0 - 300.0) + rng.between(-0.05, 0.05);
        let n = 1 + rng.below(150);
        let mut x: Vec<f32> = (0..n).map(|_| m - rng.between(0.0, 140.0)).collect();
        x[rng.below(n)] = m;
        let want = reference.softmax(&x);
        backend.softmax_in_place(&mut x);
        assert_same_bits(&format!("softmax of {n} under {m}"), &x, &want);
    }
}

/// A row, one in ten million, whose sum is so near the middle of two floats that the order in which the
/// corrections are added shows.
fn softmax_whose_sum_is_a_tie(backend: Backend) {
    #[rustfmt::skip]
    const ROW: [u32; 40] = [
        0x4004_5c42, 0x4139_3a3a, 0x3bfb_9d5c, 0x4117_5327, 0x3da5_bf54, 0x3e41_f81d, 0x40bf_49a7, 0x411d_5282,
        0x418b_db0c, 0x4190_a73a, 0x3f34_05ff, 0x4182_4e86, 0x40f0_eb8c, 0x418c_0e38, 0x412d_de34, 0x415f_ab03,
        0x405e_d78d, 0x3fe9_b8cb, 0x400d_5668, 0x417e_d435, 0x40e0_a820, 0x40a1_a761, 0x4172_2482, 0x40ce_9559,
        0x4048_c016, 0x3f34_c080, 0x4147_b702, 0x4101_944b, 0x4133_d595, 0x410a_8ea9, 0x4183_2bcf, 0x4151_a3a3,
        0x418b_88c0, 0x413b_7b2c, 0x4096_9967, 0x4188_7dbb, 0x4182_26ce, 0x3f6b_b4dd, 0x3fd5_4042, 0x4009_db74,
    ];
    let mut x = ROW.map(f32::from_bits);
    let want = Reference::of(backend.family()).softmax(&x);
    backend.softmax_in_place(&mut x);
    assert_same_bits("a sum that is a tie", &x, &want);
}

fn softmax_rows(backend: Backend) {
    let reference = Reference::of(backend.family());
    let mut rng = Rng::new(3);
    for _ in 0..3000 {
        let (rows, cols) = (cases::size(&mut rng), cases::size(&mut rng));
        let kind = rng.pick(&Kind::ALL);
        let x = GuardedMatrix::random(&mut rng, kind, rows, cols);
        let mut out = GuardedMatrix::output(&mut rng, rows, cols);
        let what = format!("softmax of {rows} rows of {cols}, {kind:?}: {x:?}");
        let want = reference.softmax_rows(&x.grid());
        backend.softmax_rows(x.view(), out.view_mut()).unwrap();
        assert_same_bits(&what, &out.checked(&what).data, &want.data);
        let mut out = GuardedMatrix::of(&x.grid(), Layout::of_output(&mut rng, rows, cols));
        backend.softmax_rows_in_place(out.view_mut());
        assert_same_bits(&format!("in place: {what}"), &out.checked(&what).data, &want.data);
    }
}

fn softmax_columns(backend: Backend) {
    let reference = Reference::of(backend.family());
    let mut rng = Rng::new(4);
    for _ in 0..3000 {
        let (rows, cols) = (cases::size(&mut rng), cases::size(&mut rng));
        let kind = rng.pick(&Kind::ALL);
        let x = GuardedMatrix::random(&mut rng, kind, rows, cols);
        let mut out = GuardedMatrix::output(&mut rng, rows, cols);
        let what = format!("softmax of {cols} columns of {rows}, {kind:?}");
        let want = reference.softmax_columns(&x.grid());
        backend.softmax_columns(x.view(), out.view_mut()).unwrap();
        assert_same_bits(&what, &out.checked(&what).data, &want.data);
        let mut out = GuardedMatrix::of(&x.grid(), Layout::of_output(&mut rng, rows, cols));
        backend.softmax_columns_in_place(out.view_mut());
        assert_same_bits(&format!("in place: {what}"), &out.checked(&what).data, &want.data);
    }
}

/// Rows a multiple of 2 KiB apart: strips of columns take turns of a few rows.
fn softmax_columns_2_kib_apart(backend: Backend) {
    let reference = Reference::of(backend.family());
    let mut rng = Rng::new(12);
    for rows in [63, 64, 65, 72, 73, 130] {
        for cols in [1, 8, 9, 31, 33, 127, 512, 1024, 1025, 1061] {
            let kind = rng.pick(&Kind::ALL);
            let x = Grid::random(&mut rng, kind, rows, cols);
            let stride = cols.next_multiple_of(512);
            let what = format!("softmax of {cols} columns of {rows}, {stride} apart, {kind:?}");
            let want = reference.softmax_columns(&x);
            let mut strided = vec![7.0; rows * stride];
            for row in 0..rows {
                strided[row * stride..][..cols].copy_from_slice(x.row(row));
            }
            let view = MatrixRef::with_strides(&strided, rows, cols, stride, 1).unwrap();
            let mut out = Grid::zeros(rows, cols);
            backend.softmax_columns(view, out.view_mut()).unwrap();
            assert_same_bits(&what, &out.data, &want.data);
            let view = MatrixMut::with_strides(&mut strided, rows, cols, stride, 1).unwrap();
            backend.softmax_columns_in_place(view);
            for row in 0..rows {
                let (got, between) = strided[row * stride..][..stride].split_at(cols);
                assert_same_bits(&format!("in place: {what}, row {row}"), got, want.row(row));
                assert!(between.iter().all(|x| *x == 7.0), "{what}: written past row {row}");
            }
        }
    }
}

fn project(backend: Backend) {
    let reference = Reference::of(backend.family());
    let mut rng = Rng::new(5);
    for _ in 0..3000 {
        let (tokens, outputs, inputs) = shape(&mut rng);
        let (outputs, inputs) = (outputs.max(1), inputs.max(1));
        let (x_kind, w_kind) = (Kind::any(&mut rng), Kind::any(&mut rng));
        let x = GuardedMatrix::random(&mut rng, x_kind, tokens, inputs);
        let w = GuardedMatrix::random(&mut rng, w_kind, inputs, outputs);
        let mut bias = vec![0.0; outputs];
        Kind::any(&mut rng).fill(&mut rng, &mut bias);
        let bias = rng.one_in(2).then_some(bias.as_slice());
        let mut out = GuardedMatrix::output(&mut rng, tokens, outputs);
        let what = format!("{tokens} x {inputs} {x_kind:?} · {outputs} {w_kind:?}, {bias:?}");
        backend.project(x.view(), w.view(), bias, out.view_mut()).unwrap();
        let want = reference.project(&x.grid(), &w.grid(), bias);
        assert_same_bits(&what, &out.checked(&what).data, &want.data);
    }
}

fn scores(backend: Backend) {
    let reference = Reference::of(backend.family());
    let mut rng = Rng::new(6);
    for _ in 0..3000 {
        let (keys, queries, dim) = shape(&mut rng);
        let dim = dim.max(1);
        let (k_kind, q_kind) = (Kind::any(&mut rng), Kind::any(&mut rng));
        let k = GuardedMatrix::random(&mut rng, k_kind, keys, dim);
        let q = GuardedMatrix::random(&mut rng, q_kind, queries, dim);
        let scale = random_scale(&mut rng);
        let mut out = GuardedMatrix::output(&mut rng, keys, queries);
        let what =
            format!("{keys} keys {k_kind:?}, {queries} queries {q_kind:?}, {dim}, {scale:?}");
        backend.scores(k.view(), q.view(), scale, out.view_mut()).unwrap();
        let want = reference.scores(&k.grid(), &q.grid(), scale);
        assert_same_bits(&what, &out.checked(&what).data, &want.data);
    }
}

/// Contiguous keys of so many columns that fewer than a block of them are prefetched at a time, down to one.
fn scores_of_wide_rows(backend: Backend) {
    let reference = Reference::of(backend.family());
    let mut rng = Rng::new(12);
    for [keys, dim] in [[1, 8192], [5, 8192], [9, 4099], [70, 400], [150, 203], [64, 256]] {
        let [k, q] = [keys, 1].map(|rows| Grid::random(&mut rng, Kind::Ordinary, rows, dim));
        let got = score_grid(backend, &k, &q);
        let want = reference.scores(&k, &q, None);
        assert_same_bits(&format!("{keys} keys of {dim}"), &got.data, &want.data);
    }
}

fn weighted_sum(backend: Backend) {
    let reference = Reference::of(backend.family());
    let mut rng = Rng::new(7);
    for _ in 0..3000 {
        let (queries, width, keys) = shape(&mut rng);
        let width = width.max(1);
        let (p_kind, v_kind) = (Kind::any(&mut rng), Kind::any(&mut rng));
        let p = GuardedMatrix::random(&mut rng, p_kind, keys, queries);
        let v = GuardedMatrix::random(&mut rng, v_kind, keys, width);
        let mut out = GuardedMatrix::output(&mut rng, queries, width);
        let what = format!("{keys} keys, {queries} queries {p_kind:?}, width {width} {v_kind:?}");
        backend.weighted_sum(p.view(), v.view(), out.view_mut()).unwrap();
        let want = reference.weighted_sum(&p.grid(), &v.grid());
        assert_same_bits(&what, &out.checked(&what).data, &want.data);
    }
}

fn pattern(backend: Backend, x: &Grid) -> Grid {
    let mut out = Grid::zeros(x.rows, x.cols);
    backend.softmax_columns(x.view(), out.view_mut()).unwrap();
    out
}

fn score_grid(backend: Backend, keys: &Grid, queries: &Grid) -> Grid {
    let mut out = Grid::zeros(keys.rows, queries.rows);
    backend.scores(keys.view(), queries.view(), None, out.view_mut()).unwrap();
    out
}

fn a_row_has_the_bits_of_a_slice(backend: Backend) {
    let mut rng = Rng::new(8);
    for n in 0..150 {
        let kind = rng.pick(&Kind::ALL);
        let x = Grid::random(&mut rng, kind, 3, n);
        let mut rows = Grid::zeros(3, n);
        backend.softmax_rows(x.view(), rows.view_mut()).unwrap();
        for row in 0..3 {
            let mut slice = x.row(row).to_vec();
            backend.softmax_in_place(&mut slice);
            assert_same_bits(&format!("row {row} of {n}, {kind:?}"), rows.row(row), &slice);
        }
    }
}

/// Each column has the bits of a call of its own, for any number of columns in the call.
fn a_column_does_not_depend_on_others(backend: Backend) {
    let mut rng = Rng::new(9);
    for kind in Kind::ALL {
        let x = Grid::random(&mut rng, kind, 37, 50);
        let all = pattern(backend, &x);
        for cols in 0..50 {
            let fewer = pattern(backend, &x.first_columns(cols));
            assert_same_bits(
                &format!("{cols} columns"),
                &fewer.data,
                &all.first_columns(cols).data,
            );
            let alone = Grid { rows: 37, cols: 1, data: x.column(cols) };
            let alone = pattern(backend, &alone);
            assert_same_bits(&format!("column {cols}"), &alone.data, &all.column(cols));
        }
    }
}

/// Each score has the same bits for any number of queries and keys in the call.
fn a_query_does_not_depend_on_others(backend: Backend) {
    let mut rng = Rng::new(10);
    let keys = Grid::random(&mut rng, Kind::Wide, 29, 67);
    let queries = Grid::random(&mut rng, Kind::Wide, 50, 67);
    let all = score_grid(backend, &keys, &queries);
    for query in 0..50 {
        let alone = Grid { rows: 1, cols: 67, data: queries.row(query).to_vec() };
        let column = score_grid(backend, &keys, &alone);
        assert_same_bits(&format!("query {query}"), &column.data, &all.column(query));
    }
    for key in 0..29 {
        let alone = Grid { rows: 1, cols: 67, data: keys.row(key).to_vec() };
        let row = score_grid(backend, &alone, &queries);
        assert_same_bits(&format!("key {key}"), &row.data, all.row(key));
    }
}

/// The same operands in other layouts.
fn layout_does_not_matter(backend: Backend) {
    let mut rng = Rng::new(11);
    let keys = Grid::random(&mut rng, Kind::Wide, 19, 70);
    let queries = Grid::random(&mut rng, Kind::Wide, 34, 70);
    let scores = score_grid(backend, &keys, &queries);
    let weights = pattern(backend, &scores);
    for _ in 0..200 {
        let k = GuardedMatrix::of(&keys, Layout::of_output(&mut rng, 19, 70));
        let q = GuardedMatrix::of(&queries, Layout::of_output(&mut rng, 34, 70));
        let mut out = GuardedMatrix::output(&mut rng, 19, 34);
        backend.scores(k.view(), q.view(), None, out.view_mut()).unwrap();
        assert_same_bits("scores", &out.checked("scores").data, &scores.data);
        backend.softmax_columns_in_place(out.view_mut());
        assert_same_bits("pattern", &out.checked("pattern").data, &weights.data);
        let mut transposed = GuardedMatrix::output(&mut rng, 34, 19);
        backend.scores(k.view(), q.view(), None, transposed.view_mut().t()).unwrap();
        assert_same_bits("transposed", &transposed.checked("transposed").t().data, &scores.data);
    }
}

#[test]
#[should_panic(expected = "element 2")]
fn one_wrong_bit_is_seen() {
    let wrong = f32::from_bits(1.0_f32.to_bits() + 1);
    assert_same_bits("negative case", &[0.0, f32::NAN, wrong], &[0.0, -f32::NAN, 1.0]);
}

#[test]
#[should_panic(expected = "element 0")]
fn the_sign_of_zero_is_seen() {
    assert_same_bits("negative case", &[-0.0], &[0.0]);
}
