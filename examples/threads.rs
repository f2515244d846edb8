//! Multi-threaded attention: split by heads, and by ranges of queries.
//!
//! The library starts no threads. Safe code splits views into disjoint parts; each part is a separate call
//! with its own workspace, and `query_offset` gives the position of a range of queries. The bits are those of
//! one call on one thread.
//!
//! ```sh
//! cargo run --release --example threads
//! ```

use std::time::{Duration, Instant};

use sdpa::{Attention, Error, HeadsMut, HeadsRef};

const HEADS: usize = 16;
/// KV heads, each shared by four query heads.
const KEY_HEADS: usize = 4;
const TOKENS: usize = 512;
const DIM: usize = 64;

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
    println!("all with the same bits");
    Ok(())
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
