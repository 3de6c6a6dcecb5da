#!/usr/bin/env python3
"""tests/data/quantized.json against the `gguf` package, whose numbers are ggml's.

usage: quantized_vectors.py [--write]

The file has, for each quantized type, blocks of bytes and the floats that ggml makes of them; for Q8_0
and Q4_0 also floats and the bytes that ggml makes of those. Without the package (pip install gguf)
there is nothing to compare with.
"""
import argparse
import json
import os
import sys

import harness

try:
    import numpy as np
    import gguf
    from gguf import GGMLQuantizationType, quants
except ImportError:
    harness.skip("no Python package gguf here (pip install gguf)")

FILE = os.path.join(harness.TESTS, "data", "quantized.json")
TYPES = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]
# Where a block has numbers in half precision, which random bytes would make NaN.
HALVES = {"Q4_1": [0, 2], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def blocks_of(name, kind, rng):
    elems, size = gguf.GGML_QUANT_SIZES[kind]
    rows = rng.integers(0, 256, (512 // elems if elems > 32 else 4, size), dtype=np.uint8)
    for at in HALVES.get(name, [0]):
        scales = rng.normal(0, 0.05, len(rows)).astype(np.float16)
        scales[-1] = np.float16(6e-8)  # a subnormal one
        rows[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    return rows


def floats_to_quantize(rng):
    x = rng.normal(0, 1, (5, 32)).astype(np.float32)
    x[1] *= np.float32(1e-9)  # a scale below half precision's
    x[2] = 0
    x[3, :4] = [3, -3, 3, -3]  # two of the largest magnitude
    x[3, 4:] = 0.5 * 3 / 127 * np.arange(28)  # halves of a step
    return x


def text(array):
    return np.ascontiguousarray(array).view(np.uint8).tobytes().hex()


def make():
    rng = np.random.default_rng(12)
    out = {}
    for name in TYPES:
        kind = GGMLQuantizationType[name]
        rows = blocks_of(name, kind, rng)
        out[name] = {"bytes": text(rows), "floats": text(quants.dequantize(rows, kind).astype("<f4"))}
        if name in ("Q8_0", "Q4_0"):
            x = floats_to_quantize(rng)
            with np.errstate(all="ignore"):
                made = quants.quantize(x, kind)
            out[name].update({"from": text(x.astype("<f4")), "to": text(made)})
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    made = make()
    if parser.parse_args().write:
        with open(FILE, "w", encoding="utf-8") as f:
            json.dump(made, f, indent=1)
            f.write("\n")
        return 0
    with open(FILE, encoding="utf-8") as f:
        kept = json.load(f)
    wrong = [name for name in TYPES if made[name] != kept.get(name)]
    for name in wrong:
        print(f"{name}: {FILE} is not what gguf makes of the same bytes")
    print(f"{len(TYPES) - len(wrong)} of {len(TYPES)} types as in gguf")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
