#!/usr/bin/env python3
"""Examples that the default model can run: those of README.md, of pdt decode --help and of launch/demo give sensible text.

usage: examples.py PDT [--ranks 2]   (0: without mpirun)

Sensible: no warning, no section without its end, and of all sentences nearly every one is one of the Atlas's; at temperature 0.8 the
trunk itself writes one in a hundred that is none.
"""
import json
import os
import re
import shlex
import tempfile

import harness

MODEL = os.path.join(harness.ROOT, "launch/model")
SIDECAR = os.path.join(MODEL, "sidecar.safetensors")
SOUND = 0.9  # of the sentences of an example
NAME, TOWN = "\0", "\1"


def sentences(text):
    return [x.strip() for x in re.findall(r"[^.;]+[.;]", text)]


def patterns(pdt, scratch):
    """A pattern for every sentence of the world, from entries that its generator writes."""
    found = set()
    for name, kind in (("default", ()), ("hard", ("--hard",))):
        data = os.path.join(scratch, f"{name}.jsonl")
        result = harness.run([pdt, "data", "atlas", "--count", 600, "--seed", 5, "--out", data, *kind])
        if result.status != 0:
            raise harness.Failed(result.err)
        with open(data) as f:
            entries = [json.loads(x) for x in list(f)[1:]]
        for e in entries:
            town = e["prompt"].split()[1].rstrip(".")
            for s in e["sections"]:
                text = s["text"].encode()
                for begin, end in sorted((m["bytes"] for m in s["mentions"]), reverse=True):
                    text = text[:begin] + NAME.encode() + text[end:]
                found.update(sentences(text.decode().replace(town, TOWN)))
    return [re.compile(re.escape(x).replace(re.escape(NAME), r"\w+( \w+)?").replace(re.escape(TOWN), r"\w+")) for x in found]


class Reader:
    """Says what is wrong with a text."""

    def __init__(self, pdt, scratch):
        self.pdt, self.scratch = pdt, scratch
        self.patterns = patterns(pdt, scratch)

    def look(self, what, result, sections):
        text = result.out.strip()
        if result.status != 0 or "warning" in result.err:
            return f"{what}: status {result.status}: {result.err.strip()}"
        parts = re.split(r"^(\w+):", text, flags=re.M)[1:]
        bodies = dict(zip(parts[::2], parts[1::2]))
        said = [x for body in bodies.values() for x in sentences(body)]
        sound = [x for x in said if any(p.fullmatch(x) for p in self.patterns)]
        if len(bodies) != sections or not all(len(sentences(x)) >= 3 and x.strip().endswith(".") for x in bodies.values()):
            return f"{what}: expected {sections} whole sections, found {text!r}"
        if len(sound) < SOUND * len(said):
            return f"{what}: of {len(said)} sentences these are none: {[x for x in said if x not in sound]}"
        return None

    def run(self, command):
        """A command line as bash reads it, in the scratch folder."""
        return harness.run(["bash", "-c", f"cd {shlex.quote(self.scratch)} && {command}"], timeout=100)


def commands(text):
    """Command lines of a text, continued lines put together."""
    return [x.strip() for x in text.replace("\\\n", " ").splitlines()]


def fences(text, kind):
    return [x for found, x in re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.M | re.S) if found == kind]


def readme(folder=""):
    with open(os.path.join(harness.ROOT, folder, "README.md")) as f:
        return f.read()


def here(reader, command, ranks):
    """The command with this program, this model, and ranks that this machine has, or none."""
    command = re.sub(r"^(launch/)?mpirun -n \d+ ", f"{shlex.quote(harness.ROOT)}/launch/mpirun -n {ranks} " if ranks else "", command)
    if not ranks:
        command = command.replace("--tp 2", "")
    command = re.sub(r"(build/release/)?pdt (?=decode|data|eval)", shlex.quote(reader.pdt) + " ", command, count=1)
    for name, path in ((r"launch/model/sidecar\.safetensors|S\.safetensors", SIDECAR), ("launch/model|M", MODEL)):
        command = re.sub(rf"(?<= )({name})(?= |$)", path, command)
    if re.search(" (decode|eval) ", command):
        command += " --threads 1"
    return command


def of_readme(reader, ranks):
    wrong, n = [], 0
    for block in [x for folder in ("", "runtime/serve") for x in fences(readme(folder), "")]:
        for command in commands(block):
            if "pdt decode" in command and "launch/model" in command:
                n += 1
                wrong.append(reader.look(command, reader.run(here(reader, command, ranks)), command.count("--section")))
    wrong.append(None if n > 1 else "README.md, runtime/serve/README.md: no two examples decode with launch/model")
    return "\n".join(x for x in wrong if x) or None


def of_requests(reader, ranks):
    """README's request, alone, and as lines of a file as in --help."""
    request = json.loads(fences(readme(), "json")[0])
    with open(os.path.join(reader.scratch, "in.json"), "w") as f:
        json.dump(request, f)
    with open(os.path.join(reader.scratch, "in.jsonl"), "w") as f:
        for session in range(3):
            f.write(json.dumps(dict(request, session=session)) + "\n")
    result = reader.run(f"{shlex.quote(reader.pdt)} decode --model {MODEL} --sidecar {SIDECAR} --request in.json --threads 1")
    return reader.look("README.md's request", result, len(request["sections"]))


def of_help(reader, ranks):
    wrong = []
    text = harness.run([reader.pdt, "decode", "--help"]).out
    examples = [x for x in commands(text[text.index("Examples") :]) if "pdt decode" in x]
    for command in examples:
        result = reader.run(here(reader, command, ranks))
        if "--requests" not in command:
            wrong.append(reader.look(command, result, command.count("--section")))
        elif result.status != 0 or "warning" in result.err:
            wrong.append(f"{command}: {result.status} {result.err}")
    wrong.append(None if len(examples) >= 3 else f"--help: {examples}")
    return "\n".join(x for x in wrong if x) or None


def of_demo(reader, ranks):
    """The demo's prompt, and the other one that its head shows, with its settings."""
    with open(os.path.join(harness.ROOT, "launch/demo")) as f:
        text = f.read()
    own = re.search(r"^prompt=\((.*?)\)$", text, flags=re.M | re.S).group(1)
    shown = re.search(r'^# +launch/demo (--prompt "[^"]*") \\\n# +(--section.*)$', text, flags=re.M)
    settings = " ".join(re.search(r"--temperature .*\n.*--max-tokens \d+", text).group(0).split())
    wrong = []
    for prompt in (own, " ".join(shown.groups())):
        prompt = " ".join(prompt.split("\n"))
        command = f"{shlex.quote(reader.pdt)} decode --model {MODEL} --sidecar {SIDECAR} {prompt} {settings} --threads 1"
        wrong.append(reader.look(command, reader.run(command), prompt.count("--section")))
    return "\n".join(x for x in wrong if x) or None


def of_eval(reader, ranks):
    """bench/README.md's and --help's entries are such as the default model's sidecar can be evaluated with."""
    wrong = []
    text = harness.run([reader.pdt, "eval", "--help"]).out
    for source in (fences(readme("bench"), ""), [text[text.index("Examples") :]]):
        block = next(x for x in source if "pdt eval" in x)
        lines = [x.replace("build/test.jsonl", "test.jsonl") for x in commands(block)]
        data = next(x for x in lines if "pdt data atlas" in x)
        evaluate = next(x for x in lines if "pdt eval" in x)
        for command in (re.sub(r"--count \d+", "--count 3", data), evaluate + " --no-teacher --arms blind"):
            result = reader.run(here(reader, command, ranks))
            if result.status != 0 or "warning" in result.err:
                wrong.append(f"{command}: {result.status} {result.err}")
        os.remove(os.path.join(reader.scratch, "test.jsonl"))
    return "\n".join(wrong) or None


def main():
    pdt, ranks = harness.arguments("2")
    most = max(ranks, default=0)
    with tempfile.TemporaryDirectory() as scratch:
        reader = Reader(pdt, scratch)
        bad = harness.run([pdt, "decode", "--model", MODEL, "--sidecar", SIDECAR, "--prompt", "Describe Velmora.", "--section", "History:", "--threads", 1])
        bad.err = "" # by the text alone
        checks = [
            ("garbage is told", lambda: None if reader.look("", bad, 1) else f"taken for sensible: {bad.out}"),
            ("README", lambda: of_readme(reader, most)),
            ("README's request", lambda: of_requests(reader, most)),
            ("decode --help", lambda: of_help(reader, most)),
            ("demo", lambda: of_demo(reader, most)),
            ("eval", lambda: of_eval(reader, most)),
        ]
        harness.run_checks(checks)


if __name__ == "__main__":
    main()
