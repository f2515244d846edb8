#!/usr/bin/env bash
# torch 2.15.0: MultiheadAttention gives a fully masked query NaN or 0, as need_weights says.
#
# With need_weights=True, the default, a query whose keys are all masked gets NaN; with need_weights=False, which is to
# drop the second result only, its output is 0. Masks in part agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --no-cache-dir torch==2.15.0 numpy==2.4.6
cat >masked.py <<'END'
import torch

torch.manual_seed(0)
layer = torch.nn.MultiheadAttention(8, 1, bias=False, batch_first=True)
x = torch.ones(1, 3, 8)
for masked in 2, 3:
    padding = torch.arange(3)[None] < masked
    for need_weights in True, False:
        with torch.no_grad():
            out, _ = layer(x, x, x, key_padding_mask=padding, need_weights=need_weights)
        kind = "NaN" if out.isnan().all() else "0" if not out.any() else "numbers"
        print(f"{masked} of 3 keys masked, need_weights={need_weights}: {kind}")
END
env/bin/python masked.py | tee seen
diff seen - <<'END'
2 of 3 keys masked, need_weights=True: numbers
2 of 3 keys masked, need_weights=False: numbers
3 of 3 keys masked, need_weights=True: NaN
3 of 3 keys masked, need_weights=False: 0
END
