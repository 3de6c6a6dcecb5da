#!/usr/bin/env python3
"""GPUs of shard groups and their exchanges, with the CUDA backend on the CPU and a twin of NCCL.

usage: gpus.py PDT_CUDA_ON_HOST

The twins' environment (tests/cuda_on_host) says which GPUs there are, and what goes wrong.
"""
import os
import sys
import tempfile

import harness

CASES = os.path.join(harness.TESTS, "data", "cases")
SMALL = os.path.join(CASES, "odd-heads")
FIVE = ",".join(f"{bus}:8.0" for bus in range(1, 6))
PREFIX = "pdt decode: "


def command(pdt, *flags, case=SMALL):
    return [pdt, "decode", "--model", f"{case}/model", "--sidecar", f"{case}/sidecar.safetensors", "--request",
            f"{case}/request.json", "--threads", "1", *flags]


def run(pdt, ranks, *flags, **env):
    env = {"PDT_TWIN_GPUS": FIVE, **env}
    return harness.run(command(pdt, *flags), ranks=ranks, timeout=100, env=env)


def refused(pdt, ranks, flags, part, status=2, **env):
    """What is wrong, unless the run ends with one message that has all the parts."""
    result = run(pdt, ranks, "--tp", ranks, *flags, **env)
    lines = [x for x in result.err.splitlines() if x.startswith(PREFIX)]
    parts = [part] if isinstance(part, str) else part
    if result.status != status or len(lines) != 1 or not all(p in lines[0] for p in parts):
        return f"status {result.status}, expected {status} and {parts}: {result.err.strip()[-600:]}"
    return None


def first(problems):
    return next((p for p in problems if p), None)


def exchanges(pdt, scratch, name, layout):
    """From GPU to GPU: the oracle's answer, and the bits of an exchange through the host."""
    case, traces = os.path.join(CASES, name), []
    with open(f"{case}/expected.json") as f:
        want = harness.json.load(f)
    for exchange in ("nccl", "mpi"):
        trace = os.path.join(scratch, exchange)
        got = harness.decode(pdt, f"{case}/model", f"{case}/sidecar.safetensors", f"{case}/request.json", trace,
                             harness.Layout(layout), ["--exchange", exchange, "--device", "cuda"])
        wrong = harness.difference(got, want)
        if wrong:
            return f"{exchange}: {wrong}"
        with open(trace, "rb") as f:
            traces.append(f.read())
    return None if traces[0] == traces[1] else "the traces of --exchange nccl and mpi differ"


def chosen(pdt):
    """auto: NCCL where every rank of a group has a GPU of its own."""
    for gpus, expected in ((FIVE, "cuda sm_80, exchange nccl"), ("1:8.0", "cuda sm_80, exchange shared memory")):
        result = run(pdt, 2, "--tp", 2, "--verbose", PDT_TWIN_GPUS=gpus)
        if result.status or expected not in result.err:
            return f"{gpus}: expected '{expected}': {result.err.strip()[-600:]}"
    return None


def shared(pdt):
    own = ["rank of a shard group needs a GPU of its own"]
    return first([
        refused(pdt, 2, ["--exchange", "nccl"], own + ["ranks 0, 1 share GPU 0"], PDT_TWIN_GPUS="1:8.0"),
        refused(pdt, 3, ["--exchange", "nccl"], own + ["ranks 0, 2 share GPU 0"], PDT_TWIN_GPUS="1:8.0,2:8.0"),
        refused(pdt, 2, ["--exchange", "nccl", "--gpu", "1"], own + ["ranks 0, 1 share GPU 1"]),
    ])


def failing(pdt):
    """What NCCL does not end, or fails at, ends all ranks with the operation, rank and GPU."""
    return first([
        refused(pdt, 2, [], ["rank 0 on ", "GPU 0", "initialization did not end within 1 s"], 1, PDT_TWIN_NCCL="init",
                PDT_NCCL_TIMEOUT="1"),
        refused(pdt, 2, [], ["rank 1 on ", "GPU 1", "initialization did not end"], 1, PDT_TWIN_NCCL="init",
                PDT_TWIN_NCCL_RANK="1", PDT_NCCL_TIMEOUT="1"),
        refused(pdt, 2, [], [" on ", "did not end within 3 s"], 1, PDT_TWIN_NCCL="send:20", PDT_TWIN_NCCL_RANK="1",
                PDT_NCCL_TIMEOUT="3"),
        refused(pdt, 2, [], ["rank ", "GPU ", "NCCL's all-"], 1, PDT_TWIN_NCCL="error:20", PDT_TWIN_NCCL_RANK="0",
                PDT_NCCL_TIMEOUT="3"),
    ])


def unlike(pdt):
    """GPUs that would compute differently, or are not there: an error, or the CPU, said aloud."""
    two = {"PDT_TWIN_GPUS": "1:8.0,2:8.6"}
    wrong = refused(pdt, 2, ["--device", "cuda"], ["8.0 on rank 0", "8.6 on rank 1"], **two)
    if wrong:
        return wrong
    result = run(pdt, 2, "--verbose", **two)
    if result.status or "warning: all ranks compute on the CPU" not in result.err or "kernels cuda" in result.err:
        return result.err.strip()[-600:]
    bare = ["sh", "-c", 'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then export PDT_TWIN_GPUS=; fi; exec "$@"', "sh"]
    for flags, status, part in ((["--device", "cuda"], 2, "rank 1 on "), ([], 0, "warning: all ranks compute on the CPU")):
        result = harness.run(bare + command(pdt, *flags), ranks=2, timeout=100, env={"PDT_TWIN_GPUS": FIVE})
        if result.status != status or part not in result.err:
            return f"{flags}: status {result.status}: {result.err.strip()[-600:]}"
    return None


def flags(pdt):
    return first([
        refused(pdt, 1, ["--gpu", "5"], "--gpu: expected 0 to 4, found 5"),
        refused(pdt, 1, ["--gpu", "0", "--device", "cpu"], "--gpu: is for --device cuda"),
        refused(pdt, 1, ["--exchange", "carrier"], "--exchange: expected nccl, mpi or auto, found 'carrier'"),
        refused(pdt, 2, ["--exchange", "nccl", "--device", "cpu"], "--exchange nccl: is for GPUs"),
        refused(pdt, 2, [], "PDT_NCCL_TIMEOUT: expected seconds above 0, found 'soon'", PDT_NCCL_TIMEOUT="soon"),
    ])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    harness.need_mpirun()
    pdt = os.path.abspath(sys.argv[1])
    os.environ["PDT_TWIN_GPUS"] = FIVE
    with tempfile.TemporaryDirectory() as scratch:
        layouts = [("odd-heads", "2x2"), ("odd-heads", "3x3")]
        harness.run_checks([
            *[(f"{name} {layout}", lambda n=name, l=layout: exchanges(pdt, scratch, n, l)) for name, layout in layouts],
            ("how groups exchange", lambda: chosen(pdt)),
            ("ranks that share a GPU", lambda: shared(pdt)),
            ("exchanges that fail", lambda: failing(pdt)),
            ("GPUs that are not alike", lambda: unlike(pdt)),
            ("flags", lambda: flags(pdt)),
        ])


main()
