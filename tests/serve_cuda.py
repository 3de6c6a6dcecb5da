#!/usr/bin/env python3
"""pdt serve where a GPU computes, on the CPU's twin of one: logprobs are those that the CPU tells.

usage: serve_cuda.py PDT_CUDA_ON_HOST [--layouts 1x1,2x2] [--only PART]

The tokens must be the same and the values as near as float32 sums are; the likeliest may change places
where they are nearer to each other than that.
"""
import json
import os

import harness
import serve

# Few tokens: fibers take seconds for a step.
ASKED = [
    ({"prompt": "Sketch", "sections": serve.HEADS[:2], "max_tokens": 4, "settings": {"block_tokens": 2, "horizon": 4}}, 4),
    ({"prompt": "Sketch", "sections": serve.HEADS[1:2], "max_tokens": 2, "temperature": 0.9, "seed": 3}, 0),
]


def near(a, b):
    return abs(a - b) <= harness.TOLERANCE * (1 + abs(b))


def differs(got, want):
    """What is wrong with the logprobs of a GPU beside those of the CPU."""
    for key in ("tokens", "text_offset"):
        if got[key] != want[key]:
            return f"{key} {got[key]}, expected {want[key]}"
    if not all(map(near, got["token_logprobs"], want["token_logprobs"])):
        return f"values {got['token_logprobs']}, expected {want['token_logprobs']}"
    for i, (own, other) in enumerate(zip(got["top_logprobs"] or [], want["top_logprobs"] or [])):
        if len(own) != len(other) or not all(map(near, sorted(own.values()), sorted(other.values()))):
            return f"token {i}: the likeliest {own}, expected {other}"
        if any(not near(value, other.get(token, min(other.values()))) for token, value in own.items()):
            return f"token {i}: the likeliest {own}, expected {other}"
    return None


def answers(pdt, layout, device):
    """Logprobs of what is asked, each of them twice and once without: nothing else may be changed by them."""
    told = []
    with serve.Server(pdt, layout, ["--device", device]) as server:
        for body, top in ASKED:
            plain = json.loads(server.good("/v1/completions", body))["choices"][0]
            first, second = (json.loads(server.good("/v1/completions", dict(body, logprobs=top)))["choices"][0] for _ in range(2))
            if first != second:
                raise harness.Failed(f"{layout}, {device}: {second}, at first {first}")
            if dict(first, logprobs=None) != plain:
                raise harness.Failed(f"{layout}, {device}: {first}, without logprobs {plain}")
            told.append((first["text"], first["logprobs"]))
        if server.stop():
            raise harness.Failed(server.said())
    return told


def check(pdt, layout, wanted):
    for (text, got), (right, want) in zip(answers(pdt, layout, "cuda"), wanted):
        if text != right:
            return f"the text is {text!r}, on the CPU {right!r}"
        wrong = differs(got, want)
        if wrong:
            return wrong
    return None


def main():
    pdt, layouts, only = serve.arguments("1x1,2x2")
    os.environ["PDT_TWIN_GPUS"] = "1:8.0,2:8.0"
    wanted = answers(pdt, "1x1", "cpu")
    checks = [(f"logprobs {x}", lambda x=x: check(pdt, x, wanted)) for x in layouts]
    harness.run_checks([c for c in checks if only in c[0]])


if __name__ == "__main__":
    main()
