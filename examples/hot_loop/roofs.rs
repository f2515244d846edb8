//! What this core can do: multiply-adds in registers, and loads of as many bytes as the data has.

use std::fs;

use sdpa::Backend;

/// The limits of the core, where they can be measured: on x86-64.
pub(crate) struct Roofs {
    /// FLOP a second, with the vectors of the back end.
    pub(crate) flops: Option<f64>,
    /// Bytes a second.
    pub(crate) loads: Option<f64>,
    /// Where the data fits, `L2` for instance.
    pub(crate) level: Option<String>,
}

impl Roofs {
    /// Measures the roofs and `call` in turns. Returns the least time of `call` too, in seconds.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn measure(backend: Backend, bytes: usize, call: &mut dyn FnMut()) -> (Self, f64) {
        use crate::{
            aligned::Aligned,
            limits::{PEAK_FLOP, load_both, peak},
            measure::times,
        };

        let level = level(bytes);
        let mut peak = || peak(backend);
        if Backend::by_name("avx2").is_none() {
            // The loop of loads wants AVX2.
            let [peak, call] = times([&mut peak, call]);
            return (Self { flops: Some(PEAK_FLOP / peak), loads: None, level }, call);
        }
        let floats = (bytes / size_of::<f32>() / 2).next_multiple_of(FLOATS_PER_STEP);
        let (a, b) = (Aligned::new(floats, 1.0), Aligned::new(floats, 1.0));
        let wide = backend.name() == "avx512";
        let [peak, loads, call] = times([&mut peak, &mut || load_both(&a, &b, wide), call]);
        let loaded = (2 * floats * size_of::<f32>()) as f64;
        (Self { flops: Some(PEAK_FLOP / peak), loads: Some(loaded / loads), level }, call)
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn measure(_: Backend, bytes: usize, call: &mut dyn FnMut()) -> (Self, f64) {
        (Self { flops: None, loads: None, level: level(bytes) }, crate::measure::time(call))
    }
}

/// What the loop of loads takes of each array at a time.
#[cfg(target_arch = "x86_64")]
const FLOATS_PER_STEP: usize = 64;

/// The first cache of core 0 that has room for so many bytes, where the system tells.
fn level(bytes: usize) -> Option<String> {
    let mut is_known = false;
    for index in 0.. {
        let folder = format!("/sys/devices/system/cpu/cpu0/cache/index{index}");
        let read = |name| fs::read_to_string(format!("{folder}/{name}")).ok();
        let Some([level, size, kind]) = read("level").and_then(|level| {
            let [size, kind] = [read("size")?, read("type")?];
            Some([level, size, kind].map(|text| text.trim().to_string()))
        }) else {
            break;
        };
        is_known = true;
        let kib = size.strip_suffix('K').and_then(|size| size.parse::<usize>().ok());
        if kind != "Instruction" && kib.is_some_and(|kib| bytes <= kib.saturating_mul(1024)) {
            return Some(format!("L{level}"));
        }
    }
    is_known.then(|| "memory".into())
}
