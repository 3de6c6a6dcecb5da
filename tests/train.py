#!/usr/bin/env python3
"""pdt train as a whole on a trunk (train_sidecar.py: on a sidecar): it learns, resumes exactly, agrees over ranks, and refuses what is wrong.

usage: train.py PDT [--ranks 2,3]   (0: one process only)

The data are made here: walks in which a token mostly says the next one. The model has more parameters than one exchange of gradients takes.
"""
import json
import os
import random
import tempfile

import harness
from safetensors_edit import File

VOCABULARY = 64
CONFIG = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=VOCABULARY, hidden_size=192,
    intermediate_size=512, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
    max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=True,
    hidden_act="silu", eos_token_id=0,
)
STEPS = 24
# Ranks add the same gradients in another order: 1e-7 of each, which AdamW turns into some 1e-7 of a
# rate of 0.002 where the gradient is not near zero, and up to the whole rate where it is. So weights
# may differ by a share of rate * steps in few places; the loss moves by far less than what is shown.
LOSS_TOLERANCE = 1e-3


def write_data(path, seed, count):
    """Walks in which a token says the next one, nine times in ten."""
    draw = random.Random(seed)
    with open(path, "w") as f:
        for _ in range(count):
            ids = [draw.randrange(1, VOCABULARY)]
            for _ in range(draw.randrange(8, 40)):
                ids.append(ids[-1] * 5 % 61 + 1 if draw.random() < 0.9 else draw.randrange(1, VOCABULARY))
            f.write(json.dumps(dict(ids=ids)) + "\n")


class Trainer:
    def __init__(self, pdt, scratch):
        self.pdt, self.scratch = pdt, scratch
        write_data(self.path("train.jsonl"), 1, 200)
        write_data(self.path("valid.jsonl"), 2, 20)
        with open(self.path("config.json"), "w") as f:
            json.dump(CONFIG, f)

    def path(self, name):
        return os.path.join(self.scratch, name)

    def command(self, out, *more, data="train.jsonl", config="config.json"):
        return [
            self.pdt, "train", "--stage", "trunk", "--data", self.path(data), "--config", self.path(config),
            "--valid", self.path("valid.jsonl"), "--out", self.path(out), "--steps", STEPS, "--batch", "7",
            "--warmup", "5", "--log-every", "4", "--checkpoint-every", "4", *more,
        ]

    def train(self, out, *more, ranks=0):
        result = harness.run(self.command(out, *more), ranks=ranks, timeout=120)
        if result.status != 0:
            raise harness.Failed(f"{out}: status {result.status}: {result.err.strip()}")
        with open(os.path.join(self.path(out), "log.jsonl")) as f:
            return [json.loads(line) for line in f]

    def bytes(self, out, name="checkpoint.safetensors"):
        with open(os.path.join(self.path(out), name), "rb") as f:
            return f.read()


def learns(t):
    log = t.train("one")
    steps = [x for x in log if "step" in x]
    if steps[-1]["step"] != STEPS or not steps[-1]["loss"] < steps[0]["loss"] - 1:
        return f"losses: {[x['loss'] for x in steps]}"
    if not abs(steps[-1]["valid_loss"] - steps[-1]["loss"]) < 1:
        return f"held out: {steps[-1]}"
    inspected = harness.run([t.pdt, "inspect", t.path("one")])
    return None if inspected.status == 0 else f"inspect: {inspected.err.strip()}"


def ranks_agree(t, ranks):
    log = t.train(f"ranks{ranks}", ranks=ranks)
    again = t.train(f"again{ranks}", ranks=ranks)
    if t.bytes(f"ranks{ranks}") != t.bytes(f"again{ranks}"):
        return f"{ranks} ranks: two runs differ"
    with open(os.path.join(t.path("one"), "log.jsonl")) as f:
        one = [json.loads(line) for line in f]
    for a, b in zip(one[1:], log[1:]):
        if a["step"] != b["step"] or not abs(a["loss"] - b["loss"]) <= LOSS_TOLERANCE:
            return f"{ranks} ranks: {b}, one rank: {a}"
    return None if [x["loss"] for x in again[1:]] == [x["loss"] for x in log[1:]] else "logs differ"


def resumes(t):
    """Killed without warning somewhere in its middle, a run goes on to the same bits."""
    harness.kill_when(t.command("killed"), os.path.join(t.path("killed"), "checkpoint.safetensors"))
    log = t.train("killed", "--resume")
    begun = [x["begin"] for x in log if "begin" in x]
    if len(begun) != 2 or begun[0] != 0 or not 0 < begun[1] < STEPS:
        return f"began at {begun}"
    return None if t.bytes("killed") == t.bytes("one") else f"bits differ after resuming at {begun[1]}"


def with_nan(t):
    """A model whose final norm holds NaNs."""
    os.makedirs(t.path("nan"), exist_ok=True)
    model = File(t.path("one/model.safetensors"))
    model.fill("model.norm.weight", float("nan"))
    model.write(t.path("nan/model.safetensors"))
    with open(t.path("nan/config.json"), "w") as f:
        json.dump(CONFIG, f)


def refusals(t):
    """(name, command, exit status, part of the message)."""
    with open(t.path("outside.jsonl"), "w") as f:
        f.write('{"ids": [1, 2]}\n{"ids": [1, 64]}\n')
    with open(t.path("text.jsonl"), "w") as f:
        f.write('{"text": "Once"}\n')
    with open(t.path("huge.json"), "w") as f:
        json.dump(dict(CONFIG, rope_scaling=dict(rope_type="longrope", factor=2.0)), f)
    with_nan(t)
    base = [t.pdt, "train", "--stage", "trunk", "--data", t.path("train.jsonl")]
    return [
        ("no stage", [t.pdt, "train", "--data", "x"], 2, "--stage"),
        ("unknown stage", [t.pdt, "train", "--stage", "x"], 2, "found 'x'"),
        ("config and model", [*t.command("o"), "--model", t.path("one")], 2, "one of --config and --model"),
        ("no steps", t.command("o", "--steps", "0"), 2, "--steps"),
        ("a rate that is none", t.command("o", "--rate", "nan"), 2, "--rate"),
        ("context beyond the model's", t.command("o", "--context", "65"), 2, "at most the model's 64"),
        ("no data", t.command("o", data="absent.jsonl"), 1, "absent.jsonl"),
        ("id outside", t.command("o", data="outside.jsonl"), 1, "line 2: 'ids'"),
        ("text without tokenizer", t.command("o", data="text.jsonl"), 1, "no tokenizer"),
        ("unknown rope", t.command("o", config="huge.json"), 1, "longrope"),
        ("a model there", t.command("one"), 1, "has a model already"),
        ("other settings", t.command("one", "--resume", "--rate", "0.01"), 1, "settings"),
        ("other data", t.command("one", "--resume", data="valid.jsonl"), 1, "data"),
        ("NaN in a model", [*base, "--model", t.path("nan"), "--out", t.path("o")], 1, "not finite"),
        ("no directory", t.command("absent/deep/o"), 1, "cannot make the directory"),
        ("blown up", t.command("blown", "--rate", "10", "--clip", "0", "--warmup", "0", "--weight-decay",
                               "10"), 1, "not a finite number"),
    ]


def refuses(t, ranks):
    """A blown-up run, which trains until it is one, on one process alone."""
    cases = [x for x in refusals(t) if not (ranks and x[0] == "blown up")]
    return harness.refusals(cases, "pdt train: ", ranks)


def main():
    pdt, ranks = harness.arguments("2,3")
    with tempfile.TemporaryDirectory() as scratch:
        t = Trainer(pdt, scratch)
        checks = [("learns", lambda: learns(t)), ("resumes", lambda: resumes(t))]
        checks += [(f"{n} ranks", lambda n=n: ranks_agree(t, n)) for n in ranks]
        checks += [("refuses", lambda: refuses(t, 0))]
        checks += [(f"refuses on {n} ranks", lambda n=n: refuses(t, n)) for n in ranks[:1]]
        harness.run_checks(checks)


if __name__ == "__main__":
    main()
