//! Times that are taken in turns, so that the clock and the neighbours count for all alike.

use std::time::Instant;

use crate::peers::Call;

/// Seconds of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) least: f64,
    pub(crate) median: f64,
}

/// Many times what the clock resolves, and no longer than a neighbour needs to disturb: in seconds.
const TURN: std::ops::RangeInclusive<f64> = 100e-6..=10e-3;

/// Each round gives every call a turn. All turns are as long as the longest call, within [`TURN`]: a core's clock may be
/// higher for some microseconds than it is for milliseconds, and the least time finds those.
pub(crate) fn in_turns(calls: &mut [Call<'_>], rounds: u32) -> Vec<Times> {
    let longest = calls.iter_mut().map(|call| warm_time(call)).fold(0.0, f64::max);
    let turn = longest.clamp(*TURN.start(), *TURN.end());
    let repeats: Vec<u32> = calls.iter_mut().map(|call| repeats(call, turn)).collect();
    let mut samples = vec![Vec::new(); calls.len()];
    let mut order: Vec<usize> = (0..calls.len()).collect();
    for _ in 0..rounds {
        for &i in &order {
            // What the others left in the caches and the predictors is not this call's.
            calls[i](repeats[i].div_ceil(8));
            samples[i].push(time(&mut calls[i], repeats[i]) / f64::from(repeats[i]));
        }
        // There and back, so that nobody always follows the same one.
        order.reverse();
    }
    samples.into_iter().map(Times::of).collect()
}

impl Times {
    pub(crate) fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self { least: samples[0], median: samples[samples.len() / 2] }
    }
}

/// The first calls meet pages and caches that the others find in place.
fn warm_time(call: &mut Call<'_>) -> f64 {
    call(2);
    time(call, 1)
}

/// How many calls take some `turn` seconds.
fn repeats(call: &mut Call<'_>, turn: f64) -> u32 {
    let mut repeats = 1;
    while time(call, repeats) < 0.7 * turn {
        repeats *= 2;
    }
    repeats
}

fn time(call: &mut Call<'_>, repeats: u32) -> f64 {
    let begin = Instant::now();
    call(repeats);
    begin.elapsed().as_secs_f64()
}
