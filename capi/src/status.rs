//! What a call returns.

use core::ffi::CStr;

use sdpa::Error;

/// What a call came to: SDPA_OK, or why it wrote nothing. Where several things are wrong,
/// one of them is told. status % 100 is the kind: SDPA_ERROR_SHAPE for each SDPA_ERROR_SHAPE_...,
/// which says in which argument.
#[expect(non_camel_case_types, reason = "the name in the header")]
pub type sdpa_status = i32;

/// Every status, in order: its words, and what the header says of it.
macro_rules! statuses {
    ($($(#[$text:meta])* $name:ident = $number:literal, $words:literal;)+) => {
        $($(#[$text])* pub const $name: sdpa_status = $number;)+

        pub(crate) fn words(status: sdpa_status) -> &'static CStr {
            match status {
                $($name => $words,)+
                _ => c"no status of this library",
            }
        }

        #[cfg(test)]
        const ALL: &[sdpa_status] = &[$($name),+];
    };
}

statuses! {
    /// Done.
    SDPA_OK = 0, c"ok";
    /// A pointer to something that there is, is NULL.
    SDPA_ERROR_NULL_POINTER = 1, c"a pointer is NULL";
    /// Sizes disagree, or one is 0 that must not be; those below say in which argument.
    SDPA_ERROR_SHAPE = 2, c"sizes disagree, or one is zero that must not be";
    /// Sizes and strides reach further than memory does, or a col_stride is 0: see sdpa_matrix.
    SDPA_ERROR_STRIDE = 3, c"strides reach further than memory does, or a column stride is 0";
    /// An output overlaps itself, an input or another output.
    SDPA_ERROR_ALIAS = 4, c"an output overlaps itself, an input or another output";
    /// The workspace is too short.
    SDPA_ERROR_WORKSPACE = 5, c"the workspace is too short";
    /// The cache has no room for that many more keys, or the storage for one block.
    SDPA_ERROR_CAPACITY = 6, c"the cache is full";
    /// An option is outside its range, or no back end of this machine has that handle.
    SDPA_ERROR_OPTION = 7, c"an option is outside its range";
    /// A pointer is not aligned for its type.
    SDPA_ERROR_POINTER = 8, c"a pointer is not aligned for its type";
    /// A position that the cache does not hold, or behind the last that can be counted.
    SDPA_ERROR_POSITION = 9, c"the cache does not hold that position";
    /// The shape of queries: a size is 0, or disagrees with the arguments before.
    SDPA_ERROR_SHAPE_QUERIES = 102, c"wrong shape: queries";
    /// That of keys.
    SDPA_ERROR_SHAPE_KEYS = 202, c"wrong shape: keys";
    /// That of values.
    SDPA_ERROR_SHAPE_VALUES = 302, c"wrong shape: values";
    /// That of out.
    SDPA_ERROR_SHAPE_OUT = 402, c"wrong shape: out";
    /// That of the bias of the options, which is keys x queries.
    SDPA_ERROR_SHAPE_BIAS = 502, c"wrong shape: bias";
    /// That of x.
    SDPA_ERROR_SHAPE_X = 602, c"wrong shape: x";
    /// That of w.
    SDPA_ERROR_SHAPE_W = 702, c"wrong shape: w";
    /// That of other_out.
    SDPA_ERROR_SHAPE_OTHER_OUT = 802, c"wrong shape: other_out";
    /// That of a cache which sdpa_cache_init has not made, or somebody has changed.
    SDPA_ERROR_SHAPE_CACHE = 902, c"wrong shape: cache";
    /// dim is 0.
    SDPA_ERROR_SHAPE_DIM = 1002, c"wrong shape: dim";
    /// value_dim is 0.
    SDPA_ERROR_SHAPE_VALUE_DIM = 1102, c"wrong shape: value_dim";
}

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

impl Failure {
    /// Of an operation: the crate finds that shapes disagree, and `whose` says where.
    #[cold]
    #[inline(never)]
    pub(crate) fn of(error: Error, whose: impl FnOnce() -> sdpa_status) -> Self {
        if error == Error::Shape { Self(whose()) } else { Self::from(error) }
    }
}

/// The status of a checked call.
#[inline]
pub(crate) fn status(result: Checked<()>) -> sdpa_status {
    result.map_or_else(|Failure(status)| status, |()| SDPA_OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_number_and_words_of_its_own() {
        for (i, &status) in ALL.iter().enumerate() {
            assert!(!words(status).is_empty() && words(status) != words(-1));
            assert!(ALL[..i].iter().all(|&other| other != status && words(other) != words(status)));
            assert!(status < 100 || status % 100 == SDPA_ERROR_SHAPE);
        }
        assert_eq!(words(10), words(-1));
    }
}
