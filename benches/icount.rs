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
//! ```
//!
//! Each answer is held against plain f64 before it is counted, and a back end that this
//! machine lacks is a failure.

#![allow(missing_docs, reason = "the macros make public items")]

mod common;

use std::env;

use common::{Call, Case, Operation, Shape};
use iai_callgrind::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};

/// Set, it makes the larger sizes 5 % larger, which shows that the limits can fail.
const SLOW: &str = "SDPA_SLOW";

/// Makes a benchmark of each line, and the limits of its counts.
macro_rules! counts {
    ($($operation:ident $name:ident
        | scalar $s8:literal $s64:literal $s1024:literal
        | portable $p8:literal $p64:literal $p1024:literal
        | avx2 $a8:literal $a64:literal $a1024:literal;)+) => {
        $(#[library_benchmark]
        #[bench::scalar_8(args = (prepared(common::$operation, "scalar", 8)), config = limit($s8))]
        #[bench::scalar_64(args = (prepared(common::$operation, "scalar", 64)), config = limit($s64))]
        #[bench::scalar_1024(args = (prepared(common::$operation, "scalar", 1024)), config = limit($s1024))]
        #[bench::portable_8(args = (prepared(common::$operation, "portable", 8)), config = limit($p8))]
        #[bench::portable_64(args = (prepared(common::$operation, "portable", 64)), config = limit($p64))]
        #[bench::portable_1024(args = (prepared(common::$operation, "portable", 1024)), config = limit($p1024))]
        #[bench::avx2_8(args = (prepared(common::$operation, "avx2", 8)), config = limit($a8))]
        #[bench::avx2_64(args = (prepared(common::$operation, "avx2", 64)), config = limit($a64))]
        #[bench::avx2_1024(args = (prepared(common::$operation, "avx2", 1024)), config = limit($a1024))]
        fn $name(mut call: Call<'static>) -> Call<'static> {
            call();
            call
        })+

        library_benchmark_group!(name = kernels; benchmarks = $($name),+);
    };
}

// Instructions at 8, 64 and 1024: the length of a slice, or 8 × 8 × 8, 64 × 64 × 64 and
// 1024 × 8 × 64 keys, queries and dim; of attention 8 × 8 × 64, 64 × 64 × 64, and one query over 256
// keys of 64. `benches/limits.sh` writes what is between the marks.
counts! {
    // counted
    DOT              dot              | scalar 208 143 1283 | portable 161 143 1283 | avx2 181 100 385;
    SOFTMAX          softmax          | scalar 366 1055 15142 | portable 458 966 12786 | avx2 248 435 4260;
    SOFTMAX_ROWS     softmax_rows     | scalar 3645 72549 122181 | portable 3251 57619 101467 | avx2 1826 23775 32807;
    SOFTMAX_COLUMNS  softmax_columns  | scalar 2356 112886 217748 | portable 1366 61251 117444 | avx2 650 20233 42433;
    SCORES           scores           | scalar 2261 459347 849813 | portable 1406 304961 572576 | avx2 873 92265 207207;
    PROJECT          project          | scalar 2033 446015 848129 | portable 1249 298140 571723 | avx2 874 89544 207296;
    WEIGHTED_SUM     weighted_sum     | scalar 2028 446010 1251450 | portable 1244 298135 793559 | avx2 872 89539 249650;
    ATTENTION        attention        | scalar 23102 944148 112179 | portable 17664 657499 105007 | avx2 6921 177481 38902;
    ATTENTION_CACHED attention_cached | scalar 23488 960732 91503 | portable 17771 657739 46301 | avx2 7003 177729 16706;
    // end
}

main!(library_benchmark_groups = kernels);

/// The call that is counted. It keeps its data for good: nothing is freed while counting.
fn prepared(operation: Operation, backend: &str, size: usize) -> Call<'static> {
    let size = if is_slow() { size + size / 20 } else { size };
    let is_attention = operation.name.starts_with("attention");
    let shape = match size {
        _ if operation.of_slices => Shape::slice(size),
        1024.. if is_attention => Shape::new(size / 4, 1, 64),
        1024.. => Shape::new(size, 8, 64),
        ..64 if is_attention => Shape::new(size, size, 64),
        _ => Shape::new(size, size, size),
    };
    let case = Case::checked(operation, common::required(backend), shape);
    Box::leak(Box::new(case)).call()
}

fn is_slow() -> bool {
    env::var_os(SLOW).is_some()
}

/// 2 % above `count`.
fn limit(count: u64) -> LibraryBenchmarkConfig {
    let limits = [(EventKind::Ir, count + count / 50)];
    let mut config = LibraryBenchmarkConfig::default();
    config
        .pass_through_env(SLOW)
        .tool(Callgrind::default().hard_limits(limits).fail_fast(is_slow()));
    config
}
