//! Rotary position embedding: accuracy, bits, the semantics of each line of `docs/numerics.md`, tables and errors; on
//! every back end.

use crate::common::{
    assert_same_bits,
    bounds::{Case, ROTATE, Worst},
    cases::{Kind, Rng},
    grid::{CANARY, Grid, is_untouched},
    heads::GuardedHeads,
    oracle::{Sum, rotary},
    reference::Reference,
    same,
};
use sdpa::{
    Backend, Error, HeadsMut, HeadsRef, MatrixMut, MatrixRef, Pairs, RotaryTable, rotate,
    rotate_in_place,
};

suite! {
    accuracy,
    accuracy_of_the_worst_pairs,
    far_positions,
    turning_back,
    bits,
    a_row_does_not_depend_on_others,
    position_zero,
    a_nan_stays_in_its_pair,
    an_infinity_stays_in_its_pair,
    zeros,
    columns_behind_the_pairs,
    nothing_to_rotate,
    errors_write_nothing,
}

const LAYOUTS: [Pairs; 2] = [Pairs::Halves, Pairs::Interleaved];

/// The columns of pair `i` of `count`.
fn columns(pairs: Pairs, i: usize, count: usize) -> [usize; 2] {
    match pairs {
        Pairs::Halves => [i, count + i],
        Pairs::Interleaved => [2 * i, 2 * i + 1],
    }
}

fn random_pairs(rng: &mut Rng) -> Pairs {
    rng.pick(&LAYOUTS)
}

/// A table from a base or from frequencies, and its frequencies as the oracle takes them.
fn any_frequencies(rng: &mut Rng, count: usize) -> (Option<f64>, Vec<f32>, Vec<[f64; 2]>) {
    if rng.one_in(2) {
        let base = rng.pick(&[1.0, 10_000.0, 500_000.0, 1e6, 31_234.567_8]);
        return (Some(base), Vec::new(), rotary::frequencies(base, count));
    }
    let frequencies: Vec<f32> = (0..count).map(|_| rng.between(-1.0, 1.0)).collect();
    let exact = frequencies.iter().map(|&x| [f64::from(x), 0.0]).collect();
    (None, frequencies, exact)
}

fn make<'a>(
    (base, frequencies): (Option<f64>, &[f32]),
    count: usize,
    first: u64,
    positions: usize,
    memory: &'a mut Vec<f32>,
) -> RotaryTable<'a> {
    memory.resize(RotaryTable::floats(positions, count), 0.0);
    let range = first..first + positions as u64;
    match base {
        Some(base) => RotaryTable::new(base, count, range, memory).unwrap(),
        None => RotaryTable::with_frequencies(frequencies, range, memory).unwrap(),
    }
}

fn case(truth: Sum, propagated: f64) -> Case {
    Case { fma: false, n: 1, truth, propagated }
}

/// Checks rotated rows against the oracle; `extra` is added to the bound, times the length of a pair.
fn check(
    worst: &mut Worst,
    (x, out): (&Grid, &Grid),
    (first, frequencies): (u64, &[[f64; 2]]),
    pairs: Pairs,
    extra: f64,
) {
    for row in 0..x.rows {
        for (i, &frequency) in frequencies.iter().enumerate() {
            let [a, b] = columns(pairs, i, frequencies.len());
            let angle = rotary::cosine_and_sine(first + row as u64, frequency);
            let truth = rotary::rotate([x.at(row, a), x.at(row, b)], angle);
            for (col, truth) in [a, b].into_iter().zip(truth) {
                worst.check(out.at(row, col), case(truth, extra * truth.magnitude));
            }
        }
    }
}

fn rotated(
    backend: Backend,
    x: &Grid,
    table: &RotaryTable<'_>,
    position: u64,
    pairs: Pairs,
) -> Grid {
    let mut out = Grid::zeros(x.rows, x.cols);
    backend.rotate(x.view(), table, position, pairs, out.view_mut()).unwrap();
    out
}

/// Positions up to 2²⁴, the first of a table.
fn position(rng: &mut Rng, below: usize) -> u64 {
    let any = rng.below(below) as u64;
    let last = below as u64 - 32;
    rng.pick(&[0, 1, 1000, last, any, any, any]).min(last)
}

fn accuracy(backend: Backend) {
    const FINITE: [Kind; 5] =
        [Kind::Ordinary, Kind::Ordinary, Kind::Wide, Kind::Tiny, Kind::Subnormal];
    let mut rng = Rng::new(301);
    let mut worst = Worst::new(&ROTATE);
    for _ in 0..400 {
        let (count, rows) = (1 + rng.below(70), 1 + rng.below(30));
        let (base, frequencies, exact) = any_frequencies(&mut rng, count);
        let first = position(&mut rng, 1 << 24);
        let mut memory = Vec::new();
        let table = make((base, &frequencies), count, first, rows, &mut memory);
        let kind = rng.pick(&FINITE);
        let x = Grid::random(&mut rng, kind, rows, 2 * count);
        let pairs = random_pairs(&mut rng);
        let out = rotated(backend, &x, &table, first, pairs);
        check(&mut worst, (&x, &out), (first, &exact), pairs, 0.0);
    }
    worst.finish(backend.name());
}

/// Pairs whose products and sums round badly: lengths a little above a power of two, at random angles.
fn accuracy_of_the_worst_pairs(backend: Backend) {
    let mut rng = Rng::new(302);
    let mut worst = Worst::new(&ROTATE);
    for _ in 0..300 {
        let (count, rows, first) = (64, 16, position(&mut rng, 1 << 24));
        let (base, frequencies, exact) = any_frequencies(&mut rng, count);
        let mut memory = Vec::new();
        let table = make((base, &frequencies), count, first, rows, &mut memory);
        let pairs = random_pairs(&mut rng);
        let mut x = Grid::zeros(rows, 2 * count);
        for row in 0..rows {
            for i in 0..count {
                let (angle, length) = (rng.between(0.0, 6.3), 1.0 + rng.between(0.0, 0.1));
                let [a, b] = columns(pairs, i, count);
                x.data[row * x.cols + a] = length * angle.cos();
                x.data[row * x.cols + b] = length * angle.sin();
            }
        }
        let out = rotated(backend, &x, &table, first, pairs);
        check(&mut worst, (&x, &out), (first, &exact), pairs, 0.0);
    }
    worst.finish(backend.name());
}

/// Beyond 2²⁴ the error of the angle is at most 3.4 · 2⁻⁵³ of the position.
fn far_positions(backend: Backend) {
    let mut rng = Rng::new(303);
    let mut worst = Worst::new(&ROTATE);
    for exponent in 25..=53 {
        let (count, rows) = (1 + rng.below(40), 9);
        let first = (1 << exponent) - rows as u64;
        for base in [10_000.0, 500_000.0] {
            let exact = rotary::frequencies(base, count);
            let mut memory = Vec::new();
            let table = make((Some(base), &[]), count, first, rows, &mut memory);
            let x = Grid::random(&mut rng, Kind::Ordinary, rows, 2 * count);
            let out = rotated(backend, &x, &table, first, Pairs::Halves);
            let extra = 3.4 * 0.5 * f64::EPSILON * (first as f64);
            check(&mut worst, (&x, &out), (first, &exact), Pairs::Halves, extra);
        }
    }
}

/// Negated frequencies undo a rotation, within the bounds of both.
fn turning_back(backend: Backend) {
    let mut rng = Rng::new(304);
    let frequencies: Vec<f32> = (0..33).map(|_| rng.between(-1.0, 1.0)).collect();
    let negated: Vec<f32> = frequencies.iter().map(|x| -x).collect();
    let (mut there, mut back) = (Vec::new(), Vec::new());
    let there = make((None, &frequencies), 33, 1000, 5, &mut there);
    let back = make((None, &negated), 33, 1000, 5, &mut back);
    for pairs in LAYOUTS {
        let x = Grid::random(&mut rng, Kind::Wide, 5, 66);
        let out = rotated(backend, &x, &there, 1000, pairs);
        let out = rotated(backend, &out, &back, 1000, pairs);
        for (row, i) in (0..5).flat_map(|row| (0..33).map(move |i| (row, i))) {
            let [a, b] = columns(pairs, i, 33);
            let length = f64::from(x.at(row, a)).hypot(f64::from(x.at(row, b)));
            for col in [a, b] {
                let error = f64::from(out.at(row, col)) - f64::from(x.at(row, col));
                assert!(error.abs() <= 2.01 * 1.5 * f64::from(f32::EPSILON) * length, "{error}");
            }
        }
    }
}

/// Heads of any strides, out of place and in place, against the scalar reference.
fn bits(backend: Backend) {
    let reference = Reference::of(backend.family());
    let mut rng = Rng::new(305);
    for _ in 0..1500 {
        let [heads, tokens] = [1 + rng.below(4), rng.below(8)];
        let count = 1 + if rng.one_in(3) { rng.below(70) } else { rng.below(20) };
        let dim = 2 * count + rng.pick(&[0, 0, 1, 2, 5, 40]);
        let (base, frequencies, _) = any_frequencies(&mut rng, count);
        let (first, before, behind) = (position(&mut rng, 1 << 24), rng.below(3), rng.below(3));
        let mut memory = Vec::new();
        let table = make((base, &frequencies), count, first, before + tokens + behind, &mut memory);
        // Factors of other strides: transposed copies of both, or of the cosines alone.
        let [cosines, sines] = [table.cosines(), table.sines()]
            .map(|x| Grid::from_fn(count, x.rows(), |pair, row| x.get(row, pair).unwrap()));
        let with = |sines| RotaryTable::from_parts(cosines.view().t(), sines, first).unwrap();
        let table = match rng.below(8) {
            0 => with(sines.view().t()),
            1 => with(table.sines()),
            _ => table,
        };
        let pairs = random_pairs(&mut rng);
        let kind = Kind::any(&mut rng);
        let x: Vec<Grid> = (0..heads).map(|_| Grid::random(&mut rng, kind, tokens, dim)).collect();
        let want: Vec<Grid> = (x.iter())
            .map(|x| {
                let rows = (0..tokens).flat_map(|row| {
                    let of = |x: &Grid| x.column(before + row);
                    let interleaved = pairs == Pairs::Interleaved;
                    reference.rotate(x.row(row), &of(&cosines), &of(&sines), interleaved)
                });
                Grid { rows: tokens, cols: dim, data: rows.collect() }
            })
            .collect();

        let what = format!("{pairs:?}: {heads} heads, {tokens} tokens, {count} of {dim}");
        let position = first + before as u64;
        let mut held = GuardedHeads::of(&mut rng, &x);
        let mut out = GuardedHeads::output(&mut rng, [heads, tokens, dim]);
        backend.rotate(held.view(), &table, position, pairs, out.view_mut()).unwrap();
        let out = out.checked(&what);
        backend.rotate_in_place(held.view_mut(), &table, position, pairs).unwrap();
        let in_place = held.checked(&what);
        for ((out, in_place), want) in out.iter().zip(&in_place).zip(&want) {
            assert_same_bits(&what, &out.data, &want.data);
            assert_same_bits(&format!("{what}, in place"), &in_place.data, &want.data);
        }
    }
}

/// Nor on the range of the table.
fn a_row_does_not_depend_on_others(backend: Backend) {
    let mut rng = Rng::new(306);
    for pairs in LAYOUTS {
        let x = Grid::random(&mut rng, Kind::Ordinary, 20, 70);
        let mut memory = Vec::new();
        let table = make((Some(10_000.0), &[]), 35, 5, 30, &mut memory);
        let all = rotated(backend, &x, &table, 7, pairs);
        for row in 0..x.rows {
            let one = Grid { rows: 1, cols: x.cols, data: x.row(row).to_vec() };
            let position = 7 + row as u64;
            let mut memory = Vec::new();
            let table = make((Some(10_000.0), &[]), 35, position, 1, &mut memory);
            let out = rotated(backend, &one, &table, position, pairs);
            assert_same_bits("one row", &out.data, all.row(row));
        }
    }
}

/// Every pair of tables of several widths at one position: calls `f` with the pair's columns, the number of columns that
/// turn, and a function that rotates a row.
fn for_each_pair(
    backend: Backend,
    position: u64,
    mut f: impl FnMut([usize; 2], usize, &dyn Fn(&[f32]) -> Vec<f32>),
) {
    for count in [1, 3, 8, 17, 40] {
        let mut memory = Vec::new();
        let table = make((Some(10_000.0), &[]), count, position, 1, &mut memory);
        for pairs in LAYOUTS {
            let rotated = |row: &[f32]| {
                let x = Grid { rows: 1, cols: row.len(), data: row.to_vec() };
                rotated(backend, &x, &table, position, pairs).data
            };
            for i in 0..count {
                f(columns(pairs, i, count), 2 * count, &rotated);
            }
        }
    }
}

/// Finite numbers stay as they are, but for the sign of a zero.
fn position_zero(backend: Backend) {
    let mut rng = Rng::new(307);
    for_each_pair(backend, 0, |_, width, rotated| {
        for kind in [Kind::Wide, Kind::Tiny, Kind::Subnormal, Kind::Huge, Kind::Zeros] {
            let x = Grid::random(&mut rng, kind, 1, width).data;
            assert_eq!(rotated(&x), x);
        }
    });
}

fn a_nan_stays_in_its_pair(backend: Backend) {
    for position in [0, 1, 77] {
        for_each_pair(backend, position, |pair, width, rotated| {
            let clean = rotated(&vec![0.5; width]);
            for col in pair {
                let mut x = vec![0.5; width];
                x[col] = f32::NAN;
                let out = rotated(&x);
                for (i, (&out, &clean)) in out.iter().zip(&clean).enumerate() {
                    assert!(if pair.contains(&i) { out.is_nan() } else { same(out, clean) });
                }
            }
        });
    }
}

fn an_infinity_stays_in_its_pair(backend: Backend) {
    for position in [0, 1, 77] {
        for_each_pair(backend, position, |pair, width, rotated| {
            let clean = rotated(&vec![0.5; width]);
            for (col, sign) in pair.into_iter().flat_map(|col| [(col, 1.0), (col, -1.0)]) {
                let mut x = vec![0.5; width];
                x[col] = sign * f32::INFINITY;
                let out = rotated(&x);
                for (i, (&out, &clean)) in out.iter().zip(&clean).enumerate() {
                    let is_right =
                        if pair.contains(&i) { !out.is_finite() } else { same(out, clean) };
                    assert!(is_right, "{i} of {pair:?} is {out}");
                }
            }
        });
    }
}

/// A pair of zeros stays a pair of zeros: −0 only where both products are −0.
fn zeros(backend: Backend) {
    let (mut memory, count) = (Vec::new(), 5);
    let table = make((None, &[0.5, -0.5, 2.0, -2.0, 0.0]), count, 1, 1, &mut memory);
    for pairs in LAYOUTS {
        for (a, b) in [(0.0, 0.0), (0.0, -0.0), (-0.0, 0.0), (-0.0, -0.0_f32)] {
            let mut x = Grid::zeros(1, 2 * count);
            for i in 0..count {
                let [first, second] = columns(pairs, i, count);
                (x.data[first], x.data[second]) = (a, b);
            }
            let out = rotated(backend, &x, &table, 1, pairs);
            for i in 0..count {
                let [cosine, sine] = [table.cosines(), table.sines()].map(|x| x.get(0, i).unwrap());
                let [first, second] = columns(pairs, i, count);
                let want = [a * cosine + b * -sine, b * cosine + a * sine];
                assert_same_bits("zeros", &[out.data[first], out.data[second]], &want);
                assert_eq!(want, [0.0; 2]);
            }
        }
    }
}

/// They are copied, each bit; in place nothing is written. `CANARY` is a NaN.
fn columns_behind_the_pairs(backend: Backend) {
    let mut rng = Rng::new(308);
    for (count, behind) in [(1, 1), (4, 3), (8, 16), (16, 41)] {
        let dim = 2 * count + behind;
        let mut memory = Vec::new();
        let table = make((Some(10_000.0), &[]), count, 0, 9, &mut memory);
        for pairs in LAYOUTS {
            let kind = rng.pick(&[Kind::Zeros, Kind::Infinite, Kind::Subnormal]);
            let mut x = Grid::random(&mut rng, kind, 9, dim);
            x.data[2 * count] = CANARY;
            let is_copied = |out: &Grid| {
                (0..9).all(|row| {
                    let [out, x] = [out, &x].map(|grid| grid.row(row)[2 * count..].to_vec());
                    out.iter().zip(x).all(|(out, x)| out.to_bits() == x.to_bits())
                })
            };
            assert!(is_copied(&rotated(backend, &x, &table, 0, pairs)), "{pairs:?}: {dim}");
            let mut there = x.clone();
            backend.rotate_in_place(there.view_mut(), &table, 0, pairs).unwrap();
            assert!(is_copied(&there), "{pairs:?}: {dim}, in place");
        }
    }
}

fn nothing_to_rotate(backend: Backend) {
    let mut memory = Vec::new();
    let table = make((Some(10_000.0), &[]), 2, 10, 3, &mut memory);
    for sizes in [[0, 3, 4], [2, 0, 4], [0, 0, 4]] {
        let [heads, tokens, dim] = sizes;
        for position in [10, 13 - tokens as u64] {
            let x = HeadsRef::stacked(&[], heads, tokens, dim).unwrap();
            let out = HeadsMut::stacked(&mut [], heads, tokens, dim).unwrap();
            assert_eq!(backend.rotate(x, &table, position, Pairs::Halves, out), Ok(()));
        }
    }
    // A table of no positions.
    let mut memory = Vec::new();
    let table = make((Some(10_000.0), &[]), 2, 10, 0, &mut memory);
    let out = HeadsMut::stacked(&mut [], 2, 0, 4).unwrap();
    assert_eq!(backend.rotate_in_place(out, &table, 10, Pairs::Interleaved), Ok(()));
}

fn errors_write_nothing(backend: Backend) {
    let mut memory = Vec::new();
    let table = make((Some(10_000.0), &[]), 2, 10, 3, &mut memory);
    let call = |[x_rows, x_cols]: [usize; 2], [rows, cols]: [usize; 2], position: u64| {
        let x = Grid::zeros(x_rows, x_cols);
        let mut out = Grid::from_fn(rows, cols, |_, _| CANARY);
        let result = backend.rotate(x.view(), &table, position, Pairs::Halves, out.view_mut());
        assert!(result.is_ok() || is_untouched(&out.data));
        if [x_rows, x_cols] == [rows, cols] {
            out.data.fill(CANARY);
            let there = backend.rotate_in_place(out.view_mut(), &table, position, Pairs::Halves);
            assert_eq!(there, result);
            assert!(result.is_ok() || is_untouched(&out.data));
        }
        result
    };
    assert_eq!(call([3, 4], [3, 4], 10), Ok(()));
    assert_eq!(call([1, 5], [1, 5], 12), Ok(()));
    for (x, out) in [([3, 4], [2, 4]), ([2, 4], [3, 4]), ([3, 5], [3, 4]), ([3, 4], [3, 5])] {
        assert_eq!(call(x, out, 10), Err(Error::Shape));
    }
    for dim in [0, 1, 2, 3] {
        assert_eq!(call([3, dim], [3, dim], 10), Err(Error::Shape), "too narrow");
    }
    for (tokens, position) in [(3, 9), (3, 11), (1, 13), (1, 9), (0, 14), (4, 10), (1, u64::MAX)] {
        assert_eq!(call([tokens, 4], [tokens, 4], position), Err(Error::Position));
    }
    let (x, mut out) = (Grid::zeros(6, 4), Grid::from_fn(6, 4, |_, _| CANARY));
    let (x, heads) = (x.view().heads(2), HeadsMut::stacked(&mut out.data, 3, 2, 2));
    let result = backend.rotate(x.unwrap(), &table, 10, Pairs::Halves, heads.unwrap());
    assert_eq!(result, Err(Error::Shape), "another number of heads");
    assert!(is_untouched(&out.data));
}

#[test]
fn tables_that_are_refused() {
    let refused = |error: Error, make: &dyn Fn(&mut [f32]) -> Result<(), Error>| {
        let mut memory = vec![CANARY; 24];
        assert_eq!(make(&mut memory), Err(error));
        assert!(is_untouched(&memory), "an error wrote");
    };
    let of_base = |base: f64, pairs: usize, positions: std::ops::Range<u64>| {
        move |memory: &mut [f32]| RotaryTable::new(base, pairs, positions.clone(), memory).map(drop)
    };
    let frequencies = |frequencies: &'static [f32]| {
        move |memory: &mut [f32]| RotaryTable::with_frequencies(frequencies, 0..3, memory).map(drop)
    };
    for base in [0.0, 0.99, -1e4, f64::NAN, f64::INFINITY] {
        refused(Error::Option, &of_base(base, 4, 0..3));
    }
    for x in [&[f32::NAN][..], &[1.0, f32::INFINITY], &[f32::NEG_INFINITY, 1.0]] {
        let x: &'static [f32] = x.to_vec().leak();
        refused(Error::Option, &frequencies(x));
    }
    refused(Error::Shape, &of_base(1e4, 0, 0..3));
    refused(Error::Shape, &frequencies(&[]));
    refused(Error::Shape, &of_base(1e4, 4, 0..4)); // 32 floats
    refused(Error::Shape, &of_base(1e4, usize::MAX, 0..1));
    refused(Error::Shape, &of_base(1e4, usize::MAX / 2, 0..1 << 53));
    #[expect(clippy::reversed_empty_ranges, reason = "is the error")]
    refused(Error::Position, &of_base(1e4, 4, 3..2));
    refused(Error::Position, &of_base(1e4, 1, (1 << 53)..(1 << 53) + 1));
    refused(Error::Position, &of_base(1e4, 1, u64::MAX - 1..u64::MAX));
    let mut memory = [0.0; 24];
    let last = (1 << 53) - 3..1 << 53;
    assert_eq!(RotaryTable::new(1.0, 4, last.clone(), &mut memory).unwrap().positions(), last);

    let parts = |cosines: [usize; 2], sines: [usize; 2], first: u64| {
        let (x, of) = ([0.0; 24], |x, [rows, cols]: [usize; 2]| MatrixRef::new(x, rows, cols));
        let (cosines, sines) = (of(&x, cosines).unwrap(), of(&x, sines).unwrap());
        RotaryTable::from_parts(cosines, sines, first).map(|table| table.positions())
    };
    assert_eq!(parts([3, 4], [3, 4], 7), Ok(7..10));
    assert_eq!(parts([0, 4], [0, 4], u64::MAX), Ok(u64::MAX..u64::MAX));
    assert_eq!(parts([3, 4], [3, 3], 7), Err(Error::Shape));
    assert_eq!(parts([3, 4], [2, 4], 7), Err(Error::Shape));
    assert_eq!(parts([3, 0], [3, 0], 7), Err(Error::Shape));
    assert_eq!(parts([3, 4], [3, 4], u64::MAX - 3), Ok(u64::MAX - 3..u64::MAX));
    assert_eq!(parts([3, 4], [3, 4], u64::MAX - 2), Err(Error::Position));
}

/// Cosines and sines are those of f64, rounded once: the nearest floats, but for the rare near-tie.
#[test]
fn tables_hold_cosines_and_sines() {
    let mut memory = vec![CANARY; RotaryTable::floats(50, 6) + 5];
    assert_eq!(RotaryTable::floats(50, 6), 600);
    assert_eq!(RotaryTable::floats(usize::MAX, 2), usize::MAX);
    let table = RotaryTable::new(10_000.0, 6, 100..150, &mut memory).unwrap();
    assert_eq!(
        (table.positions(), table.cosines().rows(), table.sines().cols()),
        (100..150, 50, 6)
    );
    for row in 0..50 {
        for (pair, &frequency) in rotary::frequencies(10_000.0, 6).iter().enumerate() {
            let want = rotary::cosine_and_sine(100 + row as u64, frequency).map(|x| x as f32);
            let got = [table.cosines(), table.sines()].map(|x| x.get(row, pair).unwrap());
            assert_same_bits("a cosine and a sine", &got, &want);
        }
    }
    assert!(is_untouched(&memory[600..]), "wrote more than its floats");
}

/// The free functions run on the best back end.
#[test]
fn free_functions() {
    let x = Grid::random(&mut Rng::new(309), Kind::Ordinary, 4, 12);
    let mut memory = Vec::new();
    let table = make((Some(10_000.0), &[]), 6, 0, 4, &mut memory);
    let want = rotated(Backend::best(), &x, &table, 0, Pairs::Halves);
    let (mut out, mut there) = (vec![0.0; 48], x.clone());
    let into = MatrixMut::new(&mut out, 4, 12).unwrap();
    rotate(x.view(), &table, 0, Pairs::Halves, into).unwrap();
    rotate_in_place(there.view_mut(), &table, 0, Pairs::Halves).unwrap();
    assert_same_bits("rotate", &out, &want.data);
    assert_same_bits("rotate_in_place", &there.data, &want.data);
}
