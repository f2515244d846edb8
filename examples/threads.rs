//! Multi-threaded attention: split by heads, by ranges of queries, and a long context by spans of its keys.
//!
//! The library starts no threads. Safe code splits views into disjoint parts; each part is a separate call
//! with its own workspace, and `query_offset` gives the position of a range of queries. The bits are those of
//! one call on one thread.
//!
//! ```sh
//! cargo run --release --example threads                 # --check: a long context takes at most 0.56 of the time
//! cargo run --release --example threads -- --threads 2  # on two threads or more; all that there are by default
//! ```

use std::{
    env,
    hint::spin_loop,
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicUsize,
            Ordering::{Acquire, Release},
        },
    },
    thread,
    time::{Duration, Instant},
};

use sdpa::{Attention, Error, HeadsMut, HeadsRef, MatrixMut, MatrixRef, SPAN};

const HEADS: usize = 16;
/// KV heads, each shared by four query heads.
const KEY_HEADS: usize = 4;
const TOKENS: usize = 512;
const DIM: usize = 64;

/// How often a long context is computed; the shortest time counts.
const CALLS: usize = 300;

fn main() -> Result<(), Error> {
    // The layout of most models: [tokens][heads][dim].
    let [queries, keys, values] =
        [(HEADS, 0.11), (KEY_HEADS, 0.17), (KEY_HEADS, 0.23)].map(|(heads, step)| {
            (0..TOKENS * heads * DIM).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>()
        });
    let call = Call {
        attention: Attention::new().causal(),
        first: 0,
        queries: HeadsRef::interleaved(&queries, HEADS, TOKENS, DIM)?,
        keys: HeadsRef::interleaved(&keys, KEY_HEADS, TOKENS, DIM)?,
        values: HeadsRef::interleaved(&values, KEY_HEADS, TOKENS, DIM)?,
    };

    let threads = rayon::current_num_threads();
    println!("{HEADS} causal heads of {TOKENS} tokens and {DIM} columns, {threads} threads");
    let (one, time) = timed(|out| call.run(out))?;
    println!("one call on one thread   {:7.3} ms", millis(time));
    for (name, (out, split_time)) in [
        ("split by heads", timed(|out| call.by_heads(out))?),
        ("split by queries", timed(|out| call.by_queries(out))?),
    ] {
        let faster = time.as_secs_f64() / split_time.as_secs_f64();
        let same = one.iter().zip(&out).all(|(a, b)| a.to_bits() == b.to_bits());
        println!("{name:24} {:7.3} ms, {faster:.2} times as fast", millis(split_time));
        assert!(same, "{name}: other bits");
    }

    let arguments: Vec<String> = env::args().collect();
    let threads = match arguments.iter().position(|argument| argument == "--threads") {
        Some(at) => arguments.get(at + 1).and_then(|n| n.parse().ok()).expect("--threads N"),
        None => thread::available_parallelism().map_or(1, usize::from),
    };
    let is = |name| arguments.iter().any(|argument| argument == name);
    for (count, tokens) in [(8, 8192), (1, 32768)] {
        let share = long_context(count, tokens, threads.min(tokens / SPAN), is("--break"))?;
        assert!(!is("--check") || share <= 0.56, "the share of the time is above 0.56");
    }
    println!("all with the same bits");
    Ok(())
}

/// Splits the keys of one head over threads, and returns the share of the time of one call on one thread.
fn long_context(count: usize, tokens: usize, threads: usize, broken: bool) -> Result<f64, Error> {
    let [queries, keys, values] = [(count, 0.11), (tokens, 0.17), (tokens, 0.23)]
        .map(|(rows, step)| (0..rows * DIM).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>());
    let queries = MatrixRef::new(&queries, count, DIM)?;
    let keys = MatrixRef::new(&keys, tokens, DIM)?;
    let values = MatrixRef::new(&values, tokens, DIM)?;
    let mut workspace = [0.0; Attention::workspace(DIM, DIM)];
    let attention = Attention::new();

    let mut one = vec![0.0; count * DIM];
    let mut time = Duration::MAX;
    for _ in 0..CALLS {
        let start = Instant::now();
        attention.run(
            queries,
            keys,
            values,
            MatrixMut::new(&mut one, count, DIM)?,
            &mut workspace,
        )?;
        time = time.min(start.elapsed());
    }

    // Each thread has whole spans, and their states.
    let spans = tokens / SPAN;
    let mut rest = (keys, values);
    let mut parts = Vec::new();
    for thread in 0..threads {
        let [first, end] = [thread, thread + 1].map(|thread| spans * thread / threads);
        let (keys, more_keys) = rest.0.split_rows((end - first) * SPAN)?;
        let (values, more_values) = rest.1.split_rows((end - first) * SPAN)?;
        rest = (more_keys, more_values);
        let states = vec![0.0; (end - first) * count * Attention::state_floats(DIM)];
        parts.push(Part {
            first_key: (first * SPAN) as u64,
            queries,
            keys,
            values,
            states: Mutex::new(states),
        });
    }

    let mut states = Vec::new();
    let mut out = vec![0.0; count * DIM];
    let mut split_time = Duration::MAX;
    // The numbers of calls that began, and of parts that are finished. Threads spin on them: to wake one takes a tenth
    // of such a call.
    let (begun, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let (first, others) = parts.split_first().ok_or(Error::Shape)?;
        let helpers: Vec<_> = (others.iter())
            .map(|part| {
                scope.spawn(|| {
                    let mut result = Ok(());
                    for call in 1..=CALLS {
                        while begun.load(Acquire) < call {
                            spin_loop();
                        }
                        result = result.and(part.run());
                        finished.fetch_add(1, Release);
                    }
                    result
                })
            })
            .collect();
        let mut result = Ok(());
        for call in 1..=CALLS {
            let start = Instant::now();
            begun.store(call, Release);
            result = result.and(first.run());
            while finished.load(Acquire) < call * others.len() {
                spin_loop();
            }
            states.clear();
            for part in &parts {
                states
                    .extend_from_slice(&part.states.lock().unwrap_or_else(PoisonError::into_inner));
            }
            if broken {
                // The least bit of every sum of values, behind a header of four floats.
                let sums = states
                    .chunks_mut(Attention::state_floats(DIM))
                    .flat_map(|state| &mut state[4..]);
                sums.for_each(|x| *x = x.next_up());
            }
            result =
                result.and(attention.join(&states, MatrixMut::new(&mut out, count, DIM)?, None));
            split_time = split_time.min(start.elapsed());
        }
        helpers
            .into_iter()
            .fold(result, |result, helper| result.and(helper.join().expect("a thread")))
    })?;

    let share = split_time.as_secs_f64() / time.as_secs_f64();
    println!(
        "{count} queries over {tokens} keys {:7.3} ms; split by spans on {threads} threads {:7.3} ms, {share:.3} of it",
        millis(time),
        millis(split_time)
    );
    let same = one.iter().zip(&out).all(|(a, b)| a.to_bits() == b.to_bits());
    assert!(same, "split by spans: other bits");
    Ok(share)
}

/// Whole spans of the keys from `first_key` on.
struct Part<'a> {
    first_key: u64,
    queries: MatrixRef<'a>,
    keys: MatrixRef<'a>,
    values: MatrixRef<'a>,
    states: Mutex<Vec<f32>>,
}

impl Part<'_> {
    fn run(&self) -> Result<(), Error> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let mut workspace = [0.0; Attention::workspace(DIM, DIM)];
        let Self { first_key, queries, keys, values, .. } = *self;
        Attention::new().run_spans(queries, keys, values, first_key, &mut states, &mut workspace)
    }
}

/// A part of the work: query 0 of `queries` is token `first`.
#[derive(Clone, Copy)]
struct Call<'a> {
    attention: Attention<'a>,
    first: usize,
    queries: HeadsRef<'a>,
    keys: HeadsRef<'a>,
    values: HeadsRef<'a>,
}

impl Call<'_> {
    fn run(self, out: HeadsMut<'_>) -> Result<(), Error> {
        let Self { attention, first, queries, keys, values } = self;
        let mut workspace = [0.0; Attention::workspace(DIM, DIM)];
        let attention = attention.query_offset(first as isize);
        attention.run(queries, keys, values, out, &mut workspace)
    }

    /// Halves the KV heads, with their query heads, down to one KV head per call.
    fn by_heads(self, out: HeadsMut<'_>) -> Result<(), Error> {
        let Self { queries, keys, values, .. } = self;
        let half = keys.heads() / 2;
        if half == 0 {
            return self.run(out);
        }
        let group = queries.heads() / keys.heads();
        let (queries, more_queries) = queries.split_heads(half * group)?;
        let (keys, more_keys) = keys.split_heads(half)?;
        let (values, more_values) = values.split_heads(half)?;
        let (out, more_out) = out.split_heads(half * group)?;
        let more = Self { queries: more_queries, keys: more_keys, values: more_values, ..self };
        let (a, b) = rayon::join(
            || Self { queries, keys, values, ..self }.by_heads(out),
            || more.by_heads(more_out),
        );
        a.and(b)
    }

    /// Halves the queries down to ranges of 64 to 127.
    fn by_queries(self, out: HeadsMut<'_>) -> Result<(), Error> {
        let half = self.queries.rows() / 2;
        if half < 64 {
            return self.run(out);
        }
        let (queries, more_queries) = self.queries.split_rows(half)?;
        let (out, more_out) = out.split_rows(half)?;
        let more = Self { queries: more_queries, first: self.first + half, ..self };
        let (a, b) =
            rayon::join(|| Self { queries, ..self }.by_queries(out), || more.by_queries(more_out));
        a.and(b)
    }
}

/// Returns the output, and the shortest time of several runs.
fn timed(call: impl Fn(HeadsMut<'_>) -> Result<(), Error>) -> Result<(Vec<f32>, Duration), Error> {
    let mut out = vec![0.0; TOKENS * HEADS * DIM];
    let mut shortest = Duration::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        call(HeadsMut::interleaved(&mut out, HEADS, TOKENS, DIM)?)?;
        shortest = shortest.min(start.elapsed());
    }
    Ok((out, shortest))
}

fn millis(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}
