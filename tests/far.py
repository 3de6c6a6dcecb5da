#!/usr/bin/env python3
"""Four hosts a millisecond apart: the same bytes as on one, and a boundary waits for a few messages.

usage: far.py PDT

Hosts are network namespaces of this machine (tests/hosts.py), which root can make; else skipped.
"""
import json
import os
import re
import tempfile

import harness
import hosts

MODEL = os.path.join(harness.ROOT, "launch", "model")
MPIRUN = os.path.join(harness.ROOT, "launch", "mpirun")
DELAY = 0.001
# A boundary of four ranks is some ten one-way trips one behind the other (gather 2, decision 2, an
# agreement 4, notes 2), more where the machine is busy; one that waits for an acknowledgment that TCP
# delays is 40 of them and more.
MOST_TRIPS = 39


def decode(pdt, folder, before, name, *more):
    """(answers in bytes, statistics)"""
    out = os.path.join(folder, name)
    report = harness.run([*before, pdt, "decode", "--model", MODEL, "--sidecar", f"{MODEL}/sidecar.safetensors", "--requests",
                          os.path.join(folder, "in.jsonl"), "--threads", 1, "--max-sessions", 2, "--json", "--out", out, *more], timeout=240)
    if report.status:
        raise harness.Failed(f"{name}: status {report.status}: {report.err[-400:]}")
    with open(out, "rb") as f:
        return f.read(), report.err


def write_requests(folder):
    with open(os.path.join(folder, "in.jsonl"), "w") as f:
        for i in range(3):
            f.write(json.dumps({"prompt": "Describe Velmora. Sections: history; trade.", "session": i, "sections": ["\nHistory:", "\nTrade:"] * 2,
                                "settings": {"max_tokens": 40, "temperature": 0.9, "seed": i}}) + "\n")


def same_bytes(pdt):
    with tempfile.TemporaryDirectory(prefix="pdt-far-") as folder, hosts.Hosts(4, delay=DELAY) as h:
        write_requests(folder)
        want, _ = decode(pdt, folder, [], "alone")
        for name, more in (("four ranks", []), ("two groups of two", ["--tp", "2"])):
            got, _ = decode(pdt, folder, [MPIRUN, *h.options()], name.replace(" ", "-"), *more)
            if got != want:
                return f"{name}: other answers than one process gives"
    return None


def trips_in(pdt, h, folder):
    """Of a run: one-way trips that a boundary took."""
    journal = os.path.join(folder, "journal")
    _, said = decode(pdt, folder, [MPIRUN, *h.options()], "out", "--journal", journal, "--overwrite")
    report = harness.run([pdt, "inspect", "--json", journal])
    totals = [json.loads(line) for line in report.out.splitlines() if line.startswith('{"type":"totals"')]
    seconds = float(re.search(r"boundary ([\d.]+) s", said).group(1))
    trips = seconds / totals[0]["boundaries"] / DELAY
    print(f"        {totals[0]['boundaries']} boundaries, {1000 * DELAY * trips:.1f} ms each: {trips:.1f} trips of {1000 * DELAY:g} ms")
    return trips


def trips_of_a_boundary(pdt):
    """What a boundary waits for is a few messages: no more than the trees of its collectives are deep. Other
    work on the machine delays the switch, but not every run alike."""
    with tempfile.TemporaryDirectory(prefix="pdt-far-") as folder, hosts.Hosts(4, delay=DELAY) as h:
        write_requests(folder)
        for _ in range(4):
            trips = trips_in(pdt, h, folder)
            if trips < 2:
                return f"{trips:.1f} trips, expected 2 or more"
            if trips <= MOST_TRIPS:
                return None
    return f"{trips:.1f} trips, expected {MOST_TRIPS} or fewer"


def main():
    pdt, _ = harness.arguments("1")
    harness.need_mpirun()
    why = hosts.why_not()
    if why:
        harness.skip(why)
    harness.run_checks([("the same bytes", lambda: same_bytes(pdt)), ("trips of a boundary", lambda: trips_of_a_boundary(pdt))])


main()
