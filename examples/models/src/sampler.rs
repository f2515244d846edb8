//! Logits to the next token.

use anyhow::{Context, Result};
use fastrand::Rng;
use sdpa::softmax_in_place;

/// Takes the likeliest token, or draws one.
pub struct Sampler {
    random: Option<Rng>,
    temperature: f32,
}

impl Sampler {
    /// Draws with a seed; takes the likeliest token without.
    pub fn new(seed: Option<u64>, temperature: f32) -> Self {
        Self { random: seed.map(Rng::with_seed), temperature }
    }

    /// The next token. With a seed, logits become probabilities.
    pub fn next(&mut self, logits: &mut [f32]) -> Result<u32> {
        let Some(random) = &mut self.random else { return likeliest(logits) };
        logits.iter_mut().for_each(|logit| *logit /= self.temperature);
        softmax_in_place(logits);
        let mut left = random.f32();
        let drawn = logits.iter().position(|probability| {
            left -= probability;
            left < 0.0
        });
        // Rounding may leave a little of the sum.
        drawn.map_or_else(|| likeliest(logits), |token| Ok(token as u32))
    }
}

/// The token of the largest logit, of equal ones the first.
pub fn likeliest(logits: &[f32]) -> Result<u32> {
    let largest = (0..).zip(logits).reduce(|a, b| if b.1 > a.1 { b } else { a });
    Ok(largest.context("there are no logits")?.0)
}
