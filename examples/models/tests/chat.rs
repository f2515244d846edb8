//! The decoder: its answer has sense, and its bits depend neither on threads, chunks of the prompt nor spans of the cache.

use anyhow::Result;
use rayon::ThreadPoolBuilder;
use sdpa::{Bf16, F16, I8, SPAN};
use sdpa_models::{
    cache::{Cache, CacheElement},
    llama::Decoder,
    sampler::likeliest,
    tokens, weights,
};

fn decoder() -> Result<Decoder> {
    Decoder::open(&weights::folder(None))
}

/// To see the tests fail.
fn is_wrong() -> bool {
    std::env::var_os("SDPA_WRONG").is_some()
}

/// Reads a prompt and writes `count` tokens, the likeliest each time: they, and a digest of the bits of all logits.
fn greedy<E: CacheElement>(
    decoder: &Decoder,
    prompt: &[u32],
    count: usize,
    chunk: usize,
    change: impl FnOnce(&mut Cache<E>),
) -> Result<(Vec<u32>, u64)> {
    let mut cache = decoder.cache::<E>(prompt.len() + count)?;
    change(&mut cache);
    let mut logits = decoder.prompt(prompt, chunk, &mut cache, |_| {})?;
    let (mut written, mut digest) = (Vec::new(), 0xcbf2_9ce4_8422_2325_u64);
    for _ in 0..count {
        for logit in &logits {
            digest = (digest ^ u64::from(logit.to_bits())).wrapping_mul(0x0100_0000_01b3);
        }
        written.push(likeliest(&logits)?);
        logits = decoder.next(written[written.len() - 1], &mut cache)?;
    }
    Ok((written, digest))
}

#[test]
fn the_answer_has_sense_with_every_element_of_the_cache() -> Result<()> {
    let decoder = decoder()?;
    let country = if is_wrong() { "Italy" } else { "France" };
    let question = format!("What is the capital of {country}?");
    let prompt = decoder.encode(&tokens::chat(&question))?;
    let written = [
        greedy::<f32>(&decoder, &prompt, 7, 64, |_| {})?.0,
        greedy::<F16>(&decoder, &prompt, 7, 64, |_| {})?.0,
        greedy::<Bf16>(&decoder, &prompt, 7, 64, |_| {})?.0,
        greedy::<I8>(&decoder, &prompt, 7, 64, |_| {})?.0,
    ];
    for written in written {
        let text = decoder.tokenizer.decode(&written, true).map_err(tokens::error)?;
        assert_eq!(text, "The capital of France is Paris.");
    }
    Ok(())
}

#[test]
fn neither_threads_nor_chunks_change_a_bit() -> Result<()> {
    let decoder = decoder()?;
    let prompt = decoder.encode(&tokens::chat("Write a short poem about the sea."))?;
    let mut one = greedy::<f32>(&decoder, &prompt, 16, prompt.len(), |_| {})?;
    one.1 ^= u64::from(is_wrong());
    for (threads, chunk) in [(1, 1), (2, 7), (3, 16), (4, prompt.len())] {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build()?;
        let other = pool.install(|| greedy::<f32>(&decoder, &prompt, 16, chunk, |_| {}))?;
        assert_eq!(other, one, "on {threads} threads, {chunk} tokens of the prompt at a time");
    }
    Ok(())
}

/// A prompt that ends in the second span.
#[test]
fn spans_of_the_cache_change_no_bit() -> Result<()> {
    let decoder = decoder()?;
    let tale = "Once upon a time there was a fox who counted the stars, one by one. ";
    let mut prompt = decoder.encode(&tale.repeat(SPAN / 16))?;
    prompt.truncate(SPAN + 40);
    assert_eq!(prompt.len(), SPAN + 40);
    let mut one = greedy::<f32>(&decoder, &prompt, 4, 64, |_| {})?;
    one.1 ^= u64::from(is_wrong());
    let joined = greedy::<f32>(&decoder, &prompt, 4, 64, |cache| cache.by_spans = true)?;
    assert_eq!(joined, one);
    Ok(())
}

/// A file that is cut off by a few bytes would have its tensors at wrong places.
#[test]
fn a_file_that_is_cut_off_is_refused() -> Result<()> {
    let whole = std::fs::read(sdpa_models::llama::file(&weights::folder(None)))?;
    let folder = std::env::temp_dir().join(format!("sdpa-models-{}", std::process::id()));
    let file = sdpa_models::llama::file(&folder);
    std::fs::create_dir_all(file.parent().expect("a folder"))?;
    for (len, words) in [
        (whole.len() - 32, "is cut off"),
        (whole.len() - 1, "is cut off"),
        (1 << 20, "its header is cut off"),
    ] {
        std::fs::write(&file, &whole[..len])?;
        let error = Decoder::open(&folder).err().map(|error| format!("{error:#}"));
        assert!(error.as_ref().is_some_and(|error| error.contains(words)), "{len}: {error:?}");
    }
    std::fs::write(&file, &whole[1..])?;
    let error = Decoder::open(&folder).err().map(|error| format!("{error:#}"));
    assert!(error.is_some_and(|error| error.contains("this is no GGUF file")));
    Ok(std::fs::remove_dir_all(folder)?)
}
