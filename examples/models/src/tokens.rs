//! Text to tokens and back.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use tokenizers::{
    AddedToken, Tokenizer,
    models::bpe::BPE,
    pre_tokenizers::{byte_level::ByteLevel, digits::Digits, sequence::Sequence},
};

use crate::weights::{Gguf, read};

/// An error of the tokenizers, whose type is none of `anyhow`'s.
pub fn error(error: tokenizers::Error) -> anyhow::Error {
    anyhow!(error)
}

/// Reads a `tokenizer.json`.
pub fn from_file(path: &Path) -> Result<Tokenizer> {
    Tokenizer::from_bytes(read(path)?).map_err(error).with_context(|| path.display().to_string())
}

/// The tokenizer of a GGUF file with `tokenizer.ggml.pre = smollm`: digits one by one, then the byte-level pairs of GPT-2.
pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer> {
    let words = gguf.list("tokenizer.ggml.tokens")?;
    let merges = gguf.list("tokenizer.ggml.merges")?;
    let pair = |merge: &String| merge.split_once(' ').map(|(a, b)| (a.into(), b.into()));
    let merges =
        merges.iter().map(pair).collect::<Option<_>>().context("a merge has no two parts")?;
    let ids = words.iter().cloned().zip(0..).collect();
    let bpe = BPE::builder().vocab_and_merges::<ahash::AHashMap<_, _>>(ids, merges).build();

    let bytes = ByteLevel::default().add_prefix_space(false);
    let mut tokenizer = Tokenizer::new(bpe.map_err(error)?);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![Digits::new(true).into(), bytes.into()])));
    tokenizer.with_decoder(Some(bytes));
    // The type 3 is that of control tokens, such as <|im_start|>.
    let kinds = gguf.list("tokenizer.ggml.token_type")?;
    let control = words.into_iter().zip(kinds).filter(|(_, kind)| kind == "3");
    let control = control.map(|(word, _)| AddedToken::from(word, true));
    tokenizer.add_special_tokens(control.collect::<Vec<_>>()).map_err(error)?;
    Ok(tokenizer)
}

/// A conversation of one question, ready for its answer: what `tokenizer.chat_template` of the GGUF file makes of it.
pub fn chat(question: &str) -> String {
    format!(
        "<|im_start|>system\n\
         You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\n{question}<|im_end|>\n\
         <|im_start|>assistant\n"
    )
}
