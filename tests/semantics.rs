//! The semantics of the operations: special values, sizes that disagree, outputs that an error leaves
//! unchanged; on every back end.

use crate::common::{
    self,
    cases::{Kind, Rng},
    grid::{CANARY, Grid, is_untouched},
    oracle,
};
use sdpa::{Backend, Error, Matrix, MatrixMut, MatrixRef};

suite! {
    masked_scores_weigh_nothing,
    all_masked_gives_zeros,
    no_elements,
    one_column_of_any_stride,
    infinite_scores_share,
    a_nan_fills_its_own_slice,
    a_nan_fills_its_own_column,
    values_that_are_not_finite_stay_in_their_column,
    weights_are_never_subnormal,
    no_queries_no_keys,
    a_zero_scale_is_a_zero,
    a_scale_left_out_is_one_over_the_root,
    sizes_that_disagree,
    empty_dimensions,
    scales_that_are_not_finite,
    worked_example,
}

const INFINITY: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;

/// Computes the softmax of one row in every way: as a slice, as a row and as a column among others; each out
/// of place and in place.
fn each_softmax(backend: Backend, x: &[f32]) -> Vec<Vec<f32>> {
    let among = |i: usize| Grid::from_fn(5, x.len(), |row, k| if row == i { x[k] } else { 1.0 });
    let mut all = Vec::new();
    let mut out = vec![CANARY; x.len()];
    backend.softmax(x, &mut out).unwrap();
    all.push(out);
    let mut out = x.to_vec();
    backend.softmax_in_place(&mut out);
    all.push(out);
    for i in 0..5 {
        let rows = among(i);
        let mut out = Grid::from_fn(5, x.len(), |_, _| CANARY);
        backend.softmax_rows(rows.view(), out.view_mut()).unwrap();
        all.push(out.row(i).to_vec());
        let mut out = Grid::from_fn(x.len(), 5, |_, _| CANARY);
        backend.softmax_columns(rows.view().t(), out.view_mut()).unwrap();
        all.push(out.column(i));
        let mut out = rows.t();
        backend.softmax_columns_in_place(out.view_mut());
        all.push(out.column(i));
        let mut out = rows;
        backend.softmax_rows_in_place(out.view_mut());
        all.push(out.row(i).to_vec());
    }
    all
}

#[track_caller]
fn assert_each_is(backend: Backend, x: &[f32], want: &[f32]) {
    for got in each_softmax(backend, x) {
        assert!(
            got.iter().zip(want).all(|(&got, &want)| common::same(got, want)),
            "softmax of {x:?} is {got:?}, not {want:?}"
        );
    }
}

/// Indices in every lane of every group, and lengths around them.
fn positions() -> impl Iterator<Item = (usize, usize)> {
    [1, 2, 5, 16, 17, 33, 70].into_iter().flat_map(|n| (0..n).map(move |i| (n, i)))
}

fn masked_scores_weigh_nothing(backend: Backend) {
    assert_each_is(backend, &[0.0, -INFINITY, 0.0], &[0.5, 0.0, 0.5]);
    for (n, i) in positions().filter(|&(n, _)| n > 1) {
        let mut x = vec![3.0; n];
        x[i] = -INFINITY;
        for got in each_softmax(backend, &x) {
            assert_eq!(got[i].to_bits(), 0, "{got:?}");
            let other = got[(i + 1) % n];
            assert!(oracle::ulps(other, 1.0 / (n - 1) as f64) < 2.0, "{got:?}");
        }
        let mut alone = vec![-INFINITY; n];
        alone[i] = -1234.5;
        let want: Vec<f32> = (0..n).map(|k| f32::from(u8::from(k == i))).collect();
        assert_each_is(backend, &alone, &want);
    }
}

fn all_masked_gives_zeros(backend: Backend) {
    for n in 0..70 {
        assert_each_is(backend, &vec![-INFINITY; n], &vec![0.0; n]);
    }
}

fn no_elements(backend: Backend) {
    // Rows or columns without elements take no time, whatever their number.
    for (rows, cols) in [(0, 0), (0, 5), (5, 0), (0, usize::MAX), (usize::MAX, 0)] {
        let x = MatrixRef::new(&[], rows, cols).unwrap();
        let out = || MatrixMut::new(&mut [], rows, cols).unwrap();
        assert_eq!(backend.softmax_rows(x, out()), Ok(()));
        assert_eq!(backend.softmax_columns(x, out()), Ok(()));
        backend.softmax_rows_in_place(out());
        backend.softmax_columns_in_place(out());
    }
    assert_eq!(backend.dot(&[], &[]).map(f32::to_bits), Ok(0));
}

/// The stride of an axis with one element is never used, and does not overflow.
fn one_column_of_any_stride(backend: Backend) {
    for stride in [0, usize::MAX / 8, usize::MAX / 2, usize::MAX] {
        let x = MatrixRef::with_strides(&[3.0, -1.0], 2, 1, 1, stride).unwrap();
        let mut out = [0.0; 2];
        let rows = MatrixMut::with_strides(&mut out, 2, 1, 1, stride).unwrap();
        assert_eq!(backend.softmax_rows(x, rows), Ok(()));
        assert_eq!(out, [1.0; 2]);
        backend.softmax_rows_in_place(MatrixMut::with_strides(&mut out, 2, 1, 1, stride).unwrap());
        assert_eq!(out, [1.0; 2]);
        let grid = MatrixMut::with_strides(&mut out, 2, 1, 1, stride).unwrap();
        let one = MatrixRef::with_strides(&[1.0], 1, 1, stride, stride).unwrap();
        assert_eq!(backend.scores(x, one, None, grid), Ok(()));
        assert_eq!(out, [3.0, -1.0]);
    }
}

fn infinite_scores_share(backend: Backend) {
    let (half, none) = (0.5, 0.0);
    assert_each_is(
        backend,
        &[INFINITY, f32::MAX, INFINITY, -INFINITY, 0.0],
        &[half, none, half, none, none],
    );
    for (n, i) in positions() {
        let mut x = vec![f32::MAX; n];
        x[i] = INFINITY;
        let want: Vec<f32> = (0..n).map(|k| f32::from(u8::from(k == i))).collect();
        assert_each_is(backend, &x, &want);
    }
}

/// In every lane, with ordinary elements, masks and infinities in the same slice.
fn a_nan_fills_its_own_slice(backend: Backend) {
    for (n, i) in positions() {
        for others in [0.0, -INFINITY, INFINITY, f32::MAX, -2000.0] {
            let mut x = vec![others; n];
            x[i] = NAN;
            assert_each_is(backend, &x, &vec![NAN; n]);
        }
    }
}

fn a_nan_fills_its_own_column(backend: Backend) {
    let mut rng = Rng::new(201);
    for col in 0..40 {
        let x = Grid::random(&mut rng, Kind::Infinite, 9, 40);
        let mut with_nan = x.clone();
        with_nan.data[rng.below(9) * 40 + col] = NAN;
        let (mut want, mut got) = (x, with_nan);
        backend.softmax_columns_in_place(want.view_mut());
        backend.softmax_columns_in_place(got.view_mut());
        for other in 0..40 {
            let nan = got.column(other).iter().all(|x| x.is_nan());
            assert_eq!(nan, other == col);
            assert!(nan || got.column(other) == want.column(other));
        }
    }
}

/// A NaN or ∞ in a value reaches that column of the outputs; one in a weight reaches its query.
fn values_that_are_not_finite_stay_in_their_column(backend: Backend) {
    let mut rng = Rng::new(202);
    for bad in [NAN, INFINITY, -INFINITY] {
        for col in 0..35 {
            let weights = Grid::from_fn(6, 7, |_, _| 0.125);
            let mut values = Grid::random(&mut rng, Kind::Ordinary, 6, 35);
            values.data[rng.below(6) * 35 + col] = bad;
            let mut out = Grid::zeros(7, 35);
            backend.weighted_sum(weights.view(), values.view(), out.view_mut()).unwrap();
            for (i, x) in out.data.iter().enumerate() {
                assert_eq!(x.is_finite(), i % 35 != col, "{bad} in {col}: {out:?}");
            }
        }
    }
}

/// For weights around the smallest normal number and below.
fn weights_are_never_subnormal(backend: Backend) {
    let smallest = f64::from(f32::MIN_POSITIVE);
    let (mut zeros, mut others) = (0, 0);
    for step in 0..4000_u16 {
        let x = [0.0, 0.0, 0.0, -85.0 - f32::from(step) * 0.001, -120.0, -1000.0];
        let truth = oracle::softmax(&x);
        for got in each_softmax(backend, &x) {
            assert!(got.iter().all(|&w| w.to_bits() == 0 || w.is_normal()), "{got:?}");
            assert!((0.0..=1.0).contains(&got[0]) && got[4] == 0.0 && got[5] == 0.0, "{got:?}");
            match truth[3] / smallest {
                part if part < 0.999_999 => assert_eq!(got[3].to_bits(), 0, "{truth:?}"),
                part if part > 1.000_002 => assert!(got[3] > 0.0, "{truth:?}"),
                _ => {}
            }
            if got[3] == 0.0 { zeros += 1 } else { others += 1 }
        }
    }
    assert!(zeros > 1000 && others > 1000, "{zeros}, {others}");
}

fn no_queries_no_keys(backend: Backend) {
    let none = |cols| MatrixRef::new(&[], 0, cols).unwrap();
    let some = Matrix::<3, 2>::ZERO;
    let empty = |rows, cols| MatrixMut::new(&mut [], rows, cols).unwrap();
    assert_eq!(backend.scores(some.view(), none(2), None, empty(3, 0)), Ok(()));
    assert_eq!(backend.scores(none(2), some.view(), None, empty(0, 3)), Ok(()));
    assert_eq!(backend.project(none(3), some.view(), Some(&[1.0; 2]), empty(0, 2)), Ok(()));
    assert_eq!(backend.weighted_sum(none(3).t(), some.view(), empty(0, 2)), Ok(()));
    let mut out = Matrix([[CANARY; 5]; 4]);
    backend.weighted_sum(none(4), none(5), out.view_mut()).unwrap();
    assert!(out.0.as_flattened().iter().all(|x| x.to_bits() == 0), "no keys: {out:?}");
}

fn a_zero_scale_is_a_zero(backend: Backend) {
    let ones = Matrix([[1.0; 3]; 2]);
    for zero in [0.0, -0.0] {
        let mut out = Matrix([[CANARY; 2]; 2]);
        backend.scores(ones.view(), ones.view(), Some(zero), out.view_mut()).unwrap();
        assert_eq!(out.0, [[0.0; 2]; 2]);
    }
}

fn a_scale_left_out_is_one_over_the_root(backend: Backend) {
    let ones = Matrix([[1.0; 16]; 1]);
    let mut out = Matrix::<1, 1>::ZERO;
    backend.scores(ones.view(), ones.view(), None, out.view_mut()).unwrap();
    assert_eq!(out.0, [[4.0]]);
    backend.scores(ones.view(), ones.view(), Some(-2.0), out.view_mut()).unwrap();
    assert_eq!(out.0, [[-32.0]]);
}

/// Runs an invalid `call`, which must fail and leave the output unchanged.
#[track_caller]
fn refused(
    error: Error,
    rows: usize,
    cols: usize,
    call: impl FnOnce(MatrixMut<'_>) -> Result<(), Error>,
) {
    let mut buffer = vec![CANARY; rows * cols];
    let out = MatrixMut::new(&mut buffer, rows, cols).unwrap();
    assert_eq!(call(out), Err(error));
    assert!(is_untouched(&buffer), "an error wrote");
}

fn zeros(rows: usize, cols: usize) -> Grid {
    Grid::zeros(rows, cols)
}

fn sizes_that_disagree(backend: Backend) {
    let (x, other) = (zeros(4, 5), zeros(5, 6));
    let bias = [1.0; 7];
    assert_eq!(backend.dot(&[1.0; 3], &[1.0; 4]), Err(Error::Shape));
    assert_eq!(backend.dot(&[1.0; 3], &[]), Err(Error::Shape));
    for (rows, cols) in [(5, 4), (4, 4), (3, 5), (1, 20), (20, 1)] {
        refused(Error::Shape, rows, cols, |out| backend.softmax_rows(x.view(), out));
        refused(Error::Shape, rows, cols, |out| backend.softmax_columns(x.view(), out));
    }
    refused(Error::Shape, 1, 4, |mut out| {
        backend.softmax(&[1.0; 5], out.row_mut(0).expect("one row"))
    });
    // Wrong shapes: 3 x 6, 4 x 5, 6 x 4; inner sizes that differ; a bias too long or short.
    for (rows, cols) in [(3, 6), (4, 5), (6, 4)] {
        refused(Error::Shape, rows, cols, |out| backend.project(x.view(), other.view(), None, out));
    }
    refused(Error::Shape, 4, 5, |out| backend.project(x.view(), other.view().t(), None, out));
    for bias in [&bias[..5], &bias[..7], &bias[..0]] {
        refused(Error::Shape, 4, 6, |out| backend.project(x.view(), other.view(), Some(bias), out));
    }
    let queries = zeros(6, 5);
    for (rows, cols) in [(6, 4), (4, 5), (3, 6)] {
        refused(Error::Shape, rows, cols, |out| {
            backend.scores(x.view(), queries.view(), None, out)
        });
        refused(Error::Shape, rows, cols, |out| {
            backend.weighted_sum(x.view().t(), other.view(), out)
        });
    }
    refused(Error::Shape, 4, 5, |out| backend.scores(x.view(), other.view(), None, out));
    refused(Error::Shape, 5, 6, |out| backend.weighted_sum(x.view(), other.view(), out));
}

fn empty_dimensions(backend: Backend) {
    let empty = Grid::zeros(3, 0);
    let w = Grid::zeros(2, 4);
    refused(Error::Shape, 3, 3, |out| backend.scores(empty.view(), empty.view(), None, out));
    refused(Error::Shape, 3, 3, |out| backend.project(empty.view(), empty.view().t(), None, out));
    refused(Error::Shape, 4, 0, |out| {
        backend.project(w.view().t(), MatrixRef::new(&[], 2, 0).unwrap(), None, out)
    });
    refused(Error::Shape, 4, 0, |out| {
        backend.weighted_sum(w.view(), MatrixRef::new(&[], 2, 0).unwrap(), out)
    });
}

fn scales_that_are_not_finite(backend: Backend) {
    let x = zeros(3, 2);
    for scale in [NAN, INFINITY, -INFINITY] {
        refused(Error::Option, 3, 3, |out| backend.scores(x.view(), x.view(), Some(scale), out));
    }
}

/// The worked example that the project began with: a row per key, a column per query.
fn worked_example(backend: Backend) {
    let scores = Matrix([
        [0.7, -0.93, -0.24, -5.0],
        [-0.73, 2.9, -0.5, 93.0],
        [-0.53, -0.57, 1.9, 94.0],
        [-0.4, -0.29, -0.86, 4.9],
    ]);
    let columns = [
        [0.536345, 0.128352, 0.156770, 0.178534],
        [0.019844, 0.914078, 0.028443, 0.037634],
        [0.092520, 0.071338, 0.786371, 0.049771],
        [0.0, 0.268941, 0.731059, 0.0],
    ];
    let mut pattern = Matrix::<4, 4>::ZERO;
    backend.softmax_columns(scores.view(), pattern.view_mut()).unwrap();
    for (query, want) in columns.iter().enumerate() {
        let got = pattern.0.map(|row| row[query]);
        assert_six_places(&got, want);
    }
    let mut slice = scores.0[0];
    backend.softmax_in_place(&mut slice);
    assert_six_places(&slice, &[0.628969, 0.123234, 0.245693, 0.002105]);
}

#[track_caller]
fn assert_six_places(got: &[f32], want: &[f64]) {
    for (&got, want) in got.iter().zip(want) {
        assert!((f64::from(got) - want).abs() <= 0.6e-6, "{got} is not {want}");
    }
}

type Run<'a> = &'a dyn Fn(MatrixMut<'_>);

#[test]
fn the_functions_use_the_best_back_end() {
    let best = Backend::best();
    let mut rng = Rng::new(203);
    let x = Grid::random(&mut rng, Kind::Wide, 9, 21);
    let (view, row) = (x.view(), x.row(3));
    let outputs = |function: [Run<'_>; 7]| {
        let sizes = [(9, 21), (9, 21), (1, 21), (9, 9), (9, 9), (21, 21), (1, 1)];
        let out = |(run, (rows, cols)): (Run<'_>, _)| {
            let mut out = Grid::zeros(rows, cols);
            run(out.view_mut());
            out.data
        };
        function.into_iter().zip(sizes).flat_map(out).collect::<Vec<f32>>()
    };
    let functions = outputs([
        &|out| sdpa::softmax_rows(view, out).unwrap(),
        &|out| sdpa::softmax_columns(view, out).unwrap(),
        &|mut out| sdpa::softmax(row, out.row_mut(0).unwrap()).unwrap(),
        &|out| sdpa::scores(view, view, None, out).unwrap(),
        &|out| sdpa::project(view, view.t(), Some(&row[..9]), out).unwrap(),
        &|out| sdpa::weighted_sum(view, view, out).unwrap(),
        &|mut out| *out.get_mut(0, 0).unwrap() = sdpa::dot(row, row).unwrap(),
    ]);
    let methods = outputs([
        &|out| best.softmax_rows(view, out).unwrap(),
        &|out| best.softmax_columns(view, out).unwrap(),
        &|mut out| best.softmax(row, out.row_mut(0).unwrap()).unwrap(),
        &|out| best.scores(view, view, None, out).unwrap(),
        &|out| best.project(view, view.t(), Some(&row[..9]), out).unwrap(),
        &|out| best.weighted_sum(view, view, out).unwrap(),
        &|mut out| *out.get_mut(0, 0).unwrap() = best.dot(row, row).unwrap(),
    ]);
    common::assert_same_bits("best", &functions, &methods);
}

#[test]
fn the_functions_in_place_use_the_best_back_end() {
    let best = Backend::best();
    let x = Grid::random(&mut Rng::new(204), Kind::Wide, 9, 21);
    let run = |function: Run<'_>| {
        let mut out = x.clone();
        function(out.view_mut());
        out.data
    };
    let pairs: [[Run<'_>; 2]; 3] = [
        [&|x| sdpa::softmax_rows_in_place(x), &|x| best.softmax_rows_in_place(x)],
        [&|x| sdpa::softmax_columns_in_place(x), &|x| best.softmax_columns_in_place(x)],
        [&|mut x| sdpa::softmax_in_place(x.row_mut(4).unwrap()), &|mut x| {
            best.softmax_in_place(x.row_mut(4).unwrap());
        }],
    ];
    for [function, method] in pairs {
        common::assert_same_bits("best", &run(function), &run(method));
    }
}
