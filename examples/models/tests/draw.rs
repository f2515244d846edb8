//! Attention patterns of the encoder beside PyTorch: `tests/data/patterns.json`, which `reference.py` has written. The
//! command `draw` as a program: the picture `tests/data/patterns.svg`.

use std::{
    env, fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context, Result};
use sdpa_models::{bert::Encoder, weights};
use serde_json::{Value, from_value};

/// The largest difference of a weight, and of the sum of a column from 1.
const BOUND: f64 = 2e-6;

struct Reference {
    text: String,
    layer: usize,
    tokens: Vec<String>,
    /// Heads × keys × queries.
    patterns: Vec<Vec<Vec<f64>>>,
}

fn reference() -> Result<Reference> {
    let json: Value = serde_json::from_str(include_str!("data/patterns.json"))?;
    Ok(Reference {
        text: from_value(json["text"].clone())?,
        layer: from_value(json["layer"].clone())?,
        tokens: from_value(json["tokens"].clone())?,
        patterns: from_value(json["patterns"].clone())?,
    })
}

/// To see the tests fail: the layer above.
fn layer(reference: &Reference) -> usize {
    reference.layer + usize::from(env::var_os("SDPA_WRONG").is_some())
}

#[test]
fn patterns_are_those_of_pytorch() -> Result<()> {
    let reference = reference()?;
    let encoder = Encoder::open(&weights::folder(None))?;
    let attended = encoder.attended(&reference.text, layer(&reference))?;
    assert_eq!(attended.tokens, reference.tokens);
    let patterns = attended.patterns()?;
    assert_eq!(patterns.len(), reference.patterns.len());
    let mut worst = 0.0_f64;
    for (pattern, expected) in patterns.iter().zip(&reference.patterns) {
        assert_eq!([pattern.len(), pattern.width()], [expected.len(); 2]);
        let mut sums = vec![0.0; pattern.width()];
        for (key, expected) in expected.iter().enumerate() {
            for (query, (&x, y)) in pattern.row(key)?.iter().zip(expected).enumerate() {
                sums[query] += f64::from(x);
                worst = worst.max((f64::from(x) - y).abs());
                assert!(worst <= BOUND, "key {key}, query {query}: {x}, and {y} by PyTorch");
            }
        }
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() <= BOUND), "{sums:?}");
    }
    println!("the largest difference is {worst:e}");
    Ok(())
}

fn draw(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(env!("CARGO_BIN_EXE_sdpa-models")).arg("draw").args(arguments).output()?)
}

/// What the program prints.
fn print(arguments: &[&str]) -> Result<String> {
    let output = draw(arguments)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The numbers of the table under this heading, a row per key.
fn table(text: &str, heading: &str) -> Option<Vec<Vec<f64>>> {
    let (_, table) = text.split_once(&format!("\n{heading}"))?;
    let rows = table.lines().skip(3).take_while(|line| !line.is_empty());
    rows.map(|row| row.split_whitespace().skip(1).map(|x| x.parse().ok()).collect()).collect()
}

#[test]
fn the_drawn_pattern_of_a_head() -> Result<()> {
    let reference = reference()?;
    let layer = layer(&reference).to_string();
    for (head, expected) in reference.patterns.iter().enumerate() {
        let text = print(&["--layer", &layer, "--head", &head.to_string(), &reference.text])?;
        let drawn = table(&text, "Pattern, ").context("no table")?;
        assert_eq!([drawn.len(), drawn[0].len()], [expected.len(); 2]);
        for (x, y) in drawn.iter().flatten().zip(expected.iter().flatten()) {
            // Three digits.
            assert!((x - y).abs() <= 5e-4 + BOUND, "{x}, and {y} by PyTorch, in\n{text}");
        }
    }
    Ok(())
}

#[test]
fn the_picture_of_all_heads() -> Result<()> {
    let reference = reference()?;
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("patterns.svg");
    let path = file.to_str().context("the name of the file")?;
    let layer = layer(&reference).to_string();
    let text = print(&["--layer", &layer, "--svg", path, &reference.text])?;
    for head in 0..reference.patterns.len() {
        assert_eq!(text.matches(&format!("\nHead {head}\n\nkey\\query")).count(), 1);
    }
    let stored = include_str!("data/patterns.svg").replace("\r\n", "\n");
    let is_same = fs::read_to_string(&file)? == stored;
    assert!(is_same, "out of date: cp {path} tests/data/patterns.svg, after a look");
    Ok(())
}

#[test]
fn a_wrong_layer_or_head_is_an_error() -> Result<()> {
    for (arguments, words) in [
        (["--layer", "6", "--head", "0"], "no layer 6: the encoder has 6, counted from 0"),
        (["--layer", "0", "--head", "12"], "no head 12: a layer has 12, counted from 0"),
    ] {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("absent.svg");
        let path = file.to_str().context("the name of the file")?;
        let output = draw(&[&arguments[..], &["--svg", path, "a text"]].concat())?;
        assert!(!output.status.success() && output.stdout.is_empty() && !file.exists());
        let error = String::from_utf8(output.stderr)?;
        // Backtraces may follow.
        assert_eq!(error.lines().next(), Some(&*format!("Error: {words}")));
    }
    Ok(())
}
