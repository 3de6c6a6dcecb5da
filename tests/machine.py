#!/usr/bin/env python3
"""What the machine gives a run: processors, threads that wait, memory of control groups.

usage: machine.py PDT [--slow]

Limits are made for real where that is allowed (as root, with control groups that can be written);
elsewhere those checks say that they were left out. --slow: the program is an instrumented one, whose
speed says nothing.
"""
import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import harness

MODEL = os.path.join(harness.ROOT, "launch", "model")
CASE = os.path.join(harness.TESTS, "data", "cases", "selective-rollback")
GRACE = 60  # seconds until a run is taken to hang
SPINS = 300000  # libgomp's own


def clean(**more):
    """This environment without what tells OpenMP something."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    env.update(more)
    return env


def start(command, env):
    return subprocess.run([str(x) for x in command], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=GRACE)


def left_out(why):
    print(f"        (left out: {why})")


def small(pdt, *more):
    """A run on a model of some thousand parameters."""
    return [pdt, "decode", "--model", f"{CASE}/model", "--sidecar", f"{CASE}/sidecar.safetensors", "--request",
            f"{CASE}/request.json", *more]


def threads_of(result):
    found = re.search(r"(\d+) threads a rank", result.stderr)
    if not found:
        raise harness.Failed(f"status {result.returncode}: {result.stderr.strip()}")
    return int(found.group(1))


# ---- OpenMP ----


def waiting_as_told(pdt):
    """Every command sets it before OpenMP starts, unless the user has."""
    wrong = []
    cases = [
        ({}, lambda n: 100 <= n < SPINS),
        ({"GOMP_SPINCOUNT": "12345"}, lambda n: n == 12345),
        ({"OMP_WAIT_POLICY": "passive"}, lambda n: n == 0),
        ({"OMP_WAIT_POLICY": "active"}, lambda n: n > SPINS),
    ]
    for more, good in cases:
        for command in ([pdt, "--version"], [pdt, "sidecar", "init", "--help"], small(pdt, "--quiet", "--threads", "1")):
            err = start(command, clean(OMP_DISPLAY_ENV="verbose", **more)).stderr
            found = re.search(r"GOMP_SPINCOUNT = '(\d+|INFINITE)'", err)
            if not found:
                return "OpenMP does not say how long it spins"
            count = SPINS * 1000 if found.group(1) == "INFINITE" else int(found.group(1))
            if not good(count):
                wrong.append(f"{command[1]} with {more}: spins {count} times")
    return "; ".join(wrong) or None


@contextlib.contextmanager
def other_work(n):
    """n processes that do nothing but keep processors busy."""
    busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(n)]
    try:
        yield
    finally:
        for p in busy:
            p.kill()
            p.wait()


def timed(command, env, most):
    """Seconds of a run, `most` for one that does not end in that time."""
    begun = time.time()
    p = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, err = p.communicate(timeout=most)
    except subprocess.TimeoutExpired:
        p.kill()
        p.communicate()
        return most
    if p.returncode:
        raise harness.Failed(err.decode().strip())
    return time.time() - begun


def beside_other_work(pdt, scratch):
    """Two threads that share processors with others are no ten times slower than one."""
    requests = os.path.join(scratch, "six.jsonl")
    with open(requests, "w") as f:
        for i in range(6):
            settings = {"max_tokens": 48, "seed": i, "temperature": 0.8}
            f.write(json.dumps({"prompt": "Describe Velmora.", "session": i + 1, "settings": settings}) + "\n")
    command = [pdt, "decode", "--model", MODEL, "--sidecar", f"{MODEL}/sidecar.safetensors", "--requests", requests, "--quiet"]
    tries = []
    with other_work(4):
        for _ in range(4):
            one = timed(command + ["--threads", "1"], clean(), GRACE)
            two = timed(command + ["--threads", "2"], clean(), 10 * one + 0.1)
            tries.append(f"{two:.2f} s for {one:.2f}")
            if two < 10 * one:
                print(f"        ({tries[-1]})")
                return None
    return "two threads against one: " + ", ".join(tries)


def threads_of_environment(pdt):
    wrong = []
    processors = len(os.sched_getaffinity(0))
    cases = [("3", [], 3), ("5,2", [], 5), (" 2 ", [], 2), ("3", ["--threads", "1"], 1), ("0", [], None), ("-4", [], None),
             ("many", [], None), ("", [], None), ("100000000000", [], None)]
    for value, flags, expected in cases:
        result = start(small(pdt, "--verbose", *flags), clean(OMP_NUM_THREADS=value))
        got = threads_of(result)
        if got != expected and not (expected is None and 1 <= got <= processors):
            wrong.append(f"OMP_NUM_THREADS='{value}' {flags}: {got} threads")
    return "; ".join(wrong) or None


# ---- processors ----


def sets_of_processors(pdt):
    """One rank may run on two processors, the other on the second of them: a thread each."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2 or not shutil.which("taskset") or not shutil.which("mpirun"):
        return left_out("two processors, taskset and mpirun are needed")
    a, b = processors[:2]
    script = f'if [ "$OMPI_COMM_WORLD_RANK" = 0 ]; then set -- taskset -c {a},{b} "$@"; else set -- taskset -c {b} "$@"; fi; exec "$@"'
    alone = start(["taskset", "-c", str(b), *small(pdt, "--verbose")], clean())
    mpirun = os.path.join(harness.ROOT, "launch", "mpirun")
    both = start([mpirun, "-n", "2", "sh", "-c", script, "sh", *small(pdt, "--verbose")], clean(ASAN_OPTIONS=QUIET))
    got = threads_of(alone), threads_of(both)
    return None if got == (1, 1) else f"{got[0]} threads on one processor, {got[1]} beside one that has half"


# ---- control groups ----


def hierarchy(controller):
    """Folder of this process's group, whether it is of version 2; (None, False) when there is none."""
    with open("/proc/self/cgroup") as f:
        groups = {}
        for line in f:
            _, names, path = line.rstrip("\n").split(":", 2)
            groups.update({name: path for name in names.split(",")})
    with open("/proc/self/mountinfo") as f:
        for line in f:
            fields, _, rest = line.partition(" - ")
            at, (kind, _, options) = fields.split()[4], rest.split(maxsplit=2)
            if kind == "cgroup" and controller in options.strip().split(",") and controller in groups:
                return at + groups[controller].rstrip("/"), False
            if kind == "cgroup2":
                with open(at + "/cgroup.subtree_control") as control:
                    if controller in control.read().split():
                        return at, True  # below the root of what is seen: elsewhere groups with processes have none
    return None, False


@contextlib.contextmanager
def group(controller, v1, v2):
    """A group with a limit two levels up; gives the folder that processes go to, or None where that is not allowed."""
    at, second = hierarchy(controller)
    outer = at and f"{at}/pdt-test-{os.getpid()}"
    made = []
    try:
        if not at:
            raise OSError("no such controller")
        for folder in (outer, f"{outer}/inner", f"{outer}/inner/innermost"):
            os.mkdir(folder)
            made.append(folder)
        for name, value in (v2 if second else v1).items():
            with open(f"{outer}/{name}", "w") as f:
                f.write(str(value))
        usable = made[-1]
    except OSError as e:
        usable = None
        left_out(f"no control group can be made here: {e}")
    try:
        yield usable
    finally:
        for folder in reversed(made):
            for _ in range(50):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
                    break
                time.sleep(0.1)


def inside(folder, command):
    return ["sh", "-c", 'echo $$ >"$0"/cgroup.procs && exec "$@"', folder, *command]


def large(pdt, scratch):
    """A run that needs 400 MiB of cache."""
    requests = os.path.join(scratch, "many.jsonl")
    with open(requests, "w") as f:
        for i in range(64):
            f.write(json.dumps({"prompt": "Describe Velmora.", "session": i, "settings": {"max_tokens": 400, "streams": 4}}) + "\n")
    return [pdt, "decode", "--model", MODEL, "--sidecar", f"{MODEL}/sidecar.safetensors", "--requests", requests,
            "--max-sessions", "64", "--quiet", "--threads", "1"]


def memory_of_groups(pdt, scratch):
    limit = 300 << 20
    with group("memory", {"memory.limit_in_bytes": limit}, {"memory.max": limit}) as folder:
        if not folder:
            return None
        result = start(inside(folder, large(pdt, scratch)), clean())
        found = re.search(r"its memory allows ([\d.e+]+) MiB", result.stderr)
        if result.returncode != 1 or not found or float(found.group(1)) > 300:
            return f"status {result.returncode}: {result.stderr.strip()}"
    return None


def quotas_of_groups(pdt):
    if len(os.sched_getaffinity(0)) < 2:
        return left_out("two processors are needed")
    with group("cpu", {"cpu.cfs_quota_us": 100000}, {"cpu.max": "100000 100000"}) as folder:
        if not folder:
            return None
        got = threads_of(start(inside(folder, small(pdt, "--verbose")), clean()))
    return None if got == 1 else f"{got} threads in a group that may use one processor"


def own_limits(pdt, scratch):
    """ulimit -v and -d: the cache is refused, with what there is."""
    wrong = []
    for flag, kib in ("v", 500000), ("d", 200000):
        result = start(["sh", "-c", f'ulimit -{flag} {kib} && exec "$@"', "sh", *large(pdt, scratch)], clean())
        if result.returncode != 1 or "its memory allows" not in result.stderr:
            wrong.append(f"ulimit -{flag} {kib}: status {result.returncode}: {result.stderr.strip()}")
    return "; ".join(wrong) or None


def little_memory(pdt):
    """One of four ranks, or all, may have little memory: an answer or one message, and never a hang."""
    if not shutil.which("mpirun"):
        return left_out("mpirun is needed")
    wrong = []
    mpirun = os.path.join(harness.ROOT, "launch", "mpirun")
    for mib, ranks in (350, "1"), (600, "1"), (600, "*"), (1000, "1"):
        script = f'case $OMPI_COMM_WORLD_RANK in {ranks}) ulimit -v {mib * 1024} ;; esac; exec "$@"'
        command = [mpirun, "-n", "4", "sh", "-c", script, "sh", *small(pdt, "--quiet", "--json", "--threads", "1")]
        what = f"{mib} MiB on ranks {ranks}"
        try:
            begun, result = time.time(), start(command, clean())
        except subprocess.TimeoutExpired:
            wrong.append(f"{what}: no end")
            continue
        print(f"        ({what}: status {result.returncode} after {time.time() - begun:.1f} s)")
        told = [x for x in result.stderr.splitlines() if x.startswith("pdt")]
        if result.returncode == 0 and '"answer"' not in result.stdout:
            wrong.append(f"{what}: no answer")
        if result.returncode and (not told or '"answer"' in result.stdout):
            wrong.append(f"{what}: status {result.returncode}: {result.stderr.strip()}")
    alone = start(["sh", "-c", 'ulimit -v 307200 && exec "$@"', "sh", pdt, "--version"], clean())  # hung at its end
    if alone.returncode or not alone.stdout.startswith("pdt"):
        wrong.append(f"--version in 300 MiB: status {alone.returncode}: {alone.stderr.strip()}")
    return "; ".join(wrong) or None


def little_stack(pdt):
    """A stack of some kilobytes: raised where that is allowed, else one message."""
    wrong = []
    cases = [
        ("ulimit -s 64", 1, "the stack may have 64 KiB"),
        ("ulimit -s 300", 1, "the stack may have 300 KiB"),
        ("ulimit -S -s 64", 0, ""),
        ("export OMP_STACKSIZE=64k", 2, "OMP_STACKSIZE: expected stacks of at least 256 KiB"),
        ("export OMP_STACKSIZE=1M", 0, ""),
    ]
    mpirun = os.path.join(harness.ROOT, "launch", "mpirun")
    for before in [], [mpirun, "-n", "2"]:
        if before and not shutil.which("mpirun"):
            continue
        for limit, status, part in cases:
            command = [*before, *small(pdt, "--quiet", "--json", "--threads", "2")]
            result = start(["bash", "-c", limit + ' && exec "$@"', "bash", *command], clean(ASAN_OPTIONS=QUIET))
            told = [x for x in result.stderr.splitlines() if x.startswith(("pdt", "launch/mpirun"))]
            if result.returncode != status or len(told) != (status != 0) or part not in "".join(told):
                wrong.append(f"{limit}, {' '.join(before)}: status {result.returncode}: {result.stderr.strip()}")
    return "; ".join(wrong) or None


QUIET = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"  # as harness.run has it under MPI


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pdt")
    p.add_argument("--slow", action="store_true")
    a = p.parse_args()
    pdt = os.path.abspath(a.pdt)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that busy processes end with this one
    with tempfile.TemporaryDirectory() as scratch:
        checks = [
            ("OpenMP waits as it is told", lambda: waiting_as_told(pdt)),
            ("OMP_NUM_THREADS", lambda: threads_of_environment(pdt)),
            ("sets of processors", lambda: sets_of_processors(pdt)),
            ("memory of control groups", lambda: memory_of_groups(pdt, scratch)),
            ("quotas of control groups", lambda: quotas_of_groups(pdt)),
            ("little stack", lambda: little_stack(pdt)),
        ]
        if not a.slow:  # instrumented programs reserve all addresses there are
            checks += [
                ("limits of the process", lambda: own_limits(pdt, scratch)),
                ("little memory", lambda: little_memory(pdt)),
                ("beside other work", lambda: beside_other_work(pdt, scratch)),
            ]
        harness.run_checks(checks)


main()
