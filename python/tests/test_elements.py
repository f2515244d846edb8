"""Weights and caches of 16 and 8 bits: rounding, bits, and constants of C and Rust."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sdpa
from conftest import ROOT

NARROW = ("f16", "bf16", "i8")


@pytest.mark.parametrize("format", NARROW)
def test_rounding(floats: Any, format: str) -> None:
    a = floats(5, 8)
    got = sdpa.narrow(a, format)
    if format == "f16":
        assert np.array_equal(got.data, a.astype(np.float16))
    elif format == "bf16":
        bits = a.view(np.uint32).astype(np.uint64)
        want = (bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)
        assert np.array_equal(got.data, want.astype(np.uint16))
    else:
        scales = np.abs(a).max(1) / np.float32(127)
        assert got.scales is not None and np.array_equal(got.scales, scales)
        assert np.array_equal(got.data, np.rint(a / scales[:, None]).astype(np.int8))
    limit = {"f16": 2.0**-11, "bf16": 2.0**-8, "i8": 0.5 / 127}[format]
    assert np.abs(got.widened() - a).max() <= limit * np.abs(a).max()
    assert np.array_equal(got.T.widened(), got.widened().T)
    assert np.array_equal(sdpa.narrow(a.T, format).data, sdpa.narrow(np.ascontiguousarray(a.T), format).data)


def test_refused(floats: Any) -> None:
    a = floats(2, 3)
    for bad, format in (1e6, "f16"), (3.4e38, "bf16"), (np.inf, "i8"), (np.nan, "i8"):
        with pytest.raises(sdpa.Error, match="outside the range"):
            sdpa.narrow(np.full((2, 3), bad, np.float32), format)
    with pytest.raises(ValueError, match="format: 'int4'"):
        sdpa.narrow(a, "int4")
    with pytest.raises(TypeError, match="float64"):
        sdpa.narrow(a.astype(float), "f16")
    x, i8 = floats(4, 2), sdpa.narrow(a, "i8")
    with pytest.raises(ValueError, match="a scale for each input"):
        sdpa.project(x, i8)
    with pytest.raises(sdpa.Error, match="wrong shape: w"):
        sdpa.project(x, i8.T)
    with pytest.raises(ValueError, match="scales: 1 elements for 2"):
        sdpa.project(floats(4, 3), sdpa.Elements("i8", i8.data.T, np.ones(1, np.float32), 1))
    with pytest.raises(TypeError, match="int8 for f16"):
        sdpa.project(floats(4, 3), sdpa.Elements("f16", i8.data.T))
    with pytest.raises(ValueError, match="format: 'x'"):
        sdpa.Cache(9, 2, format=("f16", "x"))


@pytest.mark.parametrize("format", NARROW)
def test_projections(floats: Any, backend: str, format: str) -> None:
    x, bias = floats(7, 12), floats(9)
    w = sdpa.narrow(floats(9, 12), format).T
    out = sdpa.project(x, w, bias, backend=backend)
    np.testing.assert_allclose(out, x @ w.widened() + bias, atol=1e-4)
    again = np.empty_like(out)
    assert sdpa.project(x, w, bias, out=again, backend=backend) is again and np.array_equal(out, again)
    if format == "i8":
        assert w.scales is not None
        whole = sdpa.project(x, w.data.astype(np.float32), backend=backend)
        assert np.array_equal(out, whole * w.scales + bias)
    else:
        assert np.array_equal(out, sdpa.project(x, w.widened(), bias, backend=backend))
    # The layout of the weights is no matter of bits.
    dense = sdpa.Elements(format, np.ascontiguousarray(w.data), w.scales, w.axis)
    assert np.array_equal(out, sdpa.project(x, dense, bias, backend=backend))


@pytest.mark.parametrize("format", ["f16", "bf16", "i8", ("f32", "i8"), ("bf16", "f32")])
def test_caches(floats: Any, backend: str, format: Any) -> None:
    keys, values, queries = floats(90, 6), floats(90, 5), floats(3, 4, 6)
    cache, whole = sdpa.Cache(200, 6, 5, format=format), sdpa.Cache(200, 6, 5)
    pair = (format, format) if isinstance(format, str) else format
    widened = [sdpa.narrow(a, kind).widened() for a, kind in zip((keys, values), pair)]
    cache.append(keys, values)
    whole.append(*widened)
    got, logs = cache.attend(queries, causal=True, log_sum_exp=True, backend=backend)
    want, want_logs = whole.attend(queries, causal=True, log_sum_exp=True, backend=backend)
    if "i8" in pair:  # scales multiply scores and weights
        np.testing.assert_allclose(got, want, atol=1e-5)
        np.testing.assert_allclose(logs, want_logs, atol=1e-5)
    else:
        assert np.array_equal(got, want) and np.array_equal(logs, want_logs)
    states = cache.states(queries, causal=True, backend=backend)
    assert np.array_equal(sdpa.join(states, backend=backend), got)
    assert cache._storage.nbytes < whole._storage.nbytes
    cache.slide(70)
    cache.truncate(60)
    assert len(cache) == 60 and cache.dropped == 20
    bad = np.array([[np.nan, 3.4e38, 0, 0, 0, 0]], np.float32)  # for i8, and for f16 and bf16
    with pytest.raises(sdpa.Error, match="outside the range"):
        cache.append(bad, bad[:, :5])


def words(text: str, pattern: str) -> list[int]:
    return [int(word) for word in re.findall(pattern, text)]


@pytest.mark.parametrize("format", NARROW)
def test_exports(floats: Any, tmp_path: Path, format: str) -> None:
    """C computes the golden output with the exported weights."""
    x, weight, bias = floats(3, 12), floats(4, 12), floats(4)
    w = sdpa.narrow(weight, format).T
    golden = {"x": x, "out": sdpa.project(x, w, bias)}
    digest = sdpa.export({"w": w, "bias": bias}, tmp_path / "weights.h", golden=golden)
    same = sdpa.export({"w": weight.T, "bias": bias}, tmp_path / "same.h", format=format, golden=golden)
    assert digest == same == sdpa.export({"w": w, "bias": bias}, tmp_path / "weights.rs", golden=golden)
    others = [sdpa.export({"w": weight.T, "bias": bias}, tmp_path / "o.h", format=f, golden=golden) for f in ("f32", *NARROW)]
    assert len(set(others)) == 4 and others.count(digest) == 1

    scales = "w_scales" if format == "i8" else "NULL"
    (tmp_path / "main.c").write_text(f"""
#include <stdio.h>
#include <string.h>
#include "sdpa.h"
#include "weights.h"
int main(void) {{
    float out[3][4];
    const sdpa_matrix x = {{&golden_x[0][0], 3, 12, 0, 0}};
    const sdpa_matrix_mut to = {{&out[0][0], 3, 4, 0, 0}};
    const sdpa_array weights = {{w, SDPA_{format.upper()}, 1, 12, 4, 0, 0, 0, {scales}, 0, 0}};
    const int status = sdpa_project_elements(x, weights, bias, to);
    unsigned i, word;
    for (i = 0; i < 12; i++) {{ memcpy(&word, &out[0][0] + i, 4); printf("%08x\\n", word); }}
    return status + (golden_out[0][0] != golden_out[0][0]);
}}
""")
    library = Path(sdpa.__file__).parent / "libsdpa-attention.so"
    # By the name that a program asks for, which has the version.
    (tmp_path / ("libsdpa-attention.so." + ".".join(sdpa.__version__.split(".")[:2]))).symlink_to(library)
    command = ["cc", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'capi/include'}", tmp_path / "main.c", library]
    subprocess.run([*command, f"-Wl,-rpath,{tmp_path}", "-o", tmp_path / "main"], check=True)
    text = subprocess.run([tmp_path / "main"], check=True, capture_output=True, text=True).stdout
    assert sdpa.compare(text, golden["out"])

    # Rust has the same elements in the same order.
    rust = (tmp_path / "weights.rs").read_text(encoding="utf-8")
    c = (tmp_path / "weights.h").read_text(encoding="utf-8")
    pattern = rf"\b{format}\((-?\d+)\)"
    block = c[c.index(" w[12][4] =") :].split(";")[0].split("=")[1]
    want = np.ascontiguousarray(w.data).view({2: np.uint16, 1: np.int8}[w.data.itemsize]).ravel().tolist()
    assert words(rust, pattern) == words(block, r"-?\d+") == want
