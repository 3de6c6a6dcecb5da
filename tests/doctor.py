#!/usr/bin/env python3
"""pdt doctor: a table that aligns, the same as JSON, and the odd one out by name.

usage: doctor.py PDT [--ranks 3]   (0: one process only)
"""
import json
import os
import re
import shutil
import tempfile

import harness

CASE = os.path.join(harness.TESTS, "data", "cases")
HERE = os.uname().nodename
KEYS = {"rank", "host", "cores", "numa_nodes", "memory_bytes", "limit_bytes", "clock_ms", "interfaces", "mpi", "pmix", "kernels",
        "gpu", "build", "program", "model", "sidecar"}


def model(name):
    return ["--model", f"{CASE}/{name}/model", "--sidecar", f"{CASE}/{name}/sidecar.safetensors"]


def table(pdt, ranks):
    """One line a rank; columns begin where their titles do."""
    result = harness.run([pdt, "doctor", *model("bf16")], ranks)
    lines = result.out.splitlines()
    n = max(ranks, 1)
    if result.status != 0 or result.err or len(lines) != n + 3 or lines[-1] != "nothing is wrong":
        return f"status {result.status}: {result.out}{result.err}"
    at = [lines[0].index(title) for title in ("host", "mpi", "pmix", "kernels", "build", "program", "model", "sidecar", "interfaces")]
    for r, line in enumerate(lines[1:n + 1]):
        if line.split()[:2] != [str(r), HERE] or any(line[a - 2:a] != "  " or line[a] == " " for a in at):
            return f"columns do not align: {result.out}"
    return None if re.match(rf"exchanges of {n} ranks, us: barrier \d+\.\d, all-reduce of 8 bytes \d", lines[n + 1]) else lines[n + 1]


def as_json(pdt, ranks):
    result = harness.run([pdt, "doctor", "--json", *model("bf16")], ranks)
    if result.status != 0 or result.err:
        return f"status {result.status}: {result.err}"
    found = json.loads(result.out)
    n = max(ranks, 1)
    if [r["rank"] for r in found["ranks"]] != list(range(n)) or any(set(r) != KEYS for r in found["ranks"]):
        return f"ranks: {found['ranks']}"
    first = found["ranks"][0]
    if first["host"] != HERE or not 1 <= first["cores"] <= os.cpu_count() or first["memory_bytes"] < 1 << 20 or abs(first["clock_ms"]) > 0:
        return f"rank 0: {first}"
    if set(found["microseconds"]) != {"barrier", "all_reduce", "gather", "broadcast"} or found["problems"] != 0 or found["told"]:
        return f"besides: {found}"
    return None


def odd(pdt, ranks, name, line, want):
    """Rank 1 runs something else than the others: it is named, and the status is 1."""
    result = harness.run(["bash", "-c", f'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then {line}; fi; exec "$@"', "bash", pdt, "doctor",
                          *model("bf16")], ranks)
    problems = [x for x in result.out.splitlines() if x.startswith("problem: ")]
    said = [x for x in result.err.splitlines() if x.startswith("pdt doctor: ")]
    if result.status != 1 or len(said) != 1 or len(problems) != 1 or not re.match(want, problems[0]):
        return f"{name}: status {result.status}, {problems}, {said}"
    return None


def missing(pdt, ranks):
    result = harness.run([pdt, "doctor", "--model", "/no/such/place"], ranks)
    lines = [x for x in result.out.splitlines() if x.startswith("problem")]
    good = result.status == 1 and len(lines) == 1 and lines[0].startswith(f"problem: rank 0 on {HERE}: /no/such/place: ")
    return None if good else f"status {result.status}: {result.out}{result.err}"


def main():
    pdt, ranks = harness.arguments("3")
    checks = [("a table", lambda: table(pdt, 0)), ("JSON", lambda: as_json(pdt, 0)), ("no model", lambda: missing(pdt, 0))]
    with tempfile.TemporaryDirectory() as folder:
        other = os.path.join(folder, "pdt")
        shutil.copy(pdt, other)
        with open(other, "ab") as f:
            f.write(b"another build")
        for n in ranks:
            checks += [
                (f"{n} ranks: a table", lambda n=n: table(pdt, n)),
                (f"{n} ranks: JSON", lambda n=n: as_json(pdt, n)),
                (f"{n} ranks: no model", lambda n=n: missing(pdt, n)),
                (f"{n} ranks: another model", lambda n=n: odd(
                    pdt, n, "model", 'set -- "$1" doctor --model "{0}/sampled/model" --sidecar "$6"'.format(CASE),
                    rf"problem: rank 1 on {HERE}: model: found [0-9a-f]{{16}}, others have [0-9a-f]{{16}} \(hint: the same files")),
                (f"{n} ranks: another sidecar", lambda n=n: odd(
                    pdt, n, "sidecar", 'set -- "$1" doctor --model "$4" --sidecar "{0}/sampled/sidecar.safetensors"'.format(CASE),
                    rf"problem: rank 1 on {HERE}: sidecar: found ")),
                (f"{n} ranks: another program", lambda n=n: odd(
                    pdt, n, "program", f'shift; set -- {other} "$@"', rf"problem: rank 1 on {HERE}: program: found ")),
            ]
        harness.run_checks(checks)


main()
