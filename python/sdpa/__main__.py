"""`python -m sdpa`: version, back ends, and an example that is checked."""

from __future__ import annotations

import sys

import numpy as np

import sdpa

# What a Cortex-M4F computes of `example`, bit for bit.
MICROCONTROLLER = "0x3e6c022c 0x3f66a215"


def example(backend: str) -> str:
    keys = np.array([[1, 0], [0, 2], [1, 1]], np.float32)
    values = np.array([[0.1, 0.9], [0.2, 1.0], [0.3, 0.7]], np.float32)
    out = sdpa.attention(np.array([[3, 4]], np.float32), keys, values, backend=backend)
    return " ".join(f"{bits:#010x}" for bits in out.view(np.uint32)[0])


def main() -> int:
    print(f"sdpa {sdpa.__version__}; back ends: {', '.join(sdpa.backends())}")
    bits = example("portable")
    print(f"attention on portable: {bits}, on a microcontroller: {MICROCONTROLLER}")
    equal = bits == MICROCONTROLLER
    print("the same bits" if equal else "OTHER BITS: this library must not be used")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
