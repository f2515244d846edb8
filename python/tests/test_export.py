"""Constants that compilers read as the same bits; comparisons."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sdpa


@pytest.fixture
def awkward(rng: np.random.Generator) -> Any:
    """Any bits but infinities and NaN: subnormals, the largest, -0."""
    bits = rng.integers(0, 1 << 32, 600, np.uint32)
    bits = bits[bits >> 23 & 0xFF != 0xFF][:400]
    bits[:5] = [0, 0x80000000, 1, 0x807FFFFF, 0x7F7FFFFF]
    return bits.view(np.float32).reshape(20, 20)


def build_c(folder: Path, compiler: str, flags: list[str]) -> str:
    source = folder / "print.c"
    source.write_text("""
#include "weights.h"
#include <stdio.h>
#include <string.h>
static void print(const float *x, size_t n) {
    unsigned bits;
    size_t i;
    for (i = 0; i < n; i++) { memcpy(&bits, x + i, 4); printf("%08x\\n", bits); }
}
int main(void) {
    print(&layer[0][0], sizeof layer / 4);
    print(golden_output, sizeof golden_output / 4);
    return (int)((size_t)layer % 16) + 2 * (strlen(SDPA_DIGEST) != 64);
}
""")
    subprocess.run([compiler, *flags, "-Wall", "-Wextra", "-Werror", source, "-o", folder / "print"], check=True)
    return subprocess.run([folder / "print"], check=True, capture_output=True, text=True).stdout


def build_rust(folder: Path) -> str:
    (folder / "main.rs").write_text("""
#[path = "weights.rs"]
mod weights;
use weights::{DIGEST, GOLDEN_OUTPUT, LAYER};
fn main() {
    for x in LAYER.iter().flatten().chain(GOLDEN_OUTPUT.iter()) { println!("{:08x}", x.to_bits()); }
    assert!(DIGEST.len() == 64 && LAYER.as_ptr() as usize % 16 == 0);
}
""")
    subprocess.run(["rustc", "--edition=2021", "-Dwarnings", folder / "main.rs", "-o", folder / "main"], check=True)
    return subprocess.run([folder / "main"], check=True, capture_output=True, text=True).stdout


def test_bits_reach_c_and_rust(awkward: Any, tmp_path: Path) -> None:
    output = awkward[3]
    digests = [
        sdpa.export({"layer": awkward.T}, tmp_path / name, golden={"output": output}) for name in ("weights.h", "weights.rs")
    ]
    assert digests[0] == digests[1] and digests[0] in (tmp_path / "weights.rs").read_text(encoding="utf-8")
    want = np.concatenate([awkward.T.ravel(), output])
    texts = [build_c(tmp_path, "cc", ["-std=c11", "-Wpedantic"]), build_c(tmp_path, "c++", ["-x", "c++", "-std=c++17"])]
    for text in [*texts, build_rust(tmp_path)]:
        assert sdpa.compare(text, want)
    wrong = want.copy()
    wrong[7] = np.nextafter(wrong[7], np.float32(1))
    assert not sdpa.compare(texts[0], wrong)


def test_linear_layers_are_transposed(floats: Any, tmp_path: Path) -> None:
    class Parameter:
        requires_grad = True

        def __init__(self, array: Any) -> None:
            self.array = array

        def detach(self) -> Any:
            return self.array

    weight, bias, x = floats(5, 3), floats(5), floats(2, 3)
    layer = SimpleNamespace(weight=Parameter(weight), bias=Parameter(bias))
    same = sdpa.export({"layer": weight.T, "layer_bias": bias}, tmp_path / "a.rs")
    assert sdpa.export({"layer": layer}, tmp_path / "b.rs") == same
    assert "[[f32; 5]; 3]" in (tmp_path / "b.rs").read_text(encoding="utf-8")
    np.testing.assert_allclose(sdpa.project(x, weight.T, bias), x @ weight.T + bias, atol=1e-6)
    layer.bias = None
    assert sdpa.export({"layer": layer}, tmp_path / "c.rs") == sdpa.export({"layer": weight.T}, tmp_path / "d.rs")


def test_safetensors(floats: Any, tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    arrays = {"encoder.layer.0.weight": floats(3, 4), "b": floats(4)}
    numpy.save_file(arrays, tmp_path / "model.safetensors")
    digest = sdpa.export(tmp_path / "model.safetensors", tmp_path / "weights.h")
    assert digest == sdpa.export(dict(sorted(arrays.items())), tmp_path / "other.h")
    assert "encoder_layer_0_weight[3][4]" in (tmp_path / "weights.h").read_text(encoding="utf-8")


def test_names_that_are_taken_and_two_headers(floats: Any, tmp_path: Path) -> None:
    for name, file in ("int", "a.h"), ("while", "a.h"), ("requires", "a.h"), ("digest", "a.rs"):
        with pytest.raises(ValueError, match="no name for a constant"):
            sdpa.export({name: floats(2)}, tmp_path / file)
    sdpa.export({"int": floats(2), "while": floats(2)}, tmp_path / "a.rs")
    for name in "first", "second":
        sdpa.export({name: floats(2)}, tmp_path / f"{name}.h")
    (tmp_path / "both.c").write_text('#include "first.h"\n#include "first.h"\n#include "second.h"\n')
    compiled = subprocess.run(["cc", "-fsyntax-only", "both.c"], cwd=tmp_path, capture_output=True, text=True)
    assert "two files of sdpa.export" in compiled.stderr


def test_a_digest_is_of_names_shapes_and_bits(floats: Any, tmp_path: Path) -> None:
    a, to = floats(2, 6), tmp_path / "w.rs"
    other = a.copy()
    other.view(np.uint32)[0, 0] ^= 1
    cases = [{"a": a}, {"b": a}, {"a": a.reshape(3, 4)}, {"a": other}]
    assert len({sdpa.export(arrays, to) for arrays in cases}) == 4
    assert len({sdpa.export({"a": a}, to, golden=golden) for golden in (None, {"x": a})}) == 2


def test_refused_exports(floats: Any, tmp_path: Path) -> None:
    a = floats(2, 2)
    cases: list[tuple[type[Exception], str, Any, str, dict[str, Any]]] = [
        (ValueError, "neither", {"a": a}, "w.txt", {}),
        (ValueError, "format: 'bf8' for f32, f16, bf16, i8", {"a": a}, "w.rs", {"format": "bf8"}),
        (sdpa.Error, "outside the range", {"a": a * np.float32(1e6)}, "w.rs", {"format": "f16"}),
        (ValueError, "a scale for each input", {"a": sdpa.narrow(a, "i8")}, "w.rs", {}),
        (TypeError, "a: float64", {"a": a.astype(float)}, "w.rs", {}),
        (ValueError, "infinity or NaN", {"a": a * np.float32(np.nan)}, "w.rs", {}),
        (ValueError, "at least one", {"a": a[:0]}, "w.rs", {}),
        (ValueError, "no name", {"0a": a}, "w.rs", {}),
        (ValueError, "would have the name", {"a.b": a, "A_B": a}, "w.rs", {}),
        (ValueError, "there are none", {}, "w.rs", {}),
        (ValueError, "no .safetensors", "model.bin", "w.rs", {}),
        (ValueError, "does not say which axis", "model.safetensors", "w.rs", {"format": "i8"}),
    ]
    for kind, words, arrays, name, options in cases:
        with pytest.raises(kind, match=words):
            sdpa.export(arrays, tmp_path / name, **options)
        assert not (tmp_path / name).exists()


def test_comparisons(floats: Any) -> None:
    golden = floats(4, 5)
    assert sdpa.compare(golden.copy(), golden).equal
    text = "frame 3\n" + "\n".join(f"{bits:08x}" for bits in golden.view(np.uint32).ravel())
    assert str(sdpa.compare(text, golden)) == "all 20 floats have the same bits"
    other = golden.copy()
    other.view(np.uint32)[1, 2] += 1
    other.view(np.uint32)[3, 4] += 9
    found = sdpa.compare(other, golden)
    assert not found and (found.different, found.first, found.max_ulp, found.worst) == (2, (1, 2), 9, (3, 4))
    assert "first at [1, 2]" in str(found) and "at most 9 ULP, at [3, 4]" in str(found)
    zeros = np.zeros(2, np.float32)
    assert sdpa.compare(-zeros, zeros).max_ulp == 1
    nan = np.array([np.nan, 1], np.float32)
    assert sdpa.compare(nan, nan).equal and sdpa.compare(nan, zeros).max_ulp == np.inf
    with pytest.raises(ValueError, match="3 floats for 20"):
        sdpa.compare(golden.ravel()[:3], golden)
