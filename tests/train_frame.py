#!/usr/bin/env python3
"""pdt train around its steps: parts that are left as they are.

usage: train_frame.py PDT [--ranks 2] [--quick]   (0: one process only; --quick: fewer combinations)
"""
import os
import subprocess
import sys
import tempfile

import harness
import train
import train_sidecar
from safetensors_edit import File

# What every stage trains when nothing is said, and the names of each part's tensors.
STAGES = {
    "0": ["plan"], "1": ["plan", "condition"], "2": ["plan", "condition", "pool", "speculation"], "3": ["close"],
    "all": ["plan", "condition", "pool", "speculation", "close"],
}
NAMES = {
    "plan": ("planner.", "plan.", "notes."), "condition": ("snc.", "adapter."), "pool": ("pool.",), "speculation": ("speculation.",),
    "close": ("coverage.", "agree."),
}
SHORT = ("--steps", "3", "--batch", "2", "--checkpoint-every", "2")


def at_rest(s, stage, parts, out, *more, ranks=0):
    """Trains a stage with these parts at rest: what moved must belong to the others."""
    flags = [word for part in parts for word in ("--part-rate", f"{part}=0")]
    s.train(stage, "fresh.safetensors", out, *SHORT, *flags, *more, ranks=ranks)
    moved = train_sidecar.changed(File(s.t.path("fresh.safetensors")), File(s.t.path(f"{out}/sidecar.safetensors")))
    learning = [] if "--rate" in more else [x for x in STAGES[stage] if x not in parts]
    allowed = tuple(name for part in learning for name in NAMES[part])
    wrong = sorted(x for x in moved if not (allowed and x.startswith(allowed)))
    if wrong or bool(moved) != bool(learning):
        return f"stage {stage} with {parts} at rest {more}: moved: {wrong or sorted(moved)}"
    return None


def rests(s, quick):
    """Every part alone, all of them, and --rate 0, in every stage."""
    n, wrong = 0, []
    for stage, parts in STAGES.items():
        sets = [[x] for x in parts] + ([parts] if len(parts) > 1 else [])
        for rest in sets[-1:] if quick else sets:
            wrong.append(at_rest(s, stage, rest, f"rest{n}"))
            n += 1
        if not quick:
            wrong.append(at_rest(s, stage, [], f"rest{n}", "--rate", "0"))
            n += 1
    return "\n".join(x for x in wrong if x) or None


def goes_on(s, ranks):
    """A run in which nothing learns is resumed, shared among ranks, and made on rollouts."""
    for rank_count in (0, *ranks):
        out = f"again{rank_count}"
        problem = at_rest(s, "3", ["close"], out, ranks=rank_count)
        if problem:
            return problem
        result = harness.run(s.command("3", "fresh.safetensors", out, *SHORT, "--part-rate", "close=0", "--resume"), ranks=rank_count)
        if result.status != 0:
            return f"resumed on {rank_count}: {result.status} {result.err.strip()}"
    s.train("rollouts", "fresh.safetensors", "rolled", *SHORT, "--rate", "0", "--count", "2", "--max-attempts", "2")
    moved = train_sidecar.changed(File(s.t.path("fresh.safetensors")), File(s.t.path("rolled/sidecar.safetensors")))
    return f"rollouts at rate 0 moved {sorted(moved)}" if moved else None


def rollouts_keep(s):
    """A sidecar that changes while the system decodes with it: the heads that learn are those it decoded with."""
    start = File(s.t.path("fresh.safetensors"))
    more = ["--data", s.t.path("atlas.jsonl"), "--count", "4", "--steps", "4", "--batch", "4", "--max-attempts", "2"]
    for out in ("kept", "changed"):
        start.write(s.t.path("changing.safetensors"))
        command = s.command("rollouts", "changing.safetensors", out, *more)
        process = subprocess.Popen([str(x) for x in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        line = process.stdout.readline()
        if out == "changed" and b"rollouts" in line:
            os.truncate(s.t.path("changing.safetensors"), 100)
        _, said = process.communicate(timeout=60)
        if process.returncode != 0:
            return f"{out}: status {process.returncode}: {said.decode()}"
    same = s.t.bytes("kept", "sidecar.safetensors") == s.t.bytes("changed", "sidecar.safetensors")
    return None if same else "another sidecar was written"


def trunk_rests(t):
    """--rate 0 on a trunk: the weights that the seed gave."""
    for out, more in (("r0", ["--rate", "0"]), ("r1", ["--rate", "0", "--steps", "1", "--warmup", "0"])):
        result = harness.run(t.command(out, "--steps", "3", "--batch", "2", *more), timeout=60)
        if result.status != 0:
            return f"{more}: {result.status} {result.err.strip()}"
    same = t.bytes("r0", "model.safetensors") == t.bytes("r1", "model.safetensors")
    return None if same else "weights moved at rate 0"


def main():
    quick = "--quick" in sys.argv
    sys.argv = [x for x in sys.argv if x != "--quick"]
    pdt, ranks = harness.arguments("2")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        s = train_sidecar.Stages(train_sidecar.Scratch(pdt, folder))
        t = train.Trainer(pdt, other)
        harness.run_checks([
            ("parts at rest", lambda: rests(s, quick)), ("a run at rest goes on", lambda: goes_on(s, ranks)),
            ("rollouts with a sidecar that changes", lambda: rollouts_keep(s)), ("a trunk at rest", lambda: trunk_rests(t)),
        ])


if __name__ == "__main__":
    main()
