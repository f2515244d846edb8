//! Shared by the benches and the example `hot_loop`: each operation with its data, its f64 check and its amount
//! of work.

// Each is a separate crate, and none uses all of this.
#![allow(dead_code)]

#[allow(unused_macros, reason = "the suite of the tests")]
#[path = "../../tests/common/mod.rs"]
mod tests;

use std::{env, fmt};

use sdpa::{
    Attention, Backend, CachePositions, Error, HeadsMut, HeadsRef, KEY_BLOCK, KvCacheMut,
    KvCacheRef, MatrixRef, Pairs, RotaryTable,
};

use tests::{
    cases::{Kind, Rng},
    grid::Grid,
    options::Options,
    oracle::{self, Sum},
};

/// The number of keys, of queries, and the width of both, in each head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) keys: usize,
    pub(crate) queries: usize,
    pub(crate) dim: usize,
    /// 1 where the operation takes no heads.
    pub(crate) heads: usize,
    pub(crate) layout: Layout,
    /// Whether keys are stored as dim × keys.
    pub(crate) keys_transposed: bool,
}

/// How heads lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `[heads][tokens][dim]`
    Stacked,
    /// `[tokens][heads][dim]`
    Interleaved,
}

impl Shape {
    pub(crate) const fn new(keys: usize, queries: usize, dim: usize) -> Self {
        let (heads, layout) = (1, Layout::Stacked);
        Self { keys, queries, dim, heads, layout, keys_transposed: false }
    }

    /// `n` floats, for an operation on slices.
    pub(crate) const fn slice(n: usize) -> Self {
        Self::new(n, 1, 1)
    }

    /// Returns the floating-point operations of a matrix product.
    const fn flops(self) -> usize {
        2 * self.scores() * self.dim
    }

    /// Returns the number of pairs of a key and a query.
    pub(crate) const fn scores(self) -> usize {
        self.keys * self.queries * self.heads
    }

    /// The size of what has `rows` rows in each head.
    const fn of_heads(self, rows: usize, cols: usize) -> Size {
        (self.heads * rows, cols)
    }

    const fn keys_size(self) -> Size {
        if self.keys_transposed {
            self.of_heads(self.dim, self.keys)
        } else {
            self.of_heads(self.keys, self.dim)
        }
    }

    /// The row of `grid` that is row `row` of `head`.
    fn row_of(self, grid: &Grid, head: usize, row: usize) -> usize {
        match self.layout {
            Layout::Stacked => head * (grid.rows / self.heads) + row,
            Layout::Interleaved => row * self.heads + head,
        }
    }

    /// The matrix of one head.
    fn head_of(self, grid: &Grid, head: usize) -> Grid {
        Grid::from_fn(grid.rows / self.heads, grid.cols, |row, col| {
            grid.at(self.row_of(grid, head, row), col)
        })
    }

    /// The keys of one head.
    fn keys_of(self, grid: &Grid, head: usize) -> Grid {
        let keys = self.head_of(grid, head);
        if self.keys_transposed { keys.t() } else { keys }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, queries, dim, .. } = self;
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
    /// Whether it takes heads.
    pub(crate) of_heads: bool,
    /// Whether its keys may be transposed.
    pub(crate) of_keys: bool,
    /// The sizes of its inputs, of which some are empty, and of its output.
    sizes: fn(Shape) -> [Size; 4],
    prepare: for<'a> fn(Backend, &'a Inputs, &'a mut Grid) -> Call<'a>,
    truth: fn(&Inputs) -> Grid<Sum>,
    /// Returns floating-point operations, or the number of weights for a softmax.
    pub(crate) work: fn(Shape) -> usize,
}

/// The inputs of an operation.
pub(crate) struct Inputs {
    shape: Shape,
    left: Grid,
    right: Grid,
    values: Grid,
}

impl Inputs {
    /// The keys of an operation without heads.
    fn keys(&self) -> MatrixRef<'_> {
        if self.shape.keys_transposed { self.right.view().t() } else { self.right.view() }
    }
}

/// Set, one float of each answer is wrong, which shows that the check can fail.
const WRONG: &str = "SDPA_WRONG";

/// An operation's data, and the back end that it runs on.
pub(crate) struct Case {
    operation: Operation,
    backend: Backend,
    inputs: Inputs,
    out: Grid,
}

impl Case {
    /// Creates random data, and checks the result of the operation against plain f64.
    ///
    /// # Panics
    ///
    /// If the result is wrong.
    pub(crate) fn checked(operation: Operation, backend: Backend, shape: Shape) -> Self {
        Self::new(operation, backend, shape).unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    /// [`checked`](Self::checked), with the reason as an error.
    pub(crate) fn new(
        operation: Operation,
        backend: Backend,
        shape: Shape,
    ) -> Result<Self, String> {
        let [left, right, values, out] = (operation.sizes)(shape);
        let mut rng = Rng::new(1);
        let mut random = |(rows, cols)| Grid::random(&mut rng, Kind::Ordinary, rows, cols);
        let inputs =
            Inputs { shape, left: random(left), right: random(right), values: random(values) };
        let mut case = Self { operation, backend, inputs, out: Grid::zeros(out.0, out.1) };
        case.call()();
        case.check().map(|()| case)
    }

    /// The bytes of all inputs and the output.
    pub(crate) fn bytes(&self) -> usize {
        let Inputs { left, right, values, .. } = &self.inputs;
        [left, right, values, &self.out].map(|grid| size_of_val(&grid.data[..])).iter().sum()
    }

    /// Returns the call with its arguments prepared.
    pub(crate) fn call(&mut self) -> Call<'_> {
        (self.operation.prepare)(self.backend, &self.inputs, &mut self.out)
    }

    /// Coarser than the bounds of the tests: only checks that the work is done.
    fn check(&mut self) -> Result<(), String> {
        if let (Some(_), Some(first)) = (env::var_os(WRONG), self.out.data.first_mut()) {
            *first = 1.01 * *first + 0.1;
        }
        let (name, backend) = (self.operation.name, self.backend.name());
        let truths = (self.operation.truth)(&self.inputs).data;
        if self.out.data.len() != truths.len() {
            return Err(format!("WRONG: {name} on {backend} has {} floats", self.out.data.len()));
        }
        for (&got, truth) in self.out.data.iter().zip(&truths) {
            let error = (f64::from(got) - truth.value).abs();
            if error.is_nan() || error > 1e-5 * truth.magnitude {
                return Err(format!("WRONG: {name} on {backend}: {got} is not {truth:?}"));
            }
        }
        Ok(())
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

pub(crate) const OPERATIONS: [Operation; 15] = [
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
    ROTATE,
    ATTENTION,
    ATTENTION_CAUSAL,
    ATTENTION_CACHED,
    PATTERN,
];

pub(crate) const DOT: Operation = Operation {
    name: "dot",
    of_slices: true,
    of_heads: false,
    of_keys: false,
    sizes: |shape| [(1, shape.keys), (1, shape.keys), (0, 0), (1, 1)],
    prepare: |backend, Inputs { left, right, .. }, out| {
        let (a, b, out) = (&left.data[..], &right.data[..], &mut out.data[0]);
        Box::new(move || *out = backend.dot(a, b).expect("one length"))
    },
    truth: |Inputs { left, right, .. }| {
        Grid::from_fn(1, 1, |_, _| oracle::dot(&left.data, &right.data))
    },
    work: Shape::flops,
};

pub(crate) const SOFTMAX: Operation = Operation {
    name: "softmax",
    of_slices: true,
    of_heads: false,
    of_keys: false,
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
    of_heads: false,
    of_keys: false,
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
    of_heads: false,
    of_keys: false,
    sizes: |Shape { keys, queries, dim, .. }| {
        [(keys, dim), (dim, queries), (0, 0), (keys, queries)]
    },
    prepare: |backend, Inputs { left, right, .. }, out| {
        let (x, w, mut out) = (left.view(), right.view(), out.view_mut());
        Box::new(move || backend.project(x, w, None, out.view_mut()).expect("sizes agree"))
    },
    truth: |Inputs { left, right, .. }| oracle::project(left, right, None),
    work: Shape::flops,
};

pub(crate) const SCORES: Operation = Operation {
    name: "scores",
    of_slices: false,
    of_heads: false,
    of_keys: true,
    sizes: |shape| {
        let Shape { keys, queries, dim, .. } = shape;
        [(queries, dim), shape.keys_size(), (0, 0), (keys, queries)]
    },
    prepare: |backend, inputs, out| {
        let (keys, queries, mut out) = (inputs.keys(), inputs.left.view(), out.view_mut());
        Box::new(move || backend.scores(keys, queries, None, out.view_mut()).expect("sizes agree"))
    },
    truth: |Inputs { shape, left, right, .. }| oracle::scores(&shape.keys_of(right, 0), left, None),
    work: Shape::flops,
};

/// The values are as wide as the keys.
pub(crate) const WEIGHTED_SUM: Operation = Operation {
    name: "weighted_sum",
    of_slices: false,
    of_heads: false,
    of_keys: false,
    sizes: |Shape { keys, queries, dim, .. }| {
        [(keys, queries), (0, 0), (keys, dim), (queries, dim)]
    },
    prepare: |backend, Inputs { left, values, .. }, out| {
        let (pattern, values, mut out) = (left.view(), values.view(), out.view_mut());
        Box::new(move || {
            backend.weighted_sum(pattern, values, out.view_mut()).expect("sizes agree")
        })
    },
    truth: |Inputs { left, values, .. }| oracle::weighted_sum(left, values),
    work: Shape::flops,
};

/// `keys` tokens of `dim` columns, or one more. The cosines and sines are any numbers.
pub(crate) const ROTATE: Operation = Operation {
    name: "rotate",
    of_slices: false,
    of_heads: false,
    of_keys: false,
    sizes: |Shape { keys, dim, .. }| {
        let size = (keys, dim.next_multiple_of(2));
        [size, size, (0, 0), size]
    },
    prepare: |backend, Inputs { left, right, .. }, out| {
        let (x, mut out) = (left.view(), out.view_mut());
        let factors = right.view().split_columns(right.cols / 2).expect("two halves");
        let table = RotaryTable::from_parts(factors.0, factors.1, 0).expect("one shape");
        Box::new(move || {
            backend.rotate(x, &table, 0, Pairs::Halves, out.view_mut()).expect("sizes agree");
        })
    },
    truth: |Inputs { left, right, .. }| {
        let half = left.cols / 2;
        Grid::from_fn(left.rows, left.cols, |row, col| {
            let (pair, is_first) = (col % half, col < half);
            let factors = [pair, half + pair].map(|col| f64::from(right.at(row, col)));
            let pair = [pair, half + pair].map(|col| left.at(row, col));
            oracle::rotary::rotate(pair, factors)[usize::from(!is_first)]
        })
    },
    work: |Shape { keys, dim, .. }| 3 * keys * dim,
};

pub(crate) const ATTENTION: Operation = Operation {
    name: "attention",
    of_slices: false,
    of_heads: true,
    of_keys: true,
    sizes: |shape| {
        let queries = shape.of_heads(shape.queries, shape.dim);
        [queries, shape.keys_size(), shape.of_heads(shape.keys, shape.dim), queries]
    },
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

/// Attention over caches that are filled beforehand, one a head.
pub(crate) const ATTENTION_CACHED: Operation = Operation {
    name: "attention_cached",
    of_keys: false,
    prepare: |backend, Inputs { shape, left, right, values }, out| {
        let Shape { dim, heads, .. } = *shape;
        let mut caches: Vec<Cache> = (0..heads)
            .map(|head| Cache::new(&shape.head_of(right, head), &shape.head_of(values, head)))
            .collect();
        let mut workspace = vec![0.0; Attention::workspace(dim, dim)];
        let attention = Attention::new().on(backend);
        if heads == 1 {
            let cache = caches.remove(0);
            let (queries, mut out) = (left.view(), out.view_mut());
            return Box::new(move || {
                let out = out.view_mut();
                cache
                    .view()
                    .and_then(|cache| cache.attend(&attention, queries, out, &mut workspace))
                    .expect("sizes agree");
            });
        }
        let queries = heads_of(*shape, left, false).expect("sizes agree");
        let mut out = heads_of_mut(*shape, out).expect("sizes agree");
        Box::new(move || {
            for (head, cache) in caches.iter().enumerate() {
                let queries = queries.head(head).expect("a head");
                let out = out.head_mut(head).expect("a head");
                cache
                    .view()
                    .and_then(|cache| cache.attend(&attention, queries, out, &mut workspace))
                    .expect("sizes agree");
            }
        })
    },
    ..ATTENTION
};

/// The storage of a cache.
struct Cache {
    dim: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
    span: CachePositions,
}

impl Cache {
    fn new(keys: &Grid, values: &Grid) -> Self {
        let dim = keys.cols;
        let room = keys.rows.next_multiple_of(KEY_BLOCK) * dim;
        let (from, mut span) = ((keys.view(), values.view()), CachePositions::default());
        let (mut keys, mut values) = (vec![0.0; room], vec![0.0; room]);
        KvCacheMut::new(&mut keys, &mut values, dim, dim, &mut span)
            .and_then(|mut cache| cache.append(from.0, from.1))
            .expect("room");
        Self { dim, keys, values, span }
    }

    fn view(&self) -> Result<KvCacheRef<'_>, Error> {
        KvCacheRef::new(&self.keys, &self.values, self.dim, self.dim, self.span)
    }
}

/// The attention pattern, including the scores.
pub(crate) const PATTERN: Operation = Operation {
    name: "pattern",
    of_heads: false,
    sizes: |shape| {
        let Shape { keys, queries, dim, .. } = shape;
        [(queries, dim), shape.keys_size(), (0, 0), (keys, queries)]
    },
    prepare: |backend, inputs, out| {
        let (queries, keys, mut out) = (inputs.left.view(), inputs.keys(), out.view_mut());
        let attention = Attention::new().on(backend);
        Box::new(move || attention.pattern(queries, keys, out.view_mut()).expect("sizes agree"))
    },
    truth: |Inputs { shape, left, right, .. }| {
        let keys = shape.keys_of(right, 0);
        let answer = oracle::attention::attention(&Options::new(), 0, [left, &keys, &keys]);
        Grid::from_fn(keys.rows, left.rows, |key, query| answer.pattern.at(key, query).sum)
    },
    work: Shape::flops,
    ..ATTENTION
};

fn attend<'a>(attention: Attention<'static>, inputs: &'a Inputs, out: &'a mut Grid) -> Call<'a> {
    let Inputs { shape, left, right, values } = inputs;
    let mut workspace = vec![0.0; Attention::workspace(shape.dim, shape.dim)];
    if shape.heads == 1 {
        let (queries, keys) = (left.view(), inputs.keys());
        let (values, mut out) = (values.view(), out.view_mut());
        return Box::new(move || {
            attention
                .run(queries, keys, values, out.view_mut(), &mut workspace)
                .expect("sizes agree");
        });
    }
    let [queries, keys, values] = [(left, false), (right, shape.keys_transposed), (values, false)]
        .map(|(grid, transposed)| heads_of(*shape, grid, transposed).expect("sizes agree"));
    let mut out = heads_of_mut(*shape, out).expect("sizes agree");
    Box::new(move || {
        attention.run(queries, keys, values, out.view_mut(), &mut workspace).expect("sizes agree");
    })
}

/// The sizes and strides of the heads in a grid of their rows.
fn strides(shape: Shape, grid: &Grid, transposed: bool) -> ([usize; 3], [usize; 3]) {
    let (rows, cols) = (grid.rows / shape.heads, grid.cols);
    let (head, row) = match shape.layout {
        Layout::Stacked => (rows * cols, cols),
        Layout::Interleaved => (cols, shape.heads * cols),
    };
    if transposed {
        ([shape.heads, cols, rows], [head, 1, row])
    } else {
        ([shape.heads, rows, cols], [head, row, 1])
    }
}

fn heads_of(shape: Shape, grid: &Grid, transposed: bool) -> Result<HeadsRef<'_>, Error> {
    let (sizes, strides) = strides(shape, grid, transposed);
    HeadsRef::with_strides(&grid.data, sizes, strides)
}

fn heads_of_mut(shape: Shape, grid: &mut Grid) -> Result<HeadsMut<'_>, Error> {
    let (sizes, strides) = strides(shape, grid, false);
    HeadsMut::with_strides(&mut grid.data, sizes, strides)
}

fn of_attention(options: &Options, Inputs { shape, left, right, values }: &Inputs) -> Grid<Sum> {
    let mut truth = Grid::from_fn(left.rows, values.cols, |_, _| Sum {
        value: 0.0,
        magnitude: 0.0,
        underflow: 0.0,
    });
    for head in 0..shape.heads {
        let (queries, values) = (shape.head_of(left, head), shape.head_of(values, head));
        let keys = shape.keys_of(right, head);
        let answer = oracle::attention::attention(options, head, [&queries, &keys, &values]);
        for query in 0..queries.rows {
            let row = shape.row_of(left, head, query);
            for col in 0..values.cols {
                truth.data[row * values.cols + col] = answer.out.at(query, col).sum;
            }
        }
    }
    truth
}

const fn of_softmax(size: Size) -> [Size; 4] {
    [size, (0, 0), (0, 0), size]
}

/// The tolerance of a weight is relative to the weight.
fn of_weights(weights: Grid<f64>) -> Grid<Sum> {
    Grid::from_fn(weights.rows, weights.cols, |row, col| {
        let value = weights.at(row, col);
        Sum { value, magnitude: value, underflow: 0.0 }
    })
}
