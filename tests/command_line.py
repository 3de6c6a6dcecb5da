#!/usr/bin/env python3
"""The command line: help where it is asked for and only there, values as they are written, one message for what cannot be.

usage: command_line.py PDT [--ranks 4]   (0: one process only)
"""
import os
import re
import tempfile

import harness

COMMANDS = (
    "decode", "serve", "train", "eval", "doctor", "plan", "tokenize", "inspect", "view", "model random", "sidecar init", "sidecar describe", "data atlas", "data check",
    "data tokenizer",
)
PARALLEL = ("decode", "serve", "train", "eval", "doctor")
# What stands for a file or folder in every command: no such argument may be empty.
PATHS = {
    "decode": ("model", "sidecar", "request", "requests", "plan", "out", "trace", "journal"),
    "serve": ("model", "sidecar", "api-key-file", "tls-certificate", "tls-key", "journal"),
    "train": ("data", "valid", "config", "model", "tokenizer", "sidecar", "out"),
    "eval": ("model", "sidecar", "data", "out"), "doctor": ("model", "sidecar"), "plan": ("model", "config", "measured"), "tokenize": ("model",), "inspect": ("model", None),
    "view": ("out", "model", None),
    "model random": ("config", "out", "tokenizer"), "sidecar init": ("model", "out"),
    "sidecar describe": ("model", "sidecar", "data", "out"), "data atlas": ("model", "out"),
    "data check": ("model", None), "data tokenizer": ("out",),
}
# A count of every command that has one, and a number with a point.
COUNTS = {
    "decode": "max-tokens", "serve": "max-queue", "train": "steps", "eval": "count", "plan": "ranks", "model random": "shard-bytes", "sidecar init": "streams",
    "data atlas": "count",
}
REALS = {"decode": "temperature", "serve": "request-timeout", "train": "rate", "eval": "gamma", "view": "gamma", "model random": "scale", "sidecar init": "gate"}
SEEDS = ("train", "model random", "sidecar init", "data atlas")


def words(command):
    return command.split()


def cut_examples(text):
    """Lines of help's examples that argp has wrapped, so that they can't be copied."""
    lines = text[text.index("Example"):].splitlines()[1:]
    return [x for x in lines if not x.startswith("  ") or x.strip() == "\\"]


def help_of(pdt, ranks):
    """Help is asked for by a word of its own, and told once."""
    wrong = []
    for command in COMMANDS:
        for word in ("--help", "-?", "--usage", "--hel"):
            result = harness.run([pdt, *words(command), word])
            told = result.out.startswith("Usage: pdt " + command) and result.out.count("Usage:") == 1
            if result.status != 0 or not told or result.err:
                wrong.append(f"{command} {word}: {result.status} {result.out[:60]!r} {result.err!r}")
            if word == "--help" and "Example" not in result.out:
                wrong.append(f"{command}: no examples")
            elif word == "--help" and (cut := cut_examples(result.out)):
                wrong.append(f"{command}: an example is cut: {cut}")
    for word in ("help", "-h", "--help", "-?", "--usage", "--he"):
        result = harness.run([pdt, word])
        if result.status != 0 or not result.out.startswith("pdt: the runtime"):
            wrong.append(f"{word}: {result.status} {result.out[:60]!r}")
    for n in ranks:
        result = harness.run([pdt, "decode", "--help"], ranks=n)
        if result.status != 0 or result.out.count("Usage:") != 1:
            wrong.append(f"--help on {n} ranks: {result.status} {result.out[:60]!r}")
    return "\n".join(wrong) or None


def settings_of_help(pdt):
    """Key, meaning and default of every setting, as pdt decode --help tells them; None if one cannot be read."""
    text = harness.run([pdt, "decode", "--help"]).out
    text = re.sub(r"\n {20,}", " ", text[text.index(" Settings"):text.index(" Where it runs")])
    found = re.findall(r"^ +--([a-z-]+)=\w+ +(.*) \((.*)\)$", text, flags=re.M)
    if not found or len(found) != len(re.findall(r"^ +--", text, flags=re.M)):
        return None
    return {flag.replace("-", "_"): (meaning, default) for flag, meaning, default in found}


def settings(pdt):
    """README's table of settings says what the program says."""
    with open(os.path.join(harness.ROOT, "README.md")) as f:
        table = f.read().split("| setting | meaning | default |\n|---|---|---|\n")[1].split("\n\n")[0]
    rows = [re.fullmatch(r"\| `(\w+)` \| (.*) \| (.*) \|", line) for line in table.splitlines()]
    told = {row[1]: (row[2].replace("`", ""), row[3]) for row in rows if row}
    known = settings_of_help(pdt)
    if not known or not all(rows) or len(rows) != len(told):
        return f"cannot read {known} or {table}"
    wrong = [key for key in {**known, **told} if known.get(key) != told.get(key)]
    return "\n".join(f"{key}: README has {told.get(key)}, --help {known.get(key)}" for key in wrong) or None


def values(pdt, folder):
    """What looks like a flag is the value of the flag before it."""
    path = lambda name: os.path.join(folder, name)
    for command in (["model", "random", "--preset", "tiny", "--out", path("m")], ["sidecar", "init", "--model", path("m"), "--out", path("s")]):
        result = harness.run([pdt, *command])
        if result.status != 0:
            return f"{command}: {result.err}"
    base = [pdt, "decode", "--model", path("m"), "--sidecar", path("s"), "--max-tokens", "2", "--streams", "2"]
    wrong = []
    for value in ("-?", "--help", "--usage", "--hel", "--", "-", "--prompt"):
        for flags in (["--prompt", value], [f"--prompt={value}"], ["--prompt", "x", "--section", value, "--section", "y"]):
            result = harness.run(base + flags)
            if result.status != 0 or "Usage" in result.out or not result.out:
                wrong.append(f"{flags}: {result.status} {result.out[:60]!r} {result.err!r}")
    for value in ("-?", "--help"):
        out = path(value)
        result = harness.run(["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", folder, *base, "--prompt", "x", "--out", value])
        if result.status != 0 or not os.path.exists(out):
            wrong.append(f"--out {value}: {result.status} {result.err!r}")
    asked = harness.run(base + ["--prompt", "x", "--help", "--nonsense"])
    if asked.status != 0 or not asked.out.startswith("Usage:"):
        wrong.append(f"help behind a value: {asked.status} {asked.err!r}")
    given = harness.run(base + ["--prompt", "x", "--", "--help"])
    if given.status != 2 or "argument '--help'" not in given.err:
        wrong.append(f"behind --: {given.status} {given.err!r}")
    return "\n".join(wrong) or None


def seeds(pdt, folder):
    """The largest seed is one like others, and data drawn with it can be read."""
    largest = str(2**64 - 1)
    path = lambda name: os.path.join(folder, name)
    for command in (
        ["data", "atlas", "--count", "2", "--seed", largest, "--out", path("d")], ["data", "check", path("d")],
        ["model", "random", "--preset", "tiny", "--seed", largest, "--out", path("ms")],
        ["sidecar", "init", "--model", path("ms"), "--seed", largest, "--out", path("ss")],
        ["decode", "--model", path("ms"), "--sidecar", path("ss"), "--prompt", "x", "--streams", "1", "--max-tokens", "1", "--seed", largest],
    ):
        result = harness.run([pdt, *command])
        if result.status != 0:
            return f"{command}: {result.err}"
    return None


def refusals():
    """(name, words, part of the message), all of status 2."""
    cases = []
    for command in COMMANDS:
        base = words(command)
        cases += [
            (base + ["--nonsense"], "unrecognized option '--nonsense'"), (base + ["-Z"], "invalid option -- 'Z'"),
            (base + [f"--{PATHS[command][0]}"], f"option '--{PATHS[command][0]}' requires an argument"),
        ]
        for name in PATHS[command]:
            cases.append((base + ([f"--{name}", ""] if name else [""]), "found an empty string"))
    for command, name in COUNTS.items():
        for value in ("-1", "0", "1e3", "0x10", "5 ", " 5", "1.0", "", "99999999999999999999", "-99999999999999999999", "５"):
            cases.append((words(command) + [f"--{name}={value}"], f"--{name}: expected an integer from 1 to"))
    for command, name in REALS.items():
        for value in ("0x1p2", "nan", "inf", "1e999", "1 ", " 1", "1,5", "", "one"):
            cases.append((words(command) + [f"--{name}={value}"], f"--{name}: expected a number from"))
    for command in SEEDS:
        for value in ("-1", "18446744073709551616", "1e3", "0x1", " 1", ""):
            cases.append((words(command) + [f"--seed={value}"], "--seed: expected an integer from 0 to 18446744073709551615"))
    cases.append((["decode", "--json=5"], "doesn't allow an argument"))
    return [(" ".join(w), w, part) for w, part in cases]


def main():
    pdt, ranks = harness.arguments("4")
    one = [(name, [pdt, *w], 2, part) for name, w, part in refusals()]
    parallel = [
        ["decode", "--nonsense"], ["decode", "--model", ""], ["train", "--steps", "0"], ["eval", "--gamma", "nan"], ["decode", "--prompt"],
    ]
    checks = [("help", lambda: help_of(pdt, ranks)), ("README's settings", lambda: settings(pdt))]
    with tempfile.TemporaryDirectory() as folder:
        checks += [("values", lambda: values(pdt, folder)), ("seeds", lambda: seeds(pdt, folder)),
                   ("refusals", lambda: harness.refusals(one, "pdt "))]
        for n in ranks:
            cases = [(" ".join(w), [pdt, *w], 2, "pdt " + w[0]) for w in parallel]
            checks.append((f"refusals on {n} ranks", lambda n=n, cases=cases: harness.refusals(cases, "pdt ", ranks=n)))
        harness.run_checks(checks)


if __name__ == "__main__":
    main()
