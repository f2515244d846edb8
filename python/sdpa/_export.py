"""Arrays as constants of Rust or C: trained weights for flash, with golden inputs and outputs."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Optional, Tuple, Union

import numpy as np

from ._arrays import Array, array_of, check_floats
from ._elements import Elements, check_format, narrow, weights

# What an element is in C; in Rust; and how it is written there.
C_TYPES = {"f32": "float", "f16": "uint16_t", "bf16": "uint16_t", "i8": "int8_t"}
RUST_TYPES = {"f32": "f32", "f16": "sdpa::F16", "bf16": "sdpa::Bf16", "i8": "sdpa::I8"}
RUST_ELEMENTS = {
    "f16": "const fn f16(bits: u16) -> sdpa::F16 {\n    sdpa::F16::from_bits(bits)\n}",
    "bf16": "const fn bf16(bits: u16) -> sdpa::Bf16 {\n    sdpa::Bf16::from_bits(bits)\n}",
    "i8": "const fn i8(value: i8) -> sdpa::I8 {\n    sdpa::I8::new(value)\n}",
}

Constants = Mapping[str, Tuple[str, Array]]

# The keywords of C23 and C++23.
C_WORDS = frozenset(
    """alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t class co_await
    co_return co_yield compl concept const const_cast consteval constexpr constinit continue decltype default delete do
    double dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable namespace
    new noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast requires restrict
    return short signed sizeof static static_assert static_cast struct switch template this thread_local throw true try
    typedef typeid typename typeof typeof_unqual union unsigned using virtual void volatile wchar_t while xor
    xor_eq""".split()
)

HEAD = "Made by sdpa.export; do not edit."
C_ALIGNED = """\
#if defined(__cplusplus)
#define SDPA_ALIGNED alignas(16)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define SDPA_ALIGNED _Alignas(16)
#else
#define SDPA_ALIGNED
#endif"""
RUST_ALIGNED = """\
/// At an address that is a multiple of 16.
#[repr(C, align(16))]
pub struct Aligned<T>(pub T);

impl<T> core::ops::Deref for Aligned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}"""


def export(
    arrays: Union[Mapping[str, Any], str, "os.PathLike[str]"],
    path: Union[str, "os.PathLike[str]"],
    *,
    format: str = "f32",
    golden: Optional[Mapping[str, Any]] = None,
) -> str:
    """Writes arrays as constants into `path`, a file of Rust (`.rs`) or C and C++ (`.h`), and returns their digest.

    `arrays`: names with float32 arrays; with PyTorch's `nn.Linear` (or what has its `weight` and `bias`), which becomes
    NAME, inputs × outputs as `project` takes it, and NAME_bias; or a file of safetensors, exactly as it holds them.
    `format`: what matrices are rounded to, as weights of `project`: "f32", "f16", "bf16" or "i8", whose scales, one for
    each column, become NAME_scales; what has another number of axes stays float32. Instead of a float array there may be
    one of `narrow`, so that Python computes with the same weights.
    `golden`: inputs and the outputs that Python computes of them, as further constants, GOLDEN_NAME.

    Each constant is row-major and has its shape as its type. The digest is the SHA-256 of all names, shapes and bits,
    and stands in the file too, as DIGEST (Rust) or SDPA_DIGEST (C)."""
    to = Path(path)
    writers: dict[str, Callable[[Constants, str, str], str]] = {".rs": rust, ".h": header}
    if to.suffix not in writers:
        raise ValueError(f"path: {to.name} is neither .rs nor .h")
    check_format(format)
    if not isinstance(arrays, Mapping):
        if format == "i8":
            raise ValueError("format: 'i8' has a scale for each output, and a file does not say which axis that is; narrow them")
        arrays = safetensors(Path(arrays))
    named: dict[str, Tuple[str, Array]] = {}
    for prefix, group in ("", arrays), ("golden_", golden or {}):
        for name, given in group.items():
            for part, kind, array in parts(name, given, "f32" if prefix else format):
                identifier = prefix + re.sub(r"\W", "_", part, flags=re.ASCII).lower()
                taken = C_WORDS if to.suffix == ".h" else {"digest"}
                if not re.fullmatch(r"[a-z]\w*", identifier, re.ASCII) or identifier in taken:
                    raise ValueError(f"{part!r}: no name for a constant")
                if identifier in named:
                    raise ValueError(f"{part!r}: two constants would have the name {identifier}")
                named[identifier] = (kind, array)
    if not named:
        raise ValueError("arrays: there are none")
    digest = digest_of(named)
    to.write_text(writers[to.suffix](named, digest, to.stem), encoding="utf-8")
    return digest


def parts(name: str, given: Any, format: str) -> Iterator[Tuple[str, str, Array]]:
    """The constants of an array: their names, formats and elements."""
    if isinstance(given, Elements):
        weights(given)
        yield name, given.format, np.ascontiguousarray(given.data)
        if given.scales is not None:
            yield f"{name}_scales", "f32", given.scales
    elif hasattr(given, "weight") and hasattr(given, "bias"):
        yield from parts(name, numpy_of(given.weight, name).T, format)
        if given.bias is not None:
            yield from parts(f"{name}_bias", given.bias, format)
    else:
        array = checked(numpy_of(given, name), name)
        if format != "f32" and array.ndim == 2:
            yield from parts(name, narrow(array.T, format).T, format)
        else:
            yield name, "f32", array


def numpy_of(given: Any, name: str) -> Array:
    # A parameter of PyTorch has a gradient.
    return array_of(given.detach() if hasattr(given, "detach") else given, name)


def checked(array: Array, name: str) -> Array:
    check_floats(array, name)
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{name}: shape {array.shape}; a constant has at least one element and one axis")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: holds an infinity or NaN")
    return np.ascontiguousarray(array)


def safetensors(path: Path) -> Mapping[str, Any]:
    if path.suffix != ".safetensors":
        raise ValueError(f"arrays: {path.name} is no .safetensors")
    try:
        module = importlib.import_module("safetensors.numpy")
    except ImportError:
        raise ImportError("this wants the package safetensors: pip install 'sdpa[safetensors]'") from None
    loaded: Mapping[str, Any] = module.load_file(path)
    return loaded


def digest_of(named: Constants) -> str:
    digest = hashlib.sha256()
    for name, (kind, array) in named.items():
        digest.update(f"{name} {array.shape}{'' if kind == 'f32' else ' ' + kind}\n".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def rust(named: Constants, digest: str, _: str) -> str:
    text = [f"// {HEAD}", "", RUST_ALIGNED, "", "/// Of all names, shapes and bits: SHA-256.", "#[rustfmt::skip]"]
    text += [f'pub const DIGEST: &str = "{digest}";']
    kinds = {kind for kind, _ in named.values()}
    for kind, function in RUST_ELEMENTS.items():
        text += ["", function] if kind in kinds else []
    for name, (kind, array) in named.items():
        type_of = RUST_TYPES[kind]
        for length in reversed(array.shape):
            type_of = f"[{type_of}; {length}]"
        shape = " × ".join(map(str, array.shape))
        text += ["", f"/// {shape}.", "#[rustfmt::skip]", f"pub static {name.upper()}: Aligned<{type_of}> = Aligned("]
        written = decimal if kind == "f32" else called(kind)
        text += [nested(bits_of(kind, array), "[", "]", written) + ");"]
    return "\n".join(text) + "\n"


def header(named: Constants, digest: str, stem: str) -> str:
    guard = "SDPA_EXPORTED_" + re.sub(r"\W", "_", stem, flags=re.ASCII).upper()
    text = [f"/* {HEAD} */", "", f"#ifndef {guard}", f"#define {guard}", ""]
    # Two have the digest, and perhaps names, in common.
    text += ["#ifdef SDPA_DIGEST", '#error "two files of sdpa.export: make one of all arrays"', "#endif", ""]
    if any(kind != "f32" for kind, _ in named.values()):
        text += ["#include <stdint.h>", ""]
    text += [C_ALIGNED, "", "/* Of all names, shapes and bits: SHA-256. */", f'#define SDPA_DIGEST "{digest}"']
    for name, (kind, array) in named.items():
        shape = "".join(f"[{length}]" for length in array.shape)
        written = hexadecimal if kind == "f32" else integer
        text += ["", *([] if kind == "f32" else [f"/* SDPA_{kind.upper()} */"])]
        text += [f"SDPA_ALIGNED static const {C_TYPES[kind]} {name}{shape} ="]
        text += [nested(bits_of(kind, array), "{", "}", written) + ";"]
    return "\n".join([*text, "", "#endif"]) + "\n"


def bits_of(kind: str, array: Array) -> Array:
    return array.view(np.uint16) if kind == "f16" else array


def nested(array: Array, begin: str, end: str, written: Callable[[Any], str]) -> str:
    if array.ndim > 1:
        return begin + ",\n".join(nested(part, begin, end, written) for part in array) + end
    words = [written(number) for number in array]
    lines = [", ".join(words[i : i + 6]) for i in range(0, len(words), 6)]
    return begin + ",\n ".join(lines) + end


def decimal(number: np.float32) -> str:
    """The shortest that Rust reads as the same float."""
    return str(np.format_float_scientific(number, unique=True, trim="0"))


def hexadecimal(number: np.float32) -> str:
    """Exact in C99 and C++17, whatever the compiler's rounding."""
    return f"{float(number).hex()}f"


def integer(number: Any) -> str:
    return str(int(number))


def called(kind: str) -> Callable[[Any], str]:
    """As the argument of a function of `RUST_ELEMENTS`."""
    return lambda number: f"{kind}({int(number)})"
