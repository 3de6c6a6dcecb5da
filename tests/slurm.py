#!/usr/bin/env python3
"""The scripts in slurm/ under a real Slurm of four nodes on this machine: they run, are put back into the queue in the middle, and
end with the bytes of a run that nobody disturbed.

usage: slurm.py PDT
"""
import glob
import json
import os
import subprocess
import sys
import tempfile
import time

import harness
import train
import slurm_cluster

SCRIPTS = os.path.join(harness.ROOT, "slurm")
MODEL = os.path.join(harness.ROOT, "launch", "model")
SIDECAR = os.path.join(MODEL, "sidecar.safetensors")


class Jobs:
    """Jobs submitted from a folder that all nodes see."""

    def __init__(self, slurm, pdt):
        self.slurm, self.pdt = slurm, pdt
        self.folder = tempfile.mkdtemp(dir=slurm.hosts.folder.name)

    def path(self, name):
        return os.path.join(self.folder, name)

    def submit(self, script, *words, options=(), env=None):
        command = ["sbatch", "--parsable", "--export=ALL", *options, os.path.join(SCRIPTS, script), *map(str, words)]
        result = self.slurm.run(command, cwd=self.folder, env=dict(self.slurm.environment, PDT=self.pdt, **(env or {})))
        if result.returncode != 0:
            raise harness.Failed(f"sbatch {script}: {result.stderr.strip()}")
        return result.stdout.split(";")[0].strip()

    def end(self, job, timeout=90):
        """Waits for a job's end; its log."""
        state = self.slurm.wait(job, "COMPLETED", "FAILED", "NODE_FAIL", "TIMEOUT", "CANCELLED", "COMPLETED,FAILED", "", timeout=timeout)
        log = "".join(open(x).read() for x in sorted(glob.glob(self.path(f"pdt-*-{job}*.log"))))
        if state not in ("COMPLETED", ""):
            raise harness.Failed(f"job {job}: {state}: {log[-800:]}")
        return log

    def requeue(self, job):
        """Back into the queue, as an operator or a preempting job does it."""
        result = self.slurm.run(["scontrol", "requeue", job])
        if result.returncode != 0:
            raise harness.Failed(f"requeue: {result.stderr.strip()}")

    def wait_for(self, test, what, timeout=60):
        deadline = time.time() + timeout
        while not test():
            if time.time() > deadline:
                raise harness.Failed(f"no {what} within {timeout} s")
            time.sleep(0.02)


def scaling(jobs):
    """An array of layouts."""
    words = ["--model", MODEL, "--sidecar", SIDECAR, "--streams", "1,3", "--tokens", "24", "--repeats", "2", "--threads", "1"]
    job = jobs.submit("scaling.sbatch", *words, options=("--nodes=2", "--ntasks-per-node=2", "--array=0-1"),
                      env={"LAYOUTS": "1x1 4x2", "BENCH_SCALING": os.path.join(os.path.dirname(jobs.pdt), "bench_scaling")})
    log = jobs.end(job)
    found = sorted(glob.glob(jobs.path("scaling-*.jsonl")))
    runs = [json.loads(line) for path in found for line in open(path)]
    if len(found) != 2 or len(runs) != 2 * 2 * 3 * 2 or {r["ranks"] for r in runs} != {1, 4}:
        return f"{found}, {len(runs)} runs: {log[-400:]}"
    texts = {}
    for r in runs:
        texts.setdefault((r["arm"], r["streams"]), set()).add(r["hash"])
    return f"other texts on other layouts: {texts}" if any(len(x) != 1 for x in texts.values()) else None


def training(jobs):
    """Put back into the queue after its first checkpoint: the bytes of a run in one go."""
    t = train.Trainer(jobs.pdt, jobs.folder)
    command = [str(x) for x in t.command("whole")]
    words = command[2:]
    job = jobs.submit("train.sbatch", *words, options=("--nodes=2", "--ntasks-per-node=1"))
    jobs.end(job)
    words[words.index(t.path("whole"))] = t.path("pieces")
    job = jobs.submit("train.sbatch", *words, options=("--nodes=2", "--ntasks-per-node=1"))
    jobs.wait_for(lambda: os.path.exists(t.path("pieces/checkpoint.safetensors")), "checkpoint")
    jobs.requeue(job)
    jobs.slurm.wait(job, "RUNNING", timeout=60)
    log = jobs.end(job)
    restarts = jobs.slurm.run(["scontrol", "show", "job", job]).stdout
    if "Restarts=1" not in restarts:
        return f"it was not restarted: {log[-400:]}"
    if t.bytes("pieces") != t.bytes("whole"):
        return "another checkpoint than that of a run in one go"
    return None


def requests(jobs, count):
    path = jobs.path("requests.jsonl")
    with open(path, "w") as f:
        for i in range(count):
            f.write(json.dumps({"prompt": "Describe Velmora. Sections: history; trade; customs.",
                                "sections": ["\nHistory:", "\nTrade:", "\nCustoms:"],
                                "settings": {"temperature": 0.8, "seed": i, "max_tokens": 96}}) + "\n")
    return path


def decoding(jobs):
    """Requeued in the middle by an operator, then warned by Slurm's signal: goes on from the journal each time."""
    path = requests(jobs, 300)
    words = ["--model", MODEL, "--sidecar", SIDECAR, "--requests", path, "--max-sessions", "2", "--json", "--threads", "1", "--quiet"]
    whole = harness.run([jobs.pdt, "decode", *words, "--out", jobs.path("whole.jsonl")], timeout=120)
    if whole.status != 0:
        return f"in one go: {whole.err.strip()}"
    journal = jobs.path("run.journal")
    job = jobs.submit("decode.sbatch", *words, "--out", jobs.path("pieces.jsonl"), "--journal", journal,
                      options=("--nodes=4", "--ntasks-per-node=1"))
    size = lambda: os.path.getsize(journal) if os.path.exists(journal) else 0
    jobs.wait_for(lambda: size() > 20000, "journal")
    jobs.requeue(job)
    before = size()
    jobs.wait_for(lambda: size() > before + 20000, "growing journal")
    warned = jobs.slurm.run(["scancel", "--signal=USR1", job])
    log = jobs.end(job, timeout=120)
    if "to be resumed" not in log:
        return f"the warning did not put it back into the queue: {warned.stderr.strip()} {log[-800:]}"
    if "Restarts=2" not in jobs.slurm.run(["scontrol", "show", "job", job]).stdout:
        return "it was not restarted twice"
    with open(jobs.path("whole.jsonl"), "rb") as a, open(jobs.path("pieces.jsonl"), "rb") as b:
        return None if a.read() == b.read() else "another answer than that of a run in one go"


def main():
    pdt, _ = harness.arguments("0")
    why = slurm_cluster.why_not()
    if why:
        harness.skip(why)
    with slurm_cluster.Slurm(4) as slurm:
        jobs = Jobs(slurm, pdt)
        names = os.environ.get("SLURM_CHECKS", "scaling,training,decoding").split(",")
        harness.run_checks([(f.__name__, lambda f=f: f(jobs)) for f in (scaling, training, decoding) if f.__name__ in names])


if __name__ == "__main__":
    sys.exit(main())
