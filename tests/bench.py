#!/usr/bin/env python3
"""The benches of scaling, throughput, curves and serving run, and what they tell is consistent: what sessions write does not depend on rate,
sessions in flight or layout, and figures belong together.

usage: bench.py PDT [--ranks 2]   (0: without mpirun; the benches are beside PDT)
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.dom.minidom

import harness

MODEL = os.path.join(harness.ROOT, "launch", "model")
FILES = ["--model", MODEL, "--sidecar", os.path.join(MODEL, "sidecar.safetensors"), "--threads", "1"]


def beside(pdt, name):
    return os.path.join(os.path.dirname(pdt), name)


def lines_of(result):
    if result.status != 0:
        raise harness.Failed(f"status {result.status}: {result.err.strip()}")
    return [json.loads(x) for x in result.out.splitlines() if x.startswith("{")]


def throughput(pdt, ranks):
    """The same sessions one by one, together, as they arrive, and on other layouts."""
    command = [beside(pdt, "bench_throughput"), *FILES, "--sessions", "9", "--prompt", "4:40", "--json", "--settings",
               '{"streams": 3, "max_tokens": 20, "temperature": 0.9}']
    found = [lines_of(harness.run([*command, *more], ranks=n))[0]
             for n in (0, *ranks) for more in (["--max-sessions", "1"], ["--max-sessions", "9"], ["--rate", "60"])]
    wrong = []
    if len({f["hash"] for f in found}) != 1:
        wrong.append(f"other tokens: {[f['hash'] for f in found]}")
    for f in found:
        tokens = f["tokens_per_second"] * f["seconds"]
        if abs(tokens - 9 * 3 * 20) > 1e-6 * tokens:
            wrong.append(f"{tokens} tokens, expected {9 * 3 * 20}")
        for name in ("first_block_seconds", "token_seconds", "gap_seconds", "session_seconds"):
            s = f[name]
            if not 0 < s["p50"] <= s["p90"] <= s["p99"] <= s["max"] <= f["seconds"] or s["mean"] > s["max"]:
                wrong.append(f"{name}: {s} of {f['seconds']} s")
    slow = lines_of(harness.run([*command, "--rate", "20"]))[0]  # arrivals alone take a while
    if slow["seconds"] < 0.1 or slow["session_seconds"]["max"] >= slow["seconds"]:
        wrong.append(f"--rate 20: {slow['seconds']} s, the longest session {slow['session_seconds']['max']}")
    return "; ".join(wrong) or None


def scaling(pdt, ranks):
    """Every arm of every combination, the work that was asked for, the same text on every layout; table and plots of it."""
    command = [beside(pdt, "bench_scaling"), *FILES, "--streams", "1,3", "--block-tokens", "4,8", "--tokens", "24",
               "--repeats", "2", "--draft", FILES[1], "--draft-tokens", "3"]
    runs = [run for n in (0, *ranks) for run in lines_of(harness.run(command, ranks=n))]
    wrong = []
    if len(runs) != (1 + len(ranks)) * 2 * 2 * 4 * 2:
        wrong.append(f"{len(runs)} runs")
    texts = {}
    for run in runs:
        rows = 1 if run["arm"] in ("serial", "drafted") else run["streams"]
        if run["tokens"] != 24 or run["rows_per_step"] != rows:
            wrong.append(f"{run['arm']} of {run['streams']}: {run['tokens']} tokens, {run['rows_per_step']} rows a step")
        texts.setdefault((run["arm"], run["streams"], run["block_tokens"] if run["arm"] == "pdt" else 0), set()).add(run["hash"])
    for run in runs:
        if run["arm"] == "drafted" and not (run["draft_right"] == 1 and 2 < run["tokens_per_step"] <= 4):
            wrong.append(f"a model that drafts for itself: {run['draft_right']} right, {run['tokens_per_step']} tokens a step")
        if run["arm"] == "drafted" and texts["serial", run["streams"], 0] != {run["hash"]}:
            wrong.append("another text with a draft")
    wrong += [f"{key} wrote {len(x)} texts" for key, x in texts.items() if len(x) != 1]
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "scaling.jsonl")
        with open(path, "w") as f:
            f.writelines(json.dumps(run) + "\n" for run in runs)
        result = subprocess.run([sys.executable, os.path.join(harness.ROOT, "bench", "scaling"), "--plot", path, "--out", scratch],
                                capture_output=True, text=True)
        entries = [x for x in result.stdout.splitlines() if x and not x.startswith("#")]
        if result.returncode != 0 or len(entries) != 1 + len(runs) // 2:
            wrong.append(f"bench/scaling --plot: status {result.returncode}, {len(entries)} lines: {result.stderr.strip()}")
        plots = [x for x in os.listdir(scratch) if x.endswith(".svg")]
        if shutil.which("gnuplot") and len(plots) != 2:
            wrong.append(f"plots: {plots}")
    return "; ".join(wrong) or None


def boundary(pdt, ranks):
    """The boundary by itself: every replica ends with every token, by trees and by MPI's own calls."""
    wrong = []
    for n in ranks:
        for more in [], ["--flat"], ["--reveal-delay", "2", "--sessions", "3", "--streams", "5"]:
            found = lines_of(harness.run([beside(pdt, "bench_boundary"), "--rounds", "30", "--json", *more], ranks=n))
            if len(found) != 1 or found[0]["ranks"] != n or not 0 < found[0]["boundary_seconds"]:
                wrong.append(f"{n} ranks {more}: {found}")
            # On a quiet machine 1 to 4 times; what a scheduler takes is some milliseconds.
            elif not more and found[0]["boundary_seconds"] > 20 * found[0]["bare_seconds"] + 0.004:
                wrong.append(f"{n} ranks: a boundary takes {found[0]['boundary_seconds']} s, bare MPI {found[0]['bare_seconds']}")
    return "; ".join(wrong) or None


def decode(pdt, _):
    """The column of correctness: the same text for any number of streams and prompts, and one that varies; a kernel that is
    wrong for many rows alone is noticed."""
    wrong, hashes = [], {}
    command = [beside(pdt, "bench_decode"), *FILES, "--streams", "1,2,4", "--tokens", "24", "--repeats", "1", "--json"]
    for prompt in 32, 64, 128:
        result = harness.run([*command, "--prompt", prompt])
        if result.status != 0:
            return f"prompt {prompt}: status {result.status}: {result.err.strip()}"
        told = json.loads(result.out)
        hashes[prompt] = told["text_hash"]
        if [f["correct"] for f in told["figures"]] != [True] * 3 or told["text_kinds"] < 12:
            wrong.append(f"prompt {prompt}: {told['figures']}, {told['text_kinds']} different tokens of 24")
    if len(set(hashes.values())) != 3:
        wrong.append(f"the same text for other prompts: {hashes}")
    broken = harness.run([*command, "--break-rows", "4"])
    columns = [f["correct"] for f in json.loads(broken.out)["figures"]] if broken.out else None
    if broken.status != 1 or columns != [True, True, False]:
        wrong.append(f"products of 4 rows are wrong: status {broken.status}, correct {columns}")
    return "; ".join(wrong) or None


def against(pdt, _):
    """bench/against says what it would run, and its command for pdt is one that runs."""
    result = subprocess.run([os.path.join(harness.ROOT, "bench", "against"), "--dry-run", "--types", "bf16,q8_0", "--streams", "1,3"],
                            capture_output=True, text=True)
    lines = [x.split() for x in result.stdout.splitlines()]
    if result.returncode != 0 or len(lines) != 4 or any("llama-batched-bench" not in x for x in lines[1::2]):
        return f"status {result.returncode}: {result.stdout}{result.stderr}"
    words = lines[0]
    for flag, value in (("--model", FILES[1]), ("--sidecar", FILES[3])):
        words[words.index(flag) + 1] = value
    told = harness.run([beside(pdt, "bench_decode"), *words[1:]])
    if told.status != 0 or [f["streams"] for f in json.loads(told.out)["figures"]] != [1, 3]:
        return f"{words}: status {told.status}: {told.err.strip()}"
    return None


def train_against(*_):
    """bench/train-against says what it lacks, before it builds or fetches anything."""
    result = subprocess.run([os.path.join(harness.ROOT, "bench", "train-against"), "--torch", "false"], capture_output=True, text=True)
    if result.returncode != 77 or not result.stderr.startswith("skipped: false has no torch") or result.stdout:
        return f"status {result.returncode}: {result.stdout}{result.stderr}"
    return None


def curves(pdt, _):
    """bench/curves: a row and a line a value, of the entries and seeds asked for, and plots that are XML."""
    with tempfile.TemporaryDirectory() as scratch:
        result = subprocess.run([sys.executable, os.path.join(harness.ROOT, "bench", "curves"), "--pdt", os.path.abspath(pdt), "--count", "3", "--seeds",
                                 "2", "--ranks", "0", "--only", "thresholds,attempts", "--out", scratch, "--plots", scratch],
                                capture_output=True, text=True)
        if result.returncode != 0:
            return f"status {result.returncode}: {result.stderr.strip()}"
        with open(os.path.join(scratch, "curves.jsonl")) as f:
            rows = [json.loads(x) for x in f]
        values = [1, 2, 4, 8, 12, 24]
        if [(r["curve"], r["settings"]["max_attempts"]) for r in rows] != [("thresholds", 12)] + [("attempts", x) for x in values]:
            return f"rows {[(r['curve'], r['row']) for r in rows]}"
        if any(r["entries"] != 6 or r["arm"] != "system" for r in rows):
            return f"entries {[r['entries'] for r in rows]}"
        with open(os.path.join(scratch, "curves.txt")) as f:
            told = [x.split() for x in f if x[0] != "#"]
        if [float(x[0]) for x in told[-6:]] != values or any(abs(float(x[1]) - 100 * r["judged"]["contradiction"]) > 0.005 for x, r in zip(told[-6:], rows[1:])):
            return f"table {told}"
        for name in ("thresholds", "attempts"):
            plot = xml.dom.minidom.parse(os.path.join(scratch, f"{name}.svg"))
            if len(plot.getElementsByTagName("circle")) != (14 + 28 + 28 if name == "thresholds" else 6 + 12 + 12):
                return f"{name}.svg: {len(plot.getElementsByTagName('circle'))} points"
    return None


def serve(pdt, ranks):
    """Every request is answered with all of its tokens, in a closed loop and as requests come by themselves."""
    if "microhttpd  not built in" in harness.run([pdt, "--version"]).out:
        return None
    wrong = []
    for n in (1, *ranks):
        words = ["--closed", 3, "--rate", 40, "--sessions", 9, "--streams", 2, "--tokens", 20, "--repeats", 1, "--ranks", n, "--json"]
        rows = lines_of(harness.run([os.path.join(harness.ROOT, "bench", "serve"), *words], env={"PDT": pdt}))
        for row in rows:
            tokens = row["tokens_per_second"] * row["seconds"]
            times = [row[k][q] for k in ("first_chunk", "token", "gap") for q in ("p50", "p90", "p99")]
            if abs(tokens - 9 * 2 * 20) > 1e-6 * tokens or min(times) <= 0 or row["goodput"] > row["tokens_per_second"]:
                wrong.append(f"{n} ranks: {row}")
        if len(rows) != 2 or not 0.1 < rows[0]["of_decode"] < 10:
            wrong.append(f"{n} ranks: {rows}")
    return "; ".join(wrong) or None


def misuse(pdt, _):
    wrong = []
    for name, words in (("bench_throughput", ["--rate", "x"]), ("bench_throughput", ["--settings", "[]"]),
                        ("bench_throughput", ["--prompt", "9:3"]), ("bench_scaling", ["--streams", "1,,2"]),
                        ("bench_scaling", ["--tokens", "0"])):
        result = harness.run([beside(pdt, name), *FILES, *words])
        if result.status in (0, None) or name not in result.err:
            wrong.append(f"{name} {words}: status {result.status}: {result.err.strip()}")
    result = harness.run([beside(pdt, "bench_scaling"), *FILES, "--streams", "99"])
    if result.status != 1 or "streams" not in result.err:
        wrong.append(f"99 streams: status {result.status}: {result.err.strip()}")
    return "; ".join(wrong) or None


def main():
    pdt, ranks = harness.arguments("2")
    harness.run_checks([(f.__name__, lambda f=f: f(pdt, ranks)) for f in (throughput, scaling, boundary, decode, against, train_against, curves, serve, misuse)])


if __name__ == "__main__":
    sys.exit(main())
