//! One attention head, step by step, with its pattern drawn in the terminal.
//!
//! ```text
//! cargo run --release --example attention_pattern
//! cargo run --release --example attention_pattern -- --causal --svg pattern.svg
//! cargo run --release --example attention_pattern -- \
//!     --queries Q.npy --keys K.npy --values V.npy --labels a,b,c --out output.npy
//! ```
//!
//! Without arguments a sentence of eight words goes through a trained head that is
//! built in. The user's own arrays are queries, keys and values already, and are not
//! projected. They are two-dimensional `.npy` files in C or Fortran order, of float32,
//! or of float64, which is rounded to float32; other types are refused.
//!
//! Everything is computed before anything is written. On an error there is one line on
//! stderr, the exit status is 2, and no file has changed.

mod data;
mod picture;
mod save;
mod terminal;

use std::{error::Error, io::Write, path::PathBuf, process::ExitCode};

use clap::Parser;
use data::{Array, Head, Linear};

/// Shows what each key matters to each query in one attention head.
#[derive(Parser)]
#[command(name = "attention_pattern")]
struct Args {
    /// Query i sees only the keys 0 to i
    #[arg(long)]
    causal: bool,

    /// Write the scores and the pattern as an SVG picture
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,

    /// Write the output, queries × value width, as float32
    #[arg(long, value_name = "FILE.npy")]
    out: Option<PathBuf>,

    /// Your queries, queries × dim, instead of the built-in sentence
    #[arg(long, value_name = "Q.npy", requires_all = ["keys", "values"])]
    queries: Option<PathBuf>,

    /// Your keys, keys × dim
    #[arg(long, value_name = "K.npy", requires_all = ["queries", "values"])]
    keys: Option<PathBuf>,

    /// Your values, keys × value width
    #[arg(long, value_name = "V.npy", requires_all = ["queries", "keys"])]
    values: Option<PathBuf>,

    /// Names of your keys; when there are as many queries, also theirs
    #[arg(long, value_name = "A,B,C", value_delimiter = ',', requires = "keys")]
    labels: Option<Vec<String>>,
}

/// What the terminal and the picture show.
struct Shown {
    title: String,
    subtitle: String,
    key_labels: Vec<String>,
    query_labels: Vec<String>,
    /// A row per key, a column per query.
    scores: Array,
    /// A row per key, a column per query.
    pattern: Array,
    /// A row per query.
    output: Array,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("attention_pattern: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let own = args.queries.as_ref().zip(args.keys.as_ref()).zip(args.values.as_ref());
    let (title, labels, queries, keys, values) = if let Some(((queries, keys), values)) = own {
        let title = "Attention pattern".to_string();
        (title, args.labels.clone(), data::read(queries)?, data::read(keys)?, data::read(values)?)
    } else {
        let Head { title, words, embeddings, query, key, value } = data::minilm()?;
        let queries = project(&embeddings, &query)?;
        let keys = project(&embeddings, &key)?;
        let values = project(&embeddings, &value)?;
        (title, Some(words), queries, keys, values)
    };
    let (key_labels, query_labels) = data::labels(labels, keys.rows, queries.rows)?;
    data::check_shapes(&queries, &keys, &values)?;

    let dim = keys.cols;
    let scale = 1.0 / (dim as f32).sqrt();
    let mut scores = Array::zeros(keys.rows, queries.rows);
    sdpa::scores(keys.view()?, queries.view()?, Some(scale), scores.view_mut()?)?;
    scores.check_finite("the scores")?;

    if args.causal {
        for key in 0..keys.rows {
            for query in 0..queries.rows.min(key) {
                scores.set(key, query, f32::NEG_INFINITY);
            }
        }
    }

    let mut pattern = Array::zeros(keys.rows, queries.rows);
    sdpa::softmax_columns(scores.view()?, pattern.view_mut()?)?;

    let mut output = Array::zeros(queries.rows, values.cols);
    sdpa::weighted_sum(pattern.view()?, values.view()?, output.view_mut()?)?;
    output.check_finite("the output")?;

    let causal = if args.causal { ", causal" } else { "" };
    let subtitle = format!(
        "{} keys, {} queries, dim {dim}, scale 1/√{dim} = {scale:.4}{causal}",
        keys.rows, queries.rows,
    );
    let shown = Shown { title, subtitle, key_labels, query_labels, scores, pattern, output };

    let mut files = Vec::new();
    if let Some(path) = &args.svg {
        files.push((path.as_path(), picture::draw(&shown)?.into_bytes()));
    }
    if let Some(path) = &args.out {
        files.push((path.as_path(), shown.output.to_npy()?));
    }
    save::all(&files)?;

    match std::io::stdout().write_all(terminal::draw(&shown).as_bytes()) {
        // `| head` has read all that it wants.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn project(embeddings: &Array, layer: &Linear) -> Result<Array, sdpa::Error> {
    let mut out = Array::zeros(embeddings.rows, layer.weights.cols);
    sdpa::project(embeddings.view()?, layer.weights.view()?, Some(&layer.bias), out.view_mut()?)?;
    Ok(out)
}
