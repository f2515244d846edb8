//! Views: their elements, the shapes and strides that they refuse, and splitting across threads.

use crate::common::{
    self, assert_same_bits,
    cases::{Kind, Rng, SIZES},
    grid::{Grid, is_untouched},
};
use heapless::{Vec as Inline, VecView};
use sdpa::{Backend, Error, Matrix, MatrixMut, MatrixRef};

suite! {
    halves_in_threads_give_the_same_bits,
    parts_of_any_width_give_the_same_bits,
    heapless_vectors_are_slices,
}

/// 0, 1, 2, …: the value of an element is its index in the buffer.
fn indices<const N: usize>() -> [f32; N] {
    std::array::from_fn(|i| i as f32)
}

fn shown(view: MatrixRef<'_>) -> Vec<Vec<f32>> {
    (0..view.rows())
        .map(|row| (0..view.cols()).map(|col| view.get(row, col).unwrap()).collect())
        .collect()
}

#[test]
fn elements_follow_the_strides() {
    let data = indices::<100>();
    for (row_stride, col_stride) in [(7, 1), (1, 5), (9, 2), (0, 3), (4, 0), (0, 0)] {
        let view = MatrixRef::with_strides(&data[3..], 5, 6, row_stride, col_stride).unwrap();
        let want = |row, col| (3 + row * row_stride + col * col_stride) as f32;
        assert_eq!((view.rows(), view.cols()), (5, 6));
        assert_eq!((view.row_stride(), view.col_stride()), (row_stride, col_stride));
        for row in 0..5 {
            for col in 0..6 {
                assert_eq!(view.get(row, col), Some(want(row, col)));
                assert_eq!(view.t().get(col, row), Some(want(row, col)));
            }
        }
        for (row, col) in [(5, 0), (0, 6), (usize::MAX, 0), (0, usize::MAX)] {
            assert_eq!(view.get(row, col), None);
        }
        let t = view.t();
        assert_eq!((t.rows(), t.cols()), (6, 5));
        assert_eq!((t.row_stride(), t.col_stride()), (col_stride, row_stride));
    }
}

#[test]
fn mutable_views_write_in_place() {
    let mut data = [0.0; 40];
    let mut view = MatrixMut::with_strides(&mut data[2..], 3, 4, 11, 2).unwrap();
    assert_eq!((view.rows(), view.cols()), (3, 4));
    assert_eq!((view.row_stride(), view.col_stride()), (11, 2));
    *view.get_mut(2, 3).unwrap() = 1.0;
    *view.view_mut().t().get_mut(1, 0).unwrap() = 2.0;
    assert_eq!(view.get_mut(3, 0), None);
    assert_eq!(view.get_mut(0, 4), None);
    assert_eq!(view.view().get(0, 1), Some(2.0));
    let written: Vec<_> = (0..40).filter(|&i| data[i] != 0.0).collect();
    assert_eq!(written, [4, 30]);
}

#[test]
fn contiguous_rows_are_slices() {
    let mut data = indices::<30>();
    let dense = MatrixRef::new(&data, 5, 6).unwrap();
    assert_eq!(dense.row(4), Some(&data[24..30]));
    assert_eq!(dense.row(5), None);
    assert_eq!(dense.t().row(0), None);
    let padded = MatrixRef::with_strides(&data, 3, 2, 10, 1).unwrap();
    assert_eq!(padded.row(2), Some(&data[20..22]));
    let one_column = MatrixRef::with_strides(&data, 3, 1, 10, 7).unwrap();
    assert_eq!(one_column.row(1), Some(&data[10..11]));
    assert_eq!(MatrixRef::new(&data, 3, 0).unwrap().row(0), None);
    assert_eq!(MatrixRef::with_strides(&data, 3, 4, 4, 0).unwrap().row(0), None);
    assert_eq!(MatrixRef::from_row(&data).row(0), Some(&data[..]));
    let mut writing = MatrixMut::new(&mut data, 5, 6).unwrap();
    assert_eq!(writing.row_mut(5), None);
    writing.row_mut(1).unwrap().fill(-1.0);
    assert_eq!(writing.t().row_mut(0), None);
    assert_eq!(data[5..13], [5.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 12.0]);
    MatrixMut::from_row(&mut data).row_mut(0).unwrap().fill(7.0);
    assert_eq!(data, [7.0; 30]);
}

#[test]
fn splits_are_disjoint_and_complete() {
    let data = indices::<60>();
    let view = MatrixRef::with_strides(&data, 4, 5, 12, 2).unwrap();
    let all = shown(view);
    for at in 0..=4 {
        let (above, below) = view.split_rows(at).unwrap();
        assert_eq!((shown(above), shown(below)), (all[..at].to_vec(), all[at..].to_vec()));
    }
    for at in 0..=5 {
        let (left, right) = view.split_columns(at).unwrap();
        let halves = all.iter().map(|row| row.split_at(at));
        let (left_want, right_want): (Vec<_>, Vec<_>) =
            halves.map(|(left, right)| (left.to_vec(), right.to_vec())).unzip();
        assert_eq!((shown(left), shown(right)), (left_want, right_want));
    }
    for at in [6, 7, usize::MAX] {
        assert_eq!(view.split_rows(at).err(), Some(Error::Shape));
        assert_eq!(view.split_columns(at).err(), Some(Error::Shape));
    }
    let mut data = data;
    let mut view = MatrixMut::with_strides(&mut data, 4, 5, 12, 2).unwrap();
    assert_eq!(view.view_mut().split_rows(5).err(), Some(Error::Shape));
    assert_eq!(view.split_columns(6).err(), Some(Error::Shape));
}

/// Over all small shapes and strides, against a set of all element offsets.
#[test]
fn overlap_check_matches_brute_force() {
    let mut count = [0; 3];
    for_each_small_layout(|rows, cols, row_stride, col_stride| {
        for len in [0, 1, 20, 50, 200] {
            let want = brute_force(len, rows, cols, row_stride, col_stride);
            let what = format!("{rows} x {cols}, strides {row_stride}, {col_stride}, {len}");
            let mut data = vec![0.0; len];
            let read = MatrixRef::with_strides(&data, rows, cols, row_stride, col_stride);
            assert_eq!(read.err(), want.filter(|&error| error == Error::Stride), "{what}");
            let write = MatrixMut::with_strides(&mut data, rows, cols, row_stride, col_stride);
            assert_eq!(write.err(), want, "{what}");
            count[match want {
                None => 0,
                Some(Error::Stride) => 1,
                _ => 2,
            }] += 1;
        }
    });
    assert!(count.iter().all(|&n| n > 1000), "{count:?}");
}

fn for_each_small_layout(mut f: impl FnMut(usize, usize, usize, usize)) {
    for rows in 0..=6 {
        for cols in 0..=6 {
            for row_stride in 0..=12 {
                for col_stride in 0..=12 {
                    f(rows, cols, row_stride, col_stride);
                }
            }
        }
    }
}

fn brute_force(
    len: usize,
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
) -> Option<Error> {
    let mut seen = [false; 200];
    let mut twice = false;
    for row in 0..rows {
        for col in 0..cols {
            let place = row * row_stride + col * col_stride;
            if place >= len {
                return Some(Error::Stride);
            }
            twice |= std::mem::replace(&mut seen[place], true);
        }
    }
    twice.then_some(Error::Alias)
}

#[test]
fn views_that_exceed_the_slice_are_refused() {
    let mut data = [0.0; 12];
    for (rows, cols) in [(3, 5), (13, 1), (usize::MAX, 2), (usize::MAX, usize::MAX)] {
        assert_eq!(MatrixRef::new(&data, rows, cols).err(), Some(Error::Shape));
        assert_eq!(MatrixMut::new(&mut data, rows, cols).err(), Some(Error::Shape));
    }
    assert!(MatrixRef::new(&data, 3, 4).is_ok());
    assert!(MatrixRef::new(&data, 2, 3).is_ok());
    let (max, half) = (usize::MAX, usize::MAX / 2 + 1);
    for (rows, cols, row_stride, col_stride) in [
        (3, 4, 4, 2),
        (2, 2, max, 1),
        (2, 2, 1, max),
        (2, 2, max, max),
        (3, 1, half, 1),
        (1, 3, 1, half),
        (2, 2, half, half),
        (max, 2, max, 1),
        (max, max, 1, 1),
    ] {
        let read = MatrixRef::with_strides(&data, rows, cols, row_stride, col_stride);
        assert_eq!(read.err(), Some(Error::Stride));
        let write = MatrixMut::with_strides(&mut data, rows, cols, row_stride, col_stride);
        assert_eq!(write.err(), Some(Error::Stride));
    }
    // The stride of an axis with one element may be anything.
    assert!(MatrixMut::with_strides(&mut data, 1, 1, max, max).is_ok());
    assert!(MatrixMut::with_strides(&mut data, 1, 12, max, 1).is_ok());
    assert!(MatrixMut::with_strides(&mut data, 0, max, max, max).is_ok());
}

#[test]
fn a_repeated_row_is_no_output() {
    let mut data = [1.0, 2.0, 3.0];
    let repeated = MatrixRef::with_strides(&data, 4, 3, 0, 1).unwrap();
    assert_eq!(shown(repeated), vec![data.to_vec(); 4]);
    assert_eq!(MatrixMut::with_strides(&mut data, 4, 3, 0, 1).err(), Some(Error::Alias));
}

#[test]
fn arrays_and_matrices_become_views() {
    let rows = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
    let want = rows.map(|row| row.to_vec()).to_vec();
    let mut matrix = Matrix::from(rows);
    assert_eq!(matrix.0, rows);
    assert_eq!(shown(MatrixRef::from(rows.as_slice())), want);
    assert_eq!(shown(MatrixRef::from(&matrix)), want);
    assert_eq!(shown(matrix.view()), want);
    assert_eq!(shown(matrix.view_mut().view()), want);
    *MatrixMut::from(&mut matrix).get_mut(1, 2).unwrap() = 7.0;
    assert_eq!(matrix.0[1][2], 7.0);
    *MatrixMut::from(matrix.0.as_mut_slice()).get_mut(0, 0).unwrap() = 8.0;
    assert_eq!(matrix.0[0][0], 8.0);
    assert_eq!(Matrix::<2, 3>::default(), Matrix::ZERO);
    assert_eq!(Matrix::<2, 3>::ZERO.0, [[0.0; 3]; 2]);
    let empty = Matrix::<0, 3>::ZERO;
    assert!(empty.view().is_empty() && empty.view().cols() == 3);
    assert!(!matrix.view().is_empty() && Matrix::<3, 0>::ZERO.view().is_empty());
}

#[test]
fn errors_have_messages() {
    let errors = [Error::Shape, Error::Stride, Error::Alias, Error::Option];
    let words = errors.map(|error| error.to_string());
    for (i, text) in words.iter().enumerate() {
        assert!(!text.is_empty() && !words[..i].contains(text));
    }
}

fn score_grid(backend: Backend, keys: &Grid, queries: &Grid) -> Grid {
    let mut out = Grid::zeros(keys.rows, queries.rows);
    backend.scores(keys.view(), queries.view(), None, out.view_mut()).unwrap();
    out
}

/// Scores and pattern of the queries before and from `at`, on two threads.
fn in_two_threads(backend: Backend, keys: &Grid, queries: &Grid, at: usize) -> Grid {
    let mut out = Grid::zeros(keys.rows, queries.rows);
    let (left, right) = out.view_mut().split_columns(at).unwrap();
    let (first, second) = queries.view().split_rows(at).unwrap();
    std::thread::scope(|scope| {
        for (mut out, queries) in [(left, first), (right, second)] {
            scope.spawn(move || {
                backend.scores(keys.view(), queries, None, out.view_mut()).unwrap();
                backend.softmax_columns_in_place(out);
            });
        }
    });
    out
}

fn halves_in_threads_give_the_same_bits(backend: Backend) {
    let mut rng = Rng::new(301);
    let keys = Grid::random(&mut rng, Kind::Wide, 23, 40);
    let queries = Grid::random(&mut rng, Kind::Wide, 51, 40);
    let mut want = score_grid(backend, &keys, &queries);
    backend.softmax_columns_in_place(want.view_mut());
    for at in [0, 1, 7, 8, 25, 26, 50, 51] {
        let got = in_two_threads(backend, &keys, &queries, at);
        assert_same_bits(&format!("split at {at}"), &got.data, &want.data);
    }
}

fn parts_of_any_width_give_the_same_bits(backend: Backend) {
    let mut rng = Rng::new(302);
    let x = Grid::random(&mut rng, Kind::Wide, 17, 70);
    let mut want = x.clone();
    backend.softmax_rows_in_place(want.view_mut());
    for at in SIZES.into_iter().filter(|&at| at <= 17) {
        let mut got = x.clone();
        let (above, below) = got.view_mut().split_rows(at).unwrap();
        backend.softmax_rows_in_place(above);
        backend.softmax_rows_in_place(below);
        assert_same_bits(&format!("split at {at}"), &got.data, &want.data);
    }
    let mut got = Grid::from_fn(17, 70, |_, _| common::grid::CANARY);
    let (left, right) = got.view_mut().split_columns(33).unwrap();
    let (from, _) = x.view().split_columns(33).unwrap();
    backend.softmax_columns(from, left).unwrap();
    assert!(shown(right.view()).iter().all(|row| is_untouched(row)), "wrote into the other half");
}

fn heapless_vectors_are_slices(backend: Backend) {
    let mut a = Inline::<f32, 8>::from_slice(&[1.0, 2.0, 3.0]).unwrap();
    let b = Inline::<f32, 5>::from_slice(&[4.0, 5.0, 6.0]).unwrap();
    let b: &VecView<f32> = &b;
    assert_eq!(backend.dot(&a, b), Ok(32.0));
    let mut out = Inline::<f32, 4>::from_slice(&[0.0; 3]).unwrap();
    let out: &mut VecView<f32> = &mut out;
    backend.softmax(&a, out).unwrap();
    backend.softmax_in_place(&mut a);
    assert_same_bits("heapless", out, &a);
    let mut rows = Inline::<[f32; 2], 4>::new();
    rows.push([1.0, 2.0]).unwrap();
    rows.push([3.0, 4.0]).unwrap();
    assert_eq!(shown(MatrixRef::from(&rows[..])), [[1.0, 2.0], [3.0, 4.0]]);
    backend.softmax_rows_in_place(MatrixMut::from(&mut rows[..]));
    backend.softmax_rows_in_place(MatrixMut::new(out, 1, 3).unwrap());
    let x = MatrixRef::from(&rows[..]);
    let mut product = Inline::<f32, 16>::from_slice(&[0.0; 4]).unwrap();
    let into = MatrixMut::new(&mut product, 2, 2).unwrap();
    backend
        .project(x, x.t(), Some(&Inline::<f32, 2>::from_slice(&[0.5; 2]).unwrap()), into)
        .unwrap();
    assert!(product.iter().all(|x| x.is_finite() && *x > 0.5));
}

/// Arrays of arrays convert to views without `as_slice`.
#[test]
fn arrays_are_views() {
    let mut rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]];
    assert_eq!(shown(MatrixRef::from(&rows)), [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
    *MatrixMut::from(&mut rows).get_mut(2, 0).unwrap() = 7.0;
    assert_eq!(rows, [[1.0, 2.0], [3.0, 4.0], [7.0, 6.0]]);
    let keep = [[1_u8, 0], [0, 1]];
    assert_eq!(MatrixRef::from(&keep).row(1), Some(&[0, 1][..]));
}

/// Column `c` of head `h` is column `h · dim + c` of the matrix, for any strides.
#[test]
fn columns_are_heads_side_by_side() {
    let mut data = indices::<200>();
    for (row_stride, col_stride) in [(12, 1), (1, 5), (30, 2), (0, 3)] {
        let view = MatrixRef::with_strides(&data, 4, 12, row_stride, col_stride).unwrap();
        for heads in [1, 2, 3, 12] {
            let dim = 12 / heads;
            let all = view.heads(heads).unwrap();
            assert_eq!((all.heads(), all.rows(), all.cols()), (heads, 4, dim));
            for head in 0..heads {
                let (_, behind) = view.split_columns(head * dim).unwrap();
                let (want, _) = behind.split_columns(dim).unwrap();
                assert_eq!(shown(all.head(head).unwrap()), shown(want));
            }
            assert!(all.head(heads).is_none());
        }
        for heads in [0, 5, 24, usize::MAX] {
            assert_eq!(view.heads(heads).err(), Some(Error::Shape));
        }
    }
    let written = MatrixMut::new(&mut data, 4, 12).unwrap();
    *written.heads(3).unwrap().head_mut(1).unwrap().get_mut(2, 3).unwrap() = -1.0;
    assert_eq!(data[2 * 12 + 4 + 3], -1.0);
    let written = MatrixMut::new(&mut data, 4, 12).unwrap();
    assert_eq!(written.heads(7).err(), Some(Error::Shape));
}
