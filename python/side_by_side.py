"""Attention of NumPy, PyTorch, ONNX Runtime, JAX and this package on the same input: the table of docs/python.md.

    pip install ./python torch onnx onnxruntime jax numpy    (docs/python.md has the versions)
    python python/side_by_side.py [--write-docs]

Of each library what is installed. One head, 64 queries over 1024 keys, 64 columns, normal numbers, one thread.

* ULP: the largest difference to float64 of an element of an output, in units of the last place of the largest element of
  that output.
* 1 and 64: whether 64 calls of one query give the bits of one call of 64.

Fails if this package is worse than it promises.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np

import sdpa

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "findings/invariance"))
from libraries import LIBRARIES  # noqa: E402  the other libraries, as that finding calls them

NAMES = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "jax": "JAX"}
BEGIN, END = "| library | ULP | 1 and 64 queries |", "<!-- side_by_side.py -->"


def in_numpy(q: Any, k: Any, v: Any) -> Any:
    s = q @ k.transpose(0, 2, 1) / np.sqrt(q.dtype.type(q.shape[2]))
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ v


def rows() -> list[tuple[str, float, bool]]:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, tokens, 64)).astype(np.float32) for tokens in (64, 1024, 1024))
    want = in_numpy(*(array.astype(np.float64) for array in (q, k, v)))
    unit = np.spacing(np.abs(want).max(-1, keepdims=True).astype(np.float32)).astype(np.float64)

    libraries: dict[str, Callable[..., Any]] = {}
    for backend in sdpa.backends():
        libraries[f"sdpa {sdpa.__version__}, `{backend}`"] = lambda *qkv, on=backend: sdpa.attention(*qkv, backend=on)
    libraries[f"NumPy {np.__version__}"] = in_numpy
    for module, name in NAMES.items():
        try:
            version = importlib.metadata.version(module).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            print(f"not installed: {module}")
            continue
        libraries[f"{name} {version}"] = LIBRARIES[module](1).attend

    found = []
    for name, attend in libraries.items():
        whole = attend(q, k, v)
        single = np.concatenate([attend(q[:, i : i + 1], k, v) for i in range(q.shape[1])], 1)
        found.append((name, float((np.abs(whole - want) / unit).max()), np.array_equal(whole, single)))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-docs", action="store_true")
    write_docs = parser.parse_args().write_docs
    found = rows()
    table = [BEGIN, "| --- | ---: | --- |"]
    table += [f"| {name} | {ulp:.2f} | {'the same bits' if equal else 'other bits'} |" for name, ulp, equal in found]
    cpu = next((line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    print("\n".join([*table, "", f"{cpu or platform.machine()}, {platform.python_implementation()} {platform.python_version()}"]))
    ours = [row for row in found if row[0].startswith("sdpa")]
    if not all(equal and ulp < 12 for _, ulp, equal in ours):
        print("sdpa is worse than it promises")
        return 1
    if write_docs:
        page = ROOT / "docs/python.md"
        text = page.read_text(encoding="utf-8")
        before, after = text.index(BEGIN), text.index(END)
        page.write_text(text[:before] + "\n".join(table) + "\n\n" + text[after:], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
