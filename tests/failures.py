#!/usr/bin/env python3
"""Ranks that fail while others wait for them: all end, soon, and one message says who, where and in what.

usage: failures.py PDT_FAULTY [--checked]

PDT_FAULTY is pdt with faults (tests/faulty/faulty.c); --checked: a build that checks, which finds ranks
that diverge by itself, and ends where they do. Hosts that are cut off or crash are network
namespaces of this machine (tests/hosts.py), which root can make; else they are left out, and that is said.
"""
import argparse
import json
import os
import re
import signal
import subprocess
import tempfile
import time

import harness
import hosts

MODEL = os.path.join(harness.ROOT, "launch", "model")
MPIRUN = os.path.join(harness.ROOT, "launch", "mpirun")
RANKS, AT = 4, 12
MOST_SECONDS = 10
STOPPED = 75  # "go on with me later"
table = []


class Case:
    """A run that is under way, with its files in a folder of its own."""

    def __init__(self, pdt, options, fault="", extra=(), sessions=40, before=(MPIRUN,)):
        self.pdt = pdt
        self.folder = tempfile.TemporaryDirectory(prefix="pdt-failures-")
        self.journal, self.out, self.mark = (self.path(n) for n in ("journal", "out", "mark"))
        with open(self.path("in.jsonl"), "w") as f:
            for i in range(sessions):
                settings = {"max_tokens": 200, "temperature": 0.9, "seed": i}
                f.write(json.dumps({"prompt": "Describe Velmora. Sections: history; trade.", "session": i,
                                    "sections": ["\nHistory:", "\nTrade:"] * 2, "settings": settings}) + "\n")
        command = [*before, *options, pdt, "decode", "--model", MODEL, "--sidecar", f"{MODEL}/sidecar.safetensors", "--requests",
                   self.path("in.jsonl"), "--threads", 1, "--max-sessions", 2, "--quiet", "--json", "--out", self.out,
                   "--journal", self.journal, *extra]
        env = dict(os.environ, PDT_FAULT=fault, PDT_FAULT_MARK=self.mark)
        env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
        self.process = subprocess.Popen([str(x) for x in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=env, start_new_session=True, text=True)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def ranks(self):
        """Processes of pdt that this run has: {rank: pid}."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    words = f.read().split(b"\0")
                with open(f"/proc/{pid}/environ", "rb") as f:
                    variables = f.read().split(b"\0")
            except OSError:
                continue
            if words[1:2] != [b"decode"] or self.journal.encode() not in words:
                continue
            rank = [v.split(b"=")[1] for v in variables if v.startswith(b"OMPI_COMM_WORLD_RANK=")]
            found[int(rank[0]) if rank else 0] = int(pid)
        return found

    def wait_for_rounds(self, entries=40):
        deadline = time.time() + 60
        while time.time() < deadline and self.process.poll() is None:
            if os.path.exists(self.journal) and os.path.getsize(self.journal) > entries * 200:
                return
            time.sleep(0.05)
        self.end(0)
        raise harness.Failed(f"it does not come to its rounds: {self.err[-400:]}")

    def end(self, seconds):
        """Waits; status None: it goes on after so many seconds."""
        try:
            self.printed, self.err = self.process.communicate(timeout=seconds)
            self.status = self.process.returncode
        except subprocess.TimeoutExpired:
            self.status = None
            for pid in [*self.ranks().values(), self.process.pid]:
                os.kill(pid, signal.SIGKILL)
            self.printed, self.err = self.process.communicate()
        self.ended = time.time()
        while self.ranks() and time.time() < self.ended + MOST_SECONDS:
            time.sleep(0.05)
        self.left = self.ranks()
        for pid in self.left.values():
            os.kill(pid, signal.SIGKILL)
        self.ended = time.time()

    def decisions(self):
        """Those in the journal, which must be whole up to its end; None: it is not."""
        report = harness.run([self.pdt, "inspect", "--json", self.journal])
        totals = [json.loads(line) for line in report.out.splitlines() if line.startswith('{"type":"totals"')]
        return totals[0]["boundaries"] if report.status == 0 and totals else None

    def messages(self):
        """pdt's; Open MPI's own where its daemons were the first to miss a host, which they do after 5 s."""
        said = [x for x in self.err.splitlines() if x.startswith("pdt")]
        return said or [x.strip() for x in self.err.splitlines() if "lost communication with a remote daemon" in x][:1]

    def wrong(self, since, status, pattern, decisions=None):
        """What is not as it must be: time, status, one message, a sound journal, nothing half-written."""
        seconds = self.ended - since
        found = self.decisions()
        said = self.messages()
        bad = []
        if self.status is None or seconds > MOST_SECONDS or self.left:
            bad.append(f"{seconds:.1f} s, {len(self.left)} ranks are left")
        if self.status is not None and (self.status == 0 if status is None else self.status != status):
            bad.append(f"status {self.status}, expected {status if status is not None else 'another'}")
        if len(said) != 1 or not re.search(pattern, said[0]):
            bad.append(f"expected one message like '{pattern}', found {said}")
        if found is None or (decisions is not None and found not in decisions) or found < 1:
            bad.append(f"the journal has {found} decisions, expected {decisions or 'some'}")
        if os.path.exists(self.out):
            bad.append("half of --out is there")
        return seconds, said, "; ".join(bad) or None


def faulty(pdt, name, kind, rank, pattern, status=None, decisions=(AT - 1,), extra=()):
    """A rank of four fails at a boundary."""
    case = Case(pdt, ["-n", RANKS], f"{kind}:{rank}:{AT}", extra)
    case.end(60)
    if not os.path.exists(case.mark):
        return f"no fault came: {case.err[-400:]}"
    seconds, said, bad = case.wrong(os.path.getmtime(case.mark), status, pattern, decisions)
    table.append((name, seconds, said[0] if said else ""))
    return bad


def slow(pdt):
    """A rank that computes for longer than an exchange may take is waited for, and the others sleep less than they spin."""
    case = Case(pdt, ["-n", 2], f"slow:1:{AT}", ["--exchange-timeout", "2"], sessions=2)
    case.end(60)
    return None if case.status == 0 else f"status {case.status}: {case.err[-400:]}"


def signalled(pdt, name, number, whom):
    """A signal to one rank, or to who started it: the round is finished, and the status says so."""
    case = Case(pdt, ["-n", RANKS])
    case.wait_for_rounds()
    since = time.time()
    os.kill(case.process.pid if whom == "mpirun" else case.ranks()[whom], number)
    case.end(60)
    said = case.messages()
    seconds = case.ended - since
    table.append((name, seconds, said[-1] if said else ""))
    return stopped_wrong(case, seconds, said, case.journal)


def stopped_wrong(case, seconds, said, journal):
    bad = []
    if case.status != STOPPED or case.left or seconds > MOST_SECONDS:
        bad.append(f"status {case.status} after {seconds:.1f} s, {len(case.left)} ranks are left")
    if len(said) != 2 or not re.search(r"go on with: .* decode .*--journal \S+ --resume", said[0]) or "stopped by a signal" not in said[1]:
        bad.append(f"messages: {said}")
    told = re.search(r"behind boundary (\d+)", said[-1]) if said else None
    if not told or case.decisions() != int(told.group(1)):
        bad.append(f"{case.decisions()} decisions in {journal}")
    if os.path.exists(case.out):
        bad.append("half of --out is there")
    return "; ".join(bad) or None


def alone(pdt):
    """One process: a signal finishes its round, two end it at once."""
    case = Case(pdt, [], f"term:0:{AT}", before=())
    case.end(60)
    bad = stopped_wrong(case, case.ended - os.path.getmtime(case.mark), case.messages(), case.journal)
    if not bad and case.decisions() != AT:
        bad = f"{case.decisions()} decisions, expected {AT}: the round of the signal is finished"
    case = Case(pdt, [], f"term2:0:{AT}", before=())
    case.end(60)
    if case.status != -signal.SIGTERM or case.decisions() != AT - 1:
        bad = f"{bad or ''} a second signal: status {case.status}, {case.decisions()} decisions"
    return bad


def host(pdt, name, action, which, pattern, delay=0):
    """A host of four is cut off, or crashes."""
    with hosts.Hosts(4, delay=delay) as h:
        case = Case(pdt, h.options())
        case.wait_for_rounds()
        since = time.time()
        getattr(h, action)(which)
        case.end(60)
        seconds, said, bad = case.wrong(since, None, pattern)
    table.append((name, seconds, said[0] if said else ""))
    return bad


def host_checks(pdt):
    why = hosts.why_not()
    if why:
        print(f"skipped hosts that are cut off or crash: {why}")
        return []
    gone = r"(round \d+|between rounds): rank 2 on h3 has not been heard for .* s; rank 0 on h1 waits in |lost communication"
    return [
        ("host cut off", lambda: host(pdt, "host of rank 2 cut off", "cut", "h3", gone)),
        ("host cut off, 1 ms away", lambda: host(pdt, "host of rank 2 cut off, 1 ms away", "cut", "h3", gone, delay=0.001)),
        ("host crashes", lambda: host(pdt, "host of rank 2 crashes", "crash", "h3", gone)),
        ("rank 0's host cut off", lambda: host(pdt, "host of rank 0 cut off", "cut", "h1",
                                               r"(round \d+|between rounds): rank [0-3] on h\d (\(and \d more\) )?ha(s|ve) not been heard|lost communication")),
    ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pdt")
    parser.add_argument("--checked", action="store_true")
    args = parser.parse_args()
    pdt = os.path.abspath(args.pdt)
    harness.need_mpirun()
    here = os.uname().nodename
    waits = r"waits in [a-z-]+ "

    def one(name, kind, rank, pattern, **more):
        return name, lambda: faulty(pdt, name, kind, rank, pattern.replace("HERE", re.escape(here)), **more)

    diverging = [
        one("rank 2 diverges (a bit of its bus)", "flip", 2, rf"boundary {AT + 1}: gather: rank 2 on HERE diverged", status=1, decisions=(AT,)),
        one("rank 0 diverges", "flip", 0, rf"boundary {AT + 1}: gather: rank 0 on HERE diverged", status=1, decisions=(AT,)),
        one("rank 3 makes another exchange", "stray", 3,
            rf"round {AT}: no exchange has got on for 6.\d s: rank 3 on HERE waits in barrier; rank 0 on HERE waits in gather", status=1),
    ]
    checked = [one("rank 3 makes another exchange", "stray", 3, "collective calls: .* pdt_comm_gather.* on rank 0, pdt_comm_barrier.* on rank 3",
                   status=1)]
    checks = [
        one("rank 2 killed", "kill", 2, rf"round {AT}: rank 2 on HERE has ended; rank 0 on HERE {waits}"),
        one("rank 0 killed", "kill", 0, rf"round {AT}: rank 0 on HERE has ended; rank 1 on HERE {waits}"),
        one("rank 2 ends by itself", "exit", 2, rf"round {AT}: rank 2 on HERE has ended; rank 0 on HERE {waits}"),
        one("rank 2 stopped", "stop", 2, rf"round {AT}: rank 2 on HERE has not been heard for [67].\d s; rank 0 on HERE {waits}", status=1),
        one("rank 0 stopped", "stop", 0, rf"round {AT}: rank 0 on HERE has not been heard for [67].\d s; rank 1 on HERE {waits}", status=1,
            decisions=(AT - 1, AT)),  # mpirun lets it go on for a second before it ends it
        one("rank 1 sticks, --round-timeout 3", "stick", 1, rf"round {AT}: it has taken 3.\d s: rank 1 on HERE computes; rank 0 on HERE {waits}",
            status=1, extra=["--round-timeout", "3"]),
        ("a rank that computes for long", lambda: slow(pdt)),
        *[(f"{number.name} to {whom if whom == 'mpirun' else f'rank {whom}'}",
           lambda number=number, whom=whom: signalled(pdt, f"{number.name} to {whom if whom == 'mpirun' else f'rank {whom}'}", number, whom))
          for number, whom in ((signal.SIGTERM, 1), (signal.SIGINT, 0), (signal.SIGUSR1, "mpirun"), (signal.SIGTERM, "mpirun"))],
        ("one process", lambda: alone(pdt)),
        *(checked if args.checked else diverging),
        *host_checks(pdt),
        ("times", print_table),
    ]
    harness.run_checks(checks)


def print_table():
    for name, seconds, said in table:
        print(f"        {name:40} {seconds:5.1f} s  {said[:110]}")


main()
