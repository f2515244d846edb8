//! Instructions: every kernel on every back end that valgrind knows, against a limit.
//!
//! Callgrind counts the instructions of the call alone, which are the same on every run
//! and on every machine, given one compiler: the counts below are those of rustc 1.95.0,
//! which `rust-toolchain.toml` pins. A count that is 2 % above the table's fails.
//! Valgrind hides AVX-512, so `avx512` is timed in `throughput.rs` and not counted.
//!
//! ```text
//! cargo install iai-callgrind-runner --version 0.16.1 --locked    # and valgrind
//! cargo bench --bench icount               # fails above a limit
//! SDPA_SLOW=1 cargo bench --bench icount   # 5 % more work: stops at the first failure
//! benches/limits.sh                        # counts anew and rewrites the table
//! benches/folders.sh                       # counts here and in a copy elsewhere, and compares
//! SDPA_FOLDER=1 benches/folders.sh         # work that depends on the folder: the counts differ
//! ```
//!
//! The library is compiled by itself, without LTO: nothing of the harness, which holds the name of this
//! folder, gets into its code, and the counts are those of an application that has no LTO either.
//!
//! Each answer is held against plain f64 before it is counted, and a back end that this
//! machine lacks is a failure.

#![allow(missing_docs, reason = "the macros make public items")]

#[path = "aligned.rs"]
mod aligned;
mod c_calls;
mod common;

use std::env;

use c_calls::C_CALLS;
use common::{Call, Case, Operation, Shape};
use iai_callgrind::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};

/// Set, it makes the larger sizes 5 % larger, which shows that the limits can fail.
const SLOW: &str = "SDPA_SLOW";

/// Set, it makes each size larger by the length of this folder's name, which shows that a dependence on the
/// folder is seen.
const FOLDER: &str = "SDPA_FOLDER";

/// Makes a benchmark of each line, and the limits of its counts.
macro_rules! counts {
    ($($operation:ident $name:ident
        | scalar $s8:literal $s16:literal $s64:literal $s1024:literal
        | portable $p8:literal $p16:literal $p64:literal $p1024:literal
        | avx2 $a8:literal $a16:literal $a64:literal $a1024:literal;)+) => {
        $(#[library_benchmark]
        #[bench::scalar_8(args = (prepared(common::$operation, "scalar", 8)), config = limit($s8))]
        #[bench::scalar_16(args = (prepared(common::$operation, "scalar", 16)), config = limit($s16))]
        #[bench::scalar_64(args = (prepared(common::$operation, "scalar", 64)), config = limit($s64))]
        #[bench::scalar_1024(args = (prepared(common::$operation, "scalar", 1024)), config = limit($s1024))]
        #[bench::portable_8(args = (prepared(common::$operation, "portable", 8)), config = limit($p8))]
        #[bench::portable_16(args = (prepared(common::$operation, "portable", 16)), config = limit($p16))]
        #[bench::portable_64(args = (prepared(common::$operation, "portable", 64)), config = limit($p64))]
        #[bench::portable_1024(args = (prepared(common::$operation, "portable", 1024)), config = limit($p1024))]
        #[bench::avx2_8(args = (prepared(common::$operation, "avx2", 8)), config = limit($a8))]
        #[bench::avx2_16(args = (prepared(common::$operation, "avx2", 16)), config = limit($a16))]
        #[bench::avx2_64(args = (prepared(common::$operation, "avx2", 64)), config = limit($a64))]
        #[bench::avx2_1024(args = (prepared(common::$operation, "avx2", 1024)), config = limit($a1024))]
        fn $name(mut call: Call<'static>) -> Call<'static> {
            call();
            call
        })+

        library_benchmark_group!(name = kernels; benchmarks = $($name),+);
    };
}

// Instructions at 8, 16, 64 and 1024: the length of a slice, or 8 × 8 × 8, 8 × 8 × 64, 64 × 64 × 64 and
// 1024 × 8 × 64 keys, queries and dim; of attention 8 × 8 × 64, 16 × 16 × 64, 64 × 64 × 64, and one query over
// 256 keys of 64. `benches/limits.sh` writes what is between the marks.
counts! {
    // counted
    DOT              dot              | scalar 268 106 163 1303 | portable 164 89 146 1286 | avx2 104 135 104 389;
    SOFTMAX          softmax          | scalar 386 425 1072 15154 | portable 456 371 969 12969 | avx2 247 183 434 4259;
    SOFTMAX_ROWS     softmax_rows     | scalar 3675 3675 68419 113039 | portable 3304 3304 57944 100792 | avx2 717 717 23796 33428;
    SOFTMAX_COLUMNS  softmax_columns  | scalar 2505 2505 114113 218405 | portable 1435 1435 61077 116497 | avx2 725 725 20131 36412;
    SCORES           scores           | scalar 2391 11911 460597 851775 | portable 1529 7941 304706 572471 | avx2 563 2551 93618 205862;
    PROJECT          project          | scalar 2202 10266 447288 850114 | portable 1428 7196 299094 571773 | avx2 676 1908 91381 206038;
    WEIGHTED_SUM     weighted_sum     | scalar 2215 16075 447269 1253477 | portable 1441 9782 299075 811379 | avx2 663 4030 93745 257809;
    ROTATE           rotate           | scalar 1470 6398 47502 752142 | portable 745 1641 10433 161153 | avx2 972 948 4868 72068;
    ATTENTION        attention        | scalar 23166 73408 944282 103655 | portable 16905 51839 648611 60448 | avx2 6885 16165 175324 27285;
    ATTENTION_CACHED attention_cached | scalar 23630 74695 960944 74112 | portable 17137 52163 649379 43414 | avx2 7106 16394 175816 15805;
    // end
}

/// Makes a benchmark of each call of the C library, and the limits of their counts.
macro_rules! c_counts {
    ($($name:ident $what:literal $limit:literal;)+) => {
        #[library_benchmark]
        $(#[bench::$name(args = (prepared_c($what)), config = limit($limit))])+
        fn c(mut call: Call<'static>) -> Call<'static> {
            call();
            call
        }

        library_benchmark_group!(name = in_c; benchmarks = c);
    };
}

// The same on avx2, with all that is around the kernel.
c_counts! {
    // counted in C
    dot               "dot of 64" 183;
    scores            "scores 8 x 8 x 64" 2685;
    softmax_rows      "row softmax 8 x 8" 814;
    softmax_columns   "column softmax 8 x 8" 824;
    attention         "attention 8 x 8 x 64" 7240;
    attention_options "attention 8 x 8 x 64, every option" 14407;
    // end
}

main!(library_benchmark_groups = kernels, in_c);

/// The call in C; `avx2` is the best back end that valgrind knows.
fn prepared_c(what: &str) -> Call<'static> {
    let call = C_CALLS.iter().find(|call| call.what == what).expect("a call of this name");
    let [mut rust, mut c] = (call.rust_and_c)(common::required("avx2"));
    rust();
    c();
    c
}

/// The call that is counted. It keeps its data for good: nothing is freed while counting.
fn prepared(operation: Operation, backend: &str, size: usize) -> Call<'static> {
    let size = match () {
        () if is_set(SLOW) => size + size / 20,
        () if is_set(FOLDER) => size + env!("CARGO_MANIFEST_DIR").len(),
        () => size,
    };
    let is_attention = operation.name.starts_with("attention");
    let shape = match size {
        _ if operation.of_slices => Shape::slice(size),
        1024.. if is_attention => Shape::new(size / 4, 1, 64),
        1024.. => Shape::new(size, 8, 64),
        16..64 if !is_attention => Shape::new(8, 8, 4 * size),
        ..64 if is_attention => Shape::new(size, size, 64),
        _ => Shape::new(size, size, size),
    };
    let case = Case::checked(operation, common::required(backend), shape);
    Box::leak(Box::new(case)).call()
}

fn is_set(name: &str) -> bool {
    env::var_os(name).is_some()
}

/// 2 % above `count`.
fn limit(count: u64) -> LibraryBenchmarkConfig {
    let limits = [(EventKind::Ir, count + count / 50)];
    let mut config = LibraryBenchmarkConfig::default();
    config
        .pass_through_envs([SLOW, FOLDER])
        .tool(Callgrind::default().hard_limits(limits).fail_fast(is_set(SLOW) || is_set(FOLDER)));
    config
}
