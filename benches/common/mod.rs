//! Shared by the benches: each operation with its data, its f64 check and its amount of work.

// Each bench is a separate crate, and none uses all of this.
#![allow(dead_code)]

#[allow(unused_macros, reason = "the suite of the tests")]
#[path = "../../tests/common/mod.rs"]
mod tests;

use std::fmt;

use sdpa::{Attention, Backend, CachePositions, KEY_BLOCK, KvCacheMut, KvCacheRef};

use tests::{
    cases::{Kind, Rng},
    grid::Grid,
    options::Options,
    oracle::{self, Sum},
};

/// The number of keys, of queries, and the width of both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) keys: usize,
    pub(crate) queries: usize,
    pub(crate) dim: usize,
}

impl Shape {
    pub(crate) const fn new(keys: usize, queries: usize, dim: usize) -> Self {
        Self { keys, queries, dim }
    }

    /// `n` floats, for an operation on slices.
    pub(crate) const fn slice(n: usize) -> Self {
        Self::new(n, 1, 1)
    }

    /// Returns the floating-point operations of a matrix product.
    const fn flops(self) -> usize {
        2 * self.keys * self.queries * self.dim
    }

    const fn scores(self) -> usize {
        self.keys * self.queries
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, queries, dim } = self;
        match (queries, dim) {
            (1, 1) => write!(f, "{keys}"),
            _ => write!(f, "{keys}x{queries}x{dim}"),
        }
    }
}

/// An operation that can be run repeatedly.
pub(crate) type Call<'a> = Box<dyn FnMut() + 'a>;

/// Rows and columns.
type Size = (usize, usize);

/// A public operation.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// Whether it takes slices, of `keys` floats.
    pub(crate) of_slices: bool,
    /// The sizes of its two inputs (softmax leaves the second empty) and its output.
    sizes: fn(Shape) -> [Size; 3],
    prepare: for<'a> fn(Backend, &'a Inputs, &'a mut Grid) -> Call<'a>,
    truth: fn(&Inputs) -> Grid<Sum>,
    /// Returns floating-point operations, or the number of weights for a softmax.
    pub(crate) work: fn(Shape) -> usize,
}

/// The inputs of an operation.
pub(crate) struct Inputs {
    left: Grid,
    right: Grid,
}

/// An operation's data, and the back end that it runs on.
pub(crate) struct Case {
    operation: Operation,
    backend: Backend,
    inputs: Inputs,
    out: Grid,
}

impl Case {
    /// Creates random data, and checks the result of the operation against plain f64.
    pub(crate) fn checked(operation: Operation, backend: Backend, shape: Shape) -> Self {
        let [left, right, out] = (operation.sizes)(shape);
        let mut rng = Rng::new(1);
        let mut random = |(rows, cols)| Grid::random(&mut rng, Kind::Ordinary, rows, cols);
        let inputs = Inputs { left: random(left), right: random(right) };
        let mut case = Self { operation, backend, inputs, out: Grid::zeros(out.0, out.1) };
        case.call()();
        case.check();
        case
    }

    /// Returns the call with its arguments prepared.
    pub(crate) fn call(&mut self) -> Call<'_> {
        (self.operation.prepare)(self.backend, &self.inputs, &mut self.out)
    }

    /// Coarser than the bounds of the tests: only checks that the work is done.
    fn check(&self) {
        let truths = (self.operation.truth)(&self.inputs);
        assert_eq!(self.out.data.len(), truths.data.len());
        for (&got, truth) in self.out.data.iter().zip(&truths.data) {
            let error = (f64::from(got) - truth.value).abs();
            let name = self.operation.name;
            assert!(error <= 1e-5 * truth.magnitude, "{name}: {got} is not {truth:?}");
        }
    }
}

/// The back end called `name`.
///
/// # Panics
///
/// If this machine lacks it, so that a missing measurement is not mistaken for a pass.
pub(crate) fn required(name: &str) -> Backend {
    Backend::by_name(name).unwrap_or_else(|| panic!("back end {name} is not on this machine"))
}

pub(crate) const OPERATIONS: [Operation; 14] = [
    DOT,
    SOFTMAX,
    SOFTMAX_IN_PLACE,
    SOFTMAX_ROWS,
    SOFTMAX_ROWS_IN_PLACE,
    SOFTMAX_COLUMNS,
    SOFTMAX_COLUMNS_IN_PLACE,
    PROJECT,
    SCORES,
    WEIGHTED_SUM,
    ATTENTION,
    ATTENTION_CAUSAL,
    ATTENTION_CACHED,
    PATTERN,
];

pub(crate) const DOT: Operation = Operation {
    name: "dot",
    of_slices: true,
    sizes: |shape| [(1, shape.keys), (1, shape.keys), (1, 1)],
    prepare: |backend, Inputs { left, right }, out| {
        let (a, b, out) = (&left.data[..], &right.data[..], &mut out.data[0]);
        Box::new(move || *out = backend.dot(a, b).expect("one length"))
    },
    truth: |Inputs { left, right }| {
        Grid::from_fn(1, 1, |_, _| oracle::dot(&left.data, &right.data))
    },
    work: Shape::flops,
};

pub(crate) const SOFTMAX: Operation = Operation {
    name: "softmax",
    of_slices: true,
    sizes: |shape| of_softmax((1, shape.keys)),
    prepare: |backend, Inputs { left, .. }, out| {
        let (x, out) = (&left.data[..], &mut out.data[..]);
        Box::new(move || backend.softmax(x, out).expect("one length"))
    },
    truth: |inputs| of_weights(oracle::softmax_rows(&inputs.left)),
    work: Shape::scores,
};

/// From the second call on it runs on its own result; the time does not depend on finite values.
pub(crate) const SOFTMAX_IN_PLACE: Operation = Operation {
    name: "softmax_in_place",
    prepare: |backend, Inputs { left, .. }, out| {
        out.data.copy_from_slice(&left.data);
        let x = &mut out.data[..];
        Box::new(move || backend.softmax_in_place(x))
    },
    ..SOFTMAX
};

/// Softmax of rows: the score grid of most libraries, with a row per query.
pub(crate) const SOFTMAX_ROWS: Operation = Operation {
    name: "softmax_rows",
    of_slices: false,
    sizes: |shape| of_softmax((shape.queries, shape.keys)),
    prepare: |backend, Inputs { left, .. }, out| {
        let (x, mut out) = (left.view(), out.view_mut());
        Box::new(move || backend.softmax_rows(x, out.view_mut()).expect("one shape"))
    },
    ..SOFTMAX
};

/// As [`SOFTMAX_IN_PLACE`].
pub(crate) const SOFTMAX_ROWS_IN_PLACE: Operation = Operation {
    name: "softmax_rows_in_place",
    prepare: |backend, Inputs { left, .. }, out| {
        out.data.copy_from_slice(&left.data);
        let mut x = out.view_mut();
        Box::new(move || backend.softmax_rows_in_place(x.view_mut()))
    },
    ..SOFTMAX_ROWS
};

/// Softmax of columns: the score grid of this crate, with a column per query.
pub(crate) const SOFTMAX_COLUMNS: Operation = Operation {
    name: "softmax_columns",
    of_slices: false,
    sizes: |shape| of_softmax((shape.keys, shape.queries)),
    prepare: |backend, Inputs { left, .. }, out| {
        let (x, mut out) = (left.view(), out.view_mut());
        Box::new(move || backend.softmax_columns(x, out.view_mut()).expect("one shape"))
    },
    truth: |inputs| of_weights(oracle::softmax_columns(&inputs.left)),
    work: Shape::scores,
};

/// As [`SOFTMAX_IN_PLACE`].
pub(crate) const SOFTMAX_COLUMNS_IN_PLACE: Operation = Operation {
    name: "softmax_columns_in_place",
    prepare: |backend, Inputs { left, .. }, out| {
        out.data.copy_from_slice(&left.data);
        let mut x = out.view_mut();
        Box::new(move || backend.softmax_columns_in_place(x.view_mut()))
    },
    ..SOFTMAX_COLUMNS
};

/// `keys` tokens, `dim` inputs and `queries` outputs.
pub(crate) const PROJECT: Operation = Operation {
    name: "project",
    of_slices: false,
    sizes: |Shape { keys, queries, dim }| [(keys, dim), (dim, queries), (keys, queries)],
    prepare: |backend, Inputs { left, right }, out| {
        let (x, w, mut out) = (left.view(), right.view(), out.view_mut());
        Box::new(move || backend.project(x, w, None, out.view_mut()).expect("sizes agree"))
    },
    truth: |Inputs { left, right }| oracle::project(left, right, None),
    work: Shape::flops,
};

pub(crate) const SCORES: Operation = Operation {
    name: "scores",
    of_slices: false,
    sizes: |Shape { keys, queries, dim }| [(keys, dim), (queries, dim), (keys, queries)],
    prepare: |backend, Inputs { left, right }, out| {
        let (keys, queries, mut out) = (left.view(), right.view(), out.view_mut());
        Box::new(move || backend.scores(keys, queries, None, out.view_mut()).expect("sizes agree"))
    },
    truth: |Inputs { left, right }| oracle::scores(left, right, None),
    work: Shape::flops,
};

/// The values are as wide as the keys.
pub(crate) const WEIGHTED_SUM: Operation = Operation {
    name: "weighted_sum",
    of_slices: false,
    sizes: |Shape { keys, queries, dim }| [(keys, queries), (keys, dim), (queries, dim)],
    prepare: |backend, Inputs { left, right }, out| {
        let (pattern, values, mut out) = (left.view(), right.view(), out.view_mut());
        Box::new(move || {
            backend.weighted_sum(pattern, values, out.view_mut()).expect("sizes agree")
        })
    },
    truth: |Inputs { left, right }| oracle::weighted_sum(left, right),
    work: Shape::flops,
};

/// The values are the keys.
pub(crate) const ATTENTION: Operation = Operation {
    name: "attention",
    of_slices: false,
    sizes: |Shape { keys, queries, dim }| [(queries, dim), (keys, dim), (queries, dim)],
    prepare: |backend, inputs, out| attend(Attention::new().on(backend), inputs, out),
    truth: |inputs| of_attention(&Options::new(), inputs),
    work: |shape| 2 * shape.flops(),
};

/// Counts the operations of all keys, although causal skips half of them.
pub(crate) const ATTENTION_CAUSAL: Operation = Operation {
    name: "attention_causal",
    prepare: |backend, inputs, out| attend(Attention::new().on(backend).causal(), inputs, out),
    truth: |inputs| of_attention(&Options { causal: true, ..Options::new() }, inputs),
    ..ATTENTION
};

/// Attention over a cache that is filled beforehand.
pub(crate) const ATTENTION_CACHED: Operation = Operation {
    name: "attention_cached",
    prepare: |backend, Inputs { left, right }, out| {
        let dim = left.cols;
        let room = right.rows.next_multiple_of(KEY_BLOCK) * dim;
        let (mut keys, mut values) = (vec![0.0; room], vec![0.0; room]);
        let mut span = CachePositions::default();
        KvCacheMut::new(&mut keys, &mut values, dim, dim, &mut span)
            .and_then(|mut cache| cache.append(right.view(), right.view()))
            .expect("room");
        let mut workspace = vec![0.0; Attention::workspace(dim, dim)];
        let attention = Attention::new().on(backend);
        let (queries, mut out) = (left.view(), out.view_mut());
        Box::new(move || {
            KvCacheRef::new(&keys, &values, dim, dim, span)
                .and_then(|cache| cache.attend(&attention, queries, out.view_mut(), &mut workspace))
                .expect("sizes agree");
        })
    },
    ..ATTENTION
};

/// The attention pattern, including the scores.
pub(crate) const PATTERN: Operation = Operation {
    name: "pattern",
    sizes: |Shape { keys, queries, dim }| [(queries, dim), (keys, dim), (keys, queries)],
    prepare: |backend, Inputs { left, right }, out| {
        let (queries, keys, mut out) = (left.view(), right.view(), out.view_mut());
        let attention = Attention::new().on(backend);
        Box::new(move || attention.pattern(queries, keys, out.view_mut()).expect("sizes agree"))
    },
    truth: |Inputs { left, right }| {
        let answer = oracle::attention::attention(&Options::new(), 0, [left, right, right]);
        Grid::from_fn(right.rows, left.rows, |key, query| answer.pattern.at(key, query).sum)
    },
    work: Shape::flops,
    ..ATTENTION
};

fn attend<'a>(attention: Attention<'static>, inputs: &'a Inputs, out: &'a mut Grid) -> Call<'a> {
    let (queries, keys, mut out) = (inputs.left.view(), inputs.right.view(), out.view_mut());
    let mut workspace = vec![0.0; Attention::workspace(queries.cols(), keys.cols())];
    Box::new(move || {
        attention.run(queries, keys, keys, out.view_mut(), &mut workspace).expect("sizes agree");
    })
}

fn of_attention(options: &Options, Inputs { left, right }: &Inputs) -> Grid<Sum> {
    let answer = oracle::attention::attention(options, 0, [left, right, right]);
    Grid::from_fn(left.rows, right.cols, |query, col| answer.out.at(query, col).sum)
}

const fn of_softmax(size: Size) -> [Size; 3] {
    [size, (0, 0), size]
}

/// The tolerance of a weight is relative to the weight.
fn of_weights(weights: Grid<f64>) -> Grid<Sum> {
    Grid::from_fn(weights.rows, weights.cols, |row, col| {
        let value = weights.at(row, col);
        Sum { value, magnitude: value, underflow: 0.0 }
    })
}
