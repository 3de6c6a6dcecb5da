#!/usr/bin/env python3
"""pdt plan: the memory that it forecasts is what ranks then take; times follow from what was measured; what cannot be is refused.

usage: plan.py PDT [--ranks 4]
"""
import json
import os
import tempfile

import harness

MODEL = os.path.join(harness.ROOT, "launch", "model")
STREAMS, TOKENS, PROMPT, BLOCK = 6, 40, 30, 8


def forecast(pdt, *words):
    result = harness.run([pdt, "plan", "--json", *words])
    if result.status != 0:
        raise harness.Failed(f"status {result.status}: {result.err.strip()}")
    return {x["tensor_parallel"]: x for x in json.loads(result.out)}


def settings(sessions):
    return ["--streams", STREAMS, "--tokens", TOKENS, "--prompt", PROMPT, "--block-tokens", BLOCK, "--sessions", sessions]


def taken(pdt, scratch, ranks, tp, sessions, *flags):
    """Most MiB of weights and of cache that a rank of a real run has."""
    path = os.path.join(scratch, "requests.jsonl")
    with open(path, "w") as f:
        for i in range(sessions):
            f.write(json.dumps({"prompt_ids": [1 + i] * PROMPT, "settings": {
                "streams": STREAMS, "max_tokens": TOKENS, "block_tokens": BLOCK}}) + "\n")
    result = harness.run([pdt, "decode", "--model", MODEL, "--sidecar", os.path.join(MODEL, "sidecar.safetensors"), "--requests", path,
                          "--max-sessions", sessions, "--tp", tp, "--threads", 1, "--verbose", "--json", *flags], ranks if ranks > 1 else 0)
    lines = result.err.splitlines()
    try:
        head = next(i for i, x in enumerate(lines) if x.split()[:2] == ["rank", "weights"])
        rows = [x.split() for x in lines[head + 1:head + 1 + ranks]]
        return max(float(x[1]) for x in rows), max(float(x[-2]) for x in rows)
    except (StopIteration, IndexError, ValueError):
        raise harness.Failed(f"no table of ranks: {result.err.strip()}")


def memory(pdt, ranks):
    """Weights within what panels and norms add, the cache to what the table's digit shows."""
    wrong = []
    with tempfile.TemporaryDirectory() as scratch:
        for n in (1, *ranks):
            for sessions in 1, 3:
                found = forecast(pdt, "--model", MODEL, "--dtype", "BF16", "--ranks", n, *settings(sessions))
                for tp, f in found.items():
                    weights, cache = taken(pdt, scratch, n, tp, sessions)
                    said = f["weight_bytes"] / 2**20, f["cache_bytes"] / 2**20
                    if not -0.051 <= weights - said[0] <= 0.05 * said[0] + 0.1 or abs(cache - said[1]) > 0.051:
                        wrong.append(f"{n} ranks, tp {tp}, {sessions} sessions: {said} MiB, a run has {weights}, {cache}")
        weights = forecast(pdt, "--model", MODEL, "--dtype", "Q8_0", "--ranks", 1, *settings(1))[1]["weight_bytes"] / 2**20
        has = taken(pdt, scratch, 1, 1, 1, "--quantize", "q8_0")[0]
        if abs(has - weights) > 0.05 * weights + 0.1:
            wrong.append(f"quantized: {weights} MiB, a run has {has}")
    return "; ".join(wrong) or None


def times(pdt, _):
    """From a measurement that is made up: reading bounds few rows, multiplying many; ranks of a machine share it."""
    run = {"ranks": 1, "tensor_parallel": 1, "weight_bytes": 2e8, "figures": [
        {"streams": 1, "step_seconds": 0.01}, {"streams": 16, "step_seconds": 0.04}]}  # 20 GB/s, 80 Gflop/s of additions alike
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "measured.json")
        with open(path, "w") as f:
            f.write(json.dumps(run, indent=1) + "\n" + json.dumps(run) + "\n")
        words = ["--preset", "smollm2-135m", "--measured", path, "--boundary-us", 0, "--exchange-us", 0, "--block-tokens", 16]
        few = forecast(pdt, *words, "--ranks", 1, "--streams", 1)[1]
        many = forecast(pdt, *words, "--ranks", 1, "--streams", 64)[1]
        two = forecast(pdt, *words, "--ranks", 2, "--streams", 1)
        apart = forecast(pdt, *words, "--ranks", 2, "--per-machine", 1, "--streams", 1)
        slow = forecast(pdt, *words[:4], "--exchange-us", 1000, "--ranks", 2, "--streams", 1)
    weights = few["weight_bytes"]
    # Nine heads in two are five and four.
    close = lambda a, b: abs(a - b) < 0.07 * b
    checks = {
        "a row takes the reading of all weights": close(few["step_seconds"], weights / 2e10),
        "64 rows take their multiplications": close(many["step_seconds"], weights * 64 / 8e10),
        "a round is its steps": close(few["round_seconds"], 16 * few["step_seconds"]),
        "two ranks of a machine share its rate": close(two[2]["step_seconds"], few["step_seconds"]),
        "two machines have twice of it": close(apart[2]["step_seconds"], few["step_seconds"] / 2),
        "exchanges take their time": slow[2]["step_seconds"] > two[2]["step_seconds"] + 0.1,
        "the best is marked": [x["best"] for x in apart.values()] == [False, True] and slow[1]["best"],
    }
    return "; ".join(name for name, sound in checks.items() if not sound) or None


def refused(pdt, _):
    with tempfile.TemporaryDirectory() as scratch:
        broken = os.path.join(scratch, "broken.json")
        with open(broken, "w") as f:
            f.write('{"ranks": 1')
        shape = ["--preset", "smollm2-135m"]
        cases = [
            ("no ranks", [pdt, "plan", *shape], 2, "--ranks"),
            ("two shapes", [pdt, "plan", *shape, "--model", MODEL, "--ranks", 1], 2, "one of"),
            ("unknown shape", [pdt, "plan", "--preset", "x", "--ranks", 1], 2, "x"),
            ("no measurement", [pdt, "plan", *shape, "--ranks", 1, "--measured", broken + "x"], 1, "cannot read"),
            ("half a measurement", [pdt, "plan", *shape, "--ranks", 1, "--measured", broken], 1, "bench/decode"),
            ("too little memory", [pdt, "plan", *shape, "--ranks", 2, "--memory", "100M"], 1, "fits"),
            ("no size", [pdt, "plan", *shape, "--ranks", 2, "--memory", "much"], 2, "512M"),
        ]
        return harness.refusals(cases, "pdt plan: ")


def main():
    pdt, ranks = harness.arguments("4")
    harness.run_checks([(f.__name__, lambda f=f: f(pdt, ranks)) for f in (memory, times, refused)])


if __name__ == "__main__":
    main()
