//! Calls every kind of kernel in an unoptimised build, on threads whose stack has so many KiB as the argument says.
//! A thread of Rust has 2 MiB, tests too.

use sdpa::{
    Attention, Backend, Bf16, ElementsRef, I8, KEY_BLOCK, KvCache, Matrix, MatrixMut, MatrixRef,
    Pairs, RotaryTable, narrow,
};

const TOKENS: usize = 70;
const DIM: usize = 40;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kib: usize = std::env::args().nth(1).ok_or("KiB?")?.parse()?;
    for backend in sdpa::Backend::available() {
        for (name, call) in CALLS {
            println!("{}: {name}", backend.name());
            let thread = std::thread::Builder::new().stack_size(kib * 1024);
            let result = thread.spawn(move || call(backend))?.join();
            result.map_err(|_| "it panicked")??;
        }
    }
    Ok(())
}

type Call = fn(Backend) -> Result<(), sdpa::Error>;

const CALLS: [(&str, Call); 8] = [
    ("project", project),
    ("dot and softmax", softmax),
    ("attention", attention),
    ("the score grid and the pattern", grids),
    ("attention from a cache", cache),
    ("attention over elements", elements),
    ("states and their join", states),
    ("rotate", rotate),
];

fn floats() -> Vec<f32> {
    (0..TOKENS * DIM).map(|i| (i as f32).sin()).collect()
}

fn project(backend: Backend) -> Result<(), sdpa::Error> {
    let x = floats();
    let weights = MatrixRef::new(&x, DIM, DIM)?;
    for weights in [weights, weights.t()] {
        for rows in [1, 2, 5, TOKENS] {
            let mut out = floats();
            let input = MatrixRef::new(&x, rows, DIM)?;
            backend.project(
                input,
                weights,
                Some(&x[..DIM]),
                MatrixMut::new(&mut out, rows, DIM)?,
            )?;
        }
    }
    Ok(())
}

fn softmax(backend: Backend) -> Result<(), sdpa::Error> {
    let mut x = floats();
    let _ = backend.dot(&x, &x)?;
    backend.softmax_rows_in_place(MatrixMut::new(&mut x, TOKENS, DIM)?);
    backend.softmax_columns_in_place(MatrixMut::new(&mut x, TOKENS, DIM)?);
    Ok(())
}

/// Calls `f` with every kind of tile: one query, a few, half a vector, one vector, two.
fn for_queries(
    mut f: impl FnMut(MatrixRef<'_>, MatrixMut<'_>) -> Result<(), sdpa::Error>,
) -> Result<(), sdpa::Error> {
    let x = floats();
    for queries in [1, 2, 4, 7, 9, 16, 17, TOKENS] {
        let mut out = floats();
        f(MatrixRef::new(&x, queries, DIM)?, MatrixMut::new(&mut out, queries, DIM)?)?;
    }
    Ok(())
}

fn attention(backend: Backend) -> Result<(), sdpa::Error> {
    let (x, mut workspace) = (floats(), vec![0.0; Attention::workspace(DIM, DIM)]);
    let keys = MatrixRef::new(&x, TOKENS, DIM)?;
    let columns = MatrixRef::new(&x, DIM, TOKENS)?;
    let attention = Attention::new().on(backend).causal().softcap(20.0).slopes(&[0.1]);
    for_queries(|q, out| attention.run(q, keys, keys, out, &mut workspace))?;
    for_queries(|q, out| attention.run(q, columns.t(), columns.t(), out, &mut workspace))
}

fn grids(backend: Backend) -> Result<(), sdpa::Error> {
    let x = floats();
    let keys = MatrixRef::new(&x, DIM, DIM)?;
    let attention = Attention::new().on(backend).window(3, 1).keep_first(2);
    let mut grid = floats();
    attention.scores(keys, keys, MatrixMut::new(&mut grid, DIM, DIM)?)?;
    attention.pattern(keys, keys, MatrixMut::new(&mut grid, DIM, DIM)?)
}

fn cache(backend: Backend) -> Result<(), sdpa::Error> {
    let (x, mut workspace) = (floats(), vec![0.0; Attention::workspace(DIM, DIM)]);
    let mut cache = Box::new(KvCache::<DIM, DIM, { 128 / KEY_BLOCK }>::EMPTY);
    cache.append(MatrixRef::new(&x, TOKENS, DIM)?, MatrixRef::new(&x, TOKENS, DIM)?)?;
    let attention = Attention::new().on(backend);
    for_queries(|q, out| cache.attend(&attention, q, out, &mut workspace))
}

fn elements(backend: Backend) -> Result<(), sdpa::Error> {
    let (x, mut workspace) = (floats(), vec![0.0; Attention::elements_workspace(DIM, DIM)]);
    let floats = MatrixRef::new(&x, TOKENS, DIM)?;
    let (mut keys, mut scales) = (vec![I8::default(); TOKENS * DIM], [0.0; TOKENS]);
    let mut values = vec![Bf16::default(); TOKENS * DIM];
    narrow(floats, &mut keys, &mut scales)?;
    narrow(floats, &mut values, &mut [])?;
    let scales = MatrixRef::from_row(&scales);
    let keys = ElementsRef::with_scales(MatrixRef::new(&keys, TOKENS, DIM)?, scales)?;
    let values: ElementsRef<'_, Bf16> = MatrixRef::new(&values, TOKENS, DIM)?.into();
    let attention = Attention::new().on(backend);
    for_queries(|q, out| attention.run_elements(q, keys, values, out, None, &mut workspace))
}

fn states(backend: Backend) -> Result<(), sdpa::Error> {
    let (x, mut workspace) = (floats(), vec![0.0; Attention::workspace(DIM, DIM)]);
    let keys = MatrixRef::new(&x, TOKENS, DIM)?;
    let attention = Attention::new().on(backend);
    for_queries(|q, out| {
        let mut states = vec![0.0; q.rows() * Attention::state_floats(DIM)];
        attention.run_spans(q, keys, keys, 0, &mut states, &mut workspace)?;
        attention.join(&states, out, None)
    })
}

fn rotate(backend: Backend) -> Result<(), sdpa::Error> {
    let mut memory = vec![0.0; RotaryTable::floats(TOKENS, DIM / 2)];
    let table = RotaryTable::new(10_000.0, DIM / 2, 0..TOKENS as u64, &mut memory)?;
    let mut x = Matrix::<TOKENS, DIM>::ZERO;
    backend.rotate_in_place(x.view_mut(), &table, 0, Pairs::Halves)?;
    backend.rotate_in_place(x.view_mut(), &table, 0, Pairs::Interleaved)
}
