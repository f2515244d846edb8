//! The one error type.

use core::fmt;

/// The error of every fallible call.
///
/// Public functions check all arguments first: after an error no output has been
/// written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// Sizes disagree with each other or with the length of a buffer, or a
    /// size that must not be zero is zero.
    Shape,
    /// Strides reach past the end of the buffer, or past `isize::MAX` bytes.
    Stride,
    /// Two elements of an output would have the same address, or the strides of its heads do not nest.
    Alias,
    /// The workspace is shorter than [`Attention::workspace`](crate::Attention::workspace) returns.
    Workspace,
    /// A KV cache has no room for the keys.
    Capacity,
    /// A position that a KV cache does not hold or a rotary table does not cover, or one that would exceed `u64::MAX`; a
    /// first key that begins no span; or a span that is joined twice.
    Position,
    /// An option is out of range: a scale that is not finite, a softcap that is
    /// negative or not finite, a sink that is NaN or +∞, a rotary base below 1, a frequency that is not finite.
    Option,
    /// A number that the element type cannot represent: see [`narrow`](crate::narrow()); or a scale that is NaN or ∞.
    Range,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Shape => "sizes disagree, or one is zero that must not be",
            Error::Stride => "strides reach past the end of the buffer",
            Error::Alias => "elements of an output overlap",
            Error::Workspace => "the workspace is too short",
            Error::Capacity => "the cache is full",
            Error::Position => "a position that is not held, not possible, or there twice",
            Error::Option => "an option is outside its range",
            Error::Range => "a number that the element type cannot represent",
        })
    }
}

impl core::error::Error for Error {}
