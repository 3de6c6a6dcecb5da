#!/usr/bin/env python3
"""Compare which layers slide, and how far, with what transformers reads from the same config.json.

usage: hf_windows.py PDT [--seed N] [--count N]

Random values of every key that has to do with windows, good and bad, in a recorded model of each
family: `pdt inspect` must show what transformers' configuration says, and refuse what transformers
refuses or could not compute. hf_families.py compares what is computed.
"""
import argparse
import json
import os
import random
import shutil
import sys
import tempfile

import harness
import hf_families

FULL, SLIDING = "full_attention", "sliding_attention"
ABSENT = object()
VALUES = dict(
    sliding_window=[ABSENT, None, 1, 5, 4096, 10**6, 0, -1],
    use_sliding_window=[ABSENT, True, True, False],
    max_window_layers=[ABSENT, 0, 1, 2, -1, 28],
    layer_types=[
        ABSENT, ABSENT, None, [FULL, FULL], [SLIDING, SLIDING], [FULL, SLIDING], [SLIDING, "attention"], [FULL],
        ["chunked_attention", FULL], [],
    ],
)


def by_transformers(transformers, folder):
    """Tokens of each layer's window (0: none), or None where it refuses the config or cannot compute it."""
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
    except Exception:
        return None
    window, types = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    if config.model_type == "llama":  # the model reads no window, but its cache would: refused where layers ask for one
        return None if types and set(types) != {FULL} else [0, 0]
    if types is None:
        types = [FULL if window is None else SLIDING] * 2
    if set(types) - {FULL, SLIDING} or (SLIDING in types and (window is None or window < 1)):
        return None
    return [window if t == SLIDING else 0 for t in types]


def by_pdt(pdt, folder):
    run = harness.run([pdt, "inspect", "--json", folder])
    if run.status == 1 and len(run.err.splitlines()) == 1:
        return None
    if run.status != 0:
        return f"status {run.status}: {run.err.strip()}"
    window = json.loads(run.out)["window"] or {"layers": []}
    return [window["tokens"] if l in window["layers"] else 0 for l in range(2)]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pdt")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--count", type=int, default=200)
    a = p.parse_args()
    _, transformers = hf_families.import_transformers()
    draw, bad, taken = random.Random(a.seed), 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        for i in range(a.count):
            folder = os.path.join(scratch, str(i))
            shutil.copytree(os.path.join(hf_families.RECORDED, draw.choice(["mistral", "qwen2", "qwen3", "llama-2"])), folder)
            path = os.path.join(folder, "config.json")
            with open(path) as f:
                config = {k: v for k, v in json.load(f).items() if k not in VALUES}
            drawn = {k: draw.choice(values) for k, values in VALUES.items()}
            drawn = {k: v for k, v in drawn.items() if v is not ABSENT}
            with open(path, "w") as f:
                json.dump({**config, **drawn}, f)
            want, got = by_transformers(transformers, folder), by_pdt(a.pdt, folder)
            taken += got is not None
            if want != got:
                bad += 1
                print(f"{config['model_type']} {drawn}: transformers {want}, pdt {got}", flush=True)
    print(f"{a.count - bad} of {a.count} configs read as transformers reads them, {taken} of them taken")
    sys.exit(bool(bad) or not taken)


main()
