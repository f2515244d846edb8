#!/usr/bin/env python3
"""Embeddings and attention patterns of all-MiniLM-L6-v2 by PyTorch, for tests/encode.rs and tests/draw.rs: writes
tests/data/minilm.json and tests/data/patterns.json.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 safetensors==0.8.0 tokenizers==0.23.3
    venv/bin/python reference.py target/weights
"""

import json
import pathlib
import sys

import safetensors
import tokenizers
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "A man is riding a horse.",
    "Attention!",
    "",
    "Ein Mädchen trägt ein Kind: “naïve café”, 東京 and 1234567890.",
    "Scaled dot-product attention weighs the value of every key by how well the key answers the query. " * 30,
]
TEXT, LAYER = "a fluffy blue creature roamed the verdant forest", 2
LAYERS, HEADS, EPSILON, LONGEST = 6, 12, 1e-12, 256


def encode(weights, tokenizer, sentences):
    """BERT as in Devlin et al. (2018), mean pooling and length 1 as in Reimers and Gurevych (2019)."""
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding()
    batch = tokenizer.encode_batch(sentences)
    ids = torch.tensor([sentence.ids for sentence in batch])
    mask = torch.tensor([sentence.attention_mask for sentence in batch])

    def linear(x, name):
        return F.linear(x, weights[name + ".weight"], weights[name + ".bias"])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], weights[name + ".weight"], weights[name + ".bias"], EPSILON)

    def heads(x):
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    embedding = lambda name: weights[f"embeddings.{name}_embeddings.weight"]
    x = embedding("word")[ids] + embedding("position")[: ids.shape[1]] + embedding("token_type")[0]
    x = norm(x, "embeddings.LayerNorm")
    patterns = []
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}."
        q, k, v = (heads(linear(x, name + "attention.self." + of)) for of in ("query", "key", "value"))
        patterns.append((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :].bool())
        out = linear(out.transpose(1, 2).flatten(2), name + "attention.output.dense")
        x = norm(x + out, name + "attention.output.LayerNorm")
        out = linear(F.gelu(linear(x, name + "intermediate.dense")), name + "output.dense")
        x = norm(x + out, name + "output.LayerNorm")
    mask = mask[:, :, None].to(x.dtype)
    return F.normalize((x * mask).sum(1) / mask.sum(1), dim=1), patterns, batch


def write(name, result):
    versions = {module.__name__: module.__version__ for module in (torch, tokenizers, safetensors)}
    path = pathlib.Path(__file__).parent / "tests/data" / name
    path.write_text(json.dumps({"versions": versions, **result}, ensure_ascii=False, separators=(",", ":")) + "\n")


def main():
    folder = pathlib.Path(sys.argv[1]) / "minilm"
    weights = load_file(folder / "model.safetensors")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    with torch.inference_mode():
        embeddings, _, batch = encode(weights, tokenizer, SENTENCES)
        double = {name: tensor.double() for name, tensor in weights.items() if tensor.is_floating_point()}
        exact, _, _ = encode(double, tokenizer, SENTENCES)
        _, patterns, [tokens] = encode(double, tokenizer, [TEXT])
    print("in f32 PyTorch is off from f64 by", (embeddings - exact).abs().max().item())
    # Of the computation in f64, which f32 is within rounding of.
    rounded = lambda rows: [[round(x, 9) for x in row] for row in rows.tolist()]
    lengths = [sum(sentence.attention_mask) for sentence in batch]
    write("minilm.json", {"sentences": SENTENCES, "tokens": lengths, "embeddings": rounded(exact)})
    # Heads × keys × queries: PyTorch has a row per query.
    patterns = [rounded(head) for head in patterns[LAYER][0].mT]
    write("patterns.json", {"text": TEXT, "layer": LAYER, "tokens": tokens.tokens, "patterns": patterns})


main()
