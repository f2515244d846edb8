//! The three matrix products, with canaries around the outputs.

use sdpa::{Backend, Error, MatrixMut};

use super::{check_sum, input::Input, on_all};
use crate::common::{
    bounds::{self, Bound},
    cases::Layout,
    grid::{Grid, GuardedMatrix, is_untouched},
    oracle::{self, Sum},
    reference::Reference,
};

/// Fuzzes `Backend::project`.
pub(crate) fn project(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (tokens, outputs, inputs) = input.shape();
    let bias = input.u8() % 2 == 1;
    let bias = bias.then(|| input.values(outputs));
    let bias = bias.as_deref();
    let (x, w) = (input.matrix(tokens, inputs), input.matrix(inputs, outputs));
    let (x_grid, w_grid) = (x.grid(), w.grid());
    Product {
        bound: &bounds::PROJECT,
        n: inputs,
        error: (inputs == 0 || outputs == 0).then_some(Error::Shape),
        out: input.output(tokens, outputs),
    }
    .check(
        |backend, out| backend.project(x.view(), w.view(), bias, out),
        |reference| reference.project(&x_grid, &w_grid, bias),
        || oracle::project(&x_grid, &w_grid, bias),
    );
}

/// Fuzzes `Backend::scores`.
pub(crate) fn scores(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (keys, queries, dim) = input.shape();
    let scale = match input.u8() % 3 {
        0 => None,
        1 => Some(input.f32()),
        _ => Some(f32::from(input.u8()) / 64.0 - 2.0),
    };
    let (k, q) = (input.matrix(keys, dim), input.matrix(queries, dim));
    let (k_grid, q_grid) = (k.grid(), q.grid());
    let error = match scale {
        _ if dim == 0 => Some(Error::Shape),
        Some(scale) if !scale.is_finite() => Some(Error::Option),
        _ => None,
    };
    Product {
        bound: if scale.is_none() { &bounds::SCORES_BY_DIM } else { &bounds::SCORES },
        n: dim,
        error,
        out: input.output(keys, queries),
    }
    .check(
        |backend, out| backend.scores(k.view(), q.view(), scale, out),
        |reference| reference.scores(&k_grid, &q_grid, scale),
        || {
            let mut truth = oracle::scores(&k_grid, &q_grid, scale);
            // A scaled query may overflow although its products with the keys do not.
            let scale = f64::from(scale.unwrap_or(1.0));
            for (i, sum) in truth.data.iter_mut().enumerate() {
                let query = q_grid.row(i % queries);
                let overflows = |&q: &f32| (scale * f64::from(q)).abs() > 3.4e38 && q.is_finite();
                if sum.value.is_finite() && query.iter().any(overflows) {
                    sum.magnitude = f64::INFINITY;
                }
            }
            truth
        },
    );
}

/// Fuzzes `Backend::weighted_sum`.
pub(crate) fn weighted_sum(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (queries, width, keys) = input.shape();
    let (pattern, values) = (input.matrix(keys, queries), input.matrix(keys, width));
    let (p_grid, v_grid) = (pattern.grid(), values.grid());
    Product {
        bound: &bounds::WEIGHTED_SUM,
        n: keys,
        error: (width == 0).then_some(Error::Shape),
        out: input.output(queries, width),
    }
    .check(
        |backend, out| backend.weighted_sum(pattern.view(), values.view(), out),
        |reference| reference.weighted_sum(&p_grid, &v_grid),
        || oracle::weighted_sum(&p_grid, &v_grid),
    );
}

/// The expected results of a matrix product with `n` terms per element.
struct Product {
    bound: &'static Bound,
    n: usize,
    /// The error that must be returned, with nothing written.
    error: Option<Error>,
    out: Layout,
}

impl Product {
    fn check(
        self,
        run: impl Fn(Backend, MatrixMut<'_>) -> Result<(), Error>,
        reference: impl Fn(Reference) -> Grid,
        truth: impl Fn() -> Grid<Sum>,
    ) {
        let Self { bound, n, error, out } = self;
        if let Some(error) = error {
            for backend in Backend::available() {
                let mut held = GuardedMatrix::empty(out);
                assert_eq!(run(backend, held.view_mut()), Err(error), "{}", bound.name);
                assert!(is_untouched(&held.checked(bound.name).data), "an error wrote");
            }
            return;
        }
        let families = on_all(&format!("{} to {out:?}", bound.name), reference, |backend| {
            let mut held = GuardedMatrix::empty(out);
            run(backend, held.view_mut()).expect("sizes agree");
            held.checked(bound.name)
        });
        let truth = truth();
        for (family, got) in families {
            for (&got, &truth) in got.data.iter().zip(&truth.data) {
                check_sum(bound, family, n, got, truth);
            }
        }
    }
}
