#!/usr/bin/env python3
"""Steps that run ahead of their tokens, as on a GPU, change nothing.

usage: ahead.py PDT OTHER CASES_DIR [--case NAME] [--ranks N,...]

OTHER is pdt on a device that runs ahead. With many requests, greedy and sampled, of a model for which
one token in eight ends a stream, both must leave the same behind whatever runs together; so must rank
counts; and each must verify the other's journal, where tokens are read as rows of known blocks. Blocks
that end in the middle, rollbacks and holds must be among what is seen.
"""
import argparse
import json
import os
import shutil
import sys
import tempfile

import harness
import sessions

ENDS = range(0, 256, 8)


def make_case(case, folder):
    """The case with a model of many ends."""
    made = os.path.join(folder, "case")
    shutil.copytree(case, made)
    path = os.path.join(made, "model", "config.json")
    with open(path) as f:
        config = json.load(f)
    os.chmod(path, 0o644)
    with open(path, "w") as f:
        json.dump({**config, "eos_token_id": list(ENDS)}, f)
    return made


def make_requests(case):
    requests = sessions.make_requests(case)
    for i, r in enumerate(requests):
        how = [{"temperature": 0.0}, {"temperature": 1.2}, {"temperature": 0.9, "top_p": 0.7}, {"temperature": 2, "top_k": 5}]
        r["settings"].update(block_tokens=3 + i % 5, horizon=40, max_tokens=30, **how[i % 4])
    return requests


def seen(traces):
    """How many blocks ended before they were full, and how often each action was taken."""
    counts = {"ended early": 0}
    for trace in traces:
        longest = max((len(s["tokens"]) for r in trace["rounds"] for s in r["streams"]), default=0)
        for r in trace["rounds"]:
            for s in r["streams"]:
                counts["ended early"] += len(s["tokens"]) < longest and s["tokens"][-1] in ENDS
            for action in r["actions"].values():
                counts[action] = counts.get(action, 0) + 1
    return counts


def verify(pdt, case, journal):
    files = ["--model", f"{case}/model", "--sidecar", f"{case}/sidecar.safetensors"]
    result = harness.run([pdt, "inspect", "--verify", *files, journal])
    if result.status:
        raise harness.Failed(f"{os.path.basename(pdt)} --verify: {result.err.strip()}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pdt")
    p.add_argument("other")
    p.add_argument("cases")
    p.add_argument("--case", default=sessions.CASE)
    p.add_argument("--ranks", default="1,3")
    a = p.parse_args()
    ranks = [int(x) for x in a.ranks.split(",")]
    if max(ranks) > 1:
        harness.need_mpirun()
    bad, first, journal = [], None, None
    with tempfile.TemporaryDirectory() as folder:
        case = make_case(os.path.join(a.cases, a.case), folder)
        path = os.path.join(folder, "requests.jsonl")
        sessions.write_lines(path, make_requests(case))
        runs = [(a.pdt, 1, 3)] + [(a.other, n, at_once) for n in ranks for at_once in (1, 3, 8)]
        for pdt, n, at_once in runs:
            name = f"{os.path.basename(pdt)} on {n} ranks, {at_once} at once"
            try:
                got = sessions.decode(pdt, case, path, folder, harness.Layout(f"{n}x1"), at_once)
                verify(a.pdt if pdt == a.other else a.other, case, os.path.join(folder, "journal"))
                first = first or got
                wrong = [n for n, g, w in zip(("traces", "answers", "journal"), got, first) if g != w]
                wrong = f"{', '.join(wrong)} differ" if wrong else None
            except harness.Failed as e:
                wrong = str(e)
            if wrong:
                bad.append(f"{name}: {wrong}")
                print(bad[-1], flush=True)
    counts = seen(first[0]) if first else {}
    missing = [x for x in ("ended early", "rollback", "hold", "commit") if not counts.get(x)]
    print(f"{len(runs) - len(bad)} of {len(runs)} runs agree; seen: {counts}" + (f"; missing: {missing}" if missing else ""))
    sys.exit(bool(bad or missing))


if __name__ == "__main__":
    main()
