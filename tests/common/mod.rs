//! Shared by the integration tests: the macro that makes a suite per back end, and bitwise comparison.

// The benches, the fuzz targets and the tests of the C library include this too; none uses all of it.
#![allow(dead_code)]

pub(crate) mod bounds;
pub(crate) mod cases;
pub(crate) mod digest;
pub(crate) mod elements;
pub(crate) mod grid;
pub(crate) mod heads;
pub(crate) mod mask;
pub(crate) mod options;
pub(crate) mod oracle;
pub(crate) mod paths;
pub(crate) mod reference;

use std::io::Write;

use sdpa::Backend;

/// Calls `$stamp!` with the tests and the list of all back ends: a new back end is a line here.
macro_rules! for_each_back_end {
    ($stamp:ident! $tests:tt) => {
        $stamp! { $tests
            scalar
            portable
            avx2
            avx512
            neon
        }
    };
}

/// Makes one module of tests per back end from functions that take a [`Backend`].
macro_rules! suite {
    ($($test:ident),+ $(,)?) => {
        for_each_back_end! { stamp_modules! { $($test)+ } }
    };
}

macro_rules! stamp_modules {
    ($tests:tt $($name:ident)+) => {
        $(mod $name {
            stamp_tests! { $name $tests }
        })+
    };
}

macro_rules! stamp_tests {
    ($name:ident { $($test:ident)+ }) => {
        $(#[test]
        fn $test() {
            crate::common::on(stringify!($name), super::$test);
        })+
    };
}

macro_rules! names {
    ({} $($name:ident)+) => { &[$(stringify!($name)),+] };
}

/// The names of all back ends, whether or not this machine has them.
pub(crate) const BACK_ENDS: &[&str] = for_each_back_end! { names! {} };

/// Runs `test` on the back end called `name`, or prints that this machine lacks it.
pub(crate) fn on(name: &str, test: impl FnOnce(Backend)) {
    match Backend::by_name(name) {
        Some(backend) => test(backend),
        // Not `eprintln!`, whose output the test harness captures.
        None => writeln!(std::io::stderr(), "NOT RUN: back end {name}: not on this machine")
            .expect("stderr"),
    }
}

/// Whether the bits are the same, or both are NaN.
pub(crate) fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// Fails unless each float of `got` has the bits of that in `want`, or both are NaN.
///
/// With `SDPA_BREAK_BITS=1` in the environment one bit of `got` is flipped
/// first, which shows that the comparison can fail.
#[track_caller]
pub(crate) fn assert_same_bits(what: &str, got: &[f32], want: &[f32]) {
    let broken = std::env::var_os("SDPA_BREAK_BITS").is_some_and(|set| set == "1");
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let got = if broken && i == 0 { f32::from_bits(got.to_bits() ^ 1) } else { got };
        assert!(
            same(got, want),
            "{what}: element {i} is {got:e} ({:08x}), not {want:e} ({:08x})",
            got.to_bits(),
            want.to_bits(),
        );
    }
}
