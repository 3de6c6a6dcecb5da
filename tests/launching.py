#!/usr/bin/env python3
"""How runs are started, and what starts them: launch/mpirun's standard input and signals, launchers
that MPI cannot join, containers that refuse to copy between processes.

usage: launching.py PDT
"""
import ctypes
import json
import os
import platform
import signal
import struct
import subprocess
import sys
import tempfile
import time

import harness

CASE = os.path.join(harness.TESTS, "data", "cases", "selective-rollback")
MPIRUN = os.path.join(harness.ROOT, "launch", "mpirun")
MODEL = os.path.join(harness.ROOT, "launch", "model")
GRACE = 60


def environment(**more):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PMI", "SLURM", "OMPI_COMM", "MPI_LOCAL", "MV2_"))}
    env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"  # as harness.run has it
    env.update(more)
    return env


def small(pdt):
    return [pdt, "decode", "--model", f"{CASE}/model", "--sidecar", f"{CASE}/sidecar.safetensors", "--request",
            f"{CASE}/request.json", "--threads", "1", "--quiet", "--json"]


def shell_loop(pdt):
    """A loop that reads lines around the program: it runs once for each."""
    wrong = []
    for name, command in ("pdt", []), ("launch/mpirun -n 1", [MPIRUN, "-n", "1"]), ("launch/mpirun -n 2", [MPIRUN, "-n", "2"]):
        script = 'while read -r line; do echo "line $line"; "$@" >/dev/null; done'
        result = subprocess.run(["bash", "-c", script, "bash", *command, *small(pdt)], input="a\nb\nc\n", text=True,
                                capture_output=True, env=environment(), timeout=GRACE)
        if result.stdout.split() != ["line", "a", "line", "b", "line", "c"]:
            wrong.append(f"{name}: {result.stdout.split()} {result.stderr.strip()}")
    result = subprocess.run([MPIRUN, "--stdin", "0", "-n", "1", "cat"], input="for the rank", text=True,
                            capture_output=True, env=environment(), timeout=GRACE)
    if result.stdout != "for the rank":
        wrong.append(f"--stdin 0: the rank read '{result.stdout}' {result.stderr.strip()}")
    return "; ".join(wrong) or None


def values_of_options(_):
    """Options of launch/mpirun without their values."""
    wrong = []
    for words in (["-n"], ["-n", "x"], ["-n", "0"], ["--stdin"], ["--mca", "a"], ["--host"], ["-n", "1"], []):
        result = subprocess.run([MPIRUN, *words], capture_output=True, text=True, env=environment(), timeout=GRACE)
        if result.returncode != 2 or not result.stderr.startswith("launch/mpirun: "):
            wrong.append(f"{words}: status {result.returncode}: {result.stderr.strip()}")
    return "; ".join(wrong) or None


def places(_):
    """Where ranks go and what they use: the line that would be run, as --dry-run prints it."""
    with tempfile.NamedTemporaryFile("w") as f:
        f.write("# two machines\na slots=4\n\nb slots=4\n")
        f.flush()
        cases = [
            (["--hosts", "a,b", "--per-host", "4"], "mpirun -n 8 --host a:4\\,b:4 --map-by ppr:4:node --bind-to none prog x"),
            (["--hosts", "a,b", "-n", "3"], "mpirun -n 3 --host a:2\\,b:2 --bind-to none prog x"),
            (["--hostfile", f.name, "--per-host", "2"],
             f"mpirun -n 4 --hostfile {f.name} --oversubscribe --map-by ppr:2:node --bind-to none prog x"),
            (["--hostfile", f.name, "-n", "8"], f"mpirun -n 8 --hostfile {f.name} --bind-to none prog x"),
            (["-n", "1", "--tp", "2", "--threads", "3"], "mpirun -n 1 --bind-to none prog x --tp 2 --threads 3"),
            (["--hosts", "a", "--per-host", "2", "--threads", "4", "--bind", "cores"],
             "mpirun -n 2 --host a:2 --map-by ppr:2:node:PE=4 --bind-to core prog x --threads 4"),
            (["-n", "1", "--bind", "numa"], "mpirun -n 1 --bind-to numa prog x"),
            (["-n", "1", "--map-by", "slot", "--mca", "a", "b"], "mpirun -n 1 --map-by slot --mca a b prog x"),
            (["-n", "1", "--interface", "eth1"],
             "OMPI_MCA_btl_tcp_if_include=eth1 OMPI_MCA_oob_tcp_if_include=eth1 NCCL_SOCKET_IFNAME=eth1 "
             "mpirun -n 1 --bind-to none -x NCCL_SOCKET_IFNAME prog x"),
            (["-n", "1", "--interface", "10.1.0.0/16"],
             "OMPI_MCA_btl_tcp_if_include=10.1.0.0/16 OMPI_MCA_oob_tcp_if_include=10.1.0.0/16 mpirun -n 1 --bind-to none prog x"),
        ]
        wrong = []
        clean = {k: v for k, v in environment().items() if not k.startswith("OMPI_MCA")}
        for words, want in cases:
            r = subprocess.run([MPIRUN, "--dry-run", *words, "prog", "x"], capture_output=True, text=True, env=clean, timeout=GRACE)
            if r.returncode or not r.stdout.strip().endswith(" " + want) or "keepalive_time=2 " not in r.stdout or r.stderr:
                wrong.append(f"{words}: {r.stdout.strip()} {r.stderr.strip()}")
    for words in (["--hosts", "a", "--hostfile", "/dev/null"], ["--hosts", "a b"], ["--hosts", "a,,b"], ["--hostfile", "/no/such"],
                  ["--per-host", "0"], ["--bind", "cores"], ["--bind", "all"], ["--tp"], ["--interface", ""], ["--threads", "x"]):
        r = subprocess.run([MPIRUN, "--dry-run", *words, "prog"], capture_output=True, text=True, env=environment(), timeout=GRACE)
        if r.returncode != 2 or not r.stderr.startswith("launch/mpirun: ") or r.stdout:
            wrong.append(f"{words}: status {r.returncode}: {r.stdout.strip()} {r.stderr.strip()}")
    r = subprocess.run([MPIRUN, "-n", "1", "--threads", "2", "echo"], capture_output=True, text=True, env=environment(), timeout=GRACE)
    if r.stdout != "--threads 2\n" or not r.stderr.strip().endswith("echo --threads 2"):
        wrong.append(f"the line that is run: {r.stdout} {r.stderr}")
    return "; ".join(wrong) or None


def started_together(pdt):
    """Processes that another launcher started: one message from all of them, and no answer."""
    wrong = []
    cases = [
        ("Intel", lambda r: {"PMI_SIZE": "4", "PMI_RANK": str(r), "MPI_LOCALNRANKS": "4", "MPI_LOCALRANKID": str(r)}),
        ("MVAPICH", lambda r: {"MV2_COMM_WORLD_SIZE": "4", "MV2_COMM_WORLD_RANK": str(r)}),
        ("srun", lambda r: {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": str(r), "SLURM_NTASKS": "4"}),
        ("srun --mpi=pmi2", lambda r: {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": str(r), "PMI_SIZE": "4", "PMI_RANK": str(r)}),
    ]
    for name, variables in cases:
        out, err, status = "", [], set()
        for rank in (0, 3):
            r = subprocess.run(small(pdt), env=environment(**variables(rank)), stdin=subprocess.DEVNULL, capture_output=True,
                               text=True, timeout=GRACE)
            out += r.stdout
            err += [x for x in r.stderr.splitlines() if x.startswith("pdt")]
            status.add(r.returncode)
        if out or len(err) != 1 or status != {2} or "mpirun of Open MPI" not in err[0]:
            wrong.append(f"{name}: {len(out)} bytes of answers, status {status}, messages {err}")
    return "; ".join(wrong) or None


def started_alone(pdt):
    """What looks alike, but is one process, or a launcher that MPI knows inside another."""
    wrong = []
    step = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "PMI_SIZE": "4", "PMI_RANK": "3"}
    cases = [
        ("a batch script", [], {"SLURM_NTASKS": "4", "SLURM_NPROCS": "4", "SLURM_PROCID": "0"}),
        ("one of a hydra", [], {"PMI_SIZE": "1", "PMI_RANK": "0"}),
        ("a step of one", [], {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}),
        ("mpirun -n 1 in a batch script", [MPIRUN, "-n", "1"], {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}),
        ("mpirun -n 1 in a step", [MPIRUN, "-n", "1"], step),
        ("mpirun -n 2 in a step", [MPIRUN, "-n", "2"], step),
    ]
    for name, before, more in cases:
        r = subprocess.run([*before, *small(pdt)], env=environment(**more), stdin=subprocess.DEVNULL, capture_output=True,
                           text=True, timeout=GRACE)
        answers = [json.loads(x) for x in r.stdout.splitlines() if '"answer"' in x]
        if r.returncode or len(answers) != 1:
            wrong.append(f"{name}: status {r.returncode}, {len(answers)} answers: {r.stderr.strip()}")
    return "; ".join(wrong) or None


def refuse_copies():
    """Of this process and its children: reading another one's memory (system calls 310, 311) is not permitted."""
    def op(code, yes, no, value):
        return struct.pack("HBBI", code, yes, no, value)

    load, equal, ret = 0x20, 0x15, 0x06
    program = op(load, 0, 0, 0) + op(equal, 1, 0, 310) + op(equal, 0, 1, 311) + op(ret, 0, 0, 0x00050001) + op(ret, 0, 0, 0x7FFF0000)
    text = ctypes.create_string_buffer(program)
    filter_ = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.create_string_buffer(filter_), 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def containers(pdt):
    """Where copies between processes are refused, Open MPI does not complain of it at every message."""
    if platform.machine() != "x86_64":
        print("        (left out: system calls have other numbers here)")
        return None
    # the ranks of a group exchange the states of 128 tokens at once: more than goes without a copy
    request = {"prompt": "The first wall went up in a valley. " * 16, "settings": {"max_tokens": 8}}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump(request, f)
        f.flush()
        command = [MPIRUN, "-n", "2", pdt, "decode", "--model", MODEL, "--sidecar", f"{MODEL}/sidecar.safetensors",
                   "--request", f.name, "--threads", "1", "--quiet", "--json"]
        try:
            refused = subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                     timeout=GRACE, preexec_fn=refuse_copies)
        except subprocess.SubprocessError as e:
            print(f"        (left out: {e})")
            return None
        plain = subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=GRACE)
    if refused.returncode or plain.returncode or refused.stdout != plain.stdout:
        return f"status {refused.returncode} and {plain.returncode}: {refused.stderr[-300:]}"
    lines = len(refused.stderr.splitlines())
    return f"{lines} lines: {refused.stderr[:300]}" if lines > 5 else None


def children_of(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(x) for x in found] + [y for x in found for y in children_of(int(x))]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def signals(_):
    """SIGINT and SIGTERM to launch/mpirun end all ranks."""
    wrong = []
    for number in signal.SIGINT, signal.SIGTERM:
        p = subprocess.Popen([MPIRUN, "-n", "2", "sleep", "300"], env=environment(), stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        ranks, deadline = [], time.time() + GRACE
        while len(ranks) < 2 and time.time() < deadline:
            time.sleep(0.1)
            ranks = children_of(p.pid)
        p.send_signal(number)
        try:
            p.wait(GRACE)
        except subprocess.TimeoutExpired:
            p.kill()
            wrong.append(f"{number.name}: launch/mpirun goes on")
        time.sleep(0.2)
        left = [x for x in ranks if alive(x)]
        if len(ranks) < 2 or left:
            wrong.append(f"{number.name}: {len(ranks)} processes were started, {len(left)} go on")
        for x in left:
            os.kill(x, signal.SIGKILL)
    return "; ".join(wrong) or None


def main():
    pdt, _ = harness.arguments("2")
    checks = [
        ("a loop over lines", shell_loop),
        ("options without values", values_of_options),
        ("places", places),
        ("other launchers", started_together),
        ("one process", started_alone),
        ("containers", containers),
        ("signals", signals),
    ]
    harness.run_checks([(name, lambda check=check: check(pdt)) for name, check in checks])


main()
