"""Compares calls of one library bit for bit: measure.py LIBRARY THREADS [FILE].

Prints the version, and for each row of the table `row<TAB>equal outputs<TAB>outputs`. With FILE
it writes outputs there instead, for table.py to compare with those of another process. Every output is first
checked against float64, within 1e-5: a wrong answer is no difference of rounding.
"""

import sys

import numpy

from libraries import LIBRARIES

HEADS, DIM = 4, 64
LENGTHS = [64, 200, 777, 1024]


def normal(seed, *shape):
    return numpy.random.default_rng(seed).standard_normal(shape, dtype=numpy.float32)


def exact(q, k, v, causal):
    q, k, v = (a.astype(numpy.float64) for a in (q, k, v))
    s = q @ k.transpose(0, 2, 1) / numpy.sqrt(DIM)
    if causal:
        n, m = s.shape[1:]
        s = numpy.where(numpy.arange(m) <= numpy.arange(m - n, m)[:, None], s, -numpy.inf)
    w = numpy.exp(s - s.max(-1, keepdims=True))
    return w @ v / w.sum(-1, keepdims=True)


def checked(out, *problem):
    assert abs(out - exact(*problem)).max() < 1e-5, "a wrong answer"
    return out


def main():
    name, threads, *file = sys.argv[1:]
    library = LIBRARIES[name](int(threads))
    attend = lambda q, k, v: checked(library.attend(q, k, v), q, k, v, False)
    causal = lambda q, k, v: checked(library.causal(q, k, v), q, k, v, True)

    if file:
        q, k, v = (normal(seed, HEADS, 777, DIM) for seed in (1, 2, 3))
        outputs = [causal(q, k, v), attend(q[:, :1], k, v)]
        q, k, v = (normal(seed, 1, tokens, DIM) for seed, tokens in ((4, 64), (5, 20000), (6, 20000)))
        outputs += [attend(q, k, v), attend(q[:, :1], k, v)]
        numpy.save(*file, numpy.concatenate([out.ravel() for out in outputs]))
        return

    print("version", library.version, sep="\t")
    seen = {}

    def compare(row, a, b):
        equal, count = seen.get(row, (0, 0))
        same = a.view(numpy.uint32) == b.view(numpy.uint32)
        seen[row] = equal + same.sum(), count + same.size

    for n in LENGTHS:
        q, k, v = (normal(seed, HEADS, 1024, DIM) for seed in (1, 2, 3))
        k, v = k[:, :n], v[:, :n]

        together = attend(q[:, :64], k, v)
        for i in range(64):
            compare("queries", together[:, i: i + 1], attend(q[:, i: i + 1], k, v))

        two = attend(q[:, :2], k, v)
        for count in [3, 4, 5, 8, 13, 16, 17, 31, 32, 33, 64, 100, 200, 800]:
            compare("tile", two, attend(q[:, :count], k, v)[:, :2])

        whole = causal(q[:, :n], k, v)
        for chunk in (32, 100, 256):
            for i in range(0, n, chunk):
                end = min(i + chunk, n)
                compare("chunks", whole[:, i:end], causal(q[:, i:end], k[:, :end], v[:, :end]))

        first = n - 64
        for i, cached in enumerate(library.cached(q[:, first:n], k, v, first), first):
            problem = q[:, i: i + 1], k[:, : i + 1], v[:, : i + 1]
            one = causal(*problem)
            compare("decoding", whole[:, i: i + 1], one)
            compare("cache", checked(cached, *problem, True), one)

        # The keys of eight sequences, which a call takes as so many heads.
        many = [normal(seed, 8 * HEADS, length, DIM) for seed, length in ((4, 1), (5, n), (6, n))]
        batch = attend(*many)
        for i in range(0, 8 * HEADS, HEADS):
            compare("batch", batch[i: i + HEADS], attend(*(a[i: i + HEADS] for a in many)))

    for row, numbers in seen.items():
        print(row, *numbers, sep="\t")


main()
