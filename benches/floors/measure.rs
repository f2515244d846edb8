//! Times, ratios of times, and what holds them to a limit.

use std::{env, time::Instant};

/// A ratio that must be at least or at most its limit.
pub(crate) struct Floor<'a> {
    pub(crate) what: String,
    pub(crate) limit: Limit,
    /// Measured: what `limit` speaks of.
    pub(crate) ratio: Box<dyn FnMut() -> f64 + 'a>,
}

pub(crate) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Floor<'_> {
    /// Measures the ratio and prints it. Whether it holds, where there is a slack to hold it with.
    pub(crate) fn holds(&mut self, slack: Option<f64>) -> bool {
        let ratio = (self.ratio)();
        let Some(slack) = slack else {
            println!("{:64} {ratio:5.2}", self.what);
            return true;
        };
        let (holds, limit) = match self.limit {
            Limit::AtLeast(limit) => (ratio * slack >= limit, format!("at least {limit}")),
            Limit::AtMost(limit) => (ratio <= limit * slack, format!("at most {limit}")),
        };
        let verdict = if holds { "ok" } else { "MISSED" };
        println!("{:64} {ratio:5.2}  {limit:14} {verdict}", self.what);
        holds
    }
}

/// Set, every call that is held to a floor is made twice, which shows that floors can be missed.
const SLOW: &str = "SDPA_SLOW";

/// By what factor a floor may be missed: above 1 where the machine is shared with others or its core has
/// no limits of its own, and only a kernel gone wrong is to be seen.
const SLACK: &str = "SDPA_SLACK";

pub(crate) fn slack() -> Option<f64> {
    env::var(SLACK).ok().map(|slack| slack.parse().expect("SDPA_SLACK is a number"))
}

/// The least times of a yardstick and of the call that is held to it.
pub(crate) fn yardstick_and_call(yardstick: &mut dyn FnMut(), call: &mut dyn FnMut()) -> [f64; 2] {
    let slow = env::var_os(SLOW).is_some();
    times([yardstick, &mut || {
        call();
        if slow {
            call();
        }
    }])
}

/// The least time of one call of each, in seconds, taken in turns.
///
/// Each turn of each is as long as the longest call: a core's clock is a tenth faster for 50 microseconds now
/// and then than it ever is for the 30 milliseconds of a long call, and the least time finds those.
pub(crate) fn times<const N: usize>(mut functions: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut least = [f64::INFINITY; N];
    times_into(&mut functions, &mut least);
    least
}

/// [`times`] of any number of functions.
pub(crate) fn times_into(functions: &mut [&mut dyn FnMut()], least: &mut [f64]) {
    let longest = functions.iter_mut().map(|function| once(function)).fold(0.0, f64::max);
    let turn = longest.max(SHORTEST_TURN);
    let repeats: Vec<u32> = functions.iter_mut().map(|function| repeats(function, turn)).collect();
    let begin = Instant::now();
    for round in 0..400 {
        if round >= 20 && begin.elapsed().as_secs_f64() > 1.0 {
            break;
        }
        for ((function, &repeats), least) in functions.iter_mut().zip(&repeats).zip(&mut *least) {
            *least = least.min(time_of(function, repeats) / f64::from(repeats));
        }
    }
}

pub(crate) fn time(function: &mut dyn FnMut()) -> f64 {
    let [time] = times([function]);
    time
}

/// Many times what the clock resolves, in seconds.
const SHORTEST_TURN: f64 = 50e-6;

/// The time of one call, in seconds.
pub(crate) fn once(function: &mut dyn FnMut()) -> f64 {
    // The first calls meet pages and caches that the others find in place.
    time_of(function, 3);
    (0..3).map(|_| time_of(function, 1)).fold(f64::INFINITY, f64::min)
}

/// How many calls take some `turn` seconds.
pub(crate) fn repeats(function: &mut dyn FnMut(), turn: f64) -> u32 {
    let mut repeats = 1;
    while (0..3).any(|_| time_of(function, repeats) < 0.7 * turn) {
        repeats *= 2;
    }
    repeats
}

pub(crate) fn time_of(function: &mut dyn FnMut(), repeats: u32) -> f64 {
    let begin = Instant::now();
    for _ in 0..repeats {
        function();
    }
    begin.elapsed().as_secs_f64()
}
