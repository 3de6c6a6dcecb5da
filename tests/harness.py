"""What the test drivers share: finding and running pdt, comparing traces, skipping visibly.

A driver takes the program as its first argument, prints what differs, and ends with status 0 (all
well), 1 (something differs) or 77 (could not run here; the last line says why).
"""
import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

TESTS = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(TESTS)
SKIPPED = 77
# Sums in float32 of up to some hundred terms, over some layers and rounds, against float64. Weights
# of less precision are widened exactly, so the bound is the same for bf16 and f16 files.
TOLERANCE = 2e-4


def skip(why):
    print(why)
    sys.exit(SKIPPED)


def need_mpirun():
    if not shutil.which("mpirun"):
        skip("no mpirun here (launch/setup --for demo installs Open MPI)")


class Layout:
    """How many ranks, the tensor-parallel degree, threads a rank: "4x2" or "1x1x2"."""

    def __init__(self, text):
        numbers = [int(x) for x in text.split("x")]
        self.ranks, self.tp, self.threads = (numbers + [1])[:3]
        self.name = text

    def power_of_two(self):
        return self.tp & (self.tp - 1) == 0


class Run:
    """How a program ended: status (None: it did not end in time), stdout, stderr."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err


def run(command, ranks=0, timeout=60, stdin=b"", env=None, preexec=None):
    """Runs a command, under launch/mpirun with so many ranks unless 0. On timeout, it and all its
    children are killed."""
    env = dict(os.environ, **(env or {}))
    if ranks:
        command = [os.path.join(ROOT, "launch", "mpirun"), "-n", str(ranks), *command]
        # Open MPI keeps memory until the process ends, in modules that are unloaded by then, so a
        # leak checker can neither tell it from ours nor name it. Runs of one process, which do not
        # start MPI, are checked.
        env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    process = subprocess.Popen(
        [str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=env, start_new_session=True, preexec_fn=preexec,
    )
    try:
        out, err = process.communicate(stdin, timeout=timeout)
        status = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 15)
        try:
            out, err = process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            out, err = process.communicate()
        status = None
    return Run(status, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


class Failed(Exception):
    """pdt did not do what was asked; the text says how."""


def arguments(ranks):
    """Of a driver called as PDT [--ranks N,...]: the program's path, and the numbers of ranks but 0."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pdt")
    parser.add_argument("--ranks", default=ranks)
    args = parser.parse_args()
    ranks = [int(x) for x in args.ranks.split(",") if int(x) > 0]
    if ranks:
        need_mpirun()
    return os.path.abspath(args.pdt), ranks


def kill_when(command, path):
    """Starts a program and kills it without warning as soon as `path` exists."""
    process = subprocess.Popen([str(x) for x in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 60
    while not os.path.exists(path) and process.poll() is None and time.time() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not os.path.exists(path):
        raise Failed(f"{path} was not written")


def refusals(cases, prefix, ranks=0, timeout=30):
    """What is wrong where each (name, command, status, part of the message) must be refused with one message; else None."""
    wrong = []
    for name, command, status, part in cases:
        result = run(command, ranks=ranks, timeout=timeout)
        lines = [x for x in result.err.splitlines() if x.startswith(prefix)]
        if result.status != status or len(lines) != 1 or part not in lines[0]:
            wrong.append(f"{name}: status {result.status}, expected {status} and '{part}': {result.err.strip()}")
    return "\n".join(wrong) or None


def run_checks(checks):
    """Runs (name, function that returns what is wrong, or None) one after another, and exits."""
    failures = 0
    for name, check in checks:
        try:
            problem = check()
        except Failed as e:
            problem = str(e)
        failures += problem is not None
        print(f"{'ok    ' if problem is None else 'FAILED'}  {name}{'' if problem is None else ': ' + problem}", flush=True)
    sys.exit(1 if failures else 0)


def decode(pdt, model, sidecar, request, trace, layout=Layout("1x1"), extra=(), timeout=120):
    """The trace of one run of `pdt decode`: one object, or a list for a .jsonl of requests."""
    if os.path.exists(trace):
        os.remove(trace)
    many = str(request).endswith(".jsonl")
    command = [pdt, "decode", "--model", model, "--sidecar", sidecar, "--requests" if many else "--request", request]
    command += ["--trace", trace, "--tp", layout.tp, "--threads", layout.threads, *extra]
    result = run(command, ranks=layout.ranks if layout.ranks > 1 else 0, timeout=timeout)
    if result.status is None:
        raise Failed(f"no end within {timeout} s")
    if result.status:
        raise Failed(f"exit status {result.status}: {result.err.strip()[-400:]}")
    try:
        with open(trace) as f:
            return [json.loads(line) for line in f] if many else json.load(f)
    except (OSError, ValueError) as e:
        raise Failed(f"its trace: {e}")


def closed_sidecar(pdt, model, path, streams):
    """Makes a sidecar whose gates are closed: sigmoid(-40) = 4e-18 is nothing beside a float32 sum, so
    the trunk behaves as if the sidecar were not there. Small, whatever the model."""
    small = "--plan-vocab 97 --plan-dim 16 --notes-dim 24 --adapter-dim 8 --pool-dim 12 --agree-dim 16 --coverage-dim 8"
    result = run(
        [pdt, "sidecar", "init", "--model", model, "--out", path, "--streams", streams, "--gate=-40", "--random", "--overwrite", *small.split()]
    )
    if result.status != 0:
        raise Failed(f"sidecar init: {result.err.strip()}")


def flat(x):
    return [v for y in x for v in flat(y)] if isinstance(x, list) else [x]


def close(got, want, tolerance=TOLERANCE):
    """Largest difference at most tolerance * (1 + largest wanted value); NaN is never close."""
    got, want = flat(got), flat(want)
    if len(got) != len(want) or not all(isinstance(x, (int, float)) and math.isfinite(x) for x in got):
        return False
    worst = max((abs(g - w) for g, w in zip(got, want)), default=0.0)
    return worst <= tolerance * (1 + max((abs(w) for w in want), default=0.0))


def _same(where, got, want, keys):
    for key in keys:
        if got.get(key) != want[key]:
            return f"{where}{key}: {got.get(key)} for {want[key]}"
    return None


def _round_difference(got, want, tolerance):
    where = f"round {want['round']} "
    bad = _same(where, got, want, ("round", "window", "gate", "actions", "stalled_next", "committed"))
    if bad:
        return bad
    if [s["stream"] for s in got["streams"]] != [s["stream"] for s in want["streams"]]:
        return where + "has other streams"
    for g, w in zip(got["streams"], want["streams"]):
        here = f"{where}stream {w['stream']} "
        bad = _same(here, g, w, ("attempt", "tokens"))
        if bad:
            return bad
        for key in ("note", "coverage", "readiness", "last_hidden"):
            if not close(g[key], w[key], tolerance):
                return f"{here}{key} differs by more than {tolerance}"
    return None


def difference(got, want, tolerance=TOLERANCE):
    """The first difference between two traces in words, or None."""
    bad = _same("", got, want, ("plan_ids", "slot_owner", "merge_order"))
    if bad:
        return bad
    if not close(got["plan_note"], want["plan_note"], tolerance):
        return "plan_note"
    if len(got["rounds"]) != len(want["rounds"]):
        return f"{len(got['rounds'])} rounds for {len(want['rounds'])}"
    for g, w in zip(got["rounds"], want["rounds"]):
        bad = _round_difference(g, w, tolerance)
        if bad:
            return bad
    if len(got["streams"]) != len(want["streams"]):
        return f"{len(got['streams'])} streams for {len(want['streams'])}"
    for g, w in zip(got["streams"], want["streams"]):
        bad = _same(f"stream {w['stream']} ", g, w, w)
        if bad:
            return bad
    return None
