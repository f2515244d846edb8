//! The decoder beside candle's, both in floats: `CANDLE_DEQUANTIZE_ALL=1 cargo test --release --features candle`.

use anyhow::Result;
use sdpa::F16;
use sdpa_models::{
    cache::CacheElement, candle::Candle, llama::Decoder, sampler::likeliest, tokens, weights,
};

/// The largest difference of a logit; the largest logit of the prompts is 34.6.
const BOUND: f32 = 3e-4;

fn largest_difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let largest = ours.iter().zip(theirs).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert!(largest <= BOUND, "{largest} is above the bound");
    largest
}

/// To see the tests fail: a cache of halves is beyond the bound.
fn is_wrong() -> bool {
    std::env::var_os("SDPA_WRONG").is_some()
}

#[test]
fn logits_of_64_prompts() -> Result<()> {
    if is_wrong() { logits::<F16>() } else { logits::<f32>() }
}

fn logits<E: CacheElement>() -> Result<()> {
    let folder = weights::folder(None);
    let (decoder, mut candle) = (Decoder::open(&folder)?, Candle::open(&folder)?);
    let prompts: Vec<&str> = include_str!("data/prompts.txt").lines().collect();
    assert_eq!(prompts.len(), 64);
    let (mut worst, mut largest) = (0.0_f32, 0.0_f32);
    for prompt in prompts {
        let tokens = decoder.encode(prompt)?;
        let ours = decoder.prompt(&tokens, 16, &mut decoder.cache::<E>(tokens.len())?, |_| {})?;
        let theirs = candle.run(&tokens, 0)?;
        worst = worst.max(largest_difference(&ours, &theirs));
        assert_eq!(likeliest(&ours)?, likeliest(&theirs)?, "{prompt:?}");
        largest = theirs.iter().fold(largest, |largest, logit| largest.max(logit.abs()));
    }
    println!("the largest difference is {worst:e}, the largest logit {largest}");
    Ok(())
}

#[test]
fn a_hundred_tokens_are_the_same() -> Result<()> {
    if is_wrong() { a_hundred_tokens::<F16>() } else { a_hundred_tokens::<f32>() }
}

fn a_hundred_tokens<E: CacheElement>() -> Result<()> {
    let folder = weights::folder(None);
    let (decoder, mut candle) = (Decoder::open(&folder)?, Candle::open(&folder)?);
    let prompt = decoder.encode(&tokens::chat("Explain how rain forms."))?;
    let mut cache = decoder.cache::<E>(prompt.len() + 100)?;
    let mut ours = decoder.prompt(&prompt, 64, &mut cache, |_| {})?;
    let mut theirs = candle.run(&prompt, 0)?;
    let (mut worst, mut written) = (0.0_f32, Vec::new());
    for i in 0..100 {
        worst = worst.max(largest_difference(&ours, &theirs));
        let token = likeliest(&ours)?;
        assert_eq!(token, likeliest(&theirs)?, "token {i}");
        written.push(token);
        ours = decoder.next(token, &mut cache)?;
        theirs = candle.run(&[token], prompt.len() + i)?;
    }
    let text = decoder.tokenizer.decode(&written, true).map_err(tokens::error)?;
    println!("the largest difference is {worst:e}; written: {text}");
    Ok(())
}
