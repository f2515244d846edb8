//! How attention's time and memory follow the tokens, and what a second core brings.

use std::time::Instant;

use anyhow::Result;
use comfy_table::{CellAlignment, TableStyle, presets};
use core_affinity::CoreId;
use sdpa::{Attention, Error, HeadsMut, HeadsRef};

use crate::{
    aligned::Aligned,
    compare::vector_backends,
    limits::{PEAK_FLOP, peak},
    peers::Call,
    report::{self, percent, seconds},
    rounds::{Times, in_turns},
};

const DIM: usize = 64;
const TOKENS: [usize; 8] = [128, 256, 512, 1024, 2048, 4096, 8192, 16384];

pub(crate) struct Scaling {
    pub(crate) points: Vec<Point>,
    /// None on a machine with one core.
    pub(crate) threads: Option<Threads>,
}

/// Attention of as many queries as keys, of 64 columns.
pub(crate) struct Point {
    pub(crate) tokens: usize,
    pub(crate) seconds: f64,
    /// Operations a second in registers.
    peak: f64,
    pub(crate) workspace: usize,
    /// Bytes that were allocated during a call.
    pub(crate) allocated: u64,
}

/// Least seconds of 8 heads of 512 tokens.
pub(crate) struct Threads {
    pub(crate) one: f64,
    pub(crate) two: f64,
}

impl Scaling {
    pub(crate) fn new(cores: &[CoreId], rounds: u32) -> Result<Self> {
        let mut points = TOKENS.map(|tokens| Point::new(tokens, rounds));
        // The peak is one for all: the least disturbed one.
        let peak = points.iter().map(|point| point.peak).fold(0.0, f64::max);
        points.iter_mut().for_each(|point| point.peak = peak);
        let points = points.into();
        let threads = match cores {
            [.., first, second] => Some(Threads::new([*first, *second], rounds)?),
            _ => None,
        };
        Ok(Self { points, threads })
    }

    pub(crate) fn text(&self) -> String {
        self.text_in(presets::UTF8_FULL_CONDENSED)
    }

    pub(crate) fn text_in(&self, preset: TableStyle) -> String {
        let mut table = report::table(preset);
        table.set_header([
            "tokens",
            "time",
            "per query and key",
            "share of the peak",
            "workspace",
            "allocated",
            "a score grid would take",
        ]);
        for point in &self.points {
            let pairs = (point.tokens * point.tokens) as f64;
            table.add_row([
                point.tokens.to_string(),
                seconds(point.seconds),
                format!("{:.2} ns", 1e9 * point.seconds / pairs),
                percent((4 * DIM) as f64 * pairs / point.seconds / point.peak),
                format!("{} floats", point.workspace),
                format!("{} bytes", point.allocated),
                bytes(4.0 * pairs),
            ]);
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("{table}\n\n{}", self.threads_text())
    }

    fn threads_text(&self) -> String {
        match &self.threads {
            None => "Two threads: not measured, as this machine has one core.".into(),
            Some(Threads { one, two }) => format!(
                "8 heads of 512 tokens and 64 columns: {} on one core, {} on two, which is {:.2} of it.",
                seconds(*one),
                seconds(*two),
                two / one
            ),
        }
    }
}

/// In units of 1024.
pub(crate) fn bytes(bytes: f64) -> String {
    match bytes {
        _ if bytes < 1024.0 * 1024.0 => format!("{:.0} KiB", bytes / 1024.0),
        _ if bytes < 1024.0 * 1024.0 * 1024.0 => format!("{:.0} MiB", bytes / 1024.0 / 1024.0),
        _ => format!("{:.0} GiB", bytes / 1024.0 / 1024.0 / 1024.0),
    }
}

impl Point {
    fn new(tokens: usize, rounds: u32) -> Self {
        let mut operands = Operands::new(1, tokens);
        let info = allocation_counter::measure(|| operands.run());
        let mut calls: Vec<Call<'_>> = vector_backends()
            .into_iter()
            .map(|backend| {
                Box::new(move |times: u32| (0..times).for_each(|_| peak(backend))) as Call<'_>
            })
            .collect();
        calls.push(Box::new(|times| (0..times).for_each(|_| operands.run())));
        // A call of 16384 tokens takes the better part of a second.
        let rounds = rounds.min((1 << 16) / tokens as u32).max(4);
        let mut times = in_turns(&mut calls, rounds);
        drop(calls);
        let own = times.pop().expect("the last call").least;
        let peak = times.iter().map(|times| PEAK_FLOP / times.least).fold(0.0, f64::max);
        Self {
            tokens,
            seconds: own,
            peak,
            workspace: operands.workspace.floats().len(),
            allocated: info.bytes_total,
        }
    }
}

/// Of `[heads][tokens][DIM]`.
struct Operands {
    heads: usize,
    tokens: usize,
    inputs: [Aligned; 3],
    out: Aligned,
    workspace: Aligned,
}

impl Operands {
    fn new(heads: usize, tokens: usize) -> Self {
        let floats = heads * tokens * DIM;
        let workspace = Attention::workspace(DIM, DIM);
        Self {
            heads,
            tokens,
            inputs: [(); 3].map(|()| Aligned::new(floats, 1.0)),
            out: Aligned::new(floats, 0.0),
            workspace: Aligned::new(workspace.next_multiple_of(16), 0.0),
        }
    }

    fn views(&mut self) -> Result<([HeadsRef<'_>; 3], HeadsMut<'_>, &mut [f32]), Error> {
        let Self { heads, tokens, inputs: [q, k, v], out, workspace } = self;
        let view = |x| HeadsRef::stacked(Aligned::floats(x), *heads, *tokens, DIM);
        let out = HeadsMut::stacked(out.floats_mut(), *heads, *tokens, DIM)?;
        Ok(([view(q)?, view(k)?, view(v)?], out, workspace.floats_mut()))
    }

    fn run(&mut self) {
        self.views()
            .and_then(|([q, k, v], out, workspace)| Attention::new().run(q, k, v, out, workspace))
            .expect("sizes agree");
    }

    /// The heads in two halves, on the two threads of `pool`.
    fn run_on(&mut self, pool: &rayon::ThreadPool) {
        let half = self.heads / 2;
        let ([q, k, v], out, _) = self.views().expect("sizes agree");
        let halves = [q, k, v].map(|heads| heads.split_heads(half).expect("two halves"));
        let [(q, more_q), (k, more_k), (v, more_v)] = halves;
        let (out, more_out) = out.split_heads(half).expect("two halves");
        let run = |q, k, v, out: HeadsMut<'_>| {
            let mut workspace = [0.0; Attention::workspace(DIM, DIM)];
            Attention::new().run(q, k, v, out, &mut workspace).expect("sizes agree");
        };
        pool.join(|| run(q, k, v, out), || run(more_q, more_k, more_v, more_out));
    }
}

impl Threads {
    fn new(cores: [CoreId; 2], rounds: u32) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(2)
            .start_handler(move |thread| {
                assert!(core_affinity::set_for_current(cores[thread]), "a core for each thread");
            })
            .build()?;
        let mut operands = Operands::new(8, 512);
        let mut samples = [Vec::new(), Vec::new()];
        for _ in 0..4 * rounds {
            let begin = Instant::now();
            operands.run();
            samples[0].push(begin.elapsed().as_secs_f64());
            let begin = Instant::now();
            operands.run_on(&pool);
            samples[1].push(begin.elapsed().as_secs_f64());
        }
        let [one, two] = samples.map(|samples| Times::of(samples).least);
        Ok(Self { one, two })
    }
}
