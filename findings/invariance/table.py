"""Prints the table of invariance as Markdown: table.py LIBRARY=PYTHON …

Each PYTHON is an interpreter that has the library. Fails if a row of sdpa is not "yes" that must be.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import numpy

from libraries import LIBRARIES

MEASURE = pathlib.Path(__file__).with_name("measure.py")
NAMES = {"sdpa": "sdpa", "torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "jax": "JAX"}
ROWS = {
    "queries": "1 query of a call, or 64",
    "tile": "2 queries of a call, or 3 to 800 (other tiles)",
    "batch": "4 heads of a call, or 32",
    "chunks": "causal prefill whole, or in chunks of 32, 100 and 256",
    "decoding": "causal prefill, or decoding",
    "cache": "decoding from a cache, or from arrays",
    "threads": "1, 2 and 3 threads",
    "avx512 avx2": "AVX-512, or AVX2",
    "avx2 sse": "AVX2, or SSE",
}


def cell(equal, count):
    if equal == count:
        return "yes"
    share = 100 - 100 * equal / count
    return f"no: {share:.0f} %" if share >= 1 else "no: < 1 %"


def column(name, python):
    def measure(threads, *more, environment={}, under=()):
        command = [*under, python, MEASURE, name, str(threads), *more]
        done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"{name}: {command} failed")
        return [line.split("\t") for line in done.stdout.splitlines()]

    (_, version), *lines = measure(1)
    rows = {row: cell(int(equal), int(count)) for row, equal, count in lines}

    with tempfile.TemporaryDirectory() as folder:
        outputs = {}

        def dump(key, threads, **more):
            file = f"{folder}/{key}.npy"
            measure(threads, file, **more)
            outputs[key] = numpy.load(file)

        def compare(*keys):
            first, *others = (outputs[key] for key in keys)
            same = sum((first.view("u4") == other.view("u4")).sum() for other in others)
            return cell(int(same), first.size * len(others))

        for threads in (1, 2, 3):
            dump(f"threads {threads}", threads)
        rows["threads"] = compare("threads 1", "threads 2", "threads 3")
        for isa, (environment, under) in LIBRARIES[name].isas.items():
            dump(isa, 1, environment=environment, under=under)
        for pair in ("avx512 avx2", "avx2 sse"):
            rows[pair] = compare(*pair.split()) if set(pair.split()) <= outputs.keys() else "does not run"
    return version, rows


columns = {name: column(name, python) for name, python in (argument.split("=") for argument in sys.argv[1:])}
print("| equal bits of |", *(f"{NAMES[name]} {version} |" for name, (version, _) in columns.items()))
print("| --- |", *("--- |" for _ in columns))
for row, text in ROWS.items():
    print(f"| {text} |", *(f"{rows[row]} |" for _, rows in columns.values()))
broken = [row for row in ROWS if row != "avx2 sse" and columns["sdpa"][1][row] != "yes"]
if broken:
    sys.exit(f"sdpa breaks its promise: {broken}")
