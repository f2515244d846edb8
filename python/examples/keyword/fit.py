"""A small keyword classifier with one attention head: fitted here, exported for a board, and compared with it.

    fit.py FOLDER                 fits it, and writes weights.rs, weights.h and golden.npz
    fit.py FOLDER --break         likewise, but one bit of one weight differs on the board
    fit.py FOLDER --check FILE…   compares what boards have printed with golden.npz

    frames ──w_key──▶ keys   ┐
           ──w_value──▶ values ├─▶ attention of four learned queries ──w_out──▶ one score per keyword
                      queries ┘
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import sdpa

FRAMES, BANDS, DIM, KEYWORDS = 24, 12, 8, 4
QUERIES = 4
GOLDEN = 8
# The bands of the two tones of each keyword; two of them have the same tones in the other order.
TONES = [(2, 8), (8, 2), (5, 5), (10, 4)]


def sounds(rng: np.random.Generator, number: int) -> tuple[Any, Any]:
    """Powers in bands, and the time as a further column: two tones somewhere in noise."""
    spoken = rng.integers(KEYWORDS, size=number)
    x = rng.exponential(0.15, (number, FRAMES, BANDS + 1))
    x[..., BANDS] = np.linspace(0, 1, FRAMES)
    for sound, keyword in zip(x, spoken):
        begin, length = rng.integers(2, 10), rng.integers(3, 6)
        for i, tone in enumerate(TONES[keyword]):
            sound[begin + i * length : begin + (i + 1) * length, tone] += rng.uniform(0.7, 1.3)
    return x.astype(np.float32), spoken


def forward(p: dict[str, Any], x: Any) -> tuple[Any, ...]:
    k, v = x @ p["w_key"] + p["b_key"], x @ p["w_value"] + p["b_value"]
    s = k @ p["queries"].T / np.sqrt(DIM)
    e = np.exp(s - s.max(1, keepdims=True))
    pattern = e / e.sum(1, keepdims=True)
    out = pattern.transpose(0, 2, 1) @ v
    logits = out.reshape(len(x), -1) @ p["w_out"] + p["b_out"]
    return k, v, pattern, out, logits


def gradients(p: dict[str, Any], x: Any, spoken: Any) -> dict[str, Any]:
    k, v, pattern, out, logits = forward(p, x)
    e = np.exp(logits - logits.max(1, keepdims=True))
    d_logits = (e / e.sum(1, keepdims=True) - np.eye(KEYWORDS)[spoken]) / len(x)
    d_out = (d_logits @ p["w_out"].T).reshape(out.shape)
    d_v = pattern @ d_out
    d_pattern = v @ d_out.transpose(0, 2, 1)
    d_s = pattern * (d_pattern - (pattern * d_pattern).sum(1, keepdims=True)) / np.sqrt(DIM)
    d_k = d_s @ p["queries"]
    return {
        "w_key": np.einsum("nti,ntd->id", x, d_k),
        "b_key": d_k.sum((0, 1)),
        "w_value": np.einsum("nti,ntd->id", x, d_v),
        "b_value": d_v.sum((0, 1)),
        "queries": np.einsum("ntq,ntd->qd", d_s, k),
        "w_out": out.reshape(len(x), -1).T @ d_logits,
        "b_out": d_logits.sum(0),
    }


def fit(rng: np.random.Generator) -> dict[str, Any]:
    """Adam on batches of new sounds."""
    shapes = {
        "w_key": (BANDS + 1, DIM), "b_key": (DIM,), "w_value": (BANDS + 1, DIM), "b_value": (DIM,),
        "queries": (QUERIES, DIM), "w_out": (QUERIES * DIM, KEYWORDS), "b_out": (KEYWORDS,),
    }  # fmt: skip
    p = {name: 0.5 * rng.standard_normal(shape) for name, shape in shapes.items()}
    mean, square = ({name: np.zeros(shape) for name, shape in shapes.items()} for _ in range(2))
    for step in range(1, 801):
        for name, g in gradients(p, *sounds(rng, 64)).items():
            mean[name] += 0.1 * (g - mean[name])
            square[name] += 0.01 * (g * g - square[name])
            p[name] -= 0.02 * mean[name] / (1 - 0.9**step) / (np.sqrt(square[name] / (1 - 0.99**step)) + 1e-8)
    return {name: weights.astype(np.float32) for name, weights in p.items()}


def on_board(p: dict[str, Any], frames: Any) -> tuple[Any, Any]:
    """What src/main.rs and c/keyword.c do, with their bits."""
    keys = sdpa.project(frames, p["w_key"], p["b_key"], backend="portable")
    values = sdpa.project(frames, p["w_value"], p["b_value"], backend="portable")
    out = sdpa.attention(p["queries"], keys, values, backend="portable")
    return out, sdpa.project(out.reshape(1, -1), p["w_out"], p["b_out"], backend="portable")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--break", action="store_true", dest="broken")
    parser.add_argument("--check", nargs="+", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.check:
        golden = np.load(arguments.folder / "golden.npz")["outputs"]
        equal = True
        for file in arguments.check:
            comparison = sdpa.compare(file.read_text(), golden)
            print(f"{file.stem}: {comparison}")
            equal = equal and comparison.equal
        return 0 if equal else 1

    rng = np.random.default_rng(1)
    p = fit(rng)
    x, spoken = sounds(rng, 500)
    right = np.mean(forward(p, x)[-1].argmax(1) == spoken)
    print(f"fitted: {right:.1%} of 500 other sounds are right")
    if right < 0.95:
        return 1
    results = [on_board(p, frames) for frames in x[:GOLDEN]]
    outputs = np.stack([np.concatenate([out.ravel(), logits[0]]) for out, logits in results])
    assert (outputs[:, -KEYWORDS:].argmax(1) == spoken[:GOLDEN]).all()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    np.savez(arguments.folder / "golden.npz", outputs=outputs)
    if arguments.broken:
        p["w_value"].view(np.uint32)[3, 3] ^= 1
    for name in "weights.rs", "weights.h":
        digest = sdpa.export(p, arguments.folder / name, golden={"frames": x[:GOLDEN], "outputs": outputs})
    print(f"exported, with {GOLDEN} golden inputs and outputs: {digest[:16]}…")
    return 0


if __name__ == "__main__":
    sys.exit(main())
