"""The digests of tests/common/digest.rs, which the Rust library and every board in QEMU are held to.

With SDPA_BREAK_BITS=1 one bit is wrong, as there.
"""

from __future__ import annotations

import os
import re
from typing import Any, Iterator, Optional

import numpy as np
import pytest

import sdpa
from conftest import ROOT

MASK = (1 << 64) - 1
F = np.float32
SUBNORMALS = 0x807F_FFFF
FMA = {"avx512", "avx2", "neon"}
DIGESTS = {
    name: (int(fma.replace("_", ""), 16), int(other.replace("_", ""), 16))
    for name, fma, other in re.findall(
        r"\(Operation::(\w+), +(0x[0-9a-f_]+), (0x[0-9a-f_]+)\)",
        (ROOT / "tests/common/digest.rs").read_text(encoding="utf-8"),
    )
}


class Rng:
    """That of tests/common/cases.rs, and its values and layouts."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def bits(self) -> int:
        self.state = self.state + 0x9E37_79B9_7F4A_7C15 & MASK
        z = self.state
        z = (z ^ z >> 30) * 0xBF58_476D_1CE4_E5B9 & MASK
        z = (z ^ z >> 27) * 0x94D0_49BB_1331_11EB & MASK
        return z ^ z >> 31

    def many_between(self, low: float, high: float, n: int) -> Any:
        """The same as so many of `between`, in less time."""
        z = np.uint64(self.state) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15)
        self.state = self.state + n * 0x9E37_79B9_7F4A_7C15 & MASK
        for shift, factor in (30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB):
            z = (z ^ z >> np.uint64(shift)) * np.uint64(factor)
        unit = (z ^ z >> np.uint64(31)) >> np.uint64(40)
        lo, hi = F(low), F(high)
        with np.errstate(over="ignore"):
            return np.clip(lo + (hi - lo) * (unit.astype(F) / F(16777216)), lo, hi)

    RANGES = {
        "Ordinary": (-1, 1), "OneNan": (-1, 1), "Wide": (-80, 80), "Overflowing": (1000, 1100),
        "Underflowing": (-1100, -1000), "Huge": (-3.0e38, 3.0e38),
    }  # fmt: skip

    def below(self, end: int) -> int:
        return (self.bits() >> 32) * end >> 32

    def one_in(self, n: int) -> bool:
        return self.below(n) == 0

    def pick(self, choices: Any) -> Any:
        return choices[self.below(len(choices))]

    def between(self, low: float, high: float) -> Any:
        lo, hi = F(low), F(high)
        unit = F((self.bits() >> 40) / 16777216)
        with np.errstate(over="ignore"):
            return min(max(lo + (hi - lo) * unit, lo), hi)

    KINDS = (
        "Ordinary Wide Deep Tiny Masked AllMasked Equal Overflowing Underflowing Subnormal Huge Zeros OneNan Infinite"
    ).split()

    def fill(self, n: int) -> Any:
        kind = "Ordinary" if self.one_in(2) else self.pick(self.KINDS)
        common = self.between(-80, 80)
        if kind in self.RANGES:
            x = self.many_between(*self.RANGES[kind], n)
        else:
            x = np.array([self.value(kind, common) for _ in range(n)], F)
        if kind == "OneNan" and n:
            x[self.below(n)] = np.nan
        return x

    def value(self, kind: str, common: Any) -> Any:
        if kind == "Deep":
            return self.between(self.pick([-140, -95, -1]), 0)
        if kind == "Tiny":
            scale = self.pick([-50, -63, -75, -100])
            return self.between(-1, 1) * F(2.0**scale)
        if kind == "Masked":
            return -np.inf if self.one_in(2) else self.between(-10, 10)
        if kind == "AllMasked":
            return -np.inf
        if kind == "Equal":
            return common
        if kind == "Subnormal":
            return np.uint32(self.bits() & 0xFFFFFFFF & SUBNORMALS).view(F)
        if kind == "Zeros":
            return self.pick([0.0, -0.0])
        for infinity in np.inf, -np.inf:
            if self.one_in(16):
                return infinity
        return self.between(-1, 1)

    def sizes(self) -> list[int]:
        long = self.below(3)
        sizes = []
        for i in range(3):
            size = self.below(101 if i == long else 11)
            if self.one_in(4):
                size = min(size, self.pick([1, 4, 8]))
            sizes.append(size)
        return sizes

    def output(self, rows: int, cols: int, is_input: bool = False) -> Any:
        transposed = self.one_in(3)
        outer, inner = (cols, rows) if transposed else (rows, cols)
        gap = self.pick([1, 1, 1, 2, 3])
        pitch = inner * gap + self.pick([0, 0, 1, 5])
        strides = (gap, pitch) if transposed else (pitch, gap)
        start = self.pick([0, 0, 1, 3])
        length = start + (outer + 1) * pitch + 3
        repeats = is_input and self.one_in(8)
        if repeats:
            strides = self.pick([(0, strides[1]), (strides[0], 0), (0, 0)])
        floats = self.fill(length)[start:]
        view = np.lib.stride_tricks.as_strided(floats, (rows, cols), (4 * strides[0], 4 * strides[1]))
        # Columns that repeat one float have no view in C.
        return np.ascontiguousarray(view) if repeats else view

    def input(self, rows: int, cols: int) -> Any:
        return self.output(rows, cols, is_input=True)


def options(rng: Rng, keys: int, bias: Any) -> tuple[dict[str, Any], bool]:
    found: dict[str, Any] = {"query_offset": rng.below(keys + 1)}
    if rng.one_in(2):
        found["causal"] = True
    if rng.one_in(3):
        found["window"] = (rng.below(100), rng.below(100))
    scale: Optional[float] = rng.pick([1.0, -0.3, 0.0]) if rng.one_in(3) else None
    if rng.one_in(3):
        found["softcap"] = float(rng.between(0.5, 30))
    if rng.one_in(3):
        found["sink"] = float(rng.between(-3, 3))
    if rng.one_in(3):
        found["bias"] = bias
    return found | scaled(scale), scale == 0


def scaled(scale: Optional[float]) -> dict[str, Any]:
    """0 is the default in C: there the queries are multiplied by it."""
    return {} if scale is None else {"scale": scale or 1.0}


def times_zero(q: Any) -> Any:
    with np.errstate(invalid="ignore"):
        return q * F(0)


def results(operation: str, rng: Rng, backend: str) -> Iterator[Any]:
    if operation in ("Dot", "Softmax"):
        n = rng.below(1000)
        if operation == "Dot":
            yield sdpa.dot(rng.fill(n), rng.fill(n), backend=backend)
        else:
            x = rng.fill(n)
            rng_out = rng.fill(n)
            yield sdpa.softmax(x, out=rng_out, backend=backend)
    elif operation in ("SoftmaxRows", "SoftmaxColumns"):
        rows, cols, _ = rng.sizes()
        x = rng.input(rows, cols)
        yield sdpa.softmax(x, int(operation == "SoftmaxRows"), out=rng.output(rows, cols), backend=backend)
    elif operation == "Project":
        tokens, outputs, inputs = (max(size, 1) for size in rng.sizes())
        bias = rng.fill(outputs)
        bias = bias if rng.one_in(2) else None
        x, w = rng.input(tokens, inputs), rng.input(inputs, outputs)
        yield sdpa.project(x, w, bias, out=rng.output(tokens, outputs), backend=backend)
    elif operation == "Scores":
        keys, queries, dim = rng.sizes()
        dim = max(dim, 1)
        scale = rng.pick([None, 1.0, -0.3, 0.0])
        k, q = rng.input(keys, dim), rng.input(queries, dim)
        q = times_zero(q) if scale == 0 else q
        yield sdpa.scores(k, q, out=rng.output(keys, queries), backend=backend, **scaled(scale))
    elif operation == "WeightedSum":
        keys, queries, width = rng.sizes()
        width = max(width, 1)
        p, v = rng.input(keys, queries), rng.input(keys, width)
        yield sdpa.weighted_sum(p, v, out=rng.output(queries, width), backend=backend)
    elif operation == "Attention":
        keys, queries, dim = rng.sizes()
        dim, width = max(dim, 1), 1 + rng.below(10)
        bias = rng.input(keys, queries)
        given, zero = options(rng, keys, bias)
        q, k, v = rng.input(queries, dim), rng.input(keys, dim), rng.input(keys, width)
        q = times_zero(q) if zero else q
        yield from sdpa.attention(
            q, k, v, out=rng.output(queries, width), log_sum_exp=True, backend=backend, **given
        )
    elif operation == "Rotate":
        tokens, dim, _ = rng.sizes()
        dim = max(dim, 2)
        count = 1 + rng.below(dim // 2)
        first = rng.pick([0, 1000, (1 << 24) - 110, 1 << 31, (1 << 53) - 110])
        before = rng.below(3)
        if rng.one_in(2):
            table = sdpa.RotaryTable(tokens + 2, count, base=rng.pick([1.0, 10_000.0, 500_000.0]), first=first)
        else:
            frequencies = np.array([rng.between(-2, 2) for _ in range(count)], F)
            table = sdpa.RotaryTable(tokens + 2, frequencies=frequencies, first=first)
        pairs = rng.pick(["halves", "interleaved"])
        in_place = rng.one_in(2)
        x, out = rng.input(tokens, dim), rng.output(tokens, dim)
        yield sdpa.rotate(out if in_place else x, table, first + before, pairs=pairs, out=out, backend=backend)
    else:
        queries, width, _ = (max(size, 1) for size in rng.sizes())
        ours, theirs = rng.fill(queries), rng.fill(queries)
        other = rng.input(queries, width)
        out = rng.output(queries, width)
        yield from sdpa.merge(out, ours, other, theirs, in_place=True, backend=backend)


def digest(operation: str, backend: str, flip: int = 0) -> int:
    number = 0xCBF2_9CE4_8422_2325
    for case in range(100):
        for result in results(operation, Rng(case), backend):
            bits = np.ascontiguousarray(result, F).reshape(-1).view(np.uint32)
            bits = np.where(np.isnan(bits.view(F)), 0x7FC0_0000, bits).astype("<u4")
            if flip and bits.size:
                bits[0] ^= flip
                flip = 0
            for byte in bits.tobytes():
                number = (number ^ byte) * 0x0100_0000_01B3 & MASK
    return number


OPERATIONS = ["Dot", "Softmax", "SoftmaxRows", "SoftmaxColumns", "Project", "Scores", "WeightedSum", "Attention", "Merge", "Rotate"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_digests_of_rust_and_of_boards(operation: str, backend: str) -> None:
    flip = int(os.environ.get("SDPA_BREAK_BITS", "0"))
    assert digest(operation, backend, flip) == DIGESTS[operation][backend not in FMA]
