#!/usr/bin/env python3
"""Documents of one's own, by the commands: labels, refusals, training on them, and what coordination buys.

usage: documents.py PDT [--ranks 2]   (0: one process only)
"""
import json
import math
import os
import tempfile

import harness

MODEL = os.path.join(harness.ROOT, "launch", "model")
SIDECAR = os.path.join(MODEL, "sidecar.safetensors")
PLAN = ("--plan-vocab", "101")


def document(n):
    """A sound document; n makes it different from others."""
    name = "Zeswen" if n % 2 else "Thargard"
    return dict(
        id=f"d{n}",
        prompt=f"Describe place {n}.",
        sections=[
            dict(prefix="\nHistory:", text=f" The river {name} was there first. It has 1{n} bridges."),
            dict(prefix="\nTrade:", text=f" Not much is sold here. But on the {name} go ships under 1{n} bridges."),
        ],
        facts=[dict(stream=0, type="river", value=name), dict(stream=0, type="bridges", value=f"1{n}")],
    )


class World:
    """A folder, and what is run in it."""

    def __init__(self, pdt, ranks, scratch):
        self.pdt, self.ranks, self.scratch = pdt, ranks, scratch

    def path(self, name):
        return os.path.join(self.scratch, name)

    def write(self, name, lines):
        with open(self.path(name), "wb") as f:
            for line in lines:
                f.write((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")
        return self.path(name)

    def read(self, name):
        with open(self.path(name)) as f:
            return [json.loads(line) for line in f]

    def run(self, *command, stdin=b"", ranks=0, timeout=100):
        result = harness.run([self.pdt, *command], stdin=stdin, ranks=ranks, timeout=timeout)
        if result.status != 0:
            raise harness.Failed(f"{command[:2]}: {result.err.strip()}")
        return result

    def make(self, source, name, *more, stdin=b""):
        return self.run("data", "documents", "--model", MODEL, "--in", source, "--overwrite", "--out", self.path(name), *PLAN, *more, stdin=stdin)


def labels(w):
    """What is written is sound by the tokenizer, and says where names are."""
    w.write("docs.jsonl", [document(n) for n in range(20)])
    said = w.make(w.path("docs.jsonl"), "data.jsonl").out
    header, *entries = w.read("data.jsonl")
    report = json.loads(w.run("data", "check", "--model", MODEL, "--json", w.path("data.jsonl")).out)
    if "20 entries of 20 documents; 40 facts, 40 uses by siblings" not in said or not report["blocks_cut_again"]:
        return f"{said} {report}"
    for n, e in enumerate(entries):
        texts = [x["text"].encode() for x in e["sections"]]
        found = [(k, m["fact"], m["kind"], texts[k][slice(*m["bytes"])].decode()) for k, x in enumerate(e["sections"]) for m in x["mentions"]]
        values = [x["value"] for x in document(n)["facts"]]
        if found != [(0, 0, "states", values[0]), (0, 1, "states", values[1]), (1, 0, "uses", values[0]), (1, 1, "uses", values[1])]:
            return f"{e['id']}: {found}"
        if [x["text"] for x in e["plan"]] != ["river", "bridges"] or any(not 0 < x["id"] < 101 for x in e["plan"]):
            return f"{e['id']}: {e['plan']}"
    # through pipes, the same; without facts, names and numbers are found
    with open(w.path("docs.jsonl"), "rb") as f:
        text = f.read()
    piped = w.run("data", "documents", "--model", MODEL, "--in", "-", "--out", "-", *PLAN, stdin=text)
    with open(w.path("data.jsonl")) as f:
        if piped.out != f.read() or "20 entries" not in piped.err:
            return "through pipes, another file"
    w.write("bare.jsonl", [{k: v for k, v in document(n).items() if k != "facts"} for n in range(20)])
    w.make(w.path("bare.jsonl"), "found.jsonl", "--find")
    for n, e in enumerate(w.read("found.jsonl")[1:]):
        # Thargard and 10 of document 0: the name of the one, two digits of the other
        if {x["value"] for x in e["facts"]} != {x["value"] for x in document(n)["facts"]}:
            return f"found {e['facts']}"
    with open(w.path("stop"), "w") as f:
        f.write("zeswen\n\n  Thargard \n")
    w.make(w.path("bare.jsonl"), "stopped.jsonl", "--find", "--stop-words", w.path("stop"))
    kinds = {x["type"] for e in w.read("stopped.jsonl")[1:] for x in e["facts"]}
    return None if kinds == {"number"} else f"in spite of stop words: {kinds}"


def splits(w):
    """Every document is in one split."""
    w.write("many.jsonl", [document(n) for n in range(400)])
    seen = []
    for split in ("train", "valid", "test"):
        w.make(w.path("many.jsonl"), f"{split}.jsonl", "--split", split)
        header, *entries = w.read(f"{split}.jsonl")
        seen += [e["id"] for e in entries]
        if header.get("split") != split or not entries:
            return f"{split}: {header}, {len(entries)} entries"
    return None if sorted(seen) == sorted(f"d{n}" for n in range(400)) else f"{len(seen)} of 400 in a split"


def changed(**keys):
    return {k: v for k, v in dict(document(1), **keys).items() if v is not None}


def refusals(w):
    """Bad input: one message that names the line, and nothing is written."""
    sections = document(1)["sections"]
    spanning = [dict(prefix="\nHis", text="tory: Zeswen."), dict(prefix="\nB:", text=" Zeswen.")]
    fact = [dict(stream=0, value="Zeswen")]
    lines = [
        ("no JSON", b'{"prompt": ', "line 3: "),
        ("no object", ["x"], "line 3: expected a JSON object, found array"),
        ("no prompt", changed(prompt=None), "line 3: 'prompt'"),
        ("an unknown key", changed(fact=[]), "line 3: "),
        ("no sections", changed(sections=[]), "line 3: 'sections': expected 1 to 64 elements, found 0"),
        ("no facts", changed(facts=None), "line 3: 'facts': expected a list, found nothing (hint: --find looks for names)"),
        ("a value that is nowhere", changed(facts=[dict(stream=0, value="Rhine")]), "line 3: facts[0]: expected 'Rhine' in section 0"),
        ("a span that is another text", changed(facts=[dict(stream=0, value="Zeswen", begin=0, end=3)]), "line 3: facts[0]: 'value': expected ' Th'"),
        ("a span behind the text", changed(facts=[dict(stream=0, begin=0, end=999)]), "line 3: facts[0]: 'end'"),
        ("a section that is not there", changed(facts=[dict(stream=9, value="Zeswen")]), "line 3: facts[0]: 'stream'"),
        ("too many facts", changed(facts=fact * 65), "line 3: 'facts': expected 1 to 64 elements, found 65"),
        ("a text that does not begin with its space", changed(sections=spanning, facts=fact), "line 3: sections[0]: a token of this tokenizer spans"),
        ("no UTF-8", b'{"prompt": "\xff"}', "line 3: "),
        ("a zero character", changed(prompt="a\0b"), "line 3: "),
    ]
    wrong = []
    for n, (name, line, part) in enumerate(lines):
        source = w.write(f"bad{n}.jsonl", [document(1), document(2), line])
        command = [w.pdt, "data", "documents", "--model", MODEL, "--in", source, "--out", w.path("none.jsonl")]
        wrong.append(harness.refusals([(name, command, 1, part)], "pdt data documents: "))
    sound, taken = w.write("sound.jsonl", [document(1)]), w.write("taken.jsonl", ["not data"])
    apart = [changed(sections=[dict(sections[0], text=" Nothing."), sections[1]], facts=None)]
    base = [w.pdt, "data", "documents", "--model", MODEL]
    cases = [
        ("no --in", [*base, "--out", w.path("none.jsonl")], 2, "expected --model, --in and --out"),
        ("no file", [*base, "--in", w.path("absent"), "--out", w.path("none.jsonl")], 1, "absent"),
        ("no documents", [*base, "--in", w.write("empty.jsonl", []), "--out", w.path("none.jsonl")], 1, "expected documents, found none"),
        ("no shared names", [*base, "--find", "--in", w.write("apart.jsonl", apart), "--out", w.path("none.jsonl")], 1, "1 without a name that two sections share"),
        ("an output that is the input", [*base, "--in", sound, "--out", sound], 2, "--out"),
        ("an output that is there", [*base, "--in", sound, "--out", taken], 2, "--overwrite"),
        ("stop words without --find", [*base, "--in", sound, "--stop-words", taken, "--out", w.path("none.jsonl")], 2, "--find"),
        ("a split that there is not", [*base, "--in", sound, "--split", "dev", "--out", w.path("none.jsonl")], 2, "expected train, valid or test"),
        ("blocks of nothing", [*base, "--in", sound, "--block-tokens", "0", "--out", w.path("none.jsonl")], 2, "--block-tokens"),
        ("no model", [*base[:-1], w.path("absent"), "--in", sound, "--out", w.path("none.jsonl")], 1, "absent"),
        ("a score without data", [w.pdt, "data", "score", "--model", MODEL, "--sidecar", SIDECAR], 2, "expected --model, --sidecar and --data"),
        ("a score of another plan", [w.pdt, "data", "score", "--model", MODEL, "--sidecar", SIDECAR, "--data", w.path("data.jsonl")], 1, "a plan of 16 slots"),
    ]
    wrong.append(harness.refusals(cases, "pdt data"))
    left = [x for x in os.listdir(w.scratch) if x.startswith(("none.jsonl", ".none"))]
    return "\n".join(x for x in wrong if x) or (f"left behind: {left}" if left else None)


def score(w, sidecar, data, *more):
    return json.loads(w.run("data", "score", "--model", MODEL, "--sidecar", sidecar, "--data", w.path(data), "--json", *more).out)


def training(w):
    """A sidecar learns from such data; closed to notes, it scores alike with and without them."""
    w.run("sidecar", "init", "--model", MODEL, "--streams", "2", "--layers", "1,2", *PLAN, "--block-tokens", "6", "--window", "64", "--out", w.path("s.safetensors"))
    for stage in ("0", "all"):
        w.run(
            "train", "--stage", stage, "--model", MODEL, "--sidecar", w.path("s.safetensors"), "--data", w.path("data.jsonl"),
            "--steps", "3", "--batch", "2", "--out", w.path(f"stage-{stage}"), ranks=w.ranks,
        )  # fmt: skip
    trained = score(w, w.path("stage-all/sidecar.safetensors"), "data.jsonl")
    tokens = sum(x["tokens"] for e in w.read("data.jsonl")[1:] for x in e["sections"])
    if trained["all"]["tokens"] != tokens or trained["entries"] != 20:
        return f"{tokens} tokens of 20 entries: {trained['all']}"
    if trained["told"]["tokens"] == 0 or not math.isfinite(trained["all"]["notes"]["cross_entropy"]):
        return f"{trained}"
    # one step over all entries, in lockstep, tells the same cross-entropy before it learns; its log has five digits
    w.run(
        "train", "--stage", "2", "--model", MODEL, "--sidecar", w.path("stage-all/sidecar.safetensors"), "--data", w.path("data.jsonl"),
        "--steps", "1", "--batch", "20", "--lockstep", "1", "--stated", "1", "--log-every", "1", "--out", w.path("measured"),
    )  # fmt: skip
    measured = next(x["tokens"] for x in w.read("measured/log.jsonl") if x.get("step") == 1)
    if abs(measured - trained["all"]["notes"]["cross_entropy"]) > 1e-4:
        return f"training measures {measured}: {trained['all']}"
    harness.closed_sidecar(w.pdt, MODEL, w.path("closed.safetensors"), 2)
    w.make(w.path("docs.jsonl"), "closed.jsonl", "--plan-vocab", "97")
    closed = score(w, w.path("closed.safetensors"), "closed.jsonl")
    for kind in ("told", "other"):
        x = closed[kind]
        # what a gate of 4e-18 lets through is nothing beside a float32 sum
        if closed[kind]["tokens"] != trained[kind]["tokens"] or abs(x["blind"]["above_notes"]) > harness.TOLERANCE:
            return f"closed: {kind}: {x}"
    return None


def atlas(w):
    """On the Atlas the default model's figures are what its 48 names of one token make them; tokens are counted
    anew from the labels."""
    w.run("data", "atlas", "--split", "test", "--count", "12", "--plan-vocab", "1024", "--plan-salt", "atlas-5", "--out", w.path("atlas.jsonl"))
    found = score(w, SIDECAR, "atlas.jsonl")
    header, *entries = w.read("atlas.jsonl")
    told = untold = 0
    for e in entries:
        stated = {f: b for x in e["sections"] for b, block in enumerate(x["blocks"]) for f in block.get("stated", [])}
        for x in e["sections"]:
            for b, block in enumerate(x["blocks"]):
                for f in block.get("used", []):
                    seen = stated[f] <= b - header["reveal_delay"]
                    told, untold = told + seen, untold + (not seen)
    if (found["told"]["tokens"], found["untold"]["tokens"], found["again"]["tokens"]) != (told, untold, 0):
        return f"{told} told, {untold} untold: {found}"
    with_notes, without = (found["told"][x]["cross_entropy"] for x in ("notes", "blind"))
    # bench/README.md: 0.2% of uses contradicted without a gate at temperature 0; none of 48 even names costs less than a few
    # nats to whoever does not know it (log 48 = 3.87)
    if not with_notes < 0.1 or not 3 < without < 6 or found["told"]["notes"]["right"] < 0.97 * told:
        return f"{with_notes} with notes, {without} without: {found['told']}"
    again = score(w, SIDECAR, "atlas.jsonl", "--count", "5")
    table = w.run("data", "score", "--model", MODEL, "--sidecar", SIDECAR, "--data", w.path("atlas.jsonl"), "--count", "5").out
    row = next(x for x in table.splitlines() if x.startswith("all other tokens")).split()
    return None if again["entries"] == 5 and f"{again['other']['notes']['cross_entropy']:.3f}" == row[4] else f"{row}: {again}"


def package(w):
    """bench/own-text: documents of a package's tables, in this case of two invented countries, and its judge."""
    own, folder = os.path.join(harness.ROOT, "bench", "own-text"), w.path("tables")
    os.mkdir(folder)
    parts = [("Zes", "Odal"), ("Zes", "Umber"), ("Zes", "Ilk"), ("Tharg", "Ostrel"), ("Tharg", "Wend")]
    tables = {
        "3166-1": [dict(alpha_2="ZQ", name="Zes"), dict(alpha_2="TQ", name="Tharg")],
        "3166-2": [dict(code=f"{x[0]}Q-{n}", name=y, type="Province") for n, (x, y) in enumerate(parts)],
    }
    for number, rows in tables.items():
        w.write(f"tables/iso_{number}.json", [{number: rows}])
    result = harness.run([own, "make", "--folder", folder, "--count", 5, "--out", w.path("own.jsonl")])
    if result.status or "5 documents of 5 parts" not in result.out:
        return f"make: {result.status} {result.out} {result.err}"
    said = w.make(w.path("own.jsonl"), "own-data.jsonl").out
    if "5 entries of 5 documents; 25 facts" not in said:
        return said
    if harness.run([own, "requests", "--data", w.path("own-data.jsonl"), "--out", w.path("own-requests.jsonl")]).status:
        return "requests"
    w.run("decode", "--model", MODEL, "--sidecar", SIDECAR, "--requests", w.path("own-requests.jsonl"), "--max-tokens", "6", "--json", "--out", w.path("own-answers.jsonl"), "--overwrite")
    # its own texts agree; one section that is another entry's does not
    answers = [[x["text"] for x in e["sections"]] for e in w.read("own-data.jsonl")[1:]]
    tharg = next(i for i, x in enumerate(answers) if "Tharg" in x[0])
    zes = next(i for i, x in enumerate(answers) if "Zes" in x[0])
    for swap, wrong in ((False, 0), (True, 1)):
        if swap:
            answers[zes][1] = answers[tharg][1]
        w.write("judged.jsonl", [dict(type="artifact", request=r, stream=k, text=x) for r, texts in enumerate(answers) for k, x in enumerate(texts)])
        judged = harness.run([own, "judge", "--data", w.path("own-data.jsonl"), w.path("judged.jsonl")]).out
        if f"country: {wrong} of 15 uses contradict" not in judged or "code: 0 of 5 uses contradict" not in judged or "; 0 of 5 answers state none" not in judged:
            return judged
    return harness.refusals(
        [
            ("a folder without tables", [own, "make", "--folder", w.scratch, "--out", w.path("o")], 1, "expected a table of iso-codes"),
            ("too few documents", [own, "make", "--folder", folder, "--out", w.path("o")], 1, "expected 500 documents or more, found 5"),
            ("answers that are none", [own, "judge", "--data", w.path("own-data.jsonl"), w.write("nothing.jsonl", [])], 1, "found no artifact"),
        ],
        "bench/own-text: ",
    )


def main():
    pdt, ranks = harness.arguments("2")
    with tempfile.TemporaryDirectory() as scratch:
        w = World(pdt, max(ranks, default=0), scratch)
        checks = [("labels", labels), ("splits", splits), ("refusals", refusals), ("training", training), ("atlas", atlas), ("package", package)]
        harness.run_checks([(name, lambda check=check: check(w)) for name, check in checks])


if __name__ == "__main__":
    main()
