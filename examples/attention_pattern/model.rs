//! Heads of a whole encoder, over any text. The package `examples/models` draws them: readers of weights and tokens as
//! dependencies here would be compiled by every `cargo test`.

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::Command,
};

#[derive(clap::Args)]
pub(crate) struct Model {
    /// Draw all-MiniLM-L6-v2, whose weights examples/models/get.sh has brought into this folder
    #[arg(long, value_name = "DIR", group = "drawn", requires_all = ["layer", "text"],
        conflicts_with_all = ["causal", "out"])]
    model: Option<PathBuf>,

    /// The layer of the model, counted from 0; without --head all its heads in one picture
    #[arg(long, value_name = "N", requires = "model")]
    layer: Option<u64>,

    /// The text that the model reads
    #[arg(long, value_name = "TEXT", requires = "model", allow_hyphen_values = true)]
    text: Option<String>,
}

impl Model {
    /// Draws heads of the model, if there is one. Returns whether it did.
    pub(crate) fn draw(
        &self,
        head: Option<u64>,
        svg: Option<&Path>,
    ) -> Result<bool, Box<dyn Error>> {
        let (Some(model), Some(layer), Some(text)) = (&self.model, self.layer, &self.text) else {
            return Ok(false);
        };
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/models/Cargo.toml");
        let mut draw = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        draw.args(["run", "--quiet", "--locked", "--release", "--manifest-path", manifest, "--"]);
        draw.arg("--weights").arg(model).args(["draw", "--layer", &layer.to_string()]);
        if let Some(head) = head {
            draw.args(["--head", &head.to_string()]);
        }
        if let Some(svg) = svg {
            draw.arg("--svg").arg(svg);
        }
        if draw.args(["--", text]).status()?.success() {
            Ok(true)
        } else {
            Err(format!("{model:?} was not drawn").into())
        }
    }
}
