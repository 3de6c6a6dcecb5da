#!/usr/bin/env python3
"""What a user sees of sliding windows.

usage: windows.py PDT

`pdt inspect` tells which layers slide and how far they reach; what a config leaves open is a note under
--verbose, what its family does not read a warning; training reads the same windows. That the right
numbers come out is the business of layouts.py, sessions.py and hf_families.py.
"""
import json
import os
import sys
import tempfile

import harness

RECORDED = os.path.join(harness.TESTS, "data", "hf")
WINDOWS = {
    "mistral": None,
    "llama-2": None,
    "qwen3-unused-window": None,
    "mistral-window": {"tokens": 5, "layers": [0, 1]},
    "mistral-default-window": {"tokens": 4096, "layers": [0, 1]},
    "mistral-mixed": {"tokens": 7, "layers": [1]},
    "qwen2-window": {"tokens": 6, "layers": [1]},
    "qwen3-window": {"tokens": 19, "layers": [0]},
}


def inspected(pdt):
    for name, want in WINDOWS.items():
        run = harness.run([pdt, "inspect", "--json", os.path.join(RECORDED, name)])
        if run.status != 0:
            return f"{name}: {run.err.strip()}"
        report = json.loads(run.out)
        if "window" not in report or report["window"] != want:
            return f"{name}: window {report.get('window')}, expected {want}"
    return None


def model_with(folder, name, changes):
    """A recorded model with other keys in its config.json."""
    model = os.path.join(folder, "model")
    harness.shutil.rmtree(model, ignore_errors=True)
    harness.shutil.copytree(os.path.join(RECORDED, name), model)
    path = os.path.join(model, "config.json")
    with open(path) as f:
        config = dict(json.load(f), **changes)
    with open(path, "w") as f:
        json.dump(config, f)
    return model


def said(pdt, name, changes, flags, part):
    """Is `part` said once on standard error (None: is nothing said of windows) while a model is decoded?"""
    with tempfile.TemporaryDirectory() as folder:
        model, sidecar = model_with(folder, name, changes), os.path.join(folder, "s.safetensors")
        harness.closed_sidecar(pdt, model, sidecar, 1)
        request = os.path.join(folder, "r.json")
        with open(request, "w") as f:
            json.dump(dict(prompt_ids=[3, 4, 5], settings=dict(streams=1, max_tokens=2)), f)
        run = harness.run([pdt, "decode", "--model", model, "--sidecar", sidecar, "--request", request, "--json", *flags])
    if run.status != 0:
        return run.err.strip()
    lines = [l for l in run.err.splitlines() if "sliding_window" in l]
    good = not lines if part is None else len(lines) == 1 and part in lines[0]
    return None if good else f"{name} {changes} {flags}: expected {part!r}, found {lines}"


def notices(pdt):
    cases = [
        ("mistral-default-window", {}, ["--verbose"], "note: "),
        ("mistral-default-window", {}, [], None),
        ("mistral-window", {}, ["--verbose"], None),
        ("mistral-window", {"use_sliding_window": False}, [], "warning: "),
        ("llama-2", {"sliding_window": 5}, [], "warning: "),
        ("llama-2", {"sliding_window": None}, ["--verbose"], None),
        ("qwen3-unused-window", {}, [], None),
    ]
    return "\n".join(filter(None, (said(pdt, *c) for c in cases))) or None


def trained(pdt):
    """A trunk with a window is trained, and keeps its window."""
    with tempfile.TemporaryDirectory() as folder:
        texts, out = os.path.join(folder, "texts.jsonl"), os.path.join(folder, "run")
        with open(texts, "w") as f:
            f.writelines(json.dumps({"ids": [(i * j) % 60 + 3 for j in range(40)]}) + "\n" for i in range(8))
        config = os.path.join(model_with(folder, "qwen2-window", {"tie_word_embeddings": True}), "config.json")
        run = harness.run(
            [pdt, "train", "--stage", "trunk", "--config", config, "--data", texts, "--out", out, "--steps", "4", "--context", "40"]
        )
        if run.status != 0:
            return run.err.strip()
        report = json.loads(harness.run([pdt, "inspect", "--json", out]).out or "{}")
        want = WINDOWS["qwen2-window"]
        return None if report.get("window") == want else f"window {report.get('window')}, expected {want}"


pdt = os.path.abspath(sys.argv[1])
harness.run_checks([(f.__name__, lambda f=f: f(pdt)) for f in (inspected, notices, trained)])
