//! One job on all peers: answers first, then times.

use std::{env, hint::black_box};

use sdpa::Backend;

use crate::{
    aligned::Aligned,
    jobs::{Inputs, Job, Truth},
    limits::{PEAK_FLOP, load_both, peak},
    peers::{Call, Kind, Peer},
    rounds::{Times, in_turns},
};

/// A job, and how each peer did.
pub(crate) struct Comparison {
    pub(crate) job: Job,
    pub(crate) entries: Vec<Entry>,
    /// None where answers alone were checked.
    pub(crate) limit: Option<Limit>,
}

pub(crate) struct Entry {
    pub(crate) peer: String,
    pub(crate) kind: Kind,
    /// By a product, a softmax and a product.
    pub(crate) composed: bool,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    /// The largest error as a multiple of the tolerance. It is not timed.
    Wrong(f64),
    /// Right, and not to be timed.
    Right,
    Timed(Times),
}

/// The least time that the core needs for a job.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) seconds: f64,
    pub(crate) of: Resource,
    /// Operations a second.
    pub(crate) peak: f64,
    /// Bytes a second, of the cache that holds the inputs.
    pub(crate) loads: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    MultiplyAdds,
    Loads,
}

/// Set, one answer of each job is spoiled, which shows that wrong ones are found.
const WRONG: &str = "SDPA_WRONG";

impl Entry {
    pub(crate) fn least(&self) -> Option<f64> {
        match self.outcome {
            Outcome::Timed(times) => Some(times.least),
            Outcome::Wrong(_) | Outcome::Right => None,
        }
    }
}

impl Comparison {
    /// `rounds`: none checks the answers alone.
    pub(crate) fn new(job: Job, peers: &[Box<dyn Peer>], rounds: Option<u32>) -> Self {
        let inputs = Inputs::new(&job);
        let truth = Truth::new(&job, &inputs);
        let n = job.outputs();
        let mut outs: Vec<Aligned> =
            peers.iter().map(|_| Aligned::new(n.next_multiple_of(16), 0.0)).collect();
        let mut entries = Vec::new();
        let loaded = Loaded::new(&job, &inputs);
        let mut calls: Vec<Call<'_>> = Vec::new();
        for (peer, out) in peers.iter().zip(&mut outs) {
            out.floats_mut().fill(f32::NAN);
            let Some(mut call) = peer.prepare(&job, &inputs, &mut out.floats_mut()[..n]) else {
                continue;
            };
            call(1);
            drop(call);
            if entries.is_empty() && env::var_os(WRONG).is_some() {
                out.floats_mut()[n - 1] += 1.0;
            }
            let error = truth.error(&out.floats()[..n]);
            let outcome = if error <= 1.0 { Outcome::Right } else { Outcome::Wrong(error) };
            let is_right = matches!(outcome, Outcome::Right);
            let (peer_name, kind, composed) = (peer.name(), peer.kind(), peer.composes(&job));
            entries.push(Entry { peer: peer_name, kind, composed, outcome });
            if is_right && rounds.is_some() {
                let again = peer.prepare(&job, &inputs, &mut out.floats_mut()[..n]);
                calls.extend(again);
            }
        }
        let limit = rounds.map(|rounds| {
            calls.extend(loaded.calls());
            let mut times = in_turns(&mut calls, rounds).into_iter();
            for entry in &mut entries {
                if matches!(entry.outcome, Outcome::Right) {
                    entry.outcome = Outcome::Timed(times.next().expect("one for each call"));
                }
            }
            loaded.limit(&job, times)
        });
        Self { job, entries, limit }
    }

    /// The entry of this library of that kind.
    pub(crate) fn ours(&self, kind: Kind) -> Option<f64> {
        self.entries.iter().find(|entry| entry.kind == kind).and_then(Entry::least)
    }

    /// The fastest of the others: a function of a library, or composed of its products.
    pub(crate) fn best(&self, composed: bool) -> Option<(&str, f64)> {
        self.entries
            .iter()
            .filter(|entry| entry.kind == Kind::Other && entry.composed == composed)
            .filter_map(|entry| Some((entry.peer.as_str(), entry.least()?)))
            .min_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// The fastest of all others, and whether it is composed.
    pub(crate) fn best_other(&self) -> Option<(&str, f64, bool)> {
        [false, true]
            .into_iter()
            .filter_map(|composed| self.best(composed).map(|(peer, time)| (peer, time, composed)))
            .min_by(|(_, a, _), (_, b, _)| a.total_cmp(b))
    }

    pub(crate) fn wrong(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| matches!(entry.outcome, Outcome::Wrong(_)))
    }
}

/// What measures the limits in the same rounds: multiply-adds in registers, and loads of as many bytes as the inputs
/// are; the inputs themselves where they are two arrays, which leaves more room in the caches.
enum Loaded<'a> {
    Inputs([&'a Aligned; 2]),
    Others([Aligned; 2]),
}

impl<'a> Loaded<'a> {
    fn new(job: &Job, inputs: &'a Inputs) -> Self {
        inputs.large_two(job).map_or_else(
            || {
                // Enough for a rate, and a whole number of the strips that are loaded.
                let floats = (job.bytes() as usize / 8).max(1024).next_multiple_of(STRIP);
                Self::Others([(); 2].map(|()| Aligned::new(floats, 1.0)))
            },
            Self::Inputs,
        )
    }

    fn arrays(&self) -> [&Aligned; 2] {
        match self {
            Self::Inputs(arrays) => *arrays,
            Self::Others(arrays) => arrays.each_ref(),
        }
    }

    fn calls(&self) -> impl Iterator<Item = Call<'_>> {
        vector_backends().into_iter().flat_map(|backend| {
            let [a, b] = self.arrays();
            let wide = backend.name() == "avx512";
            let load = move |times: u32| (0..times).for_each(|_| load_both(black_box(a), b, wide));
            let multiply = move |times: u32| (0..times).for_each(|_| peak(backend));
            [Box::new(multiply) as Call<'_>, Box::new(load)]
        })
    }

    /// `times`: of the calls, in their order.
    fn limit(&self, job: &Job, times: impl Iterator<Item = Times>) -> Limit {
        let [a, b] = self.arrays().map(|floats| floats.floats().len() / STRIP);
        let bytes = (8 * STRIP * a.min(b)) as f64;
        let [mut peak, mut loads] = [0.0f64; 2];
        for (i, Times { least, .. }) in times.enumerate() {
            match i % 2 {
                0 => peak = peak.max(PEAK_FLOP / least),
                _ => loads = loads.max(bytes / least),
            }
        }
        let (of_operations, of_bytes) = (job.operations() / peak, job.bytes() / loads);
        let (seconds, of) = match of_operations > of_bytes {
            true => (of_operations, Resource::MultiplyAdds),
            false => (of_bytes, Resource::Loads),
        };
        Limit { seconds, of, peak, loads }
    }
}

/// The floats that [`load_both`] loads at a time; it leaves out what remains.
const STRIP: usize = 64;

/// The back ends whose instructions measure the limits.
pub(crate) fn vector_backends() -> Vec<Backend> {
    ["avx2", "avx512"].into_iter().filter_map(Backend::by_name).collect()
}
