#!/usr/bin/env python3
"""Model and sidecar that change under a run: what was loaded is what is used, and what cannot be loaded is an error, never a signal.

usage: changing_files.py PDT [--ranks 2]   (0: one process only)
"""
import json
import os
import random
import subprocess
import tempfile
import time

import harness

CONFIG = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5, rope_theta=10000.0,
    tie_word_embeddings=True, hidden_act="silu", vocab_size=600,
)
REQUESTS = 30


def run(*command):
    result = harness.run(command)
    if result.status != 0:
        raise harness.Failed(f"{command[1:3]}: {result.err.strip()}")


class Files:
    """A model and two sidecars, with full and with tied planner, that can be brought back to what they were."""

    def __init__(self, pdt, folder):
        self.pdt, self.folder, self.kept = pdt, folder, {}
        with open(self.path("config.json"), "w") as f:
            json.dump(CONFIG, f)
        run(pdt, "model", "random", "--config", self.path("config.json"), "--out", self.path("m"))
        for kind in ("full", "tied"):
            run(pdt, "sidecar", "init", "--model", self.path("m"), "--random", "--planner", kind, "--plan-vocab", "211", "--out", self.path(kind))
        with open(self.path("in.jsonl"), "w") as f:
            for i in range(REQUESTS):
                f.write(json.dumps(dict(prompt_ids=[i + 1, 2, 3], settings=dict(streams=2, max_tokens=24))) + "\n")
        for name in ("m/model.safetensors", "m/config.json", "full", "tied"):
            with open(self.path(name), "rb") as f:
                self.kept[name] = f.read()

    def path(self, name):
        return os.path.join(self.folder, name)

    def restore(self):
        for name, data in self.kept.items():
            with open(self.path(name), "wb") as f:
                f.write(data)

    def cut(self, name):
        os.truncate(self.path(name), 100)

    def rewrite(self, name):
        """In place: the same header, other weights."""
        data = bytearray(self.kept[name])
        begin = 8 + int.from_bytes(data[:8], "little")
        with open(self.path(name), "r+b") as f:
            f.seek(begin)
            f.write(bytes(len(data) - begin))

    def decode(self, sidecar, out):
        return [
            self.pdt, "decode", "--model", self.path("m"), "--sidecar", self.path(sidecar), "--requests", self.path("in.jsonl"), "--threads", "1",
            "--max-sessions", "1", "--json", "--out", self.path(out), "--rounds",
        ]


def started(command, ranks):
    if ranks:
        command = [os.path.join(harness.ROOT, "launch", "mpirun"), "-n", str(ranks), *command]
    return subprocess.Popen([str(x) for x in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def disturbed(command, change, ranks=0):
    """Runs a command and changes its files once the first round is told; status and what else it said."""
    process = started(command, ranks)
    first = process.stderr.readline()
    while first and b"round 1" not in first:
        first = process.stderr.readline()
    change()
    rest = process.stderr.read().decode("utf-8", "replace")
    return process.wait(), rest


def under_a_run(f, ranks):
    wrong = []
    for kind in ("full", "tied"):
        f.restore()
        run(*f.decode(kind, "quiet.jsonl"))
        with open(f.path("quiet.jsonl"), "rb") as x:
            expected = x.read()
        for name, n in (("cut", 0), ("rewrite", 0), *((("cut", x) for x in ranks) if kind == "full" else ())):
            f.restore()
            change = lambda name=name, kind=kind: [getattr(f, name)(x) for x in (kind, "m/model.safetensors")]
            status, said = disturbed(f.decode(kind, "out.jsonl"), change, n)
            if status != 0:
                wrong.append(f"{kind} planner, {name}, {n} ranks: status {status}: {said[-300:]}")
                continue
            with open(f.path("out.jsonl"), "rb") as x:
                if x.read() != expected:
                    wrong.append(f"{kind} planner, {name}, {n} ranks: other answers")
    f.restore()
    return "\n".join(wrong) or None


def while_loading(f, tries):
    """Files that change at any time of a short run: its answers, or one message."""
    draw, wrong = random.Random(3), []
    run(*f.decode("full", "quiet.jsonl"))
    with open(f.path("quiet.jsonl"), "rb") as x:
        expected = x.read()
    for i in range(tries):
        f.restore()
        name, victim = draw.choice(("cut", "rewrite")), draw.choice(("full", "m/model.safetensors"))
        process = started(f.decode("full", "out.jsonl"), 0)
        time.sleep(draw.random() * 0.03)
        getattr(f, name)(victim)
        said = process.stderr.read().decode("utf-8", "replace")
        status = process.wait()
        lines = [x for x in said.splitlines() if x.startswith("pdt decode: ")]
        if status not in (0, 1) or status == 1 and len(lines) != 1:
            wrong.append(f"{name} of {victim}: status {status}: {said[-300:]}")
        if status == 0:
            with open(f.path("out.jsonl"), "rb") as x:
                same = x.read() == expected
            # It may also have begun after the change, with weights of zero.
            if not same and name == "cut":
                wrong.append(f"{name} of {victim}: other answers, status 0")
    f.restore()
    return "\n".join(wrong) or None


def other_machines(f, ranks):
    """Ranks that read different files, as machines with disks of their own may."""
    script = 'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then side=tied2; else side=tied; fi; cd "$1"; shift; exec "$@" --sidecar "$side"'
    run(f.pdt, "sidecar", "init", "--model", f.path("m"), "--random", "--seed", "9", "--planner", "tied", "--plan-vocab", "211", "--out", f.path("tied2"))
    command = ["sh", "-c", script, "sh", f.folder, f.pdt, "decode", "--model", "m", "--prompt", "x", "--threads", "1"]
    return harness.refusals([("other sidecars", command, 1, "tied: is not the same on every rank")], "pdt decode: ", ranks=ranks)


def main():
    pdt, ranks = harness.arguments("2")
    with tempfile.TemporaryDirectory() as folder:
        f = Files(pdt, folder)
        checks = [("under a run", lambda: under_a_run(f, ranks)), ("while loading", lambda: while_loading(f, 12))]
        checks += [(f"{n} ranks' own files", lambda n=n: other_machines(f, n)) for n in ranks]
        harness.run_checks(checks)


if __name__ == "__main__":
    main()
