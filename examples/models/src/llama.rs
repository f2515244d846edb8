//! The decoder SmolLM2-135M-Instruct: Llama (Touvron et al., 2023) of 30 layers, with 9 query heads of 64 over 3 KV heads.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use sdpa::{Error, MatrixRef, Pairs, RotaryTable, rotate_in_place};
use tokenizers::Tokenizer;

use crate::{
    cache::{Cache, CacheElement, HeadCache, attend_on},
    layers::{Linear, RmsNorm, Rows, swiglu, threads},
    tokens,
    weights::Gguf,
};

/// The decoder.
pub struct Decoder {
    pub tokenizer: Tokenizer,
    /// The token that ends an answer.
    pub end: u32,
    sizes: Sizes,
    /// Words × hidden: the embeddings, and the last projection.
    words: Linear,
    layers: Vec<Layer>,
    norm: RmsNorm,
    rotary: Vec<f32>,
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    layers: usize,
    heads: usize,
    kv_heads: usize,
    dim: usize,
    longest: usize,
}

struct Layer {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Decoder {
    /// Reads the folder `smollm2` of the weights.
    pub fn open(weights: &Path) -> Result<Self> {
        let mut gguf = Gguf::open(&file(weights))?;
        let sizes = Sizes {
            layers: gguf.number("llama.block_count")?,
            heads: gguf.number("llama.attention.head_count")?,
            kv_heads: gguf.number("llama.attention.head_count_kv")?,
            dim: gguf.number("llama.rope.dimension_count")?,
            longest: gguf.number("llama.context_length")?,
        };
        let base = gguf.float("llama.rope.freq_base")?;
        let mut rotary = vec![0.0; RotaryTable::floats(sizes.longest, sizes.dim / 2)];
        RotaryTable::new(base.into(), sizes.dim / 2, 0..sizes.longest as u64, &mut rotary)?;
        Ok(Self {
            tokenizer: tokens::from_gguf(&gguf)?,
            end: gguf.number("tokenizer.ggml.eos_token_id")?.try_into()?,
            words: linear(&mut gguf, "token_embd")?,
            layers: (0..sizes.layers)
                .map(|layer| Layer::new(&mut gguf, layer))
                .collect::<Result<_>>()?,
            norm: norm(&mut gguf, "output_norm")?,
            sizes,
            rotary,
        })
    }

    /// The tokens of a text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode(text, false).map_err(tokens::error)?.get_ids().to_vec())
    }

    /// An empty cache with room for `tokens` tokens.
    pub fn cache<E: CacheElement>(&self, tokens: usize) -> Result<Cache<E>> {
        let Sizes { layers, kv_heads, dim, longest, .. } = self.sizes;
        ensure!(tokens <= longest, "{tokens} tokens are more than the {longest} of this model");
        Ok(Cache::new([layers, kv_heads], tokens, dim))
    }

    /// Runs the next tokens through all layers, and appends them to the cache: the last hidden states, tokens × hidden.
    pub fn run<E: CacheElement>(&self, tokens: &[u32], cache: &mut Cache<E>) -> Result<Rows> {
        let mut x = Rows::new(tokens.len(), self.words.weights.width());
        for (to, &token) in x.rows_mut().zip(tokens) {
            to.copy_from_slice(self.words.weights.row(token as usize)?);
        }
        for (layer, heads) in self.layers.iter().zip(&mut cache.layers) {
            cache.attention += layer.run(self, &mut x, cache.tokens, heads, cache.by_spans)?;
        }
        cache.tokens += tokens.len();
        Ok(self.norm.run(&x))
    }

    /// The logits of the tokens that may follow, hidden states × words.
    pub fn logits(&self, hidden: &Rows) -> Result<Rows> {
        self.words.run(hidden)
    }

    /// Runs a prompt, `chunk` tokens at a time, and returns the logits of what follows. `read` is told of each chunk.
    pub fn prompt<E: CacheElement>(
        &self,
        tokens: &[u32],
        chunk: usize,
        cache: &mut Cache<E>,
        mut read: impl FnMut(usize),
    ) -> Result<Vec<f32>> {
        let mut last = Rows::new(0, self.words.weights.width());
        for chunk in tokens.chunks(chunk.max(1)) {
            last = self.run(chunk, cache)?;
            read(chunk.len());
        }
        ensure!(!last.is_empty(), "the prompt is empty");
        let newest = Rows::from_data(last.row(last.len() - 1)?.to_vec(), last.width())?;
        Ok(self.logits(&newest)?.data().to_vec())
    }

    /// Runs one token, and returns the logits of what follows.
    pub fn next<E: CacheElement>(&self, token: u32, cache: &mut Cache<E>) -> Result<Vec<f32>> {
        self.prompt(&[token], 1, cache, |_| {})
    }
}

/// The file of the weights.
pub fn file(weights: &Path) -> PathBuf {
    weights.join("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
}

fn linear(gguf: &mut Gguf, name: &str) -> Result<Linear> {
    Ok(Linear { weights: gguf.rows(&format!("{name}.weight"))?, bias: None })
}

fn norm(gguf: &mut Gguf, name: &str) -> Result<RmsNorm> {
    let epsilon = gguf.float("llama.attention.layer_norm_rms_epsilon")?;
    Ok(RmsNorm { weight: gguf.vector(&format!("{name}.weight"))?, epsilon })
}

impl Layer {
    fn new(gguf: &mut Gguf, layer: usize) -> Result<Self> {
        let name = |of: &str| format!("blk.{layer}.{of}");
        Ok(Self {
            attention_norm: norm(gguf, &name("attn_norm"))?,
            query: linear(gguf, &name("attn_q"))?,
            key: linear(gguf, &name("attn_k"))?,
            value: linear(gguf, &name("attn_v"))?,
            output: linear(gguf, &name("attn_output"))?,
            norm: norm(gguf, &name("ffn_norm"))?,
            gate: linear(gguf, &name("ffn_gate"))?,
            up: linear(gguf, &name("ffn_up"))?,
            down: linear(gguf, &name("ffn_down"))?,
        })
    }

    /// ```text
    /// x = x + output(attention(norm(x)))
    /// x = x + down(silu(gate(norm(x))) · up(norm(x)))
    /// ```
    ///
    /// Returns the time of attention: rotation, cache and [`attend_on`].
    fn run<E: CacheElement>(
        &self,
        of: &Decoder,
        x: &mut Rows,
        position: usize,
        cache: &mut [HeadCache<E>],
        by_spans: bool,
    ) -> Result<Duration> {
        let normed = self.attention_norm.run(x);
        let mut queries = self.query.run(&normed)?;
        let (mut keys, values) = (self.key.run(&normed)?, self.value.run(&normed)?);
        let begin = Instant::now();
        of.rotate(&mut queries, of.sizes.heads, position)?;
        of.rotate(&mut keys, of.sizes.kv_heads, position)?;
        for (head, cache) in cache.iter_mut().enumerate() {
            cache.append(&keys, &values, head)?;
        }
        let mut attended = Rows::new(queries.len(), queries.width());
        let heads = queries.view()?.heads(of.sizes.heads)?;
        let out = attended.view_mut()?.heads(of.sizes.heads)?;
        attend_on(threads(), cache, heads, out, by_spans)?;
        let attention = begin.elapsed();
        x.add(&self.output.run(&attended)?);

        let normed = self.norm.run(x);
        let mut gate = self.gate.run(&normed)?;
        swiglu(&mut gate, &self.up.run(&normed)?);
        x.add(&self.down.run(&gate)?);
        Ok(attention)
    }
}

impl Decoder {
    /// A GGUF file of Llama has the columns of queries and keys in the order of Meta's checkpoints: pairs are interleaved.
    fn rotate(&self, x: &mut Rows, heads: usize, position: usize) -> Result<(), Error> {
        let Sizes { dim, longest, .. } = self.sizes;
        let rows = MatrixRef::new(&self.rotary, longest, dim)?;
        let (cosines, sines) = rows.split_columns(dim / 2)?;
        let table = RotaryTable::from_parts(cosines, sines, 0)?;
        rotate_in_place(x.view_mut()?.heads(heads)?, &table, position as u64, Pairs::Interleaved)
    }
}
