#!/usr/bin/env python3
"""pdt train around its steps: parts that are left as they are, its log, and what a killed run leaves.

usage: train_frame.py PDT [--ranks 2] [--quick]   (0: one process only; --quick: fewer combinations)
"""
import json
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


TIMES = ("tokens_per_s",)


def log_of(path):
    with open(path) as f:
        return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in f]


def kill_at(command, path, step):
    """Kills a run once its log has a line of that step; False when it was over before."""
    process = subprocess.Popen([str(x) for x in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    for line in process.stdout:
        if f'"step": {step},'.encode() in line:
            break
    process.kill()
    process.stdout.read()
    return process.wait() != 0


def logs_go_on(commands, folder):
    """Killed twice and resumed, with a torn line and leftovers: log and result are those of a run that nobody disturbed."""
    for name, command in commands:
        whole, killed = (os.path.join(folder, f"{name}-{x}") for x in ("whole", "killed"))
        result = harness.run(command(whole), timeout=120)
        if result.status != 0:
            return f"{name}: {result.err}"
        kill_at(command(killed), killed, 7)
        with open(f"{killed}/log.jsonl", "a") as f:
            f.write('{"step": 8, "los')
        left = [f"{killed}/{x}.safetensors.999999.0.tmp" for x in ("checkpoint", "model" if name == "trunk" else "sidecar")]
        for path in left:
            open(path, "w").close()
        kill_at([*command(killed), "--resume"], killed, 13)
        result = harness.run([*command(killed), "--resume"], timeout=120)
        if result.status != 0:
            return f"{name}, resumed: {result.err}"
        steps = [[x for x in log_of(f"{path}/log.jsonl") if "step" in x] for path in (whole, killed)]
        if steps[0] != steps[1]:
            return f"{name}: logs differ: {[x['step'] for x in steps[1]]}\n{steps[0]}\n{steps[1]}"
        heads = [[json.dumps(x) for x in log_of(f"{path}/log.jsonl") if "rollouts" in x] for path in (whole, killed)]
        if heads[0] != heads[1]:
            return f"{name}: said of rollouts: {heads}"
        remains = [x for x in os.listdir(killed) if x.endswith(".tmp")]
        if remains:
            return f"{name}: {remains}"
        for result in os.listdir(whole):
            if result.endswith(".safetensors"):
                with open(f"{whole}/{result}", "rb") as a, open(f"{killed}/{result}", "rb") as b:
                    if a.read() != b.read():
                        return f"{name}: {result} differs"
    return None


def full_disk(commands, folder, ranks):
    """A log that cannot be written ends the run with one message; from the checkpoint that stands it goes on as if nothing had been."""
    for name, command in commands:
        for n in (0, *(ranks if name == "trunk" else ())):
            out = os.path.join(folder, f"{name}-full{n}")
            often = [*command(out), "--checkpoint-every", "2"]
            os.mkdir(out)
            os.symlink("/dev/full", f"{out}/log.jsonl")
            result = harness.run(often, ranks=n, timeout=120)
            lines = [x for x in result.err.splitlines() if x.startswith("pdt train: ")]
            if result.status != 1 or len(lines) != 1 or "log.jsonl: cannot write: No space left" not in lines[0]:
                return f"{name}, {n} ranks: {result.status} {result.err}"
            if n or name == "trunk":
                continue  # its first line is that it begins
            os.remove(f"{out}/log.jsonl")
            result = harness.run([*often, "--resume"], timeout=120)
            if result.status != 0:
                return f"{name}, resumed: {result.err}"
            with open(f"{folder}/{name}-whole/sidecar.safetensors", "rb") as a, open(f"{out}/sidecar.safetensors", "rb") as b:
                if a.read() != b.read():
                    return f"{name}: not what it would have been"
            if name == "stage" and [x["step"] for x in log_of(f"{out}/log.jsonl")] != [3, 6, 9, 12, 15, 18, 20]:
                return f"{name}: log of {log_of(f'{out}/log.jsonl')}"
    return None


def nobody_reads(commands, folder):
    """Standard output that cannot be written is told too."""
    name, command = commands[0]
    with open("/dev/full", "w") as full:
        result = subprocess.run([str(x) for x in command(os.path.join(folder, "unread"))], stdout=full, stderr=subprocess.PIPE, timeout=60)
    said = result.stderr.decode()
    return None if result.returncode == 1 and "standard output" in said and said.count("\n") == 1 else f"{result.returncode} {said}"


def runs_of(s, t):
    """(name, function from --out to a command) of the three kinds of runs: 20 steps, logs every 3, checkpoints every 4."""
    often = ("--steps", "20", "--batch", "2", "--log-every", "3", "--checkpoint-every", "4")
    return [
        ("trunk", lambda out: t.command(out, *often, "--valid-every", "5")),
        ("stage", lambda out: s.command("2", "fresh.safetensors", out, *often)),
        ("rollouts", lambda out: s.command("rollouts", "fresh.safetensors", out, *often, "--count", "2", "--max-attempts", "2")),
    ]


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
        runs = runs_of(s, t)
        harness.run_checks([
            ("logs go on", lambda: logs_go_on(runs, folder)), ("logs on a full disk", lambda: full_disk(runs, folder, ranks)),
            ("a full standard output", lambda: nobody_reads(runs, folder)),
            ("parts at rest", lambda: rests(s, quick)), ("a run at rest goes on", lambda: goes_on(s, ranks)),
            ("rollouts with a sidecar that changes", lambda: rollouts_keep(s)), ("a trunk at rest", lambda: trunk_rests(t)),
        ])


if __name__ == "__main__":
    main()
