#!/usr/bin/env python3
"""What a sidecar was trained with: written by training, carried on, shown, and told where a request is far from it.

usage: familiar.py PDT [--ranks 2]   (0: one process only)
"""
import json
import os
import struct
import tempfile

import harness

MODEL = os.path.join(harness.ROOT, "launch/model")
SIDECAR = os.path.join(MODEL, "sidecar.safetensors")
PLAN = ("--plan-vocab", "1024", "--plan-salt", "atlas-5")
PROMPT = "Describe Velmora. Sections: history; trade."
SECTIONS = ("\nHistory:", "\nTrade:")


class World:
    def __init__(self, pdt, scratch):
        self.pdt, self.scratch = pdt, scratch

    def path(self, name):
        return os.path.join(self.scratch, name)

    def run(self, *command, ranks=0):
        result = harness.run([self.pdt, *command], ranks=ranks, timeout=120)
        if result.status != 0:
            raise harness.Failed(f"{command[:2]}: {result.status}: {result.err.strip()}")
        return result

    def decode(self, *more, sidecar=SIDECAR, ranks=0):
        return self.run("decode", "--model", MODEL, "--sidecar", sidecar, "--quiet", "--threads", "1", *more, ranks=ranks)

    def trained(self, name):
        """The object in a file's metadata; None without."""
        with open(name, "rb") as f:
            (n,) = struct.unpack("<Q", f.read(8))
            header = json.loads(f.read(n))
        return json.loads(header["__metadata__"]["config"]).get("trained")

    def bytes_of_tensors(self, name):
        with open(name, "rb") as f:
            (n,) = struct.unpack("<Q", f.read(8))
            header = json.loads(f.read(n))
            data = f.read()
        del header["__metadata__"]
        return {k: (v["dtype"], v["shape"], data[slice(*v["data_offsets"])]) for k, v in header.items()}


def warnings(result):
    return [x for x in result.err.splitlines() if x.startswith("pdt ") and ": warning: " in x]


def asked(prompt=PROMPT, sections=SECTIONS):
    return ["--prompt", prompt, *(x for s in sections for x in ("--section", s))]


def decode_tells(w, ranks):
    """(flags, parts of the warnings that come, one each)."""
    cases = [
        (asked(), []),
        ([*asked(), "--block-tokens", "9", "--reveal-delay", "4", "--window", "32", "--temperature", "1"], []),
        (asked(sections=("History:", "Trade:")), ["section 0, 'History:', is none"]),
        (asked(sections=()), ["section 0, empty, is none"]),
        (asked(prompt="Describe Velmora."), ["the prompt, 4 tokens"]),
        (asked(prompt="Tell me of Velmora. Sections: history; trade."), ["the prompt, "]),
        ([*asked(), "--block-tokens", "16"], ["block_tokens is 16"]),
        ([*asked(), "--reveal-delay", "5"], ["reveal_delay is 5"]),
        ([*asked(), "--window", "8", "--max-tokens", "96"], ["window is 8"]),
        ([*asked(), "--temperature", "1.3"], ["temperature is 1.3"]),
        ([*asked(), "--gamma", "0.998"], []),
        ([*asked(), "--gamma", "0.9991"], ["gamma is 0.9991: from 0.999 on"]),
        (asked(sections=SECTIONS[:1]), ["the number of streams is 1"]),
    ]
    wrong = []
    for flags, parts in cases:
        for n in (0, *ranks) if parts[1:] or flags[-1] == "16" else (0,):
            found = warnings(w.decode(*flags, ranks=n))
            if len(found) != len(parts) or not all(p in f for p, f in zip(parts, found)):
                wrong.append(f"{flags}, {n} ranks: expected {parts}, found {found}")
    return "\n".join(wrong) or None


def once_a_run(w):
    """One warning a kind, which names the first such request."""
    good = dict(prompt=PROMPT, sections=SECTIONS)
    plan = [dict(stream=0, text="founder"), dict(stream=1, text="good")]
    lines = [
        good, dict(good, plan=plan), dict(good, plan=[plan[0], dict(stream=1, text="the main good")]), dict(good, sections=("A", "B")),
        dict(good, plan=[dict(stream=0, text="the founder")], settings=dict(block_tokens=20)), dict(good, settings=dict(block_tokens=30)),
        dict(good, sections=("C", "D")),
    ]
    with open(w.path("in.jsonl"), "w") as f:
        f.writelines(json.dumps(x) + "\n" for x in lines)
    found = warnings(w.decode("--requests", w.path("in.jsonl")))
    parts = [("line 3", "plan item 1, 'the main good'", "'founder'"), ("line 4", "section 0, 'A'"), ("line 5", "block_tokens is 20")]
    if len(found) != len(parts) or not all(p in f for ps, f in zip(parts, found) for p in ps):
        return f"expected {parts}, found {found}"
    return None


def evaluation_tells(w):
    w.run("data", "atlas", "--count", "2", "--split", "valid", *PLAN, "--out", w.path("valid.jsonl"))
    command = ["eval", "--model", MODEL, "--sidecar", SIDECAR, "--data", w.path("valid.jsonl"), "--no-teacher", "--threads", "1"]
    found = [warnings(w.run(*command, *more)) for more in (["--arms", "all"], ["--sweep", "tau=6,20,30"])]
    if found[0] or len(found[1]) != 1 or "entry 'atlas-2/valid/0/0': block_tokens is 20" not in found[1][0]:
        return f"found {found}"
    return None


def silence(w):
    """Sidecars that do not say what they were trained with are told nothing, untrained ones one thing."""
    for name, more in (("fresh", ()), ("noise", ("--random",))):
        w.run("sidecar", "init", "--model", MODEL, "--streams", "2", "--out", w.path(name), *more)
    found = warnings(w.decode(*asked("any", ("a", "b")), sidecar=w.path("noise"))), warnings(w.decode(*asked(), sidecar=w.path("fresh")))
    if found[0] or len(found[1]) != 1 or "not learned to read notes" not in found[1][0]:
        return f"found {found}"
    return None


def training_writes_it(w):
    """Each stage adds to what is there; describe says the same of the same data, and leaves tensors alone."""
    w.run("data", "atlas", "--count", "12", "--seed", "3", "--max-sections", "3", *PLAN, "--out", w.path("a.jsonl"))
    w.run("data", "atlas", "--count", "12", "--seed", "4", "--min-sections", "4", "--max-sections", "5", "--hard", *PLAN, "--out", w.path("b.jsonl"))
    w.run("sidecar", "init", "--model", MODEL, "--streams", "6", "--notes-dim", "16", "--adapter-dim", "4", "--block-tokens", "6", "--plan-dim", "8",
          *PLAN, "--out", w.path("fresh.st"))
    previous = w.path("fresh.st")
    if w.trained(previous) != {}:
        return f"init: {w.trained(previous)}"
    for stage, data in (("0", ["a"]), ("1", ["a", "b"]), ("rollouts", ["a"])):
        out = w.path(f"stage-{stage}")
        w.run("train", "--stage", stage, "--model", MODEL, "--sidecar", previous, "--out", out, "--steps", "2", "--batch", "2", "--threads", "1",
              *(x for d in data for x in ("--data", w.path(f"{d}.jsonl"))))
        previous = os.path.join(out, "sidecar.safetensors")
    trained = w.trained(previous)
    if trained["stages"] != ["0", "1", "rollouts"] or trained["temperature"] != 0.8 or trained["streams"] != [2, 5]:
        return f"{trained}"
    w.run("sidecar", "describe", "--model", MODEL, "--sidecar", previous, "--data", w.path("a.jsonl"), "--data", w.path("b.jsonl"), "--stages",
          "0,1,rollouts", "--temperature", "0.8", "--out", w.path("described"))
    with open(w.path("described"), "rb") as a, open(previous, "rb") as b:
        if a.read() != b.read():
            return f"describe: {w.trained(w.path('described'))} for {trained}"
    shown = json.loads(w.run("inspect", "--json", previous).out)["trained"]
    return None if shown == trained else f"inspect: {shown}"


def shipped(w):
    """The default sidecar knows at least what entries of training have; described anew, its tensors stay."""
    w.run("data", "atlas", "--count", "300", "--seed", "11", *PLAN, "--out", w.path("t.jsonl"))
    w.run("sidecar", "describe", "--model", MODEL, "--sidecar", SIDECAR, "--data", w.path("t.jsonl"), "--out", w.path("again"))
    if w.bytes_of_tensors(SIDECAR) != w.bytes_of_tensors(w.path("again")):
        return "tensors differ"
    w.run("sidecar", "describe", "--model", MODEL, "--sidecar", SIDECAR, "--gamma", "0.625", "--out", w.path("other-gamma"))
    if w.bytes_of_tensors(SIDECAR) != w.bytes_of_tensors(w.path("other-gamma")) or w.trained(w.path("other-gamma")) != w.trained(SIDECAR):
        return "--gamma changes more than gamma"
    if '"gamma":0.625' not in w.run("inspect", "--json", w.path("other-gamma")).out:
        return "--gamma is not told"
    own, few = w.trained(SIDECAR), w.trained(w.path("again"))
    for key in ("headings", "plan_texts", "plan_ids", "prompt_ids"):
        if not set(few[key]) <= set(own[key]):
            return f"{key}: {set(few[key]) - set(own[key])}"
    for key in ("block_tokens", "reveal_delay", "streams", "prompt_tokens"):
        if not own[key][0] <= few[key][0] <= few[key][1] <= own[key][1]:
            return f"{key}: {own[key]}, {few[key]}"
    return None


def refusals(w):
    with open(SIDECAR, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(n))
        data = f.read()
    config = json.loads(header["__metadata__"]["config"])
    for name, trained in (("list", []), ("range", dict(streams=[3, 2]))):
        header["__metadata__"]["config"] = json.dumps(dict(config, trained=trained))
        text = json.dumps(header).encode()
        with open(w.path(f"{name}.st"), "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text + data)
    w.run("data", "atlas", "--count", "1", "--out", w.path("other.jsonl"))
    decode = [w.pdt, "decode", "--model", MODEL, *asked(), "--sidecar"]
    describe = [w.pdt, "sidecar", "describe", "--model", MODEL, "--sidecar", SIDECAR, "--out", w.path("out"), "--data"]
    return (
        harness.refusals([("a list", [*decode, w.path("list.st")], 1, "'trained': expected an object"),
                          ("no range", [*decode, w.path("range.st")], 1, "trained: streams")], "pdt decode: ")
        or harness.refusals([("other plan", [*describe, w.path("other.jsonl")], 1, "vocabulary 65536"),
                             ("no data", describe[:-1], 2, "--data"), ("gamma", [*describe[:-1], "--gamma", "2"], 2, "from 0 to 1"),
                             ("stages of no data", [*describe[:-1], "--gamma", "0.5", "--stages", "0"], 2, "expected --data"), ("no file", [*describe, w.path("absent")], 1, "absent"),
                             ("no stage", [*describe, w.path("other.jsonl"), "--stages", "7"], 1, "vocabulary"),
                             ("its own file", [*describe[:-3], "--out", SIDECAR, "--data", w.path("t.jsonl")], 2, "would be lost"),
                             ("another sidecar", [*describe[:-3], "--out", w.path("again"), "--data", w.path("t.jsonl")], 2, "--overwrite"),
                             ("unknown stage", [*describe, w.path("t.jsonl"), "--stages", "0,7"], 2, "found '7'")], "pdt sidecar describe: ")
    )


def main():
    pdt, ranks = harness.arguments("2")
    with tempfile.TemporaryDirectory() as scratch:
        w = World(pdt, scratch)
        checks = [
            ("decode tells", lambda: decode_tells(w, ranks)), ("once a run", lambda: once_a_run(w)), ("evaluation", lambda: evaluation_tells(w)),
            ("silence", lambda: silence(w)), ("training", lambda: training_writes_it(w)), ("shipped", lambda: shipped(w)),
            ("refusals", lambda: refusals(w)),
        ]
        harness.run_checks(checks)


if __name__ == "__main__":
    main()
