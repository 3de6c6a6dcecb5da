#!/usr/bin/env python3
"""Sound weights whose products are too large: the same error, whatever the sampling and the layout.

usage: overflow.py PDT [--ranks 2,4]   (0: one process only)
"""
import json
import os
import tempfile

import harness
from safetensors_edit import File

CONFIG = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5, rope_theta=10000.0,
    tie_word_embeddings=False, hidden_act="silu", vocab_size=512,
)
SAMPLINGS = (
    ["--temperature", "0"], ["--temperature", "1"], ["--temperature", "0.001", "--top-k", "1"], ["--temperature", "1e6", "--top-p", "0.5"],
)
# What is made too large, and what the message names.
MODELS = {"lm_head.weight": 3e38}
SIDECARS = (
    ({"agree.out.weight": 3e38, "agree.bias": 3e38}, "readiness"),
    ({"coverage.item.weight": 1e30, "coverage.block.weight": 1e30}, "coverage"),
    ({"plan.embedding.weight": 1e30, "planner.slot.bias": 1e30}, "planner: slot 0"),
)


def run(*command):
    result = harness.run(command)
    if result.status != 0:
        raise harness.Failed(f"{command[1:3]}: {result.err.strip()}")


def make(pdt, folder):
    path = lambda name: os.path.join(folder, name)
    with open(path("config.json"), "w") as f:
        json.dump(CONFIG, f)
    for name in ("m", "large"):
        run(pdt, "model", "random", "--config", path("config.json"), "--dtype", "F32", "--out", path(name))
    run(pdt, "sidecar", "init", "--model", path("m"), "--random", "--plan-vocab", "101", "--out", path("s"))
    weights = File(path("large/model.safetensors"))
    for name, value in MODELS.items():
        weights.fill(name, value)
    weights.write(path("large/model.safetensors"))
    for i, (changes, _) in enumerate(SIDECARS):
        sidecar = File(path("s"))
        for name, value in changes.items():
            sidecar.fill(name, value)
        sidecar.write(path(f"s{i}"))
    return path


def command(pdt, path, model, sidecar, *more):
    return [
        pdt, "decode", "--model", path(model), "--sidecar", path(sidecar), "--prompt", "x", "--streams", "3", "--max-tokens", "4",
        "--threads", "1", *more,
    ]


def main():
    pdt, ranks = harness.arguments("2,4")
    with tempfile.TemporaryDirectory() as folder:
        path = make(pdt, folder)
        logits = [
            (" ".join(how), command(pdt, path, "large", "s", *how), 1, "stream 0: the logits: expected finite numbers") for how in SAMPLINGS
        ]
        heads = [
            (what, command(pdt, path, "m", f"s{i}", *SAMPLINGS[i % 2]), 1, what) for i, (_, what) in enumerate(SIDECARS)
        ]
        checks = [("one process", lambda: harness.refusals(logits + heads, "pdt decode: "))]
        for n in ranks:
            chosen = [("1", logits[0]), ("2", logits[1]), ("2", heads[1])] if n == 2 else [("2", logits[0])]
            some = [(f"{name}, groups of {tp}", [*c, "--tp", tp], status, part) for tp, (name, c, status, part) in chosen]
            checks.append((f"{n} ranks", lambda n=n, some=some: harness.refusals(some, "pdt decode: ", ranks=n)))
        harness.run_checks(checks)


if __name__ == "__main__":
    main()
