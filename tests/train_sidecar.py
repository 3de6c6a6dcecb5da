#!/usr/bin/env python3
"""pdt train on a sidecar: every stage learns, repeats and resumes to the bit, agrees over ranks, and refuses what is wrong.

usage: train_sidecar.py PDT [--ranks 2]   (0: one process only)
"""
import json
import os
import random
import struct
import tempfile

import harness
from safetensors_edit import File

CONFIG = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=48, intermediate_size=96, num_hidden_layers=3,
    num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=10000.0,
    tie_word_embeddings=True, hidden_act="silu",
)
# Ranks add the same gradients in another order: 1e-7 of each, which AdamW turns into up to the whole
# rate where a gradient is near zero; the losses move by far less than what is shown.
LOSS_TOLERANCE = 1e-3
LOSSES = ("plan", "notes", "speculation", "tokens", "coverage", "ready")


class Scratch:
    def __init__(self, pdt, folder):
        self.pdt, self.folder = pdt, folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def bytes(self, out, name="checkpoint.safetensors"):
        with open(os.path.join(self.path(out), name), "rb") as f:
            return f.read()


class Stages:
    """The sidecar's stages on a small random trunk, with a few entries of the Atlas."""

    def __init__(self, t):
        self.t = t
        self.run("data", "tokenizer", "--out", t.path("tok"))
        with open(t.path("tok/tokenizer.json")) as f:
            model = json.load(f)
        ids = list(model["model"]["vocab"].values()) + [x["id"] for x in model["added_tokens"]]
        special = {x["content"]: x["id"] for x in model["added_tokens"]}
        config = dict(CONFIG, vocab_size=max(ids) + 1, eos_token_id=special["<|eos|>"])
        with open(t.path("atlas.json"), "w") as f:
            json.dump(config, f)
        self.run("model", "random", "--config", t.path("atlas.json"), "--tokenizer",
                 t.path("tok/tokenizer.json"), "--out", t.path("trunk"), "--dtype", "F32")
        self.run("sidecar", "init", "--model", t.path("trunk"), "--gate", "0", "--notes-dim", "16",
                 "--plan-vocab", "101", "--plan-dim", "8", "--layers", "1,2", "--speculation-hidden", "12",
                 "--out", t.path("fresh.safetensors"))
        self.data("atlas.jsonl", "101")

    def run(self, *command):
        result = harness.run([self.t.pdt, *command])
        if result.status != 0:
            raise harness.Failed(f"{command[:2]}: {result.err.strip()}")

    def data(self, name, vocabulary, *more):
        self.run("data", "atlas", "--count", "12", "--max-sections", "4", "--model", self.t.path("tok"),
                 "--plan-vocab", vocabulary, "--out", self.t.path(name), *more)

    def command(self, stage, start, out, *more, data="atlas.jsonl"):
        """Later flags override earlier ones."""
        return [
            self.t.pdt, "train", "--stage", str(stage), "--model", self.t.path("trunk"), "--sidecar",
            self.t.path(start), "--data", self.t.path(data), "--out", self.t.path(out), "--steps", "8",
            "--batch", "12", "--warmup", "2", "--rate", "0.005", "--log-every", "1", "--checkpoint-every", "4", *more,
        ]

    def train(self, stage, start, out, *more, data="atlas.jsonl", ranks=0):
        result = harness.run(self.command(stage, start, out, *more, data=data), ranks=ranks, timeout=120)
        if result.status != 0:
            raise harness.Failed(f"stage {stage}: {result.err.strip()}")
        with open(os.path.join(self.t.path(out), "log.jsonl")) as f:
            return [json.loads(line) for line in f]


def stages(s, ranks):
    """All four, each from the one before; the last sidecar must be one that can be read."""
    t, start = s.t, "fresh.safetensors"
    with open(t.path("trunk/model.safetensors"), "rb") as f:
        trunk = f.read()
    for stage in range(4):
        out = f"stage{stage}"
        log = s.train(stage, start, out)
        learning = [x for x in LOSSES if log[0][x] > 0]
        if not sum(log[-1][x] for x in learning) < sum(log[0][x] for x in learning):
            return f"stage {stage}: {log[0]} to {log[-1]}"
        again = s.train(stage, start, out + "b")
        if t.bytes(out, "sidecar.safetensors") != t.bytes(out + "b", "sidecar.safetensors"):
            return f"stage {stage}: two runs differ"
        for n in ranks:
            other = s.train(stage, start, f"{out}x{n}", ranks=n)
            for a, b in zip(again, other):
                if any(not abs(a[x] - b[x]) <= LOSS_TOLERANCE for x in LOSSES):
                    return f"stage {stage}, {n} ranks: {b}, one rank: {a}"
        start = f"{out}/sidecar.safetensors"
    s.run("inspect", t.path(start))
    with open(t.path("trunk/model.safetensors"), "rb") as f:
        if f.read() != trunk:
            return "the trunk's file has changed"
    return None


def stage_refusals(s):
    t = s.t
    s.data("plan.jsonl", "202")
    with open(t.path("none.jsonl"), "w") as f:
        f.write("no header")
    s.data("wide.jsonl", "101", "--min-sections", "6", "--max-sections", "6")
    broken = File(t.path("fresh.safetensors"))
    broken.fill("speculation.bias", float("nan"))
    broken.write(t.path("nan.safetensors"))
    cases = [
        ("no sidecar", [t.pdt, "train", "--stage", "1", "--data", "x", "--model", "y", "--out", "z"], 2, "--sidecar"),
        ("other plan", s.command(1, "fresh.safetensors", "n", data="plan.jsonl"), 1, "vocabulary 202"),
        ("too many sections", s.command(1, "fresh.safetensors", "n", data="wide.jsonl"), 1, "adapters for 4"),
        ("no data file", s.command(1, "fresh.safetensors", "n", data="none.jsonl"), 1, "none.jsonl"),
        ("other codes", s.command(1, "fresh.safetensors", "stage1", "--resume", "--codes", "random"), 1, "data"),
        ("unknown loss", s.command(1, "fresh.safetensors", "n", "--weight", "x=1"), 2, "--weight"),
        ("unknown part", s.command(1, "fresh.safetensors", "n", "--part-rate", "plan=x"), 2, "--part-rate"),
        ("three passes", s.command(1, "fresh.safetensors", "n", "--passes", "3"), 2, "--passes"),
        ("unknown label", s.command("rollouts", "fresh.safetensors", "n", "--label", "x"), 2, "--label"),
        ("NaN in a sidecar", s.command(1, "nan.safetensors", "n"), 1, "not finite"),
        ("a sidecar there", s.command(1, "fresh.safetensors", "stage1"), 1, "has a sidecar already"),
        ("another stage's state", s.command(1, "fresh.safetensors", "stage2", "--resume"), 1, "stage"),
        ("no sidecar's file", s.command(1, "trunk/model.safetensors", "n"), 1, "no sidecar"),
    ]
    return harness.refusals(cases, "pdt train: ")


def falls(log, names):
    return sum(log[-1][x] for x in names) < sum(log[0][x] for x in names)


def all_at_once(s):
    """One stage for everything, with distillation, on two files; every flag of a stage is taken."""
    t = s.t
    s.data("hard.jsonl", "101", "--hard")
    more = ["--data", t.path("hard.jsonl"), "--weight", "kd=0.5", "--weight", "use=3", "--weight", "unseen=0.1",
            "--empty-slots", "--lockstep", "0.5", "--wait", "0.2", "--stated", "0.1", "--used", "0.6", "--part-rate", "close=0.01"]
    log = s.train("all", "fresh.safetensors", "all", *more)
    if not falls(log, (*LOSSES, "kd")) or not log[0]["kd"] >= 0:
        return f"{log[0]} to {log[-1]}"
    s.train("all", "fresh.safetensors", "all2", *more)
    if t.bytes("all", "sidecar.safetensors") != t.bytes("all2", "sidecar.safetensors"):
        return "two runs differ"
    frozen = s.train(1, "fresh.safetensors", "frozen", "--part-rate", "condition=0")
    before, after = File(t.path("fresh.safetensors")), File(t.path("frozen/sidecar.safetensors"))
    moved = changed(before, after)
    return None if frozen and moved and not any(x.startswith(("snc.", "adapter.")) for x in moved) else f"moved: {sorted(moved)}"


def changed(before, after):
    """Names of the tensors that differ."""
    def part(file, name):
        begin, end = file.header[name]["data_offsets"]
        return file.data[begin:end]

    return {x for x in after.header if x != "__metadata__" and part(before, x) != part(after, x)}


def killed(s, stage, start, out, *more):
    """A run that is killed after its first checkpoint."""
    harness.kill_when(s.command(stage, start, out, *more), os.path.join(s.t.path(out), "checkpoint.safetensors"))


def resumes(s):
    """Killed in the middle, stage 2 goes on to the same bits."""
    more = ["--steps", "40", "--checkpoint-every", "2"]
    s.train(2, "stage1/sidecar.safetensors", "whole", *more)
    killed(s, 2, "stage1/sidecar.safetensors", "killed", *more)
    s.train(2, "stage1/sidecar.safetensors", "killed", *more, "--resume")
    same = s.t.bytes("whole", "sidecar.safetensors") == s.t.bytes("killed", "sidecar.safetensors")
    return None if same else "bits differ after resuming"


def rollouts(s, ranks):
    """The heads learn from what the system writes: the same on all ranks, nothing else moves."""
    t, start = s.t, "stage3/sidecar.safetensors"
    more = ["--count", "6", "--steps", "40", "--checkpoint-every", "2", "--max-attempts", "2", "--label", "agrees", "--dtype", "F32"]
    log = [x for x in s.train("rollouts", start, "rolled", *more) if "step" in x]
    if not falls(log, ("ready", "coverage")):
        return f"{log[0]} to {log[-1]}"
    moved = changed(File(t.path(start)), File(t.path("rolled/sidecar.safetensors")))
    if not moved or any(not x.startswith(("coverage.", "agree.")) for x in moved):
        return f"moved: {sorted(moved)}"
    killed(s, "rollouts", start, "rolled-killed", *more)
    s.train("rollouts", start, "rolled-killed", *more, "--resume")
    others = ["rolled-killed"]
    for n in ranks:
        s.train("rollouts", start, f"rolled{n}", *more, ranks=n)
        others.append(f"rolled{n}")
    wrong = [x for x in others if t.bytes(x, "sidecar.safetensors") != t.bytes("rolled", "sidecar.safetensors")]
    return f"bits differ: {wrong}" if wrong else None


def without_siblings(s):
    """With --own-notes siblings' notes are nothing: another loss where there are siblings, the same where there are none; and it learns."""
    s.run("sidecar", "init", "--model", s.t.path("trunk"), "--random", "--notes-dim", "16", "--plan-vocab", "101", "--plan-dim", "8",
          "--layers", "1,2", "--pool-layer", "0", "--block-tokens", "6", "--out", s.t.path("alone.safetensors"))
    s.run("data", "atlas", "--count", "12", "--seed", "3", "--plan-vocab", "101", "--max-sections", "2", "--max-tokens", "60", "--one-stream", "--out", s.t.path("joined.jsonl"))
    losses = {}
    for data in ("atlas.jsonl", "joined.jsonl"):
        for flags in ((), ("--own-notes",)):
            out = f"own-{data}-{len(flags)}"
            s.run("train", "--stage", "all", "--data", s.t.path(data), "--model", s.t.path("trunk"), "--sidecar", s.t.path("alone.safetensors"),
                  "--out", s.t.path(out), "--steps", "1", "--batch", "4", "--rate", "0", *flags)
            with open(s.t.path(f"{out}/log.jsonl")) as f:
                losses[data, len(flags)] = next(x["tokens"] for x in map(json.loads, f) if "step" in x)
    if losses["atlas.jsonl", 0] == losses["atlas.jsonl", 1] or losses["joined.jsonl", 0] != losses["joined.jsonl", 1]:
        return f"{losses}"
    log = [x for x in s.train("all", "alone.safetensors", "own", "--steps", "40", "--own-notes") if "step" in x]
    if not falls(log, ("tokens",)):
        return f"{log[0]} to {log[-1]}"
    resumed = harness.run(s.command("all", "alone.safetensors", "own", "--steps", "40", "--resume"))
    return None if resumed.status == 1 and "own notes" in resumed.err else f"resumed without --own-notes: {resumed.status}, {resumed.err}"


def headings(s):
    """What headings weigh that streams write themselves changes the loss where there are such, and nowhere else."""
    losses = {}
    for share in ("1", "0"):
        data = s.t.path(f"untitled-{share}.jsonl")
        s.run("data", "atlas", "--count", "12", "--seed", "3", "--plan-vocab", "101", "--max-sections", "2", "--max-tokens", "60", "--untitled", share, "--out", data)
        for weight in ("1", "9"):
            out = f"headings-{share}-{weight}"
            s.run("train", "--stage", "all", "--data", data, "--model", s.t.path("trunk"), "--sidecar", s.t.path("alone.safetensors"),
                  "--out", s.t.path(out), "--steps", "1", "--batch", "4", "--rate", "0", "--heading", weight)
            with open(s.t.path(f"{out}/log.jsonl")) as f:
                losses[share, weight] = next(x["tokens"] for x in map(json.loads, f) if "step" in x)
    return f"{losses}" if losses["1", "1"] == losses["1", "9"] or losses["0", "1"] != losses["0", "9"] else None


def inner_rollouts(s, ranks):
    """Pools behind a layer and with copies, random heads: pdt train refuses to teach heads that do not find what was decoded."""
    for name, pool in (("inner", ["--pool-layer", "0"]), ("copies", ["--pool-copies", "2"]), ("both", ["--pool-layer", "0", "--pool-copies", "1"])):
        s.run("sidecar", "init", "--model", s.t.path("trunk"), "--random", "--notes-dim", "16", "--plan-vocab", "101", "--plan-dim", "8",
              "--layers", "1,2", *pool, "--note-query", "--block-tokens", "6", "--out", s.t.path(f"{name}.safetensors"))
        more = ["--count", "4", "--max-attempts", "2", "--dtype", "F32"]
        s.train("rollouts", f"{name}.safetensors", name, *more)
        for n in ranks:
            s.train("rollouts", f"{name}.safetensors", f"{name}{n}", *more, ranks=n)
            if s.t.bytes(f"{name}{n}", "sidecar.safetensors") != s.t.bytes(name, "sidecar.safetensors"):
                return f"{name}, {n} ranks: bits differ"
    return None


def write_notes(path, rows, width, value=None):
    draw = random.Random(5)
    data = b"".join(struct.pack("<f", draw.gauss(0, 2) if value is None else value) for _ in range(rows * width))
    header = json.dumps({"notes": {"dtype": "F32", "shape": [rows, width], "data_offsets": [0, len(data)]}}).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(header)) + header + data)


def write_own(t, name, notes, width):
    """atlas.jsonl without facts, as somebody else's data would be: notes in a side file. Number of rows."""
    rows = 0
    with open(t.path("atlas.jsonl")) as f, open(t.path(name), "w") as out:
        header = json.loads(next(f))
        del header["world"]
        out.write(json.dumps(header | dict(notes=dict(file=notes, dim=width))) + "\n")
        for line in f:
            entry = json.loads(line)
            entry["facts"] = []
            for section in entry["sections"]:
                section["mentions"] = []
                for block in section["blocks"]:
                    block.pop("stated", None), block.pop("used", None)
                    block["note"], rows = rows, rows + 1
            out.write(json.dumps(entry) + "\n")
    return rows


def own_notes(s):
    """Teacher notes from a side file are learned; a file that is not right is refused by name."""
    t = s.t
    rows = write_own(t, "own.jsonl", "own.safetensors", 16)
    write_notes(t.path("own.safetensors"), rows, 16)
    s.run("data", "check", t.path("own.jsonl"))
    for stage in (1, 3):
        log = s.train(stage, "fresh.safetensors", f"own{stage}", data="own.jsonl")
        if not falls(log, LOSSES) or stage == 3 and not log[0]["ready"] > 0:
            return f"stage {stage}: {log[0]} to {log[-1]}"
    cases = []
    for name, count, width, value, part in (
        ("absent", 0, 16, None, "no-absent.safetensors"), ("short", rows - 1, 16, None, "expected a row below"),
        ("wide", rows, 17, None, "expected a tensor 'notes'"), ("nan", rows, 16, float("nan"), "NaN or infinity"),
        ("narrow", rows, 8, None, "the width of the sidecar's notes"),
    ):
        write_own(t, f"own-{name}.jsonl", f"no-{name}.safetensors", 8 if name == "narrow" else 16)
        if count:
            write_notes(t.path(f"no-{name}.safetensors"), count, width, value)
        cases.append((name, s.command(1, "fresh.safetensors", "n", data=f"own-{name}.jsonl"), 1, part))
    return harness.refusals(cases, "pdt train: ")


def main():
    pdt, ranks = harness.arguments("2")
    with tempfile.TemporaryDirectory() as folder:
        s = Stages(Scratch(pdt, folder))
        checks = [
            ("stages", lambda: stages(s, ranks)), ("all at once", lambda: all_at_once(s)), ("resumes", lambda: resumes(s)),
            ("rollouts", lambda: rollouts(s, ranks)), ("rollouts, an inner pool", lambda: inner_rollouts(s, ranks)),
            ("notes of one's own", lambda: own_notes(s)), ("siblings' notes as zeros", lambda: without_siblings(s)), ("what headings weigh", lambda: headings(s)),
            ("refuses", lambda: stage_refusals(s)),
        ]
        harness.run_checks(checks)


if __name__ == "__main__":
    main()
