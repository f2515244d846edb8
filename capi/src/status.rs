//! What a call returns.

use core::ffi::CStr;

use sdpa::Error;

/// What a call came to: SDPA_OK, or why it wrote nothing. Where several things are wrong,
/// one of them is told.
#[expect(non_camel_case_types, reason = "the name in the header")]
pub type sdpa_status = i32;

/// Done.
pub const SDPA_OK: sdpa_status = 0;
/// A pointer to something that there is, is NULL.
pub const SDPA_ERROR_NULL_POINTER: sdpa_status = 1;
/// Sizes disagree, or one is 0 that must not be.
pub const SDPA_ERROR_SHAPE: sdpa_status = 2;
/// Sizes and strides reach further than memory does.
pub const SDPA_ERROR_STRIDE: sdpa_status = 3;
/// An output overlaps itself, an input or another output.
pub const SDPA_ERROR_ALIAS: sdpa_status = 4;
/// The workspace is too short.
pub const SDPA_ERROR_WORKSPACE: sdpa_status = 5;
/// The cache has no room for that many more keys, or the storage for one block.
pub const SDPA_ERROR_CAPACITY: sdpa_status = 6;
/// An option is outside its range.
pub const SDPA_ERROR_OPTION: sdpa_status = 7;
/// A position that the cache does not hold, or behind the last that can be counted.
pub const SDPA_ERROR_POSITION: sdpa_status = 8;

/// Why a call fails.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) sdpa_status);

pub(crate) type Checked<T> = Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(match error {
            Error::Shape => SDPA_ERROR_SHAPE,
            Error::Stride => SDPA_ERROR_STRIDE,
            Error::Alias => SDPA_ERROR_ALIAS,
            Error::Workspace => SDPA_ERROR_WORKSPACE,
            Error::Capacity => SDPA_ERROR_CAPACITY,
            Error::Position => SDPA_ERROR_POSITION,
            _ => SDPA_ERROR_OPTION,
        })
    }
}

/// The status of a checked call.
pub(crate) fn status(result: Checked<()>) -> sdpa_status {
    result.map_or_else(|Failure(status)| status, |()| SDPA_OK)
}

pub(crate) fn words(status: sdpa_status) -> &'static CStr {
    match status {
        SDPA_OK => c"ok",
        SDPA_ERROR_NULL_POINTER => c"a pointer is NULL",
        SDPA_ERROR_SHAPE => c"sizes disagree, or one is zero that must not be",
        SDPA_ERROR_STRIDE => c"strides reach further than memory does",
        SDPA_ERROR_ALIAS => c"an output overlaps itself, an input or another output",
        SDPA_ERROR_WORKSPACE => c"the workspace is too short",
        SDPA_ERROR_CAPACITY => c"the cache is full",
        SDPA_ERROR_OPTION => c"an option is outside its range",
        SDPA_ERROR_POSITION => c"the cache does not hold that position",
        _ => c"no status of this library",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_words_of_its_own() {
        let all = [-1, 0, 1, 2, 3, 4, 5, 6, 7, 8].map(words);
        for (i, words) in all.iter().enumerate() {
            assert!(!words.is_empty() && !all[..i].contains(words));
        }
        assert_eq!(words(9), words(-1));
    }
}
