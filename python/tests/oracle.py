"""Attention in float64, as its definition has it; shares nothing with the package."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np


def scores(q: Any, k: Any, scale: Optional[float] = None, softcap: Optional[float] = None) -> Any:
    q, k = q.astype(np.float64), k.astype(np.float64)
    s = k @ q.T * (1 / np.sqrt(k.shape[1]) if scale is None else scale)
    return s if softcap is None else softcap * np.tanh(s / softcap)


def visible(keys: int, queries: int, causal: bool, window: Any, query_offset: int, keep: Any) -> Any:
    ahead = np.arange(keys)[:, None] - (query_offset + np.arange(queries))[None]
    seen = np.ones((keys, queries), bool) if keep is None else keep != 0
    left, right = window or (None, None)
    if causal:
        seen = seen & (ahead <= 0)
    if left is not None:
        seen = seen & (ahead >= -left)
    if right is not None:
        seen = seen & (ahead <= right)
    return seen


def pattern(
    q: Any, k: Any, scale: Any = None, softcap: Any = None, causal: bool = False, window: Any = None,
    query_offset: int = 0, bias: Any = None, keep: Any = None, sink: Any = None, slope: float = 0,
) -> Any:  # fmt: skip
    """The weights, keys × queries, and the log-sum-exp."""
    s = scores(q, k, scale, softcap) + (0 if bias is None else bias.astype(np.float64))
    s -= slope * abs(np.arange(len(k))[:, None] - (query_offset + np.arange(len(q)))[None])
    s = np.where(visible(*s.shape, causal, window, query_offset, keep), s, -np.inf)
    whole = s if sink is None else np.vstack([s, np.full((1, s.shape[1]), float(sink))])
    with np.errstate(divide="ignore", invalid="ignore"):
        top = np.maximum(whole.max(0), -1e300)
        total = np.exp(whole - top).sum(0)
        return np.where(total > 0, np.exp(s - top) / total, 0), np.log(total) + top


def attention(q: Any, k: Any, v: Any, **options: Any) -> Any:
    weights, logs = pattern(q, k, **options)
    return weights.T @ v.astype(np.float64), logs
