//! `sdpa_status`: what a call returns.

use core::ffi::CStr;

use sdpa::Error;

/// The result of a call: SDPA_OK, or an error, after which nothing has been written. If several
/// things are wrong, one of them is reported. status % 100 is the kind of error: it is
/// SDPA_ERROR_SHAPE for every SDPA_ERROR_SHAPE_..., which names the argument.
#[expect(non_camel_case_types, reason = "the name in the header")]
pub type sdpa_status = i32;

/// Defines every status, in order: the text of the header, the number and the message.
macro_rules! statuses {
    ($($(#[$text:meta])* $name:ident = $number:literal, $message:literal;)+) => {
        $($(#[$text])* pub const $name: sdpa_status = $number;)+

        pub(crate) fn message(status: sdpa_status) -> &'static CStr {
            match status {
                $($name => $message,)+
                _ => c"no status of this library",
            }
        }

        #[cfg(test)]
        const ALL: &[sdpa_status] = &[$($name),+];
    };
}

statuses! {
    /// Success.
    SDPA_OK = 0, c"ok";
    /// A pointer is NULL although it should point to at least one element.
    SDPA_ERROR_NULL_POINTER = 1, c"a pointer is NULL";
    /// Sizes disagree, or a size is 0 that must not be; the SDPA_ERROR_SHAPE_... below name the
    /// argument.
    SDPA_ERROR_SHAPE = 2, c"sizes disagree, or one is zero that must not be";
    /// Sizes and strides exceed the address space, or a col_stride is 0: see sdpa_matrix.
    SDPA_ERROR_STRIDE = 3, c"strides reach further than memory does, or a column stride is 0";
    /// An output overlaps itself, an input or another output.
    SDPA_ERROR_ALIAS = 4, c"an output overlaps itself, an input or another output";
    /// The workspace is too short.
    SDPA_ERROR_WORKSPACE = 5, c"the workspace is too short";
    /// The cache has no room for the keys, or the storage has no room for one block.
    SDPA_ERROR_CAPACITY = 6, c"the cache is full";
    /// An option is out of range, or no back end of this machine has that handle.
    SDPA_ERROR_OPTION = 7, c"an option is outside its range";
    /// A pointer is not aligned for its type.
    SDPA_ERROR_POINTER = 8, c"a pointer is not aligned for its type";
    /// The cache or table does not hold that position or number of keys, or a position would exceed UINT64_MAX (of a
    /// table, 2^53); a first_key is no multiple of SDPA_SPAN; or a span is joined twice.
    SDPA_ERROR_POSITION = 9, c"a position that is not held, not possible, or there twice";
    /// A number that the format cannot represent, or a scale that is NaN or infinite.
    SDPA_ERROR_RANGE = 10, c"a number outside the range of its format, or a scale that is not finite";
    /// A format that is none of SDPA_F32, SDPA_F16, SDPA_BF16 and SDPA_I8, or a cache of another format than the
    /// function is for.
    SDPA_ERROR_FORMAT = 11, c"an unknown format, or one that the function is not for";
    /// The shape of queries: a size is 0 or disagrees with an earlier argument.
    SDPA_ERROR_SHAPE_QUERIES = 102, c"wrong shape: queries";
    /// The shape of keys.
    SDPA_ERROR_SHAPE_KEYS = 202, c"wrong shape: keys";
    /// The shape of values.
    SDPA_ERROR_SHAPE_VALUES = 302, c"wrong shape: values";
    /// The shape of out.
    SDPA_ERROR_SHAPE_OUT = 402, c"wrong shape: out";
    /// The shape of options.bias, which must be keys x queries.
    SDPA_ERROR_SHAPE_BIAS = 502, c"wrong shape: bias";
    /// The shape of x.
    SDPA_ERROR_SHAPE_X = 602, c"wrong shape: x";
    /// The shape of w.
    SDPA_ERROR_SHAPE_W = 702, c"wrong shape: w";
    /// The shape of other_out.
    SDPA_ERROR_SHAPE_OTHER_OUT = 802, c"wrong shape: other_out";
    /// The fields of a cache: sdpa_cache_init has not set them, or the caller has changed them.
    SDPA_ERROR_SHAPE_CACHE = 902, c"wrong shape: cache";
    /// dim is 0.
    SDPA_ERROR_SHAPE_DIM = 1002, c"wrong shape: dim";
    /// value_dim is 0.
    SDPA_ERROR_SHAPE_VALUE_DIM = 1102, c"wrong shape: value_dim";
    /// The length of states: see sdpa_attention_states and sdpa_join.
    SDPA_ERROR_SHAPE_STATES = 1202, c"wrong shape: states";
    /// The shapes of the cosines and sines of a table, or the length of its storage.
    SDPA_ERROR_SHAPE_TABLE = 1302, c"wrong shape: table";
    /// The cumulative lengths of sequences: see sdpa_attention_packed.
    SDPA_ERROR_SHAPE_CU_SEQLENS = 1402, c"wrong shape: cu_seqlens";
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
            Error::Range => SDPA_ERROR_RANGE,
            _ => SDPA_ERROR_OPTION,
        })
    }
}

impl Failure {
    /// The failure for an error of the crate. For [`Error::Shape`], `shape_status` returns the status that
    /// names the argument.
    #[cold]
    #[inline(never)]
    pub(crate) fn of(error: Error, shape_status: impl FnOnce() -> sdpa_status) -> Self {
        if error == Error::Shape { Self(shape_status()) } else { Self::from(error) }
    }
}

/// Calls `f`, the general case of a call whose usual case has been tried. Out of line, so that it takes no registers
/// from the usual case; microcontrollers have only the general one.
#[cfg_attr(not(microcontroller), cold)]
#[cfg_attr(not(microcontroller), inline(never))]
#[cfg_attr(microcontroller, inline(always))]
pub(crate) fn general(f: impl FnOnce() -> Checked<()>) -> Checked<()> {
    f()
}

/// Converts the result of a call to its status.
#[inline]
pub(crate) fn status(result: Checked<()>) -> sdpa_status {
    result.map_or_else(|Failure(status)| status, |()| SDPA_OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_own_number_and_message() {
        for (i, &status) in ALL.iter().enumerate() {
            assert!(!message(status).is_empty() && message(status) != message(-1));
            assert!(
                ALL[..i].iter().all(|&other| other != status && message(other) != message(status))
            );
            assert!(status < 100 || status % 100 == SDPA_ERROR_SHAPE);
        }
        assert_eq!(message(12), message(-1));
    }
}
