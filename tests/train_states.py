#!/usr/bin/env python3
"""States of the trunk that training keeps (pdt train --states), a pool that reads a layer's output, and a sampled softmax: the same
file whatever the ranks, the same training whether the file was there or not, close to training without; files that do not fit.

usage: train_states.py PDT [--ranks 2]   (0: one process only)
"""
import os
import tempfile

import harness
from train_sidecar import LOSSES, Scratch, Stages, killed

# The residual stream is rounded to bf16 where texts begin: 2^-9 of it, which the trunk passes on to logits of some units.
ROUNDED = 0.02


class States(Stages):
    def __init__(self, t):
        super().__init__(t)
        for name, *more in (("below", "--pool-layer", "0", "--pool-copies", "2", "--layers", "1,2"), ("bottom", "--layers", "0,2"),
                            ("amid", "--pool-layer", "1", "--layers", "1,2", "--plan-orders", "4", "--plan-layer", "1")):
            self.run("sidecar", "init", "--model", t.path("trunk"), "--gate", "0", "--notes-dim", "16", "--plan-vocab", "101", "--plan-dim", "8",
                     "--plan-places", "3", "--out", t.path(name), *more)

    def bytes_of(self, name):
        with open(self.t.path(name), "rb") as f:
            return f.read()

    def same(self, ranks):
        """Made here or found, by one rank or several: the same bytes, and the same sidecar."""
        wrong = []
        for start in "below", "amid", "bottom":
            self.train("all", start, f"{start}-1", "--states", self.t.path(f"{start}.states"))
            self.train("all", start, f"{start}-2", "--states", self.t.path(f"{start}.states"))
            if self.t.bytes(f"{start}-1") != self.t.bytes(f"{start}-2"):
                wrong.append(f"{start}: another training from states that were there")
            for n in ranks:
                self.train("all", start, f"{start}-ranks", "--states", self.t.path(f"{start}.more"), ranks=n)
                if self.bytes_of(f"{start}.states") != self.bytes_of(f"{start}.more"):
                    wrong.append(f"{start}: other states by {n} ranks")
            if os.path.exists(self.t.path(f"{start}.states.making")):
                wrong.append("a temporary file is left")
        return "; ".join(wrong) or None

    def close(self):
        """Rounding is all that states change; a sample of all others changes nothing at all."""
        wrong = []
        for start in "below", "amid":
            plain = self.train("all", start, f"{start}-plain")
            kept = self.train("all", start, f"{start}-kept", "--states", self.t.path(f"{start}.states"))
            whole = self.train("all", start, f"{start}-whole", "--softmax-sample", "100000")
            part = self.train("all", start, f"{start}-part", "--softmax-sample", "50")
            for name, other, bound in (("states", kept, ROUNDED), ("a sample of all", whole, 1e-3), ("a sample", part, 0.5)):
                for a, b in zip(plain, other):
                    for loss in LOSSES:
                        if abs(a[loss] - b[loss]) > bound * (1 + abs(a[loss])):
                            wrong.append(f"{start}, {name}: step {a['step']}: {loss} {b[loss]}, plain {a[loss]}")
            if part[-1]["tokens"] == plain[-1]["tokens"]:
                wrong.append(f"{start}: the sample is not used")
        return "; ".join(wrong[:5]) or None

    def resumes(self):
        """A run that was killed and goes on draws the same ids and reads the same states."""
        more = ["--states", self.t.path("below.states"), "--softmax-sample", "40", "--steps", "40", "--checkpoint-every", "2"]
        self.train("2", "below", "whole", *more)
        killed(self, "2", "below", "killed", *more)
        self.train("2", "below", "killed", *more, "--resume")
        same = self.t.bytes("whole", "sidecar.safetensors") == self.t.bytes("killed", "sidecar.safetensors")
        return None if same else "another sidecar"

    def refused(self):
        t = self.t
        self.data("other.jsonl", "101", "--seed", "5")
        self.run("model", "random", "--config", t.path("atlas.json"), "--tokenizer", t.path("tok/tokenizer.json"), "--out", t.path("trunk2"),
                 "--dtype", "F32", "--seed", "9")
        good = self.bytes_of("below.states")
        for name, content in (("cut", good[:-100]), ("flipped", good[:-7] + bytes([good[-7] ^ 1]) + good[-6:]), ("empty", b""), ("text", b"hello\n" * 100)):
            with open(t.path(name), "wb") as f:
                f.write(content)
        os.mkdir(t.path("folder"))

        def command(states, *more, start="below", data="atlas.jsonl", stage="2"):
            return [*self.command(stage, start, "never", "--states", t.path(states), data=data), *more]
        cases = [
            ("other data", command("below.states", data="other.jsonl"), 1, "other data"),
            ("another model", command("below.states", "--model", t.path("trunk2")), 1, "another model"),
            ("other layers", command("below.states", start="bottom"), 1, "other layers"),
            ("cut", command("cut"), 1, "cut"),
            ("flipped", command("flipped"), 1, "have changed"),
            ("empty", command("empty"), 1, "cannot read"),
            ("text", command("text"), 1, "expected states"),
            ("a folder", command("folder"), 1, "cannot read"),
            ("no folder", command("no/such/file"), 1, "no/such/file"),
            ("a trunk", [t.pdt, "train", "--stage", "trunk", "--model", t.path("trunk"), "--data", t.path("atlas.jsonl"), "--out", t.path("never"),
                         "--states", t.path("x")], 2, "--states"),
            ("distillation", command("below.states", "--softmax-sample", "40", "--weight", "kd=1"), 2, "--softmax-sample"),
            ("a pool of the last", [t.pdt, "sidecar", "init", "--model", t.path("trunk"), "--out", t.path("x"), "--pool", "last", "--pool-layer", "0"], 2, "--pool-layer"),
            ("no such layer", [t.pdt, "sidecar", "init", "--model", t.path("trunk"), "--out", t.path("x"), "--pool-layer", "3"], 2, "0 to 2"),
            ("copies of the last", [t.pdt, "sidecar", "init", "--model", t.path("trunk"), "--out", t.path("x"), "--pool", "last", "--pool-copies", "1"], 2, "--pool-copies"),
            ("more copies than heads", [t.pdt, "sidecar", "init", "--model", t.path("trunk"), "--out", t.path("x"), "--pool-heads", "2", "--pool-copies", "3"], 2, "at most the 2"),
            ("no text", [t.pdt, "sidecar", "init", "--model", t.path("trunk"), "--out", t.path("x"), "--scale-text", t.path("empty")], 1, "no text"),
        ]
        return harness.refusals(cases, "pdt ") or ("a file is left" if os.path.exists(t.path("never")) and os.listdir(t.path("never")) else None)


def main():
    pdt, ranks = harness.arguments("2")
    with tempfile.TemporaryDirectory() as folder:
        s = States(Scratch(pdt, folder))
        harness.run_checks([("same", lambda: s.same(ranks)), ("close", s.close), ("resumes", s.resumes), ("refused", s.refused)])


if __name__ == "__main__":
    main()
