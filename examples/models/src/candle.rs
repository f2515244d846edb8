//! The same decoder by `candle-transformers`, which dequantises its weights to floats if `CANDLE_DEQUANTIZE_ALL=1` is set.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, quantized::gguf_file};
use candle_transformers::models::quantized_llama::ModelWeights;
use clap::ValueEnum;
use tracing::{Subscriber, span};
use tracing_subscriber::{Layer, layer::Context as Within, prelude::*, registry::LookupSpan};

use crate::{
    llama::{Decoder, file},
    sampler::likeliest,
};

const FLOATS: &str = "CANDLE_DEQUANTIZE_ALL";

/// candle's decoder.
pub struct Candle(ModelWeights);

impl Candle {
    /// Reads the folder `smollm2` of the weights.
    pub fn open(weights: &Path) -> Result<Self> {
        ensure!(env::var(FLOATS).as_deref() == Ok("1"), "set {FLOATS}=1: both compute with floats");
        let mut file = File::open(file(weights)).context("get the weights with get.sh")?;
        let content = gguf_file::Content::read(&mut file)?;
        Ok(Self(ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?))
    }

    /// Runs tokens, of which the first has this position, and returns the logits of what follows. Position 0 begins anew.
    pub fn run(&mut self, tokens: &[u32], position: usize) -> Result<Vec<f32>> {
        let tokens = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        Ok(self.0.forward(&tokens, position)?.squeeze(0)?.to_vec1()?)
    }
}

/// Times a prompt and what is written after it, beside candle, on one core.
#[derive(clap::Args)]
pub struct Bench {
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 512)]
    prompt: usize,
    /// Tokens written.
    #[arg(long, default_value_t = 64)]
    tokens: usize,
    /// Turns of each, of which the fastest counts.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Times llama.cpp too, which llama_cpp/get.sh has brought into this folder.
    #[arg(long, value_name = "FOLDER")]
    llama_cpp: Option<PathBuf>,
    /// Runs this one alone, in this process.
    #[arg(long, hide = true)]
    of: Option<Library>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Library {
    Sdpa,
    Candle,
}

/// Seconds for the prompt and for what is written, all of it and attention's.
#[derive(Clone, Copy, Default)]
struct Times {
    prompt: [f64; 2],
    written: [f64; 2],
    /// The most memory resident, in MB.
    peak: f64,
}

impl Bench {
    /// Runs each library in processes of its own, in turns.
    pub fn run(&self, weights: &Path) -> Result<()> {
        let core = core_affinity::get_core_ids().and_then(|cores| cores.last().copied());
        core_affinity::set_for_current(core.context("the cores of this machine")?);
        if let Some(of) = self.of {
            let times = self.times(of, weights)?;
            let [[a, b], [c, d]] = [times.prompt, times.written];
            println!("{a} {b} {c} {d} {}", times.peak);
            return Ok(());
        }
        let mut libraries = vec!["sdpa", "candle"];
        if self.llama_cpp.is_some() {
            libraries.extend(["llama.cpp", "llama.cpp-fa"]);
        }
        let mut best = vec![None; libraries.len()];
        for _ in 0..self.turns {
            for (of, best) in libraries.iter().zip(&mut best) {
                let times = self.in_process(of, weights)?;
                let sum = |times: &Times| times.prompt[0] + times.written[0];
                if best.as_ref().is_none_or(|best| sum(&times) < sum(best)) {
                    *best = Some(times);
                }
            }
        }
        println!(
            "library      prompt, tokens/s  attention   written, tokens/s  attention   peak, MB"
        );
        let share = |[of_all, of_attention]: [f64; 2]| match of_attention {
            0.0 => "not known".into(),
            _ => format!("{:.1} %", 100.0 * of_attention / of_all),
        };
        for (of, times) in libraries.iter().zip(best) {
            let Times { prompt, written, peak } = times.context("no turns")?;
            println!(
                "{of:12} {:16.1} {:>10} {:20.1} {:>10} {peak:10.0}",
                self.prompt as f64 / prompt[0],
                share(prompt),
                self.tokens as f64 / written[0],
                share(written),
            );
        }
        Ok(())
    }

    fn in_process(&self, of: &str, weights: &Path) -> Result<Times> {
        let [prompt, tokens] = [self.prompt, self.tokens].map(|n| n.to_string());
        let output = match &self.llama_cpp {
            Some(folder) if of.starts_with("llama.cpp") => Command::new("node")
                .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/llama_cpp/bench.mjs"))
                .arg(folder)
                .args([of, &prompt, &tokens])
                .output(),
            _ => Command::new(env::current_exe()?)
                .args(["bench", "--of", of, "--prompt", &prompt, "--tokens", &tokens, "--weights"])
                .arg(weights)
                .env(FLOATS, "1")
                .env("RAYON_NUM_THREADS", "1")
                .output(),
        }?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{of}: {error}");
        let words = String::from_utf8(output.stdout)?;
        let numbers = words.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        let [a, b, c, d, peak] = numbers[..] else { anyhow::bail!("{of} printed {words:?}") };
        Ok(Times { prompt: [a, b], written: [c, d], peak })
    }

    fn times(&self, of: Library, weights: &Path) -> Result<Times> {
        let prompt: Vec<u32> = (0..self.prompt as u32).map(|i| 1000 + i * 37 % 40000).collect();
        match of {
            Library::Sdpa => {
                let decoder = Decoder::open(weights)?;
                let mut cache = decoder.cache::<f32>(self.prompt + self.tokens)?;
                self.timed(&prompt, |tokens, _| {
                    let logits = decoder.prompt(tokens, tokens.len(), &mut cache, |_| {})?;
                    Ok((logits, cache.attention))
                })
            }
            Library::Candle => {
                let clock = Clock::default();
                tracing_subscriber::registry().with(clock.clone()).init();
                let mut candle = Candle::open(weights)?;
                self.timed(&prompt, |tokens, position| {
                    Ok((candle.run(tokens, position)?, clock.attention()))
                })
            }
        }
    }

    /// `run` takes tokens and the position of the first, and returns logits and the time of attention so far.
    fn timed(
        &self,
        prompt: &[u32],
        mut run: impl FnMut(&[u32], usize) -> Result<(Vec<f32>, Duration)>,
    ) -> Result<Times> {
        let begin = Instant::now();
        let (mut logits, attention) = run(prompt, 0)?;
        let prompt_times = [begin.elapsed(), attention].map(|time| time.as_secs_f64());
        let (begin, mut sum) = (Instant::now(), attention);
        let mut likeliest_tokens = Vec::new();
        for i in 0..self.tokens {
            likeliest_tokens.push(likeliest(&logits)?);
            (logits, sum) = run(&likeliest_tokens[i..], prompt.len() + i)?;
        }
        let written = [begin.elapsed(), sum - attention].map(|time| time.as_secs_f64());
        eprintln!("{likeliest_tokens:?}");
        Ok(Times { prompt: prompt_times, written, peak: peak()? })
    }
}

/// The most memory that was resident in this process, in MB.
fn peak() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status").context("the peak of memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1e3)
}

/// Adds up candle's spans: attention is `attn` less the projections in it, `qmatmul`.
#[derive(Clone, Default)]
struct Clock(Arc<[AtomicU64; 2]>);

struct Entered(Instant);

impl Clock {
    fn attention(&self) -> Duration {
        let [of_attention, of_projections] = [0, 1].map(|i| self.0[i].load(Relaxed));
        Duration::from_nanos(of_attention - of_projections)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Clock {
    fn on_enter(&self, id: &span::Id, context: Within<'_, S>) {
        if let Some(span) = context.span(id) {
            span.extensions_mut().replace(Entered(Instant::now()));
        }
    }

    fn on_exit(&self, id: &span::Id, context: Within<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let Some(Entered(begin)) = span.extensions_mut().remove::<Entered>() else { return };
        let within_attention =
            context.lookup_current().is_some_and(|around| around.name() == "attn");
        let to = match span.name() {
            "attn" => &self.0[0],
            "qmatmul" if within_attention => &self.0[1],
            _ => return,
        };
        to.fetch_add(begin.elapsed().as_nanos() as u64, Relaxed);
    }
}
