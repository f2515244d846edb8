"""Whether a board computed what Python computed: bits, ULP and where."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional, Tuple, Union

import numpy as np

from ._arrays import F32, ArrayLike, Floats, array_of, check_floats


@dataclass(frozen=True)
class Comparison:
    """`equal`: every bit is; also `bool(comparison)`. Two NaN count as equal, as their bits are not promised."""

    equal: bool
    size: int
    # How many elements differ, and the first of them.
    different: int
    first: Optional[Tuple[int, ...]]
    # The largest difference in ULP (how many floats lie between), infinite beside a NaN, and its element.
    max_ulp: float
    worst: Optional[Tuple[int, ...]]
    message: str

    def __bool__(self) -> bool:
        return self.equal

    def __str__(self) -> str:
        return self.message


def compare(board_output: Union[ArrayLike, str], golden: ArrayLike) -> Comparison:
    """Compares what a board computed with the golden output.

    `board_output`: an array of the golden's size, or text, in which each word of eight hexadecimal digits is the bits of
    a float (C: `printf("%08x")`; Rust: `{:08x}` of `to_bits()`)."""
    wanted = array_of(golden, "golden")
    check_floats(wanted, "golden")
    if isinstance(board_output, str):
        got: Floats = floats_of(board_output)
    else:
        got = array_of(board_output, "board_output")
        check_floats(got, "board_output")
    if got.size != wanted.size:
        raise ValueError(f"board_output: {got.size} floats for {wanted.size}")
    got = got.reshape(wanted.shape)
    ours, theirs = ordered(got), ordered(wanted)
    nan = np.isnan(got) | np.isnan(wanted)
    both = np.isnan(got) & np.isnan(wanted)
    differs = (got.view(np.uint32) if got.flags.c_contiguous else np.ascontiguousarray(got).view(np.uint32)) != (
        np.ascontiguousarray(wanted).view(np.uint32)
    ).reshape(wanted.shape)
    differs = np.where(nan, ~both, differs)
    ulp = np.where(nan, np.where(both, 0.0, np.inf), np.abs(ours - theirs).astype(np.float64))
    count = int(differs.sum())
    if count == 0:
        return Comparison(True, wanted.size, 0, None, 0.0, None, f"all {wanted.size} floats have the same bits")
    first = place(differs, wanted.shape)
    worst = place(ulp, wanted.shape)
    largest = float(ulp[worst])
    message = (
        f"{count} of {wanted.size} floats differ, first at {list(first)}: "
        f"{got[first]!s} ({bits(got[first])}) for {wanted[first]!s} ({bits(wanted[first])}); "
        f"at most {largest:g} ULP, at {list(worst)}"
    )
    return Comparison(False, wanted.size, count, first, largest, worst, message)


def floats_of(text: str) -> Floats:
    words = re.findall(r"\b(?:0x)?([0-9a-fA-F]{8})\b", text)
    return np.array([int(word, 16) for word in words], np.uint32).view(F32)


def ordered(array: Floats) -> "np.ndarray[Tuple[int, ...], np.dtype[np.int64]]":
    """Integers in the order of the floats, one apart for neighbours; -0 and +0 are one apart too."""
    signed = np.ascontiguousarray(array).view(np.int32).reshape(array.shape).astype(np.int64)
    return np.where(signed < 0, -(signed & 0x7FFFFFFF) - 1, signed)


def place(array: "np.ndarray[Tuple[int, ...], np.dtype[np.generic]]", shape: Tuple[int, ...]) -> Tuple[int, ...]:
    return tuple(int(index) for index in np.unravel_index(int(np.argmax(array)), shape))


def bits(number: np.float32) -> str:
    return f"{int(np.float32(number).view(np.uint32)):#010x}"
