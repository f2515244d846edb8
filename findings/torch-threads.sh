#!/usr/bin/env bash
# torch 2.15.0 (CPU): the bits of attention depend on the number of threads, under MKL_CBWR too.
#
# scaled_dot_product_attention of one head over 1000 keys of 64 columns, f32: 8 queries give other bits with two and three
# threads than with one; 1 and 64 queries do not. Runs with the same number of threads agree. Which numbers of queries
# differ depends on the code that MKL takes: without a variable, on a core with AVX-512, 1 and 32 do, with
# MKL_ENABLE_INSTRUCTIONS=AVX2 all from 4 to 128. MKL_CBWR=COMPATIBLE is the code that every x86-64 runs.
set -euo pipefail
[ "$(uname -m)" = x86_64 ] && grep -qw avx2 /proc/cpuinfo || { echo "this needs an x86-64 with AVX2" && exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --no-cache-dir torch==2.15.0 numpy==2.4.6 # 5.4 GB
cat >threads.py <<'END'
import numpy as np
import torch

random = np.random.default_rng(1)
k, v = (torch.from_numpy(random.standard_normal((1, 1, 1000, 64), dtype=np.float32)) for _ in range(2))
for queries in (1, 8, 64):
    q = torch.from_numpy(random.standard_normal((1, 1, queries, 64), dtype=np.float32))
    outputs = []
    for threads in (1, 1, 2, 2, 3, 3):
        torch.set_num_threads(threads)
        outputs.append(torch.nn.functional.scaled_dot_product_attention(q, k, v))
    again = all(torch.equal(a, b) for a, b in zip(outputs[::2], outputs[1::2]))
    equal = [torch.equal(outputs[0], out) for out in outputs[2::2]]
    print(f"{queries} queries: twice the same {again}, 2 threads as 1 {equal[0]}, 3 threads as 1 {equal[1]}")
END
ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=COMPATIBLE env/bin/python threads.py | tee seen
diff seen - <<'END'
1 queries: twice the same True, 2 threads as 1 True, 3 threads as 1 True
8 queries: twice the same True, 2 threads as 1 False, 3 threads as 1 False
64 queries: twice the same True, 2 threads as 1 True, 3 threads as 1 True
END
