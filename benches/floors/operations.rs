//! The floors of `dot`, softmax and `scores`, and of calls of the C library.

use std::hint::black_box;

use sdpa::Backend;

use crate::{
    aligned::Aligned,
    attention::{view, view_mut},
    c_calls::{C_CALLS, CCall},
    limits::{PEAK_FLOP, load_both, peak},
    measure::{Floor, Limit, yardstick_and_call},
};

pub(crate) fn floors(backend: Backend) -> Vec<Floor<'static>> {
    let share_of_peak = if backend.name() == "avx512" { 0.75 } else { 0.85 };
    vec![
        Floor {
            what: "dot of 4096: share of the rate of loads".into(),
            limit: Limit::AtLeast(0.88),
            ratio: Box::new(move || dot_of_loads(backend, 4096)),
        },
        Floor {
            what: "dot of 1024: share of the rate of loads".into(),
            limit: Limit::AtLeast(0.80),
            ratio: Box::new(move || dot_of_loads(backend, 1024)),
        },
        Floor {
            what: "softmax of 1024: times its exponentials alone".into(),
            limit: Limit::AtMost(1.6),
            ratio: Box::new(move || softmax_of_exp(backend)),
        },
        Floor {
            what: "scores 128 x 128 x 64: share of the peak".into(),
            limit: Limit::AtLeast(share_of_peak),
            ratio: Box::new(move || scores_of_peak(backend)),
        },
        Floor {
            what: "scores of one query 1024 x 64: times a dot for each key".into(),
            limit: Limit::AtMost(1.25),
            ratio: Box::new(move || one_query_of_dots(backend)),
        },
        Floor {
            what: "column softmax 64 x 64: times row softmax".into(),
            limit: Limit::AtMost(1.0),
            ratio: Box::new(move || columns_of_rows(backend)),
        },
        Floor {
            what: "softmax of 1024 that underflows: times one that does not".into(),
            limit: Limit::AtMost(1.05),
            ratio: Box::new(move || underflow_of_ordinary(backend)),
        },
    ]
}

/// The C library calls the best back end: there are no floors for the others.
pub(crate) fn c_calls(backend: Backend) -> Vec<Floor<'static>> {
    let calls = if backend == Backend::best() { &C_CALLS[..] } else { &[] };
    let floor = |call: &'static CCall| Floor {
        what: format!("C, {}: times Rust and {} ns", call.what, call.nanoseconds),
        limit: Limit::AtMost(1.0),
        ratio: Box::new(move || {
            let [mut rust, mut c] = (call.rust_and_c)(backend);
            let [rust, c] = yardstick_and_call(&mut rust, &mut c);
            c / (rust + 1e-9 * call.nanoseconds)
        }),
    };
    calls.iter().map(floor).collect()
}

fn dot_of_loads(backend: Backend, n: usize) -> f64 {
    let (a, b) = (Aligned::new(n, 1.0), Aligned::new(n, 1.0));
    let wide = backend.name() == "avx512";
    let [loads, dot] = yardstick_and_call(&mut || load_both(&a, &b, wide), &mut || {
        _ = black_box(backend.dot(black_box(a.floats()), black_box(b.floats())));
    });
    loads / dot
}

/// Nothing here is kept from the compiler call by call: what it calls is a function of its own,
/// and the way of the addresses through `black_box` is longer than the softmax can hide.
fn softmax_of_exp(backend: Backend) -> f64 {
    let x = Aligned::new(1024, 10.0);
    let (mut out, mut weights) = (Aligned::new(1024, 0.0), Aligned::new(1024, 0.0));
    let (x, out, weights) = (x.floats(), out.floats_mut(), weights.floats_mut());
    let [exp, softmax] =
        yardstick_and_call(&mut || backend.exp_pass(x, weights).expect("shape"), &mut || {
            backend.softmax(x, out).expect("shape")
        });
    softmax / exp
}

/// Of aligned floats: where the two rows begin elsewhere in a cache line, one of them may lose half of its
/// speed to vectors that cross lines.
fn underflow_of_ordinary(backend: Backend) -> f64 {
    let (x, far) = (Aligned::new(1024, 10.0), Aligned::new(1024, 300.0));
    let [mut out, mut far_out] = [(); 2].map(|()| Aligned::new(1024, 0.0));
    let [ordinary, underflow] = yardstick_and_call(
        &mut || {
            let (x, out) = (black_box(x.floats()), black_box(out.floats_mut()));
            backend.softmax(x, out).expect("shape");
        },
        &mut || {
            let (x, out) = (black_box(far.floats()), black_box(far_out.floats_mut()));
            backend.softmax(x, out).expect("shape");
        },
    );
    underflow / ordinary
}

fn columns_of_rows(backend: Backend) -> f64 {
    let x = Aligned::new(64 * 64, 10.0);
    let [mut rows, mut columns] = [(); 2].map(|()| Aligned::new(64 * 64, 0.0));
    let [rows, columns] = yardstick_and_call(
        &mut || backend.softmax_rows(view(&x, 64, 64), view_mut(&mut rows, 64, 64)).expect("shape"),
        &mut || {
            backend
                .softmax_columns(view(&x, 64, 64), view_mut(&mut columns, 64, 64))
                .expect("shape");
        },
    );
    columns / rows
}

fn scores_of_peak(backend: Backend) -> f64 {
    let (keys, queries) = (Aligned::new(128 * 64, 1.0), Aligned::new(128 * 64, 1.0));
    let mut out = Aligned::new(128 * 128, 0.0);
    let [peak, scores] = yardstick_and_call(&mut || peak(backend), &mut || {
        let (keys, queries) = (view(&keys, 128, 64), view(&queries, 128, 64));
        backend.scores(keys, queries, None, view_mut(&mut out, 128, 128)).expect("shape");
    });
    (2.0 * 128.0 * 128.0 * 64.0 / scores) / (PEAK_FLOP / peak)
}

fn one_query_of_dots(backend: Backend) -> f64 {
    let (keys, query) = (Aligned::new(1024 * 64, 1.0), Aligned::new(64, 1.0));
    let mut out = Aligned::new(1024, 0.0);
    let [dots, scores] = yardstick_and_call(
        &mut || {
            for key in keys.floats().as_chunks::<64>().0 {
                _ = black_box(backend.dot(black_box(key), query.floats()));
            }
        },
        &mut || {
            let (keys, query) = (view(&keys, 1024, 64), view(&query, 1, 64));
            backend.scores(keys, query, None, view_mut(&mut out, 1024, 1)).expect("shape");
        },
    );
    scores / dots
}
