"""Rotary position embedding (RoPE)."""

from __future__ import annotations

import operator
from ctypes import addressof, c_void_p
from typing import Optional

import numpy as np

from . import _arrays as arrays
from ._arrays import ArrayLike, Floats, array_of, target
from ._library import ERROR_OPTION, Error, Rotary, handle, library

PAIRS = {"halves": 0, "interleaved": 1}


class RotaryTable:
    """The cosines and sines of positions `first`, `first + 1`, …: computed in float64 and rounded once, with the same bits
    on every machine.

    Pair `i` has the frequency `base ** (-i / pairs)`, or `frequencies[i]` in radians per position. One table serves queries
    and keys, all heads and all layers.
    """

    __slots__ = ("_factors", "state")

    def __init__(
        self,
        positions: int,
        pairs: Optional[int] = None,
        *,
        base: float = 10_000.0,
        frequencies: Optional[ArrayLike] = None,
        first: int = 0,
    ) -> None:
        given = None if frequencies is None else array_of(frequencies, "frequencies")
        if given is not None:
            arrays.axes(given, "frequencies", 1)
            arrays.floats(given, "frequencies", given.size)
            pairs = given.size if pairs is None else pairs
        if pairs is None or given is not None and pairs != given.size:
            raise ValueError("pairs: their number, or the frequency of each")
        if not (0 <= positions and 0 <= pairs and 0 <= first < 1 << 64):
            raise ValueError(f"{positions} positions from {first} on, {pairs} pairs")
        self._factors: Floats = np.empty((positions, 2, pairs), arrays.F32)
        self.state = Rotary()
        status = library.sdpa_rotary_init(
            addressof(self.state),
            base if given is None else 0.0,
            None if given is None else given.ctypes.data,
            pairs,
            first,
            positions,
            self._factors.ctypes.data,
            self._factors.size,
        )
        if status:
            if status == ERROR_OPTION:
                raise Error(status, f"base {base!r}" if given is None else f"frequencies {given}")
            raise Error(status, f"{positions} positions from {first} on, {pairs} pairs")

    @property
    def cosines(self) -> Floats:
        """Positions × pairs. `rotate` takes what stands here: a checkpoint's own cosines may be written into it."""
        return self._factors[:, 0]

    @property
    def sines(self) -> Floats:
        """As `cosines`."""
        return self._factors[:, 1]

    @property
    def positions(self) -> range:
        first = int(self.state.first)
        return range(first, first + len(self._factors))


def rotate(
    x: ArrayLike,
    table: RotaryTable,
    position: int = 0,
    *,
    pairs: str = "halves",
    heads_axis: int = 0,
    out: Optional[ArrayLike] = None,
    backend: Optional[str] = None,
) -> Floats:
    """Turns each pair of columns of queries or keys by the angle of its token: the first is at `position`, each at the next
    one. `x` is tokens × dim, or heads as `heads_axis` says; `out` may be `x` itself (in place).

    `pairs`: "halves" (column i of the first and of the second half: GPT-NeoX, `rotate_half`) or "interleaved" (columns 2i and
    2i + 1: GPT-J). Where the table has fewer than dim / 2 pairs, the first columns turn and the rest is copied.
    """
    if pairs not in PAIRS:
        raise ValueError(f"pairs: {pairs!r} is none of {', '.join(PAIRS)}")
    if not 0 <= operator.index(position) < 1 << 64:
        raise ValueError(f"position: {position}")
    source = array_of(x, "x")
    to = np.empty(source.shape, arrays.F32) if out is None else target(out, "out")
    views = [arrays.heads(source, "x", heads_axis), arrays.heads(to, "out", heads_axis)]
    for view, array in zip(views, (source, to)):
        view.data = array.ctypes.data
    try:
        of_table = c_void_p(addressof(table.state))
    except AttributeError:
        raise TypeError(f"table: a {type(table).__name__} is no RotaryTable") from None
    status = library.sdpa_rotate_on(handle(backend), views[0], of_table, position, PAIRS[pairs], views[1])
    if status:
        raise Error(status, f"x {source.shape}, out {to.shape}, position {position} of {table.positions}")
    return to
