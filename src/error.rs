//! The one error type.

use core::fmt;

/// Why a call wrote nothing.
///
/// Every public function checks all of its arguments first; when it returns an
/// error, no output has been touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// Sizes disagree with each other or with the length of a buffer, or a
    /// size that must not be zero is zero.
    Shape,
    /// Strides reach past the end of the buffer, or past what `usize` can count.
    Stride,
    /// Two elements of an output would lie at the same place.
    Alias,
    /// The workspace is shorter than the function that gives its length says.
    Workspace,
    /// A cache has no room for that many more keys.
    Capacity,
    /// A position that a cache does not hold, or behind the last that can be counted.
    Position,
    /// An option is outside its range: a scale that is not finite, a softcap that is
    /// negative or not finite, a sink that is NaN or +∞.
    Option,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Shape => "sizes disagree, or one is zero that must not be",
            Error::Stride => "strides reach past the end of the buffer",
            Error::Alias => "elements of an output overlap",
            Error::Workspace => "the workspace is too short",
            Error::Capacity => "the cache is full",
            Error::Position => "the cache does not hold that position",
            Error::Option => "an option is outside its range",
        })
    }
}

impl core::error::Error for Error {}
