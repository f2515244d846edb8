//! One attention head, step by step, with its pattern drawn in the terminal.
//!
//! ```text
//! cargo run --release --example attention_pattern
//! cargo run --release --example attention_pattern -- --causal --svg pattern.svg
//! cargo run --release --example attention_pattern -- \
//!     --queries Q.npy --keys K.npy --values V.npy --labels a,b,c --out output.npy
//! cargo run --release --example attention_pattern -- \
//!     --model DIR --layer 2 --head 1 --text "a fluffy blue creature"
//! ```
//!
//! Without arguments it applies a built-in trained head to a sentence of eight words. Arrays of the
//! user must be queries, keys and values: they are not projected. `--help` describes the file formats
//! and how to select a head.
//!
//! Everything is computed before anything is written. After an error there is one line on
//! stderr, the exit status is 2, and no file has changed. With `--model` what the package of the models says of
//! it comes before that line.

mod data;
mod drawing;
mod model;
mod npy;

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::Parser;
use data::{Head, Linear};
use drawing::{Array, Shown, labels, picture, save, terminal};

/// Shows the attention weight of each key for each query in one attention head.
#[derive(Parser)]
#[command(name = "attention_pattern", after_help = ARRAYS)]
struct Args {
    /// Query i sees only the keys 0 to i
    #[arg(long)]
    causal: bool,

    /// Write the scores and the pattern as an SVG picture; a heat map above 64 keys or queries
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,

    /// Write the output, queries × value width, as float32
    #[arg(long, value_name = "FILE.npy")]
    out: Option<PathBuf>,

    /// Your queries, queries × dim, instead of the built-in sentence
    #[arg(long, value_name = "Q.npy", group = "drawn", requires_all = ["keys", "values"])]
    queries: Option<PathBuf>,

    /// Your keys, keys × dim
    #[arg(long, value_name = "K.npy", requires_all = ["queries", "values"])]
    keys: Option<PathBuf>,

    /// Your values, keys × value width
    #[arg(long, value_name = "V.npy", requires_all = ["queries", "keys"])]
    values: Option<PathBuf>,

    #[command(flatten)]
    pick: npy::Pick,

    #[command(flatten)]
    model: model::Model,

    /// Names of your keys; when there are as many queries, also theirs
    #[arg(long, value_name = "A,B,C", value_delimiter = ',', requires = "keys")]
    labels: Option<Vec<String>>,

    /// The same from a UTF-8 file, one name per line, which may hold commas
    #[arg(long, value_name = "FILE", requires = "keys", conflicts_with = "labels")]
    labels_from: Option<PathBuf>,
}

const ARRAYS: &str = "\
Arrays are .npy files of float16, bfloat16 (which ml_dtypes writes as V2), float32 or
float64 (rounded to float32), in C or Fortran order and either byte order:

  [tokens][dim]                    one head
  [heads][tokens][dim]             pick with --head
  [batch][tokens][dim]             pick with --batch
  [batch][heads][tokens][dim]      pick with both

An axis of length 1 needs no pick. --head counts query heads. Where keys and values have
fewer heads, consecutive query heads share them in groups of the same size.";

/// Queries, keys and values.
struct Input {
    title: String,
    labels: Option<Vec<String>>,
    /// The names of the three, for messages.
    names: [String; 3],
    arrays: [Array; 3],
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
    if args.model.draw(args.pick.head, args.svg.as_deref())? {
        return Ok(());
    }
    let Input { title, labels, names: [q, k, v], arrays: [queries, keys, values] } = input(args)?;
    let (key_labels, query_labels) =
        labels::labels(labels, keys.rows, queries.rows).map_err(|error| {
            match &args.labels_from {
                Some(path) => format!("{path:?} holds {error}"),
                None => error,
            }
        })?;

    let dim = keys.cols;
    let scale = 1.0 / (dim as f32).sqrt();
    let mut scores = Array::filled(keys.rows, queries.rows, 0.0);
    sdpa::scores(keys.view()?, queries.view()?, Some(scale), scores.view_mut()?)?;
    scores.check_finite(&format!("the scores of {q} and {k}"))?;

    if args.causal {
        for key in 0..keys.rows {
            for query in 0..queries.rows.min(key) {
                scores.set(key, query, f32::NEG_INFINITY);
            }
        }
    }

    let mut pattern = Array::filled(keys.rows, queries.rows, 0.0);
    sdpa::softmax_columns(scores.view()?, pattern.view_mut()?)?;

    let mut output = Array::filled(queries.rows, values.cols, 0.0);
    sdpa::weighted_sum(pattern.view()?, values.view()?, output.view_mut()?)?;
    output.check_finite(&format!("the outputs from {v}"))?;

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
        files.push((path.as_path(), npy::write(&shown.output)?));
    }
    save::all(&files)?;

    Ok(terminal::print(&terminal::draw(&shown))?)
}

/// Reads the user's files, or applies the built-in head to its sentence.
fn input(args: &Args) -> Result<Input, Box<dyn Error>> {
    if let (Some(queries), Some(keys), Some(values)) = (&args.queries, &args.keys, &args.values) {
        let from_file = args.labels_from.as_deref().map(labels::read).transpose()?;
        let paths = [queries.as_path(), keys, values];
        return Ok(Input {
            title: format!("Attention pattern{}", args.pick),
            labels: from_file.or_else(|| args.labels.clone()),
            names: paths.map(|path| format!("{path:?}")),
            arrays: npy::read(paths, &args.pick)?,
        });
    }
    let Head { title, words, embeddings, query, key, value } = data::minilm()?;
    let project = |layer| project(&embeddings, layer);
    Ok(Input {
        title,
        labels: Some(words),
        names: ["queries", "keys", "values"].map(str::to_string),
        arrays: [project(&query)?, project(&key)?, project(&value)?],
    })
}

fn project(embeddings: &Array, layer: &Linear) -> Result<Array, sdpa::Error> {
    let mut out = Array::filled(embeddings.rows, layer.weights.cols, 0.0);
    sdpa::project(embeddings.view()?, layer.weights.view()?, Some(&layer.bias), out.view_mut()?)?;
    Ok(out)
}
