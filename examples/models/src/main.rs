//! The commands: `encode`, `draw`, `chat`, and with the feature `candle` also `bench`.

use std::{
    io::{Write, stderr, stdout},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rayon::ThreadPoolBuilder;
use sdpa::{Bf16, F16, I8, dot};
use sdpa_models::{
    bert::Encoder, cache::CacheElement, draw::Draw, llama::Decoder, sampler::Sampler, tokens,
    weights,
};

/// Two trained models over sdpa. `get.sh` brings their weights.
#[derive(Parser)]
struct Arguments {
    /// The folder of the weights [default: $SDPA_MODELS, or target/weights beside get.sh].
    #[arg(long, global = true)]
    weights: Option<PathBuf>,
    /// Threads.
    #[arg(long, global = true, default_value_t = 1)]
    threads: usize,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints how similar sentences are: the cosines of their embeddings.
    Encode {
        #[arg(required = true)]
        sentences: Vec<String>,
    },
    Draw(Draw),
    /// Answers a question.
    Chat(Chat),
    /// Times a prompt and an answer beside candle.
    #[cfg(feature = "candle")]
    Bench(sdpa_models::candle::Bench),
}

#[derive(clap::Args)]
struct Chat {
    question: String,
    /// The most tokens of the answer.
    #[arg(long, default_value_t = 200)]
    tokens: usize,
    /// Draws each token with this seed, instead of the likeliest.
    #[arg(long)]
    seed: Option<u64>,
    /// With a seed: below 1 likely tokens become likelier.
    #[arg(long, default_value_t = 0.7)]
    temperature: f32,
    /// Tokens of the prompt that are read at a time.
    #[arg(long, default_value_t = 64)]
    chunk: usize,
    /// What the cache stores keys and values as.
    #[arg(long, value_enum, default_value_t = Stored::F32)]
    cache: Stored,
}

#[derive(Clone, Copy, ValueEnum)]
enum Stored {
    F32,
    F16,
    Bf16,
    I8,
}

fn main() -> Result<()> {
    let Arguments { weights, threads, command } = Arguments::parse();
    let folder = weights::folder(weights);
    ensure!(threads > 0, "no threads");
    ThreadPoolBuilder::new().num_threads(threads).build()?.install(|| match command {
        Command::Encode { sentences } => encode(&Encoder::open(&folder)?, &sentences),
        Command::Draw(draw) => draw.run(&Encoder::open(&folder)?),
        Command::Chat(chat) => {
            let decoder = Decoder::open(&folder)?;
            match chat.cache {
                Stored::F32 => chat.run::<f32>(&decoder),
                Stored::F16 => chat.run::<F16>(&decoder),
                Stored::Bf16 => chat.run::<Bf16>(&decoder),
                Stored::I8 => chat.run::<I8>(&decoder),
            }
        }
        #[cfg(feature = "candle")]
        Command::Bench(bench) => bench.run(&folder),
    })
}

fn encode(encoder: &Encoder, sentences: &[String]) -> Result<()> {
    let embeddings = encoder.encode(sentences)?;
    for (i, sentence) in sentences.iter().enumerate() {
        for other in 0..sentences.len() {
            // Embeddings have length 1: the dot product is the cosine.
            print!("{:8.4}", dot(embeddings.row(i)?, embeddings.row(other)?)?);
        }
        println!("  {sentence}");
    }
    Ok(())
}

impl Chat {
    fn run<E: CacheElement>(&self, decoder: &Decoder) -> Result<()> {
        let prompt = decoder.encode(&tokens::chat(&self.question))?;
        let mut cache = decoder.cache::<E>(prompt.len() + self.tokens)?;
        let bar =
            ProgressBar::with_draw_target(Some(prompt.len() as u64), ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template("reading {wide_bar} {pos}/{len} tokens")?);
        let begin = Instant::now();
        let mut logits = decoder.prompt(&prompt, self.chunk, &mut cache, |n| bar.inc(n as u64))?;
        bar.finish_and_clear();
        let read = begin.elapsed().as_secs_f64();

        let mut sampler = Sampler::new(self.seed, self.temperature);
        let mut stream = decoder.tokenizer.decode_stream(true);
        let begin = Instant::now();
        let mut written = 0;
        while written < self.tokens {
            let token = sampler.next(&mut logits)?;
            if token == decoder.end {
                break;
            }
            if let Some(text) = stream.step(token).map_err(tokens::error)? {
                print!("{text}");
                stdout().flush().context("the answer")?;
            }
            written += 1;
            logits = decoder.next(token, &mut cache)?;
        }
        println!();
        writeln!(
            stderr(),
            "{} tokens read, {:.1} a second; {written} written, {:.1} a second",
            prompt.len(),
            prompt.len() as f64 / read,
            written as f64 / begin.elapsed().as_secs_f64(),
        )?;
        Ok(())
    }
}
