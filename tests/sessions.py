#!/usr/bin/env python3
"""Many sessions at once: results do not depend on how many run together, nor on the layout.

usage: sessions.py PDT CASES_DIR [--case NAME] [--layouts 1x1,2x2,...]

Requests of different lengths, streams, policies and delays, sampled and greedy, are made from one
committed case and run with --max-sessions 1, 2 and 8. Traces, answers and, message by message, what
the journal says of each session must be the same in all runs; a session run alone must give what it
gave among others; artifacts as protobuf and as JSON lines must say the same; the journal must pass
its own check; the notes exchange that overlaps decoding (delays of 2 and more) is among them.
"""
import argparse
import json
import os
import sys
import tempfile

import harness

CASE = "selective-rollback"


def make_requests(case):
    """Twelve requests that end at different times and use different settings."""
    with open(os.path.join(case, "request.json")) as f:
        base = json.load(f)
    requests = []
    for i in range(12):
        r = json.loads(json.dumps(base))
        r["session"] = 100 + i
        r["prompt_ids"] = r["prompt_ids"][: 3 + i % 9]
        r["settings"].update(
            streams=1 + i % 4, max_tokens=4 + 3 * (i % 5), seed=i, block_tokens=2 + i % 3, reveal_delay=1 + i % 3,
            window=3 + i, temperature=[0.0, 0.9][i % 2], policy=["selective", "stall", "global", "local"][i % 4], horizon=8 + i,
        )
        if i % 4 == 3:  # of four streams two write
            r["settings"]["part_slots"] = 1 + i % 8 // 4
            r["plan_ids"] = [[0, 5, 0, 9, 0, 0], [4, 0, 0, 0, 7, 0]][i % 8 // 4]
        if i % 4 == 1:
            r["prefix_ids"] = [[7] * (k + 1) for k in range(r["settings"]["streams"])]
        requests.append(r)
    return requests


def write_lines(path, values):
    with open(path, "w") as f:
        f.writelines(json.dumps(v) + "\n" for v in values)


def by_session(pdt, journal):
    """What a journal says, a session at a time; boundaries differ with what runs together."""
    result = harness.run([pdt, "inspect", "--json", journal])
    if result.status:
        raise harness.Failed(f"inspect of the journal: {result.err.strip()}")
    sessions = {}
    for line in result.out.splitlines():
        entry = json.loads(line)
        if "request" not in entry:
            continue
        entry.pop("boundary", None)
        entry.pop("offset", None)
        sessions.setdefault(entry["request"], []).append(entry)
    return sessions


def decode(pdt, case, requests, folder, layout, at_once):
    """Everything one run leaves behind."""
    files = {name: os.path.join(folder, name) for name in ("trace", "journal", "out", "lines")}
    model, sidecar = f"{case}/model", f"{case}/sidecar.safetensors"
    common = ["--max-sessions", at_once]
    traces = harness.decode(
        pdt, model, sidecar, requests, files["trace"], layout,
        [*common, "--journal", files["journal"], "--overwrite", "--out", files["out"]],
    )
    harness.decode(pdt, model, sidecar, requests, files["trace"], layout, [*common, "--json", "--out", files["lines"]])
    shown = harness.run([pdt, "inspect", "--json", files["out"]])
    with open(files["lines"]) as f:
        lines = f.read()
    if shown.out != lines:
        raise harness.Failed("artifacts as protobuf and as JSON lines differ")
    return traces, lines, by_session(pdt, files["journal"])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pdt")
    p.add_argument("cases")
    p.add_argument("--case", default=CASE)
    p.add_argument("--layouts", default="1x1,1x1x2,2x1,2x2,4x2,5x1")
    a = p.parse_args()
    layouts = [harness.Layout(x) for x in a.layouts.split(",")]
    if any(l.ranks > 1 for l in layouts):
        harness.need_mpirun()
    case, bad, runs, first = os.path.join(a.cases, a.case), 0, 0, None
    requests = make_requests(case)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "requests.jsonl")
        write_lines(path, requests)
        for layout in layouts:
            for at_once in (1, 2, 8):
                runs += 1
                try:
                    got = decode(a.pdt, case, path, folder, layout, at_once)
                    first = first or got
                    names = ("traces", "answers", "journal")
                    wrong = [n for n, g, w in zip(names, got, first) if g != w]
                except harness.Failed as e:
                    wrong = [str(e)]
                if wrong:
                    bad += 1
                    print(f"{layout.name}, {at_once} at once: {', '.join(wrong)} differ from the first run's", flush=True)
        for i, request in enumerate(requests):
            runs += 1
            write_lines(path, [request])
            alone = harness.decode(a.pdt, f"{case}/model", f"{case}/sidecar.safetensors", path, os.path.join(folder, "t"))
            if not first or alone[0] != first[0][i]:
                bad += 1
                print(f"request {i} alone: another trace than among others", flush=True)
    held = sum(a == "hold" for t in first[0] for r in t["rounds"] for a in r["actions"].values()) if first else 0
    print(f"{runs - bad} of {runs} runs agree; {held} blocks were held on the way")
    sys.exit(bool(bad) or held == 0)


if __name__ == "__main__":
    main()
