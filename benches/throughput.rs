//! Throughput of every operation on every back end of this machine, as `kernel/backend/shape`.
//!
//! A shape is the length of a slice, or `keys x queries x dim`. Criterion's elements per second are
//! floating-point operations for `dot`, `project`, `scores` and `weighted_sum` (a multiply-add counts as
//! two), and weights for softmax. Each result is checked against plain f64 before it is timed.
//!
//! ```text
//! cargo bench --bench throughput                      # all: about 3 minutes
//! cargo bench --bench throughput -- scores/avx2       # some
//! cargo bench --bench throughput -- --test            # the answers alone
//! ```

mod common;

use std::{hint::black_box, time::Duration};

use common::{Case, OPERATIONS, Operation, Shape};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sdpa::Backend;

/// From one vector to the size of the L1 cache.
const SLICES: &[Shape] = &[Shape::slice(8), Shape::slice(64), Shape::slice(1024)];

/// One or two tiles; one head; a few queries over a long cache; a longer prompt.
const MATRICES: &[Shape] = &[
    Shape::new(8, 8, 8),
    Shape::new(64, 64, 64),
    Shape::new(1024, 8, 64),
    Shape::new(256, 256, 64),
];

/// Short, as there are many benches; the noise of a shared machine has longer periods anyway.
fn config() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(700))
        .sample_size(30)
        .nresamples(10_000)
}

fn operations(criterion: &mut Criterion) {
    for operation in OPERATIONS {
        let shapes = if operation.of_slices { SLICES } else { MATRICES };
        for backend in Backend::available() {
            for &shape in shapes {
                time(criterion, operation, backend, shape);
            }
        }
    }
}

fn time(criterion: &mut Criterion, operation: Operation, backend: Backend, shape: Shape) {
    let mut group = criterion.benchmark_group(operation.name);
    group.throughput(Throughput::Elements((operation.work)(shape) as u64));
    group.bench_function(BenchmarkId::new(backend.name(), shape), |bencher| {
        let mut case = Case::checked(operation, backend, shape);
        let mut call = case.call();
        bencher.iter(|| black_box(&mut call)());
    });
}

criterion_group! { name = benches; config = config(); targets = operations }
criterion_main!(benches);
