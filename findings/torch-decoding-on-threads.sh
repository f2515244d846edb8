#!/usr/bin/env bash
# torch 2.15.0 (CPU): the bits of one query over a long context depend on the number of threads.
#
# scaled_dot_product_attention of one query and one head over 20000 keys, f32: with two threads some outputs differ from
# those of one, with three threads others. Two runs with the same number of threads agree, and so do 64 queries on
# any number of threads. Seen with AVX-512 and, as here, with ATEN_CPU_CAPABILITY=avx2.
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
k, v = (torch.from_numpy(random.standard_normal((1, 1, 20000, 64), dtype=np.float32)) for _ in range(2))
for queries in (1, 64):
    q = torch.from_numpy(random.standard_normal((1, 1, queries, 64), dtype=np.float32))
    outputs = []
    for threads in (1, 1, 2, 2, 3, 3):
        torch.set_num_threads(threads)
        outputs.append(torch.nn.functional.scaled_dot_product_attention(q, k, v))
    again = all(torch.equal(a, b) for a, b in zip(outputs[::2], outputs[1::2]))
    print(f"{queries} queries: again the same {again}", end="")
    for threads, out in zip((2, 3), outputs[2::2]):
        print(f", {threads} threads as 1 {torch.equal(outputs[0], out)}", end="")
    print()
END
ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 env/bin/python threads.py | tee seen
diff seen - <<'END'
1 queries: again the same True, 2 threads as 1 False, 3 threads as 1 False
64 queries: again the same True, 2 threads as 1 True, 3 threads as 1 True
END
