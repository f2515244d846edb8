//! The sentence encoder all-MiniLM-L6-v2: BERT (Devlin et al., 2018) of 6 layers with 12 heads of 32, whose last hidden
//! states are averaged over the tokens of a sentence and scaled to length 1 (Reimers and Gurevych, *Sentence-BERT*, 2019).

use std::path::Path;

use anyhow::{Result, bail, ensure};
use sdpa::{Attention, Error, HeadsMut, HeadsRef, MatrixRef};
use tokenizers::{Encoding, PaddingParams, PaddingStrategy, Tokenizer, TruncationParams};

use crate::{
    layers::{LayerNorm, Linear, Rows, attend_on, gelu, normalise, threads},
    tokens,
    weights::{Safetensors, read},
};

const LAYERS: usize = 6;
pub(crate) const HEADS: usize = 12;
const HIDDEN: usize = 384;
/// Tokens of a sentence, in `sentence_bert_config.json`; what follows is cut off.
const LONGEST: usize = 256;
const EPSILON: f32 = 1e-12;

/// The encoder.
pub struct Encoder {
    tokenizer: Tokenizer,
    words: Rows,
    positions: Rows,
    types: Rows,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

/// What a layer attends with, for one text: tokens, and queries, keys and values of all heads.
pub struct Attended {
    pub tokens: Vec<String>,
    pub queries: Rows,
    pub keys: Rows,
    pub values: Rows,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    norm: LayerNorm,
}

impl Attended {
    /// The attention patterns of all heads, keys × queries each.
    pub fn patterns(&self) -> Result<Vec<Rows>> {
        self.grids(|queries, keys, out| Attention::new().pattern(queries, keys, out))
    }

    /// The scores of all heads, likewise.
    pub fn scores(&self) -> Result<Vec<Rows>> {
        self.grids(|queries, keys, out| Attention::new().scores(queries, keys, out))
    }

    fn grids(
        &self,
        compute: impl Fn(HeadsRef<'_>, HeadsRef<'_>, HeadsMut<'_>) -> Result<(), Error>,
    ) -> Result<Vec<Rows>> {
        let tokens = self.tokens.len();
        let mut grids = vec![0.0; HEADS * tokens * tokens];
        let out = HeadsMut::stacked(&mut grids, HEADS, tokens, tokens)?;
        compute(self.queries.view()?.heads(HEADS)?, self.keys.view()?.heads(HEADS)?, out)?;
        grids.chunks(tokens * tokens).map(|grid| Rows::from_data(grid.to_vec(), tokens)).collect()
    }
}

impl Encoder {
    /// Reads the folder `minilm` of the weights.
    pub fn open(weights: &Path) -> Result<Self> {
        let folder = weights.join("minilm");
        let mut tokenizer = tokens::from_file(&folder.join("tokenizer.json"))?;
        let truncation = TruncationParams { max_length: LONGEST, ..Default::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(tokens::error)?;
        let strategy = PaddingStrategy::BatchLongest;
        tokenizer.with_padding(Some(PaddingParams { strategy, ..Default::default() }));

        let bytes = read(&folder.join("model.safetensors"))?;
        let from = Safetensors::new(&bytes)?;
        let embedding = |name: &str| from.rows(&format!("embeddings.{name}_embeddings.weight"));
        Ok(Self {
            tokenizer,
            words: embedding("word")?,
            positions: embedding("position")?,
            types: embedding("token_type")?,
            norm: norm(&from, "embeddings.LayerNorm")?,
            layers: (0..LAYERS).map(|layer| Layer::new(&from, layer)).collect::<Result<_>>()?,
        })
    }

    /// Sentences to embeddings: sentences × 384, each of length 1.
    pub fn encode(&self, sentences: &[String]) -> Result<Rows> {
        let batch = self.tokenizer.encode_batch(sentences.to_vec(), true).map_err(tokens::error)?;
        let mut x = self.embed(&batch)?;
        let masks = masks(&batch);
        for layer in &self.layers {
            layer.run(&mut x, &masks)?;
        }
        let mut means = mean_pooled(&x, &masks);
        normalise(&mut means);
        Ok(means)
    }

    /// Runs the layers below this one, which is counted from 0, and its projections.
    pub fn attended(&self, text: &str, layer: usize) -> Result<Attended> {
        let Some((this, below)) = self.layers.get(..=layer).and_then(<[_]>::split_last) else {
            bail!("no layer {layer}: the encoder has {LAYERS}, counted from 0");
        };
        let batch = [self.tokenizer.encode(text, true).map_err(tokens::error)?];
        let mut x = self.embed(&batch)?;
        let masks = masks(&batch);
        for layer in below {
            layer.run(&mut x, &masks)?;
        }
        let [queries, keys, values] = this.projected(&x)?;
        Ok(Attended { tokens: batch[0].get_tokens().to_vec(), queries, keys, values })
    }

    /// The hidden states that enter the first layer.
    fn embed(&self, batch: &[Encoding]) -> Result<Rows> {
        // All sentences have the length of the longest; what is padded has the mask 0.
        let length = batch.first().map_or(0, |sentence| sentence.len());
        ensure!(length > 0, "there is no sentence");
        let mut x = Rows::new(batch.len() * length, HIDDEN);
        let ids = batch.iter().flat_map(|sentence| sentence.get_ids());
        for (i, (to, &id)) in x.rows_mut().zip(ids).enumerate() {
            let embeddings =
                [self.words.row(id as usize)?, self.positions.row(i % length)?, self.types.row(0)?];
            for embedding in embeddings {
                to.iter_mut().zip(embedding).for_each(|(to, x)| *to += x);
            }
        }
        self.norm.run(&mut x);
        Ok(x)
    }
}

impl Layer {
    fn new(from: &Safetensors<'_>, layer: usize) -> Result<Self> {
        let name = |of: &str| format!("encoder.layer.{layer}.{of}");
        let linear = |of: &str| {
            let (weights, bias) = (name(&format!("{of}.weight")), name(&format!("{of}.bias")));
            Ok::<_, anyhow::Error>(Linear {
                weights: from.rows(&weights)?,
                bias: Some(from.vector(&bias)?),
            })
        };
        Ok(Self {
            query: linear("attention.self.query")?,
            key: linear("attention.self.key")?,
            value: linear("attention.self.value")?,
            output: linear("attention.output.dense")?,
            attention_norm: norm(from, &name("attention.output.LayerNorm"))?,
            up: linear("intermediate.dense")?,
            down: linear("output.dense")?,
            norm: norm(from, &name("output.LayerNorm"))?,
        })
    }

    /// ```text
    /// x = norm(x + output(attention(x)))
    /// x = norm(x + down(gelu(up(x))))
    /// ```
    fn run(&self, x: &mut Rows, masks: &[Vec<u8>]) -> Result<()> {
        let attended = self.attend(x, masks)?;
        x.add(&self.output.run(&attended)?);
        self.attention_norm.run(x);
        let mut up = self.up.run(x)?;
        up.map(gelu);
        x.add(&self.down.run(&up)?);
        self.norm.run(x);
        Ok(())
    }

    fn projected(&self, x: &Rows) -> Result<[Rows; 3]> {
        Ok([self.query.run(x)?, self.key.run(x)?, self.value.run(x)?])
    }

    /// Attention within each sentence, over the tokens that are not padded.
    fn attend(&self, x: &Rows, masks: &[Vec<u8>]) -> Result<Rows> {
        let [queries, keys, values] = self.projected(x)?;
        let mut out = Rows::new(x.len(), HIDDEN);
        let mut rest = out.view_mut()?;
        for (sentence, mask) in masks.iter().enumerate() {
            let length = mask.len();
            // The same column for each query.
            let keep = MatrixRef::with_strides(mask, length, length, 1, 0)?;
            let heads = |x| heads_of(x, sentence * length, length);
            let (to, others) = rest.split_rows(length)?;
            rest = others;
            let of_sentence = [heads(&queries)?, heads(&keys)?, heads(&values)?];
            attend_on(threads(), &Attention::new().keep(keep), of_sentence, to.heads(HEADS)?)?;
        }
        Ok(out)
    }
}

/// Which tokens of each sentence are not padded.
fn masks(batch: &[Encoding]) -> Vec<Vec<u8>> {
    let mask = |sentence: &Encoding| {
        sentence.get_attention_mask().iter().map(|&keep| keep as u8).collect()
    };
    batch.iter().map(mask).collect()
}

/// The heads of `length` tokens from `first` on.
fn heads_of(x: &Rows, first: usize, length: usize) -> Result<HeadsRef<'_>, Error> {
    x.view()?.split_rows(first)?.1.split_rows(length)?.0.heads(HEADS)
}

fn norm(from: &Safetensors<'_>, name: &str) -> Result<LayerNorm> {
    let [weight, bias] = ["weight", "bias"].map(|of| from.vector(&format!("{name}.{of}")));
    Ok(LayerNorm { weight: weight?, bias: bias?, epsilon: EPSILON })
}

/// The mean of the tokens of each sentence that are not padded.
fn mean_pooled(x: &Rows, masks: &[Vec<u8>]) -> Rows {
    let mut means = Rows::new(masks.len(), x.width());
    let mut tokens = x.data().chunks_exact(x.width());
    for (mean, mask) in means.rows_mut().zip(masks) {
        let count = mask.iter().filter(|&&keep| keep != 0).count().max(1) as f32;
        for (token, _) in tokens.by_ref().take(mask.len()).zip(mask).filter(|&(_, &keep)| keep != 0)
        {
            mean.iter_mut().zip(token).for_each(|(to, x)| *to += x / count);
        }
    }
    means
}
