#!/usr/bin/env python3
"""The sidecar in launch/smollm2 beside the trunk that it was trained for: notes carry names, in every layout alike.

usage: smollm2.py PDT

SmolLM2-135M-Instruct is looked for where launch/fetch-smollm2 leaves it, ~/.cache/pdt/smollm2, or in PDT_SMOLLM2;
where it is not, nothing is tested. Entries are of the split test: training has not seen them.
"""
import json
import os
import tempfile

import harness

SIDECAR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "launch", "smollm2", "sidecar.safetensors")
SECTIONS = ("\nHistory:", "\nTrade:", "\nLandmarks:", "\nCustoms:")


def right(pdt, model, least, *more):
    """Under the notes that streams write, so large a share of the names that siblings have told begins right."""
    with tempfile.TemporaryDirectory() as scratch:
        data = os.path.join(scratch, "test.jsonl")
        commands = [
            [pdt, "data", "atlas", "--world", "words", "--model", model, "--split", "test", "--seed", "77", "--count", "8",
             "--block-tokens", "8", "--min-sections", "4", "--max-sections", "4", "--plan-vocab", "1024", "--plan-salt", "words-1",
             *more, "--out", data],
            [pdt, "eval", "--model", model, "--sidecar", SIDECAR, "--data", data, "--arms", "notes", "--max-tokens", "8", "--json"],
        ]
        for command in commands:
            result = harness.run(command, timeout=200)
            if result.status != 0:
                return f"{command[1]}: status {result.status}: {result.err.strip()}"
    found = json.loads(result.out)["teacher_forced"]
    if found["entries"] != 8 or not found["uses_right"] >= least:
        return f"expected {least} of uses of 8 entries, found {found}"
    return None


def alike(pdt, model):
    """The same request in several layouts gives the same bytes."""
    command = [pdt, "decode", "--model", model, "--sidecar", SIDECAR, "--prompt",
               "Describe Zarholm. Sections: history; trade; landmarks; customs.", "--temperature", "0.8", "--seed", "7",
               "--max-tokens", "24", "--json"]
    for section in SECTIONS:
        command += ["--section", section]
    found = {}
    for layout in ("1x1", "1x1x2", "2x1", "2x2"):
        x = harness.Layout(layout)
        result = harness.run([*command, "--tp", x.tp, "--threads", x.threads], ranks=x.ranks if x.ranks > 1 else 0, timeout=120)
        if result.status != 0:
            return f"{layout}: status {result.status}: {result.err.strip()}"
        found[layout] = result.out
    different = [layout for layout, out in found.items() if out != found["1x1"]]
    return f"other answers than 1x1: {different}" if different else None


def main():
    pdt, _ = harness.arguments("0")
    model = os.environ.get("PDT_SMOLLM2") or os.path.expanduser("~/.cache/pdt/smollm2")
    if not os.path.exists(os.path.join(model, "model.safetensors")):
        harness.skip(f"no {model}/model.safetensors (hint: launch/fetch-smollm2, or PDT_SMOLLM2)")
    # Words that training never had come across, too: 86% of those of 30 entries, and of 8 entries' uses within 13 points.
    checks = [("right", lambda: right(pdt, model, 0.9)), ("any word", lambda: right(pdt, model, 0.7, "--any-names", "1"))]
    harness.run_checks([*checks, ("alike", lambda: alike(pdt, model))])


if __name__ == "__main__":
    main()
