//! Views from raw parts, and two threads that write interleaved columns of one buffer.

use std::{ptr, thread};

use sdpa::{
    CachePositions, Error, HeadsMut, HeadsRef, KvCacheMut, KvCacheRef, MatrixMut, MatrixRef,
};
use sdpa_capi::*;

#[test]
fn raw_parts_follow_their_strides() {
    let mut data: Vec<f32> = (0..24u8).map(f32::from).collect();
    let at = data.as_mut_ptr();
    // SAFETY: all elements are in `data`; the two outputs are disjoint.
    unsafe {
        let mut left = MatrixMut::from_raw_parts(at, 4, 2, 6, 1).unwrap();
        let mut right = MatrixMut::from_raw_parts(at.add(2), 4, 4, 6, 1).unwrap();
        *left.get_mut(3, 1).unwrap() = -1.0;
        right.row_mut(3).unwrap().fill(-2.0);
        *left.get_mut(3, 0).unwrap() = -3.0;
        let row = MatrixRef::from_raw_parts(at.cast_const(), 4, 6, 6, 1).unwrap();
        assert_eq!(row.row(3), Some(&[-3.0, -1.0, -2.0, -2.0, -2.0, -2.0][..]));
        let column = MatrixRef::from_raw_parts(at.cast_const(), 3, 4, 0, 6).unwrap();
        assert_eq!([column.get(0, 2), column.get(2, 2)], [Some(12.0); 2]);
        let heads = HeadsRef::from_raw_parts(at.cast_const(), [3, 4, 2], [2, 6, 1]).unwrap();
        assert_eq!(heads.head(1).unwrap().row(2), Some(&[14.0, 15.0][..]));
        let mut heads = HeadsMut::from_raw_parts(at, [3, 4, 2], [2, 6, 1]).unwrap();
        *heads.head_mut(2).unwrap().get_mut(0, 1).unwrap() = 9.0;
    }
    assert_eq!(data[5], 9.0);
}

#[test]
fn raw_parts_out_of_range_are_refused() {
    let mut data = [0.0; 8];
    let (at, max) = (data.as_mut_ptr(), usize::MAX);
    // SAFETY: a view that is not refused has no element or one.
    unsafe {
        for (rows, cols, row, col) in
            [(2, 2, max, 1), (2, 2, 1, max), (max, 1, 1, 1), (3, 3, max / 4, 1)]
        {
            assert_eq!(
                MatrixRef::from_raw_parts(at.cast_const(), rows, cols, row, col).err(),
                Some(Error::Stride)
            );
            assert_eq!(
                MatrixMut::from_raw_parts(at, rows, cols, row, col).err(),
                Some(Error::Stride)
            );
            let (sizes, strides) = ([2, rows, cols], [1, row, col]);
            assert_eq!(
                HeadsRef::from_raw_parts(at.cast_const(), sizes, strides).err(),
                Some(Error::Stride)
            );
            assert_eq!(HeadsMut::from_raw_parts(at, sizes, strides).err(), Some(Error::Stride));
        }
        let far = [[2, 1, 1], [max, 1, 1]];
        assert_eq!(
            HeadsRef::from_raw_parts(at.cast_const(), far[0], far[1]).err(),
            Some(Error::Stride)
        );
        for (row, col) in [(0, 1), (1, 1), (1, 0), (2, 4)] {
            assert_eq!(MatrixMut::from_raw_parts(at, 3, 3, row, col).err(), Some(Error::Alias));
        }
        assert_eq!(HeadsMut::from_raw_parts(at, [2, 2, 2], [1, 2, 1]).err(), Some(Error::Alias));
        for (rows, cols) in [(0, max), (max, 0), (0, 0)] {
            let none = MatrixMut::from_raw_parts(ptr::null_mut(), rows, cols, max, max).unwrap();
            assert!(none.is_empty() && none.view().row(0).is_none());
            let none =
                HeadsRef::<f32>::from_raw_parts(ptr::null(), [max, rows, cols], [max; 3]).unwrap();
            assert!(none.head(max - 1).unwrap().is_empty());
        }
        assert!(MatrixMut::from_raw_parts(at, 1, 1, max, max).is_ok());
    }
}

#[test]
fn positions_that_exceed_the_storage_are_refused() {
    assert_eq!(CachePositions::new(3, 4), Err(Error::Shape));
    let (mut keys, mut values) = ([0.0; 128], [0.0; 128]);
    for (appended, dropped, fits) in
        [(128, 0, true), (129, 0, false), (129, 64, true), (129, 63, false)]
    {
        let mut span = CachePositions::new(appended, dropped).unwrap();
        let refused = (!fits).then_some(Error::Capacity);
        assert_eq!(KvCacheRef::new(&keys, &values, 1, 1, span).err(), refused);
        assert_eq!(KvCacheMut::new(&mut keys, &mut values, 1, 1, &mut span).err(), refused);
    }
}

/// A pointer that moves to a thread.
struct Shared(*mut f32);

// SAFETY: the threads below use disjoint elements.
unsafe impl Send for Shared {}

#[test]
fn threads_write_interleaved_columns() {
    let x: Vec<f32> = (0..7 * 6u8).map(|i| f32::from(i % 11)).collect();
    let mut want = vec![0.0; 7 * 6];
    let mut got = want.clone();
    let matrix = |data: *const f32, cols, row_stride| sdpa_matrix {
        data,
        rows: 7,
        cols,
        row_stride,
        col_stride: 1,
    };
    let out = |data, cols| sdpa_matrix_mut { data, rows: 7, cols, row_stride: 6, col_stride: 1 };
    let whole = out(want.as_mut_ptr(), 6);
    // SAFETY: pointers and sizes are those of these buffers.
    let status = unsafe { sdpa_softmax_columns(matrix(x.as_ptr(), 6, 6), whole) };
    assert_eq!(status, SDPA_OK);
    let at = got.as_mut_ptr();
    thread::scope(|scope| {
        for (first, cols) in [(0, 2), (2, 4)] {
            let (x, to) = (&x, Shared(at.wrapping_add(first)));
            scope.spawn(move || {
                let Shared(to) = { to };
                // SAFETY: the columns of this thread alone.
                let status = unsafe {
                    sdpa_softmax_columns(matrix(x[first..].as_ptr(), cols, 6), out(to, cols))
                };
                assert_eq!(status, SDPA_OK);
            });
        }
    });
    assert_eq!(got, want);
}
