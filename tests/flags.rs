//! No call raises a flag if all products and sums of the visible numbers are finite. A flag that was raised
//! before the call stays.

#[allow(unsafe_code, reason = "it reads and writes the register of the flags")]
#[path = "../src/simd/flags.rs"]
mod register;

use register::{Flags, machine};
use sdpa::{Attention, Backend, MatrixMut, MatrixRef, Pairs, RotaryTable};

/// The flags that `call` raises.
fn raised(call: impl FnOnce()) -> usize {
    machine::write(machine::read() & !machine::MASK);
    call();
    let raised = machine::read() & machine::MASK;
    machine::write(machine::read() & !machine::MASK);
    raised
}

/// Floats between −2 and 2.
fn floats(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 22) as f32 - 2.0
    };
    (0..count).map(|_| next()).collect()
}

fn matrix(data: &[f32], rows: usize, cols: usize) -> MatrixRef<'_> {
    MatrixRef::new(data, rows, cols).expect("dense")
}

fn matrix_mut(data: &mut [f32], rows: usize, cols: usize) -> MatrixMut<'_> {
    MatrixMut::new(data, rows, cols).expect("dense")
}

const SIZES: [usize; 14] = [0, 1, 2, 3, 5, 8, 9, 16, 17, 31, 33, 64, 65, 130];

/// The contents of masked keys, empty outputs and workspaces.
const ANY: [f32; 5] =
    [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::from_bits(0x7fa0_0001)];

#[test]
fn softmax_raises_nothing() {
    for (backend, n) in Backend::available().flat_map(|b| SIZES.map(|n| (b, n))) {
        for every in [0, 1, 3] {
            let (rows, mut x) = (7, floats(7 * n, n as u32));
            let masked = x.iter_mut().enumerate().filter(|(i, _)| every > 0 && i % every == 0);
            masked.for_each(|(_, x)| *x = f32::NEG_INFINITY);
            let out = &mut vec![0.0; 7 * n][..];
            let left = raised(|| {
                backend.softmax(&x, out).expect("one length");
                backend.softmax_rows(matrix(&x, rows, n), matrix_mut(out, rows, n)).expect("shape");
                backend
                    .softmax_columns(matrix(&x, n, rows), matrix_mut(out, n, rows))
                    .expect("shape");
                backend
                    .softmax_columns(matrix(&x, rows, n), matrix_mut(out, rows, n))
                    .expect("shape");
            });
            assert_eq!(left, 0, "{backend:?}, {n} columns, every {every} masked");
        }
    }
}

#[test]
fn merge_raises_nothing() {
    for (backend, queries) in Backend::available().flat_map(|b| SIZES.map(|n| (b, n))) {
        for [ours, theirs] in [[true, true], [true, false], [false, true], [false, false]] {
            let state = |is_empty: bool, seed| {
                let (mut out, mut log_sum_exp) = (floats(3 * queries, seed), floats(queries, seed));
                if is_empty {
                    log_sum_exp.fill(f32::NEG_INFINITY);
                    out.fill(ANY[queries % ANY.len()]);
                }
                (out, log_sum_exp)
            };
            let ((mut a, mut a_lse), (b, b_lse)) = (state(ours, 1), state(theirs, 2));
            let left = raised(|| {
                let (a, b) = (matrix_mut(&mut a, queries, 3), matrix(&b, queries, 3));
                backend.merge(a, &mut a_lse, b, &b_lse).expect("shapes agree");
            });
            assert_eq!(left, 0, "{backend:?}, {queries} queries, empty: {ours}, {theirs}");
        }
    }
}

#[test]
fn rotate_raises_nothing() {
    for (backend, count) in Backend::available().flat_map(|b| SIZES.map(|n| (b, n + 1))) {
        let (dim, first) = (2 * count + 3, [0, 1 << 24, (1 << 53) - 7][count % 3]);
        let (x, mut out) = (floats(7 * dim, count as u32), vec![ANY[count % ANY.len()]; 7 * dim]);
        let mut memory = vec![f32::NAN; RotaryTable::floats(7, count)];
        for pairs in [Pairs::Halves, Pairs::Interleaved] {
            let left = raised(|| {
                let table = RotaryTable::new(1e4, count, first..first + 7, &mut memory);
                let (table, out) = (table.expect("long"), matrix_mut(&mut out, 7, dim));
                backend.rotate(matrix(&x, 7, dim), &table, first, pairs, out).expect("shape");
            });
            assert_eq!(left, 0, "{backend:?}, {count} pairs");
        }
    }
}

#[test]
fn attention_raises_nothing() {
    let shapes = SIZES.into_iter().flat_map(|q| [0, 1, 7, 64, 70].map(|k| (q, k)));
    for (backend, (queries, keys)) in
        Backend::available().flat_map(|b| shapes.clone().map(move |shape| (b, shape)))
    {
        let (dim, width) = (5, 9);
        let q = floats(queries * dim, 1);
        let cells = keys * queries;
        let (all, third) = (vec![f32::NEG_INFINITY; cells], |key: usize| key.is_multiple_of(3));
        let some: Vec<f32> =
            (0..cells).map(|i| if third(i / queries) { f32::NEG_INFINITY } else { 0.5 }).collect();
        let keep: Vec<u8> = (0..cells).map(|i| u8::from(!third(i / queries))).collect();
        let keep = MatrixRef::new(&keep, keys, queries).expect("dense");
        let plain = Attention::new().on(backend);
        let in_the_future = |key: usize| key >= queries;
        /// A name, the options, and which keys they mask.
        type Case<'a> = (&'a str, Attention<'a>, &'a dyn Fn(usize) -> bool);
        let cases: [Case<'_>; 8] = [
            ("plain", plain, &|_| false),
            ("a sink", plain.sink(0.5).softcap(3.0), &|_| false),
            ("all masked", plain.bias(matrix(&all, keys, queries)), &|_| true),
            ("some masked", plain.bias(matrix(&some, keys, queries)).softcap(2.0), &third),
            ("some dropped", plain.keep(keep).sink(-0.5), &third),
            ("causal", plain.causal(), &in_the_future),
            ("none visible", plain.causal().query_offset(-1000), &|_| true),
            ("a window", plain.window(2, 1), &|_| false),
        ];
        for (i, (what, attention, is_masked)) in cases.into_iter().enumerate() {
            let any = ANY[(i + queries + keys) % ANY.len()];
            let held = |width, seed| {
                let mut held = floats(keys * width, seed);
                for (key, row) in held.chunks_mut(width).enumerate() {
                    if is_masked(key) {
                        row.fill(any);
                    }
                }
                held
            };
            let (k, v) = (held(dim, 2), held(width, 3));
            let (mut out, mut lse) = (vec![any; queries * width], vec![any; queries]);
            let (mut workspace, mut grid) =
                (vec![any; Attention::workspace(dim, width)], some.clone());
            let left = raised(|| {
                let (q, k) = (matrix(&q, queries, dim), matrix(&k, keys, dim));
                let (v, out) = (matrix(&v, keys, width), matrix_mut(&mut out, queries, width));
                let run = attention.run_with_log_sum_exp(q, k, v, out, &mut lse, &mut workspace);
                run.expect("shapes agree");
                let grid = matrix_mut(&mut grid, keys, queries);
                attention.pattern(q, k, grid).expect("shapes agree");
            });
            assert_eq!(left, 0, "{backend:?}, {what}: {queries} queries, {keys} keys, {any}");
        }
    }
}

/// The tests above can fail: a flag is seen. A call clears only the flags that it raised itself.
#[test]
fn flags_from_before_stay() {
    let raise =
        || std::hint::black_box(std::hint::black_box(0.0f32) / std::hint::black_box(0.0f32));
    let seen = raised(|| {
        raise();
    });
    let before = raised(|| {
        raise();
        let flags = Flags::read();
        raise();
        flags.restore();
        let keys = [f32::INFINITY];
        let (one, keep) = (MatrixRef::from_row(&keys), MatrixRef::from_row(&[0]));
        let (mut out, mut workspace) = ([0.0], vec![0.0; Attention::workspace(1, 1)]);
        let attention = Attention::new().keep(keep);
        let out = MatrixMut::from_row(&mut out);
        attention.run(one, one, one, out, &mut workspace).expect("shapes agree");
    });
    assert_eq!(before, seen);
    let restored = raised(|| {
        let flags = Flags::read();
        raise();
        flags.restore();
    });
    assert_eq!((restored, seen == 0), (0, machine::MASK == 0));
}
