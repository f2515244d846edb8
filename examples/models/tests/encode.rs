//! The sentence encoder beside PyTorch: `tests/data/minilm.json`, which `reference.py` has written.

use anyhow::{Context, Result};
use rayon::ThreadPoolBuilder;
use sdpa_models::{bert::Encoder, layers::Rows, weights};
use serde_json::Value;

/// The largest difference of an element; embeddings have length 1.
const BOUND: f32 = 1e-6;

/// To see the tests fail.
fn is_wrong() -> bool {
    std::env::var_os("SDPA_WRONG").is_some()
}

struct Reference {
    sentences: Vec<String>,
    embeddings: Vec<Vec<f32>>,
}

fn reference() -> Result<Reference> {
    let json: Value = serde_json::from_str(include_str!("data/minilm.json"))?;
    Ok(Reference {
        sentences: serde_json::from_value(json["sentences"].clone())?,
        embeddings: serde_json::from_value(json["embeddings"].clone())?,
    })
}

fn encoder() -> Result<Encoder> {
    Encoder::open(&weights::folder(None))
}

/// All sentences in one batch: of 2 to 256 tokens, so that all but one are padded.
#[test]
fn embeddings_are_those_of_pytorch() -> Result<()> {
    let Reference { mut sentences, embeddings } = reference()?;
    if is_wrong() {
        sentences[0].push('!');
    }
    let ours = encoder()?.encode(&sentences)?;
    let mut worst = 0.0_f32;
    for (i, expected) in embeddings.iter().enumerate() {
        assert_eq!(ours.row(i)?.len(), expected.len());
        for (x, y) in ours.row(i)?.iter().zip(expected) {
            worst = worst.max((x - y).abs());
            assert!((x - y).abs() <= BOUND, "{:?}: {x}, and {y} by PyTorch", sentences[i]);
        }
    }
    println!("the largest difference is {worst:e}");
    Ok(())
}

/// The bits of a sentence do not depend on what it is padded to, nor on threads.
#[test]
fn neither_batch_nor_threads_change_a_bit() -> Result<()> {
    let (encoder, mut sentences) = (encoder()?, reference()?.sentences);
    let bits = |x: &Rows, row: usize| -> Result<Vec<u32>> {
        Ok(x.row(row)?.iter().map(|x| x.to_bits()).collect())
    };
    let batch = encoder.encode(&sentences)?;
    if is_wrong() {
        sentences[0].push('!');
    }
    for threads in [1, 2, 3] {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build()?;
        for (i, sentence) in sentences.iter().enumerate() {
            let alone = pool.install(|| encoder.encode(std::slice::from_ref(sentence)))?;
            let context = || format!("{sentence:?} on {threads} threads");
            assert_eq!(bits(&alone, 0)?, bits(&batch, i)?, "{}", context());
        }
    }
    Ok(())
}

#[test]
fn without_weights_the_error_names_the_command() -> Result<()> {
    let error = Encoder::open("absent".as_ref()).err().context("there are weights in `absent`")?;
    assert!(format!("{error:#}").contains("get.sh absent"), "{error:#}");
    Ok(())
}
