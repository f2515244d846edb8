//! The contract of [`Vector`], tested on every back end that this machine has.

extern crate std;

use std::{vec, vec::Vec};

use super::Vector;
use crate::{
    dispatch::{Backend, Family},
    kernel::{Kernel, Name},
    number::Bf16,
};

/// Values at which rounding, range or NaN handling goes wrong.
const HARD: [f32; 20] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    1.000_000_1,
    0.1,
    3.0,
    16_777_215.0,
    16_777_217.0,
    f32::MIN_POSITIVE,
    1.0e-40,
    -1.0e-45,
    8.0e-20,
    3.0e38,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    -7.25,
];

/// Whether all bits are equal, or both are NaN.
fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

struct Laws(Family);

impl Kernel for Laws {
    type Output = ();

    const NAME: Name = Name::OfTests;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        assert_eq!(V::FMA, self.0 == Family::Fma);
        operators_act_on_each_lane_alone::<L, V>(token);
        memory_is_read_and_written_in_order::<L, V>(token);
        bits_move_into_the_exponent::<L, V>(token);
        lanes_are_folded_in_half::<L, V>(token);
        squares_are_transposed::<L, V>(token);
        columns_are_loaded::<L, V>(token);
        pairs_are_put_in_order::<L, V>(token);
    }
}

#[inline(always)]
fn operators_act_on_each_lane_alone<const L: usize, V: Vector<L>>(token: V::Token) {
    let lanes = |begin: usize| -> [f32; L] {
        core::array::from_fn(|lane| HARD[(begin + 7 * lane) % HARD.len()])
    };
    for (i, j, k) in (0..HARD.len().pow(3)).map(|n| (n % 20, n / 20 % 20, n / 400)) {
        let (a, b, c) = (lanes(i), lanes(j), lanes(k));
        let (x, y, z) = (V::load(token, &a), V::load(token, &b), V::load(token, &c));
        let check = |name: &str, got: V, law: &dyn Fn(f32, f32, f32) -> f32| {
            for (lane, got) in got.to_array().into_iter().enumerate() {
                let (a, b, c) = (a[lane], b[lane], c[lane]);
                let expected = law(a, b, c);
                assert!(same(got, expected), "{name}({a}, {b}, {c}) = {got}, not {expected}");
            }
        };
        check("+", x + y, &|a, b, _| a + b);
        check("-", x - y, &|a, b, _| a - b);
        check("*", x * y, &|a, b, _| a * b);
        check("/", x / y, &|a, b, _| a / b);
        check("max", x.max(y), &|a, b, _| if a > b { a } else { b });
        check("select_gt", x.select_gt(y, z, x), &|a, b, c| if a > b { c } else { a });
        // The contract of `times_above`: the factor is positive and finite.
        let positive = b.map(|b| if b.is_finite() { b.abs() } else { 2.0 });
        let times = V::load(token, &positive);
        check("times_above", x.times_above(times, z), &|a, b, c| match a <= c {
            true => 0.0,
            false => a * if b.is_finite() { b.abs() } else { 2.0 },
        });
        check("mul_add", x.mul_add(y, z), &|a, b, c| {
            if V::FMA { a.mul_add(b, c) } else { a * b + c }
        });
    }
}

#[inline(always)]
fn memory_is_read_and_written_in_order<const L: usize, V: Vector<L>>(token: V::Token) {
    let memory: Vec<f32> = (0..3 * L + 8).map(|i| i as f32).collect();
    for begin in 0..8 {
        for n in 0..=2 * L {
            let vector = V::load_partial(token, &memory[begin..begin + n], -3.5);
            for (lane, got) in vector.to_array().into_iter().enumerate() {
                assert_eq!(got, if lane < n { (begin + lane) as f32 } else { -3.5 });
            }
            let mut to = vec![-1.0; 3 * L + 8];
            V::splat(token, 9.0).store_partial(&mut to[begin..begin + n]);
            for (i, &got) in to.iter().enumerate() {
                let written = i >= begin && i < begin + n.min(L);
                assert_eq!(got, if written { 9.0 } else { -1.0 }, "{i} of {begin}, {n}");
            }
        }
    }
}

#[inline(always)]
fn bits_move_into_the_exponent<const L: usize, V: Vector<L>>(token: V::Token) {
    for field in 0..255 {
        let t = V::splat(token, 12_582_912.0 + field as f32);
        let power = f32::from_bits(field << 23);
        assert_eq!(t.low_bits_to_exponent().to_array(), [power; L]);
    }
    for (n, floor) in (-600..600).flat_map(|n| [(n, -500), (n, 0), (n, 345)]) {
        let [t, floor_at] = [n, floor].map(|n| V::splat(token, 12_583_936.0 + n as f32));
        let field = (n - floor).clamp(0, 511) as u32;
        if field < 255 {
            let power = f32::from_bits(field << 23);
            assert_eq!(t.exponent_above(floor_at).to_array(), [power; L], "{n} above {floor}");
        }
    }
}

/// The lanes are chosen so that each order of addition has a different sum.
#[inline(always)]
fn lanes_are_folded_in_half<const L: usize, V: Vector<L>>(token: V::Token) {
    let lanes: [f32; L] = core::array::from_fn(|i| (1.0 + i as f32 / 3.0) * 1.7_f32.powi(i as i32));
    let mut sums = lanes.to_vec();
    while sums.len() > 1 {
        let upper = sums.split_off(sums.len() / 2);
        sums.iter_mut().zip(upper).for_each(|(lower, upper)| *lower += upper);
    }
    let vector = V::load(token, &lanes);
    assert_eq!(vector.sum(token), sums[0]);
    for place in 0..L {
        let mut lanes = lanes;
        lanes[place] = f32::INFINITY;
        assert_eq!(V::load(token, &lanes).largest(token), f32::INFINITY);
    }
}

#[inline(always)]
fn squares_are_transposed<const L: usize, V: Vector<L>>(token: V::Token) {
    let square: [[f32; L]; L] =
        core::array::from_fn(|row| core::array::from_fn(|col| (100 * row + col) as f32));
    let mut vectors = [V::splat(token, 0.0); L];
    for (vector, row) in vectors.iter_mut().zip(&square) {
        *vector = V::load(token, row);
    }
    for (col, vector) in V::transpose(vectors).into_iter().enumerate() {
        for (row, got) in vector.to_array().into_iter().enumerate() {
            assert_eq!(got, square[row][col]);
        }
    }
}

#[inline(always)]
fn columns_are_loaded<const L: usize, V: Vector<L>>(token: V::Token) {
    let rows: [[f32; 4]; L] =
        core::array::from_fn(|row| core::array::from_fn(|col| (100 * row + col) as f32));
    let columns = V::load_columns(token, rows.each_ref());
    for (col, vector) in columns.into_iter().enumerate() {
        assert_eq!(vector.to_array(), rows.map(|row| row[col]));
    }
}

/// Every number of 16 bits is in every lane of a pair.
#[inline(always)]
fn pairs_are_put_in_order<const L: usize, V: Vector<L>>(token: V::Token) {
    for bits in 0..=u16::MAX {
        let pair: [[Bf16; L]; 2] = core::array::from_fn(|i| {
            core::array::from_fn(|lane| Bf16::from_bits(bits.wrapping_add((i * L + lane) as u16)))
        });
        let vectors = V::in_order(V::load_bf16_pair(token, &pair));
        for (vector, elements) in vectors.into_iter().zip(pair) {
            for (got, element) in vector.to_array().into_iter().zip(elements) {
                assert!(same(got, element.to_f32()), "{:x}: {got}", element.to_bits());
            }
        }
    }
}

#[test]
fn every_back_end_keeps_the_contract() {
    for backend in Backend::available() {
        backend.run(Laws(backend.family()));
    }
}
