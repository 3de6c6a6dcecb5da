#!/usr/bin/env python3
"""Speculation: with any draft, in any layout, comes what comes without one, byte for byte.

usage: draft.py PDT CASES_DIR [--ranks 1,2,...]

The oracle's cases and twelve requests of all kinds at once (tests/sessions.py) are decoded without a draft,
and with the model itself, another one and a coarser copy as drafts, one to many tokens at a time; a journal
of a run with a draft is gone on from without, and the other way round. The model as its own draft, with a
sidecar that changes nothing, is always right. Drafts that cannot be are refused.
"""
import argparse
import json
import os
import re
import shutil
import tempfile

import harness
import safetensors_edit
import sessions

CASES = ["sampled", "selective-rollback", "forced", "odd-heads", "window-over-pages"]
LAYOUTS = {1: ["1x1", "1x1x2"], 2: ["2x1", "2x2"], 3: ["3x3"], 4: ["4x2"]}


def contents(path):
    with open(path, "rb") as f:
        return f.read()


def trace_of(pdt, case, request, folder, layout, extra=()):
    path = os.path.join(folder, "trace")
    harness.decode(pdt, f"{case}/model", f"{case}/sidecar.safetensors", request, path, harness.Layout(layout), extra)
    return contents(path)


def vocabulary(model):
    with open(os.path.join(model, "config.json")) as f:
        return json.load(f)["vocab_size"]


def coarser(model, folder):
    """A copy whose weights have lost most of their digits: often right, not always."""
    to = os.path.join(folder, "coarser")
    shutil.copytree(model, to)
    path = os.path.join(to, "model.safetensors")
    weights = safetensors_edit.File(path)
    if any(t["dtype"] != "F32" for name, t in weights.header.items() if name != "__metadata__"):
        raise harness.Failed("expected weights in F32")
    for at in range(0, len(weights.data), 4):  # little-endian: of 23 digits the upper five stay
        weights.data[at] = weights.data[at + 1] = 0
        weights.data[at + 2] &= 0xFC
    weights.write(path)
    return to


def same_traces(pdt, cases, layouts):
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for name in CASES:
            case = os.path.join(cases, name)
            other = os.path.join(cases, "odd-heads" if name != "odd-heads" else "forced", "model")
            drafts = [os.path.join(case, "model")] + [other] * (vocabulary(other) == vocabulary(f"{case}/model"))
            for layout in layouts:
                want = trace_of(pdt, case, f"{case}/request.json", folder, layout)
                for draft in drafts:
                    for tokens in (1, 3, 64):
                        got = trace_of(pdt, case, f"{case}/request.json", folder, layout, ["--draft", draft, "--draft-tokens", tokens])
                        if got != want:
                            wrong.append(f"{name} {layout}, draft {draft}, {tokens} tokens: another trace")
    return "; ".join(wrong) or None


def many_sessions(pdt, cases, layouts):
    wrong = []
    case = os.path.join(cases, sessions.CASE)
    with tempfile.TemporaryDirectory() as folder:
        requests = os.path.join(folder, "requests.jsonl")
        sessions.write_lines(requests, sessions.make_requests(case))
        for layout in layouts:
            want = trace_of(pdt, case, requests, folder, layout)
            for at_once in (1, 5):
                got = trace_of(pdt, case, requests, folder, layout, ["--draft", f"{case}/model", "--max-sessions", at_once])
                if got != want:
                    wrong.append(f"{layout}, {at_once} at once: another trace")
    return "; ".join(wrong) or None


def resumed(pdt, cases, ranks):
    """A draft is no part of what a journal says."""
    wrong = []
    case = os.path.join(cases, sessions.CASE)
    with tempfile.TemporaryDirectory() as folder:
        requests, journal, out = (os.path.join(folder, n) for n in ("requests.jsonl", "journal", "out"))
        sessions.write_lines(requests, sessions.make_requests(case))
        command = [pdt, "decode", "--model", f"{case}/model", "--sidecar", f"{case}/sidecar.safetensors", "--requests", requests,
                   "--max-sessions", 3, "--json", "--out", out, "--journal", journal, "--quiet"]
        draft = ["--draft", f"{case}/model"]
        for first, then in (draft, []), ([], draft):
            for n in ranks:
                harness.run([*command, "--overwrite", *first], ranks=n if n > 1 else 0)
                want, whole = contents(out), contents(journal)
                with open(journal, "wb") as f:
                    f.write(whole[:len(whole) * 3 // 5])
                os.remove(out)
                result = harness.run([*command, "--resume", *then], ranks=n if n > 1 else 0)
                if result.status or contents(out) != want or contents(journal) != whole:
                    wrong.append(f"{n} ranks, {len(first)} then {len(then)}: status {result.status}, {result.err.strip()[-200:]}")
    return "; ".join(wrong) or None


def counted(pdt, cases, _):
    """How often a draft is right: always, often, hardly ever."""
    case = os.path.join(cases, "sampled")
    rates = {}
    other = os.path.join(cases, "odd-heads", "model")
    with tempfile.TemporaryDirectory() as folder:
        sidecar = os.path.join(folder, "sidecar.safetensors")
        harness.closed_sidecar(pdt, f"{case}/model", sidecar, 1)
        for name, draft in (("own", f"{case}/model"), ("coarser", coarser(f"{case}/model", folder)), ("other", other)):
            result = harness.run([pdt, "decode", "--model", f"{case}/model", "--sidecar", sidecar, "--request", f"{case}/request.json",
                                  "--max-tokens", 60, "--streams", 1, "--block-tokens", 20, "--horizon", 40, "--gamma", 0, "--draft", draft, "--json"])
            told = re.search(r"draft: (\d+) of (\d+) tokens right .*, ([\d.]+) tokens a step", result.err)
            if not told:
                return f"{name}: status {result.status}: {result.err.strip()}"
            rates[name] = int(told.group(1)) / int(told.group(2)), float(told.group(3))
    print("        right, tokens a step:", rates)
    sound = rates["own"][0] == 1 and rates["own"][1] > 4 and 1 > rates["coarser"][0] > rates["other"][0] and rates["other"][0] < 0.2
    return None if sound else str(rates)


def refused(pdt, cases, ranks):
    case = os.path.join(cases, "sampled")
    with tempfile.TemporaryDirectory() as folder:
        command = [pdt, "decode", "--model", f"{case}/model", "--sidecar", f"{case}/sidecar.safetensors", "--request", f"{case}/request.json", "--json"]
        small, cut = (os.path.join(folder, n) for n in ("small", "cut"))
        shutil.copytree(f"{case}/model", cut)
        with open(f"{cut}/model.safetensors", "r+b") as f:
            f.truncate(os.path.getsize(f"{cut}/model.safetensors") - 100)
        shutil.copytree(f"{case}/model", small)
        with open(f"{case}/model/config.json") as f, open(f"{small}/config.json", "w") as g:
            json.dump(dict(json.load(f), vocab_size=300), g)
        cases_ = [
            ("another vocabulary", [*command, "--draft", small], 1, "vocab_size: expected the model's"),
            ("no such folder", [*command, "--draft", small + "x"], 1, "config.json"),
            ("a file that is cut", [*command, "--draft", cut], 1, "model.safetensors"),
            ("tokens without a draft", [*command, "--draft-tokens", 3], 2, "--draft DIR"),
            ("no tokens", [*command, "--draft", f"{case}/model", "--draft-tokens", 0], 2, "--draft-tokens"),
            ("an output over it", [*command, "--draft", cut, "--out", f"{cut}/config.json"], 2, "--draft"),
        ]
        wrong = [harness.refusals(cases_, "pdt decode: ", n if n > 1 else 0) for n in {1, max(ranks)}]
    return "; ".join(w for w in wrong if w) or None


def main():
    p = argparse.ArgumentParser()
    p.add_argument("pdt")
    p.add_argument("cases")
    p.add_argument("--ranks", default="1,2,3,4")
    a = p.parse_args()
    pdt, ranks = os.path.abspath(a.pdt), [int(x) for x in a.ranks.split(",")]
    if max(ranks) > 1:
        harness.need_mpirun()
    layouts = [l for n in ranks for l in LAYOUTS[n]]
    harness.run_checks([
        ("the same traces", lambda: same_traces(pdt, a.cases, layouts)),
        ("many sessions", lambda: many_sessions(pdt, a.cases, layouts)),
        ("resumed", lambda: resumed(pdt, a.cases, ranks[:2])),
        ("how often it is right", lambda: counted(pdt, a.cases, ranks)),
        ("refused", lambda: refused(pdt, a.cases, ranks)),
    ])


if __name__ == "__main__":
    main()
