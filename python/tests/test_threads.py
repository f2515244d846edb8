"""Threads call at once, the same call and others, and get the bits of one thread."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import sdpa


def test_threads_at_once(floats: Any) -> None:
    q, k, v = floats(8, 6, 16), floats(8, 40, 16), floats(8, 40, 16)
    cache = sdpa.Cache(40, 16)
    cache.append(k[0], v[0])
    want = [sdpa.attention(q[i], k[i], v[i]) for i in range(8)]
    cached = cache.attend(q)
    start = threading.Barrier(8)

    def work(i: int) -> int:
        wrong = 0
        start.wait()
        for _ in range(300):
            out, logs = sdpa.attention(q[i], k[i], v[i], log_sum_exp=True)
            wrong += not np.array_equal(out, want[i])
            wrong += not np.array_equal(sdpa.attention(q[i], k[i], v[i]), want[i])
            wrong += not np.array_equal(cache.attend(q), cached)
            wrong += not np.array_equal(
                sdpa.weighted_sum(sdpa.softmax(sdpa.scores(k[i], q[i]), 0), v[i]).shape, want[i].shape
            )
        return wrong

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(work, range(8))) == 0
    finally:
        sys.setswitchinterval(before)


def test_others_run_during_a_call(floats: Any) -> None:
    """The library runs without the interpreter's lock: this thread goes on while another computes."""
    q = floats(2000, 64)
    done, ticks = threading.Event(), 0

    def work() -> None:
        sdpa.attention(q, q, q, backend="scalar")
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        time.sleep(0.001)
        ticks += 1
    thread.join()
    assert ticks > 20


def test_appending_while_others_attend(floats: Any) -> None:
    q, k = floats(2, 16), floats(64, 16)
    cache = sdpa.Cache(64, 16)
    cache.append(k, k)
    stop = threading.Event()
    failed = []

    def attend() -> None:
        while not stop.is_set():
            try:
                out = cache.attend(q, keep=np.ones(64, np.bool_))
            except ValueError:  # between the two calls below it holds 63 keys
                continue
            if not np.isfinite(out).all():
                failed.append(out)

    threads = [threading.Thread(target=attend) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(500):
        cache.slide(63)
        cache.append(k[i % 64], k[i % 64])
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed and cache.appended == 564
