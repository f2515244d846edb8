"""Rotary position embedding against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sdpa


def rotated(x: Any, cosines: Any, sines: Any, pairs: str) -> Any:
    out, n = x.astype(np.float64), cosines.shape[1]
    a, b = (slice(0, n), slice(n, 2 * n)) if pairs == "halves" else (slice(0, 2 * n, 2), slice(1, 2 * n, 2))
    out[..., a] = x[..., a] * cosines - x[..., b] * sines
    out[..., b] = x[..., b] * cosines + x[..., a] * sines
    return out


def angles(positions: Any, frequencies: Any) -> Any:
    angle = np.outer(np.asarray(positions, np.float64), frequencies)
    return np.cos(angle), np.sin(angle)


@pytest.mark.parametrize("pairs", ["halves", "interleaved"])
def test_rotations(floats: Any, pairs: str, backend: str) -> None:
    base = 10_000.0 ** (-np.arange(4) / 4)
    given = np.array([1.0, -0.25, 0.5, 0.0], np.float32)
    for table, frequencies in (
        (sdpa.RotaryTable(9, 4, first=100), base),
        (sdpa.RotaryTable(9, frequencies=given, first=100), given.astype(np.float64)),
    ):
        assert table.positions == range(100, 109)
        for shape, axis in ((7, 8), 0), ((3, 7, 10), 0), ((7, 3, 8), 1):
            x = floats(*shape)
            want = angles(range(101, 108), frequencies)
            np.testing.assert_allclose(table.cosines[1:8], want[0], rtol=0, atol=1e-7)
            np.testing.assert_allclose(table.sines[1:8], want[1], rtol=0, atol=1e-7)
            if axis:
                want = tuple(x[:, None] for x in want)
                cosines, sines = (np.broadcast_to(x, (7, 3, 4)).reshape(21, 4) for x in want)
                expected = rotated(x.reshape(21, 8), cosines, sines, pairs).reshape(x.shape)
            else:
                expected = rotated(x, *want, pairs)
            out = sdpa.rotate(x, table, 101, pairs=pairs, heads_axis=axis, backend=backend)
            assert out.dtype == np.float32
            np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)
            there = x.copy()
            assert sdpa.rotate(there, table, 101, pairs=pairs, heads_axis=axis, out=there, backend=backend) is there
            np.testing.assert_array_equal(there, out)


def test_refusals(floats: Any) -> None:
    table, x = sdpa.RotaryTable(5, 2), floats(3, 4)
    out = np.full((3, 4), 7, np.float32)
    for wrong in (
        lambda: sdpa.rotate(x, table, 3, out=out),
        lambda: sdpa.rotate(x, table, -1, out=out),
        lambda: sdpa.rotate(x, table, out=out[:2]),
        lambda: sdpa.rotate(x, table, pairs="thirds", out=out),
        lambda: sdpa.rotate(x[:, :3], table, out=out[:, :3]),
        lambda: sdpa.RotaryTable(5),
        lambda: sdpa.RotaryTable(5, 3, frequencies=x[0]),
        lambda: sdpa.RotaryTable(5, 2, base=0.5),
        lambda: sdpa.RotaryTable(5, 2, first=(1 << 53) - 4),
        lambda: sdpa.RotaryTable(5, 0),
        lambda: sdpa.RotaryTable(-1, 2),
    ):
        with pytest.raises(ValueError):
            wrong()
    assert (out == 7).all()
    with pytest.raises(TypeError):
        sdpa.rotate(x.astype(np.float64), table)
