#!/usr/bin/env python3
"""The most memory that a rank ever has is its share of weights and cache, and rooms that depend on the widths of a model alone:
more layers add their weights and nothing else, whatever form they have in the file and in memory.

usage: peak.py PDT [--ranks 2,4]
"""
import json
import os
import tempfile

import harness

# MiB that a rank may have beside weights and cache more with 10 layers than with 2: tables of layers and what the C library's heap
# leaves over (seen to differ by 9 from run to run), and of the weights what is left at a slab's end, a huge page of 64 MiB. Holding
# them twice would be four fifths of them.
SLACK, ENDS = 12, 1 / 32
SHAPE = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 1024, "intermediate_size": 2816,
         "num_hidden_layers": 10, "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 8192,
         "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 512, "tie_word_embeddings": True}


def make(pdt, folder, shape, dtype):
    model, config = os.path.join(folder, "model"), os.path.join(folder, "shape.json")
    os.makedirs(folder)
    with open(config, "w") as f:
        json.dump(shape, f)
    for words in (["model", "random", "--config", config, "--dtype", dtype, "--out", model],
                  *([["model", "convert", model, os.path.join(folder, "q4_0.gguf"), "--quantize", "q4_0"]] if dtype == "BF16" else []),
                  ["sidecar", "init", "--model", model, "--out", os.path.join(folder, "sidecar"), "--streams", 2, "--random", "--layers", 1]):
        result = harness.run([pdt, *words])
        if result.status != 0:
            raise harness.Failed(result.err.strip())
    return folder


def beside(pdt, folder, model, ranks, *flags):
    """MiB of weights of the rank that has most, and of each rank's peak what is neither weights nor cache, at the most."""
    request = os.path.join(folder, "request.json")
    with open(request, "w") as f:
        json.dump({"prompt_ids": [1, 2, 3], "settings": {"streams": 2, "max_tokens": 8}}, f)
    result = harness.run([pdt, "decode", "--model", os.path.join(folder, model), "--sidecar", os.path.join(folder, "sidecar"), "--request",
                          request, "--tp", ranks, "--threads", 1, "--verbose", "--json", *flags], ranks if ranks > 1 else 0)
    lines = result.err.splitlines()
    try:
        head = next(i for i, x in enumerate(lines) if x.split()[:2] == ["rank", "weights"])
        rows = [[float(y) for y in x.split()[1:]] for x in lines[head + 1:head + 1 + ranks]]
        return max(r[0] for r in rows), max(r[-1] - r[0] - r[-2] for r in rows)
    except (StopIteration, IndexError, ValueError):
        raise harness.Failed(f"no table of ranks: {result.err.strip()}")


def peaks(pdt, ranks):
    wrong = []
    with tempfile.TemporaryDirectory() as scratch:
        forms = {"F32": (("F32", "model", []),), "BF16": (("BF16", "model", []), ("BF16 to Q8_0", "model", ["--quantize", "q8_0"]), ("Q4_0", "q4_0.gguf", []))}
        for dtype in forms:
            large = make(pdt, os.path.join(scratch, dtype), SHAPE, dtype)
            small = make(pdt, os.path.join(scratch, dtype + "-small"), {**SHAPE, "num_hidden_layers": 2}, dtype)
            for n in (1, *ranks):
                for name, model, flags in forms[dtype]:
                    weights, more = beside(pdt, large, model, n, *flags)
                    _, little = beside(pdt, small, model, n, *flags)
                    print(f"{name}, {n} ranks: {weights:.1f} MiB of weights, {more:.1f} beside them and the cache, {little:.1f} with fewer layers")
                    if more > little + SLACK + ENDS * weights:
                        wrong.append(f"{name}, {n} ranks: {more:.1f} MiB beside {weights:.1f} of weights, {little:.1f} with fewer layers")
    return "; ".join(wrong) or None


def main():
    pdt, ranks = harness.arguments("2,4")
    harness.run_checks([("peaks", lambda: peaks(pdt, ranks))])


if __name__ == "__main__":
    main()
