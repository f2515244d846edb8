//! The jobs: their shapes, their inputs, their answers in f64, and what they cost at least.

use std::fmt;

use crate::{
    aligned::Aligned,
    tests::{
        cases::Rng,
        grid::Grid,
        options::Options,
        oracle::{self, Sum},
    },
};

/// What every peer that can is asked to do. Matrices are dense and row-major where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Job {
    Dot {
        n: usize,
    },
    /// Keys × queries: the product of the keys and the transposed queries.
    Scores {
        keys: usize,
        queries: usize,
        dim: usize,
    },
    Softmax {
        rows: usize,
        cols: usize,
        along: Along,
    },
    Attention(Attention),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Along {
    Rows,
    Columns,
}

/// Of `[heads][tokens][dim]`, the values as wide as the keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Attention {
    pub(crate) heads: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) dim: usize,
    /// With as many queries as keys.
    pub(crate) causal: bool,
    pub(crate) stored: Stored,
}

/// How the keys lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Stored {
    Rows,
    /// In a cache, where a library has one, as rows elsewhere.
    Cache,
    /// dim × keys, so many floats from row to row.
    Columns {
        stride: usize,
    },
}

pub(crate) fn jobs() -> Vec<Job> {
    let dots = [16, 64, 256, 1024, 4096].map(|n| Job::Dot { n });
    let scores = [
        [8, 8, 64],
        [64, 64, 64],
        [128, 128, 64],
        [512, 512, 64],
        [1024, 1024, 128],
        [1024, 1, 64],
    ]
    .map(|[keys, queries, dim]| Job::Scores { keys, queries, dim });
    let softmax = |along| move |[rows, cols]: [usize; 2]| Job::Softmax { rows, cols, along };
    let rows =
        [[1, 8], [8, 8], [64, 64], [1, 1024], [16, 4096], [1024, 1024]].map(softmax(Along::Rows));
    let columns = [[8, 8], [64, 64], [1024, 1024], [4096, 64]].map(softmax(Along::Columns));
    let attention = |heads, tokens, dim, causal| {
        let stored = Stored::Rows;
        Job::Attention(Attention { heads, queries: tokens, keys: tokens, dim, causal, stored })
    };
    let all = [(1, 8, 64), (1, 128, 64), (1, 512, 64), (8, 512, 64), (1, 2048, 64), (1, 2048, 128)]
        .map(|(heads, tokens, dim)| attention(heads, tokens, dim, false));
    let causal = [(1, 512, 64), (1, 2048, 64), (1, 2048, 128)]
        .map(|(heads, tokens, dim)| attention(heads, tokens, dim, true));
    let one = |stored| {
        move |(heads, keys, dim)| {
            let causal = false;
            Job::Attention(Attention { heads, queries: 1, keys, dim, causal, stored })
        }
    };
    let sizes = [(1, 1024, 64), (8, 1024, 64), (1, 8192, 128)];
    let strided = [4096, 4112].map(|stride| one(Stored::Columns { stride })((1, 4096, 128)));
    [&dots[..], &scores, &rows, &columns, &all, &causal]
        .concat()
        .into_iter()
        .chain(sizes.map(one(Stored::Cache)))
        .chain(sizes.map(one(Stored::Rows)))
        .chain(strided)
        .collect()
}

impl Job {
    /// What jobs of one kind have in common.
    pub(crate) fn group(&self) -> &'static str {
        match self {
            Self::Dot { .. } => "dot",
            Self::Scores { .. } => "scores",
            Self::Softmax { along: Along::Rows, .. } => "softmax of rows",
            Self::Softmax { along: Along::Columns, .. } => "softmax of columns",
            Self::Attention(Attention { causal: true, .. }) => "causal attention",
            Self::Attention(Attention { queries: 2.., .. }) => "attention",
            Self::Attention(Attention { stored: Stored::Cache, .. }) => "one query, cache",
            Self::Attention(Attention { stored: Stored::Rows, .. }) => "one query, arrays",
            Self::Attention(_) => "one query, keys in columns",
        }
    }

    /// The floats of each input and of the output.
    fn sizes(&self) -> ([usize; 3], usize) {
        match *self {
            Self::Dot { n } => ([n, n, 0], 1),
            Self::Scores { keys, queries, dim } => ([keys * dim, queries * dim, 0], keys * queries),
            Self::Softmax { rows, cols, .. } => ([rows * cols, 0, 0], rows * cols),
            Self::Attention(Attention { heads, queries, keys, dim, stored, .. }) => {
                let of_keys = match stored {
                    Stored::Rows | Stored::Cache => heads * keys * dim,
                    Stored::Columns { stride } => heads * dim * stride,
                };
                ([heads * queries * dim, of_keys, heads * keys * dim], heads * queries * dim)
            }
        }
    }

    pub(crate) fn outputs(&self) -> usize {
        self.sizes().1
    }

    /// Floating-point operations of the multiply-adds that cannot be avoided, two each. An exponential takes nine
    /// (three of its argument, a polynomial of degree six), and a weight one multiplication by the
    /// reciprocal of the sum; attention is counted without its exponentials.
    pub(crate) fn operations(&self) -> f64 {
        let count = match *self {
            Self::Dot { n } => 2 * n,
            Self::Scores { keys, queries, dim } => 2 * keys * queries * dim,
            Self::Softmax { rows, cols, .. } => 20 * rows * cols,
            Self::Attention(Attention { heads, queries, keys, dim, causal, .. }) => {
                let visible = if causal { keys * (keys + 1) / 2 } else { queries * keys };
                4 * heads * visible * dim
            }
        };
        count as f64
    }

    /// The bytes of the inputs, each of which is loaded once at least.
    pub(crate) fn bytes(&self) -> f64 {
        let floats = match *self {
            Self::Attention(Attention { heads, queries, keys, dim, .. }) => {
                heads * (queries + 2 * keys) * dim
            }
            _ => self.sizes().0.iter().sum(),
        };
        (4 * floats) as f64
    }
}

/// The shape.
impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Dot { n } => write!(f, "{n}"),
            Self::Scores { keys, queries, dim } => write!(f, "{keys} × {queries} × {dim}"),
            Self::Softmax { rows, cols, .. } => write!(f, "{rows} × {cols}"),
            Self::Attention(Attention { heads, queries, keys, dim, stored, .. }) => {
                if heads > 1 {
                    write!(f, "{heads} heads of ")?;
                }
                if queries > 1 {
                    write!(f, "{queries} × ")?;
                }
                write!(f, "{keys} × {dim}")?;
                match stored {
                    Stored::Columns { stride } => write!(f, ", stride {stride}"),
                    Stored::Rows | Stored::Cache => Ok(()),
                }
            }
        }
    }
}

/// Random inputs that begin at cache lines.
pub(crate) struct Inputs {
    floats: [(Aligned, usize); 3],
}

impl Inputs {
    pub(crate) fn new(job: &Job) -> Self {
        let mut rng = Rng::new(1);
        // Scores of softmax as attention has them; everything else between −1 and 1.
        let width = if matches!(job, Job::Softmax { .. }) { 10.0 } else { 1.0 };
        let floats = job.sizes().0.map(|n| {
            let mut floats = Aligned::new(n.next_multiple_of(16), 0.0);
            floats.floats_mut().iter_mut().for_each(|x| *x = rng.between(-width, width));
            (floats, n)
        });
        Self { floats }
    }

    /// Two large inputs, if the job has them.
    pub(crate) fn large_two(&self, job: &Job) -> Option<[&Aligned; 2]> {
        let [(x, _), (y, _), (z, _)] = &self.floats;
        match *job {
            Job::Dot { n: 1024.. } => Some([x, y]),
            Job::Attention(Attention { queries: 1, .. }) => Some([y, z]),
            _ => None,
        }
    }

    /// The operands in the order of the job's name: queries, keys and values; but keys and queries of scores.
    pub(crate) fn operands(&self) -> [&[f32]; 3] {
        self.floats.each_ref().map(|(floats, n)| &floats.floats()[..*n])
    }
}

/// Some elements of the right answer.
pub(crate) struct Truth {
    elements: Vec<(usize, Sum)>,
}

/// Attention is checked for so many queries a head, spread over all of them.
const CHECKED_QUERIES: usize = 24;

/// The largest error relative to the sum of absolute terms, or to a weight. Coarse: it tells whether the
/// work is done, for libraries of any accuracy in f32.
const TOLERANCE: f64 = 1e-5;

impl Truth {
    pub(crate) fn new(job: &Job, inputs: &Inputs) -> Self {
        let [x, y, z] = inputs.operands();
        let grid = |data: &[f32], rows, cols| Grid { rows, cols, data: data.to_vec() };
        let all = |of: Grid<Sum>| of.data.into_iter().enumerate().collect();
        let elements = match *job {
            Job::Dot { .. } => vec![(0, oracle::dot(x, y))],
            Job::Scores { keys, queries, dim } => {
                all(oracle::scores(&grid(x, keys, dim), &grid(y, queries, dim), Some(1.0)))
            }
            Job::Softmax { rows, cols, along } => {
                let weights = match along {
                    Along::Rows => oracle::softmax_rows(&grid(x, rows, cols)),
                    Along::Columns => oracle::softmax_columns(&grid(x, rows, cols)),
                };
                all(Grid::from_fn(rows, cols, |row, col| {
                    let value = weights.at(row, col);
                    Sum { value, magnitude: value, underflow: 0.0 }
                }))
            }
            Job::Attention(of) => attention(of, [x, y, z]),
        };
        Self { elements }
    }

    /// The largest error, as a multiple of the tolerance.
    pub(crate) fn error(&self, out: &[f32]) -> f64 {
        let errors = self.elements.iter().map(|&(at, Sum { value, magnitude, .. })| {
            (f64::from(out[at]) - value).abs() / (TOLERANCE * magnitude)
        });
        errors.fold(0.0, |most, error| if error.is_nan() { f64::INFINITY } else { error.max(most) })
    }
}

fn attention(of: Attention, [queries, keys, values]: [&[f32]; 3]) -> Vec<(usize, Sum)> {
    let Attention { heads, queries: tokens, keys: count, dim, causal, stored } = of;
    let step = tokens.div_ceil(CHECKED_QUERIES);
    let mut elements = Vec::new();
    for head in 0..heads {
        let of_head = |all: &[f32], rows| {
            Grid::from_fn(rows, dim, |row, col| all[(head * rows + row) * dim + col])
        };
        let values = of_head(values, count);
        let keys = match stored {
            Stored::Rows | Stored::Cache => of_head(keys, count),
            Stored::Columns { stride } => {
                Grid::from_fn(count, dim, |key, col| keys[(head * dim + col) * stride + key])
            }
        };
        let queries = of_head(queries, tokens);
        for token in (0..tokens).rev().step_by(step) {
            let query = Grid { rows: 1, cols: dim, data: queries.row(token).to_vec() };
            let options = Options { causal, offset: token as isize, ..Options::new() };
            let answer = oracle::attention::attention(&options, 0, [&query, &keys, &values]);
            let first = (head * tokens + token) * dim;
            let sums = answer.out.data.iter().map(|truth| truth.sum);
            elements.extend((first..).zip(sums));
        }
    }
    elements
}
