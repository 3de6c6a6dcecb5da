#!/usr/bin/env python3
"""Compare pdt with the oracle's cases in many layouts.

usage: layouts.py PDT CASES_DIR [--layouts 1x1,1x1x2,2x2 ...] [--case NAME ...] [--with "--flag ..."] [--tolerance X]
       layouts.py PDT --fresh [--first-seed N | --random-seed] [--layouts ...]

A layout is RANKSxT or RANKSxTxTHREADS. Tokens, actions, windows and orders must be equal, vectors
within tolerance, and the traces of all layouts with T a power of two the same byte for byte.
--fresh makes all cases of the oracle first, which needs numpy.
"""
import argparse
import os
import random
import sys
import tempfile

import harness

LAYOUTS = "1x1,1x1x2,2x1,2x2,3x3,4x2,4x4,5x1,6x3,8x8"


def bytes_of(path):
    with open(path, "rb") as f:
        return f.read()


def compare(pdt, case, layouts, scratch, extra, tolerance):
    """The differences of one case, in words."""
    want = harness.json.loads(bytes_of(os.path.join(case, "expected.json")))
    bad, first = [], None
    for layout in layouts:
        trace = os.path.join(scratch, "trace.json")
        try:
            got = harness.decode(
                pdt, f"{case}/model", f"{case}/sidecar.safetensors", f"{case}/request.json", trace, layout, extra
            )
            wrong = harness.difference(got, want, tolerance)
        except (harness.Failed, KeyError, TypeError, AttributeError) as e:
            wrong = f"{type(e).__name__}: {e}"
        if not wrong and layout.power_of_two():
            text = bytes_of(trace)
            if first is None:
                first = (layout, text)
            elif text != first[1]:
                wrong = f"the trace is not bit-identical to that of {first[0].name}"
        if wrong:
            bad.append(f"{os.path.basename(case)} {layout.name}: {wrong}")
            print(bad[-1], flush=True)
    return bad


def make_fresh(folder, seed):
    sys.path.insert(0, os.path.join(harness.TESTS, "oracle"))
    try:
        import make_cases
    except ImportError as e:
        harness.skip(f"the oracle needs numpy ({e}; launch/setup --for test)")
    for name in make_cases.CASES:
        os.makedirs(os.path.join(folder, name))
        if not any(make_cases.attempt_case(os.path.join(folder, name), name, s) for s in range(seed, seed + 200)):
            sys.exit(f"{name}: no seed from {seed} on gave a clear case")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pdt")
    p.add_argument("cases", nargs="?")
    p.add_argument("--layouts", default=LAYOUTS)
    p.add_argument("--case", action="append", help="these cases alone")
    p.add_argument("--with", dest="extra", default="", help="flags of every run")
    p.add_argument("--tolerance", type=float, default=harness.TOLERANCE)
    p.add_argument("--fresh", action="store_true")
    p.add_argument("--first-seed", type=int, default=1)
    p.add_argument("--random-seed", action="store_true")
    a = p.parse_args()
    if bool(a.cases) == a.fresh:
        p.error("one of CASES_DIR and --fresh")
    layouts = [harness.Layout(x) for x in a.layouts.split(",")]
    if any(l.ranks > 1 for l in layouts):
        harness.need_mpirun()
    with tempfile.TemporaryDirectory() as scratch:
        folder = a.cases
        if a.fresh:
            folder = os.path.join(scratch, "cases")
            seed = random.randrange(1000, 10**6) if a.random_seed else a.first_seed
            print(f"cases made with --first-seed {seed}", flush=True)
            make_fresh(folder, seed)
        names = a.case or sorted(os.listdir(folder))
        extra = a.extra.split()
        bad = [
            b for name in names for b in compare(a.pdt, os.path.join(folder, name), layouts, scratch, extra, a.tolerance)
        ]
    runs = len(names) * len(layouts)
    print(f"{runs - len(bad)} of {runs} runs equal the oracle")
    sys.exit(bool(bad) or not runs)


main()
