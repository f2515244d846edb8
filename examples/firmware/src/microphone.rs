//! A simulated microphone: synthetic sounds, and their power per band.

use core::array;

use sdpa::{Error, Matrix, MatrixRef, project};

/// The number of frames to listen to.
pub const FRAMES: usize = 160;

/// Samples per frame: 8 ms at 8 kHz.
pub const SAMPLES: usize = 64;

/// The number of bands. Band `b` is centred at `b + 1` periods per frame: 125 Hz to 2 kHz.
pub const BANDS: usize = 16;

#[derive(Clone, Copy, PartialEq)]
pub enum Sound {
    Silence,
    /// A tone at the centre of a band.
    Tone(usize),
    /// A frame of a chirp, from the lower end of a band to its upper end.
    Rise(usize),
}

/// Returns the sound of a frame; it repeats every 40 frames.
pub fn sound(frame: usize) -> Sound {
    match frame % 40 {
        moment @ 4..10 => Sound::Rise(moment),
        16..22 => Sound::Tone(3),
        28..34 => Sound::Tone(12),
        _ => Sound::Silence,
    }
}

/// The phase step of one period per frame, in 2⁻¹⁶ of a turn per sample.
const PERIOD: u16 = (0x1_0000 / SAMPLES) as u16;

/// Returns the sine of a phase within 0.06: a parabola for each half turn.
const fn sine(turn: u16) -> f32 {
    let half_turns = turn.cast_signed() as f32 / 32768.0;
    4.0 * half_turns * (1.0 - half_turns.abs())
}

pub struct Microphone {
    turn: u16,
    noise: u32,
}

impl Microphone {
    pub const NEW: Self = Self { turn: 0, noise: 0 };

    /// Returns the samples of a frame, with background noise.
    pub fn record(&mut self, frame: usize) -> [f32; SAMPLES] {
        let middle = |band| (band as u16 + 1) * PERIOD;
        let (loud, mut pitch, glide) = match sound(frame) {
            Sound::Silence => (0.0, 0, 0),
            Sound::Tone(band) => (0.9, middle(band), 0),
            Sound::Rise(band) => (0.9, middle(band) - PERIOD / 2, PERIOD / SAMPLES as u16),
        };
        array::from_fn(|_| {
            self.turn = self.turn.wrapping_add(pitch);
            pitch += glide;
            // The linear congruential generator of Numerical Recipes.
            self.noise = self.noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let hiss = (self.noise >> 16) as f32 / 65536.0 - 0.5;
            loud * sine(self.turn) + 0.1 * hiss
        })
    }
}

/// A cosine and a sine per band over the samples of a frame, normalized so that a tone of amplitude 1 has
/// power 1.
static FILTERS: [[f32; 2 * BANDS]; SAMPLES] = {
    let mut filters = [[0.0; 2 * BANDS]; SAMPLES];
    let mut sample = 0;
    while sample < SAMPLES {
        let mut band = 0;
        while band < BANDS {
            let turn = ((sample * (band + 1)) as u16).wrapping_mul(PERIOD);
            filters[sample][2 * band] = sine(turn.wrapping_add(0x4000)) * (2.0 / SAMPLES as f32);
            filters[sample][2 * band + 1] = sine(turn) * (2.0 / SAMPLES as f32);
            band += 1;
        }
        sample += 1;
    }
    filters
};

/// Returns the power of a frame in each band.
pub fn powers(samples: &[f32; SAMPLES]) -> Result<[f32; BANDS], Error> {
    let mut parts = Matrix::<1, { 2 * BANDS }>::ZERO;
    let filters = MatrixRef::from(FILTERS.as_slice());
    project(MatrixRef::from_row(samples), filters, None, parts.view_mut())?;
    let [parts] = parts.0;
    Ok(array::from_fn(|band| {
        parts[2 * band] * parts[2 * band] + parts[2 * band + 1] * parts[2 * band + 1]
    }))
}
