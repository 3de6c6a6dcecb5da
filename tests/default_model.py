#!/usr/bin/env python3
"""The default model in launch/model: what it is worth on 50 fixed entries of the Atlas, against recorded values.

usage: default_model.py PDT [--record]   (--record writes tests/data/default-model.json anew)

The entries are drawn by a fixed seed from the test split. Decoding is the same bit for bit on one kind of machine, but not across
instruction sets: other roundings now and then draw another token, and the text goes on differently. So figures are compared with what
that can do: a rate over n cases may move by twice the 95% interval of n independent ones, and by at least 1 point; figures of the data
file's own text, where nothing is drawn, by 0.01. The bounds that the model was made for hold in any case.
"""
import argparse
import json
import math
import os
import sys
import tempfile

import harness

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RECORD = os.path.join(TOP, "tests/data/default-model.json")
MODEL = os.path.join(TOP, "launch/model")
ENTRIES = 50
MOST_BYTES = 8 << 20
# (kind, arm, figure): at most, for 50 entries; bench/README.md has figures and intervals.
BOUNDS = {
    ("default", "system", "contradiction"): (0, 0.03),
    ("default", "blind", "contradiction"): (0.7, 1),
    ("default", "system", "precision"): (0.95, 1),
    ("default", "system", "recall"): (0.9, 1),
    ("default", "system", "auc_teacher"): (0.99, 1),
    ("default", "system", "auc_rollouts"): (0.95, 1),
    ("default", "system", "slots"): (0.99, 1),
    ("default", "system", "forced"): (0, 0.01),
    ("hard", "system", "contradiction"): (0, 0.15),
}


def figures(row):
    """name: (value, cases it is a share of; None: nothing was drawn)."""
    judged, run = row["judged"], row["run"]
    out = {
        "contradiction": (judged["contradiction"], judged["uses"]),
        "missing": (judged["missing"] / judged["facts"], judged["facts"]),
        "malformed": (judged["malformed"] / judged["sentences"], judged["sentences"]),
        "uses": (judged["uses"] / row["entries"] / 10, judged["uses"]),
    }
    if row["arm"] in ("notes", "system"):
        cover = row["coverage"]["blocks"]
        out |= {
            "precision": (cover["precision"], cover["hit"] + cover["wrong"]),
            "recall": (cover["recall"], cover["hit"] + cover["missed"]),
            "auc_rollouts": (row["readiness"]["auc"], row["readiness"]["blocks"]),
            "auc_teacher": (row["teacher_forced"]["auc"], None),
            "slots": (row["slots"], None),
            "rollback": (run["rollback"], run["blocks"]),
            "forced": (run["forced"], run["blocks"]),
        }
    return out


def room(value, cases):
    if cases is None:
        return 0.01
    return max(0.01, 2 * 1.96 * math.sqrt(max(value * (1 - value), 0) / max(cases, 1)))


def evaluate(pdt, scratch):
    found = {}
    for kind, more in (("default", []), ("hard", ["--hard"])):
        data = os.path.join(scratch, f"{kind}.jsonl")
        commands = [
            [pdt, "data", "atlas", "--split", "test", "--seed", "50", "--count", ENTRIES, "--plan-vocab", "1024", "--plan-salt",
             "atlas-5", "--out", data, *more],
            [pdt, "eval", "--model", MODEL, "--sidecar", os.path.join(MODEL, "sidecar.safetensors"), "--data", data, "--arms",
             "sequential,blind,notes,system", "--max-attempts", "12", "--json"],
        ]
        for command in commands:
            result = harness.run(command, timeout=120)
            if result.status != 0:
                raise harness.Failed(f"{command[:3]}: status {result.status}: {result.err.strip()}")
        for line in result.out.splitlines():
            row = json.loads(line)
            found[kind, row["arm"]] = figures(row)
    return found


def compare(found, recorded):
    wrong = []
    for (kind, arm), now in found.items():
        for name, (value, cases) in now.items():
            was = recorded[f"{kind} {arm}"][name]
            if value is None or not abs(value - was) <= room(was, cases):
                wrong.append(f"{kind} {arm}: {name}: expected {was:.4f} +- {room(was, cases):.4f}, found {value}")
            low, high = BOUNDS.get((kind, arm, name), (-1, 2))
            if value is not None and not low <= value <= high:
                wrong.append(f"{kind} {arm}: {name}: expected {low} to {high}, found {value:.4f}")
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pdt")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    size = sum(os.path.getsize(os.path.join(MODEL, x)) for x in os.listdir(MODEL))
    with tempfile.TemporaryDirectory() as scratch:
        found = evaluate(os.path.abspath(args.pdt), scratch)
    if args.record:
        record = {f"{k} {a}": {n: v for n, (v, _) in x.items()} for (k, a), x in found.items()}
        with open(RECORD, "w") as f:
            json.dump(record, f, indent=1)
            f.write("\n")
        return
    with open(RECORD) as f:
        wrong = compare(found, json.load(f))
    if size > MOST_BYTES:
        wrong.append(f"launch/model: {size} bytes, expected at most {MOST_BYTES}")
    for (kind, arm), now in found.items():
        print(f"{kind:8} {arm:11}" + "  ".join(f"{n} {v:.4f}" for n, (v, _) in now.items() if v is not None))
    for line in wrong:
        print("FAILED", line)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
