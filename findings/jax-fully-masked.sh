#!/usr/bin/env bash
# jax 0.10.2: a query without a visible key gets the mean of the masked values; under a bias of -inf it gets NaN.
#
# jax.nn.dot_product_attention replaces masked scores by -0.7 times the largest f32. Where `mask` hides every key, or
# key_value_seq_lengths is 0, these are all equal, and every masked value gets the weight 1/n. A bias of -inf, which
# masks as well, gives NaN there. PyTorch 2.15.0 and ONNX Runtime 1.32.0 give 0 for both masks.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --no-cache-dir jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cat >masked.py <<'END'
import numpy as np
from jax.nn import dot_product_attention as attention

ones = np.ones((1, 8, 1, 16), np.float32)
values = ones * np.arange(8, dtype=np.float32)[:, None, None]
query = ones[:, :1]
for name, options in {
    "mask": {"mask": np.zeros((1, 1, 1, 8), bool)},
    "length 0": {"key_value_seq_lengths": np.array([0])},
    "bias -inf": {"bias": np.full((1, 1, 1, 8), -np.inf, np.float32)},
    "mask of all but keys 0 and 1": {"mask": np.arange(8)[None, None, None] < 2},
}.items():
    print(f"{name}: {attention(query, ones, values, **options)[0, 0, 0, 0]}")
END
JAX_PLATFORMS=cpu env/bin/python masked.py | tee seen
diff seen - <<'END'
mask: 3.5
length 0: 3.5
bias -inf: nan
mask of all but keys 0 and 1: 0.5
END
