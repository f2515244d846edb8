//! The command `draw`: attention patterns of the encoder, in the pictures of the example `attention_pattern`.

#[path = "../../attention_pattern/drawing/mod.rs"]
mod drawing;

use std::path::PathBuf;

use anyhow::{Context, Error, Result, ensure};
use sdpa::weighted_sum;

use self::drawing::{Array, Shown, heat_map, labels, picture, save, terminal};
use crate::{
    bert::{Attended, Encoder, HEADS},
    layers::Rows,
};

/// Draws how much each token matters to each: the attention pattern of a head of the encoder, or of all heads of a layer.
#[derive(clap::Args)]
pub struct Draw {
    text: String,
    /// The layer, counted from 0.
    #[arg(long)]
    layer: usize,
    /// The head, counted from 0 [default: all].
    #[arg(long)]
    head: Option<usize>,
    /// Writes an SVG picture too.
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
}

impl Draw {
    /// Draws in the terminal, and the picture.
    pub fn run(&self, encoder: &Encoder) -> Result<()> {
        if let Some(head) = self.head {
            ensure!(head < HEADS, "no head {head}: a layer has {HEADS}, counted from 0");
        }
        let attended = encoder.attended(&self.text, self.layer)?;
        let shown = shown(&attended, |head| match self.head {
            Some(_) => self.title(&format!(", head {head}")),
            None => format!("Head {head}"),
        })?;
        let (text, svg) = match self.head.and_then(|head| shown.get(head)) {
            Some(head) => (terminal::draw(head), picture::draw(head)?),
            None => {
                let title = self.title("");
                (terminal::draw_heads(&title, &shown), heat_map::draw_heads(&title, &shown)?)
            }
        };
        let svg = self.svg.iter().map(|path| (path.as_path(), svg.as_bytes().to_vec()));
        save::all(&svg.collect::<Vec<_>>()).map_err(Error::msg)?;
        Ok(terminal::print(&text)?)
    }

    fn title(&self, head: &str) -> String {
        let text = labels::shortened(&labels::printable(&self.text), 64);
        format!("“{text}” in layer {}{head} of all-MiniLM-L6-v2", self.layer)
    }
}

/// What is drawn of each head.
fn shown(attended: &Attended, title: impl Fn(usize) -> String) -> Result<Vec<Shown>> {
    let tokens = attended.tokens.len();
    let (key_labels, query_labels) =
        labels::labels(Some(attended.tokens.clone()), tokens, tokens).map_err(Error::msg)?;
    let values = attended.values.view()?.heads(HEADS)?;
    let dim = values.cols();
    let scale = 1.0 / (dim as f32).sqrt();
    let subtitle =
        format!("{tokens} keys, {tokens} queries, dim {dim}, scale 1/√{dim} = {scale:.4}");
    let grid = |grid: Rows| Array::new(tokens, tokens, grid.data().to_vec());
    let mut shown = Vec::new();
    for (head, (scores, pattern)) in
        attended.scores()?.into_iter().zip(attended.patterns()?).enumerate()
    {
        let pattern = grid(pattern);
        let mut output = Array::filled(tokens, dim, 0.0);
        let values = values.head(head).context("the values of the head")?;
        weighted_sum(pattern.view()?, values, output.view_mut()?)?;
        shown.push(Shown {
            title: title(head),
            subtitle: subtitle.clone(),
            key_labels: key_labels.clone(),
            query_labels: query_labels.clone(),
            scores: grid(scores),
            pattern,
            output,
        });
    }
    Ok(shown)
}
