//! Version, status messages, back ends, and the macro that defines an operation of the header.

use core::ffi::{CStr, c_char};

use sdpa::Backend;

use crate::status::{self, Checked, Failure, SDPA_ERROR_OPTION, sdpa_status};

/// The version of this header: the major number.
pub const SDPA_VERSION_MAJOR: u32 = 0;
/// The minor number: higher when functions or fields are added.
pub const SDPA_VERSION_MINOR: u32 = 1;
/// The patch number: higher when something is repaired.
pub const SDPA_VERSION_PATCH: u32 = 0;

const _: () = {
    const fn is(number: u32, text: &str) -> bool {
        matches!(u32::from_str_radix(text, 10), Ok(parsed) if parsed == number)
    }
    assert!(is(SDPA_VERSION_MAJOR, env!("CARGO_PKG_VERSION_MAJOR")));
    assert!(is(SDPA_VERSION_MINOR, env!("CARGO_PKG_VERSION_MINOR")));
    assert!(is(SDPA_VERSION_PATCH, env!("CARGO_PKG_VERSION_PATCH")));
};

/// A handle of a back end (instruction set) of this machine: 0 or more; negative: none. Every
/// operation has a variant with the suffix _on that takes a handle, for example sdpa_dot_on; it
/// returns SDPA_ERROR_OPTION if this machine has no back end of that handle.
#[expect(non_camel_case_types, reason = "the name in the header")]
pub type sdpa_backend_t = i32;

/// Returns the version of the library at run time, such as "0.1.0". Never NULL; do not free it.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub extern "C" fn sdpa_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Returns the message of a status. A value that is no status has a message too. Never NULL; do not
/// free it.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub extern "C" fn sdpa_status_string(status: sdpa_status) -> *const c_char {
    status::message(status).as_ptr()
}

/// Returns the name of the default back end, the fastest of this machine: "avx512", "avx2" or
/// "neon" (FMA family: a multiply-add rounds once), "portable" or "scalar" (non-FMA family).
/// Within a family the same input gives the same bits on every machine. Never NULL; do not free it.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub extern "C" fn sdpa_backend() -> *const c_char {
    name_of(Backend::best()).as_ptr()
}

/// Returns the handle of the back end with that name, for the operations with the suffix _on.
/// Negative if this machine has no such back end, or if name is NULL. Every machine has "scalar",
/// whose bits are those of microcontrollers.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub unsafe extern "C" fn sdpa_backend_by_name(name: *const c_char) -> sdpa_backend_t {
    let is_named = |backend: Backend| {
        let mut wanted = name_of(backend).to_bytes_with_nul().iter().enumerate();
        // SAFETY: `name` is a NUL-terminated string, read up to the first byte that differs or to its NUL.
        wanted.all(|(i, &byte)| unsafe { name.cast::<u8>().wrapping_add(i).read() } == byte)
    };
    let found = Backend::available().position(|backend| !name.is_null() && is_named(backend));
    handle_of(found)
}

/// Enumerates the back ends of this machine; negative if index is past the last one:
///     for (i = 0; (backend = sdpa_backend_at(i)) >= 0; i++)
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub extern "C" fn sdpa_backend_at(index: usize) -> sdpa_backend_t {
    handle_of(Backend::available().nth(index).map(|_| index))
}

/// Returns the name of a back end, or "none" if this machine has no back end of that handle. Never
/// NULL; do not free it.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub extern "C" fn sdpa_backend_name(backend: sdpa_backend_t) -> *const c_char {
    backend_of(backend).map_or(c"none", name_of).as_ptr()
}

fn handle_of(index: Option<usize>) -> sdpa_backend_t {
    index.and_then(|index| index.try_into().ok()).unwrap_or(-1)
}

/// Returns the back end of a handle, which is an index into [`Backend::available`].
pub(crate) fn backend_of(handle: sdpa_backend_t) -> Checked<Backend> {
    let index = usize::try_from(handle).unwrap_or(usize::MAX);
    Backend::available().nth(index).ok_or(Failure(SDPA_ERROR_OPTION))
}

fn name_of(backend: Backend) -> &'static CStr {
    match backend.name() {
        "avx512" => c"avx512",
        "avx2" => c"avx2",
        "neon" => c"neon",
        "portable" => c"portable",
        "scalar" => c"scalar",
        _ => c"unknown",
    }
}

/// Defines an operation twice from one body: on the best back end, and on a back end that the caller names.
/// Each function has its own copy of the body, so that neither links what only the other needs, and no stack
/// frame of the body comes on top of one that merely passes arguments.
macro_rules! operation {
    (
        $(#[$text:meta])*
        fn $name:ident, $name_on:ident(
            $on:ident, $($argument:ident: $type:ty),+ $(,)?
        ) $body:block
    ) => {
        $(#[$text])*
        #[cfg_attr(not(feature = "plain-heads"), unsafe(no_mangle))] // SAFETY: the prefix `sdpa_` is this library's alone
        pub unsafe extern "C" fn $name($($argument: $type),+) -> sdpa_status {
            let call = |$on: Backend| -> Checked<()> { $body };
            status(call(Backend::best()))
        }

        #[doc = concat!(" ", stringify!($name), " on a given back end: see sdpa_backend_by_name.")]
        #[cfg_attr(not(feature = "plain-heads"), unsafe(no_mangle))] // SAFETY: the prefix `sdpa_` is this library's alone
        pub unsafe extern "C" fn $name_on(
            backend: sdpa_backend_t,
            $($argument: $type),+
        ) -> sdpa_status {
            let call = |$on: Backend| -> Checked<()> { $body };
            status(backend_of(backend).and_then(call))
        }
    };
}

pub(crate) use operation;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_back_end_has_its_name() {
        for backend in Backend::available() {
            assert_eq!(name_of(backend).to_str(), Ok(backend.name()));
        }
    }
}
