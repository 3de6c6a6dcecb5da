#!/usr/bin/env python3
"""pdt view: the page of a finished run holds what the run's journal, trace and answers say, whatever is in its texts.

usage: view.py PDT [--ranks 0]
"""
import json
import os
import re
import tempfile

import harness

MODEL = os.path.join(harness.ROOT, "launch", "model")
SIDECAR = os.path.join(MODEL, "sidecar.safetensors")
EVIL = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> ]]>&amp;\u2028\u2029\u202e"
REQUESTS = [
    {"prompt": "Describe Velmora. Sections: history; trade; landmarks; customs.", "sections": ["\nHistory:", "\nTrade:", "\nLandmarks:", "\nCustoms:"],
     "settings": {"max_tokens": 96, "temperature": 0.8, "seed": 4}},
    {"prompt": EVIL, "sections": [f"\n{EVIL}", " b"], "session": 9, "settings": {"max_tokens": 30, "gamma": 0.99, "policy": "global", "reveal_delay": 2, "window": 5}},
    {"prompt": "Sketch Velmora. Sections: food.", "sections": ["\nFood:"], "settings": {"max_tokens": 90, "max_rounds": 3}},
]


def data_of(path):
    """What the page is given; it stands in an element that it cannot end."""
    with open(path, encoding="utf-8", newline="") as f:
        html = f.read()
    if html.count("<script") != 2 or html.count("</script>") != 2 or "<!--" in html or "\u2028" in html:
        raise harness.Failed(f"{path}: its data are markup")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S).group(1))


class Run:
    """A decode of all requests with its journal, trace and answers, in a folder."""

    def __init__(self, pdt, folder):
        self.pdt, self.folder = pdt, folder
        with open(self.path("requests.jsonl"), "w") as f:
            f.writelines(json.dumps(r) + "\n" for r in REQUESTS)
        command = [pdt, "decode", "--model", MODEL, "--sidecar", SIDECAR, "--requests", self.path("requests.jsonl"), "--quiet", "--threads", 1]
        result = harness.run([*command, "--json", "--out", self.path("answers"), "--journal", self.path("journal"), "--trace", self.path("trace")])
        if result.status:
            raise harness.Failed(f"decode: {result.err}")
        with open(self.path("answers")) as f:
            self.answers = [r for r in map(json.loads, f) if r["type"] == "answer"]
        with open(self.path("trace")) as f:
            self.traces = [json.loads(line) for line in f]

    def path(self, name):
        return os.path.join(self.folder, name)

    def view(self, name, *extra):
        result = harness.run([self.pdt, "view", self.path(name), "--out", self.path("page.html"), *extra])
        if result.status or result.err or result.out:
            raise harness.Failed(f"view {name}: {result.status} {result.err}")
        return data_of(self.path("page.html"))


def wanted_rounds(trace):
    """The trace's rounds as the page has them, without texts."""
    blocks = lambda r: [
        {"stream": s["stream"], "action": r["actions"][str(s["stream"])], "attempt": s["attempt"], "readiness": s["readiness"], "tokens": len(s["tokens"])}
        for s in r["streams"]
    ]
    return [{"round": r["round"], "gate": r["gate"], "window": r["window"], "blocks": blocks(r)} for r in trace["rounds"]]


def without_texts(rounds):
    return [dict(r, blocks=[{k: v for k, v in b.items() if k != "text"} for b in r["blocks"]]) for r in rounds]


def journal(run):
    page = run.view("journal", "--model", MODEL)
    if len(page["sessions"]) != len(REQUESTS) or not page["texts"]:
        return f"{len(page['sessions'])} sessions"
    for i, (s, request, answer, trace) in enumerate(zip(page["sessions"], REQUESTS, run.answers, run.traces)):
        if (s["text"], s["order"], s["ended_by"], s["error"]) != (answer["text"], answer["order"], answer["ended_by"], None):
            return f"request {i}: {s['text']!r}, {s['order']}, {s['ended_by']}: expected {answer}"
        if without_texts(s["rounds"]) != wanted_rounds(trace):
            return f"request {i}: its rounds are not those of the trace"
        if s["prompt"] != request["prompt"] or s["sections"] != request["sections"]:
            return f"request {i}: {s['prompt']!r}, {s['sections']}"
        if "gamma" in request["settings"] and s["gamma"] != request["settings"]["gamma"]:
            return f"request {i}: gamma {s['gamma']}"
    actions = {b["action"] for s in page["sessions"] for r in s["rounds"] for b in r["blocks"]}
    return None if {"commit", "hold", "rollback"} <= actions else f"only {actions} were decided"


def trace(run):
    """From a trace the same, but for what a trace does not tell."""
    page, other = run.view("trace", "--model", MODEL, "--gamma", "0.25"), run.view("journal", "--model", MODEL)
    for s, o in zip(page["sessions"], other["sessions"], strict=True):
        if without_texts(s["rounds"]) != without_texts(o["rounds"]) or s["order"] != o["order"] or s["ended_by"] != o["ended_by"]:
            return f"{s['name']}: other rounds than from the journal"
        texts = lambda x: "".join(b["text"] for r in x["rounds"] for b in r["blocks"] if r["round"] > 1)
        if texts(s) != texts(o) or s["gamma"] != 0.25 or s["prompt"] is not None:
            return f"{s['name']}: other texts than from the journal"
    return None


def without_model(run):
    """Ids in place of texts."""
    for name in ("journal", "trace"):
        page = run.view(name)
        for s, t in zip(page["sessions"], run.traces, strict=True):
            got = [b["text"] for r in s["rounds"] for b in r["blocks"]]
            if page["texts"] or got != ["".join(f" {x}" for x in b["tokens"]) for r in t["rounds"] for b in r["streams"]]:
                return f"{name}: {got[:3]}"
    return None


def one_request(run):
    for name in ("journal", "trace"):
        all_of_it, one = run.view(name)["sessions"], run.view(name, "--request", 1)["sessions"]
        if one != all_of_it[1:2]:
            return f"{name}: {[s['name'] for s in one]}"
    return None


def torn(run):
    """As behind a crash: what there is, and that there is no more."""
    with open(run.path("journal"), "rb") as f:
        data = f.read()
    with open(run.path("torn"), "wb") as f:
        f.write(data[:len(data) * 2 // 3])
    whole, page = run.view("journal")["sessions"], run.view("torn")["sessions"]
    cut = [s for s in page if s["error"]]
    if not cut or any(s["error"] != "The journal has no end of it." or s["ended_by"] for s in cut):
        return f"{[s['error'] for s in page]}"
    for s, w in zip(page, whole):
        if s["rounds"] != w["rounds"][:len(s["rounds"])]:
            return f"{s['name']}: other rounds"
    return None


def to_standard_output(run):
    result = harness.run([run.pdt, "view", run.path("trace")])
    with open(run.path("page.html"), "w", encoding="utf-8", newline="") as f:
        f.write(result.out)
    return None if result.status == 0 and len(data_of(run.path("page.html"))["sessions"]) == len(REQUESTS) else result.err


def changed(line, change):
    """A line of a trace, changed by a function."""
    value = json.loads(line)
    change(value)
    return json.dumps(value, separators=(",", ":"))


def traces_that_are_wrong(line):
    """name, text, part of the message."""
    yield "cut short", line[:3000], "line 1: line 1, column 3000: not sound JSON"
    yield "a second line that is none", f"{line}\nhello\n", "line 2: line 1, column 0: not sound JSON"
    first = lambda t: t["rounds"][0]
    cases = [
        ("no rounds", lambda t: t.pop("rounds"), "'rounds': expected an array, found nothing"),
        ("no streams", lambda t: t.update(streams=[]), "streams: expected 1 to 65536, found 0"),
        ("a round left out", lambda t: t["rounds"].pop(1), "round 2: 'round': expected an integer from 2 to 2, found 3"),
        ("an action of no name", lambda t: first(t)["actions"].update({"0": "eat"}), "round 1: actions: stream 0: expected commit, hold, rollback or force, found 'eat'"),
        ("a note of the future", lambda t: first(t)["window"].append([1, 0]), "round 1: window: '[0]': expected an integer from 0 to 0, found 1"),
        ("a note of nobody", lambda t: t["rounds"][1]["window"].append([1, 4]), "expected an integer from 0 to 3, found 4"),
        ("a note that is none", lambda t: first(t)["window"].append(7), "round 1: window: expected notes as [round, stream]"),
        ("a stream twice", lambda t: first(t)["streams"][1].update(stream=0), "round 1: 'stream': expected an integer from 1 to 3, found 0"),
        ("a readiness above 1", lambda t: first(t)["streams"][0].update(readiness=1.5), "round 1: 'readiness': expected a number from 0 to 1, found 1.5"),
        ("a token below 0", lambda t: first(t)["streams"][0]["tokens"].insert(0, -1), "round 1: tokens: '[0]': expected an integer from 0 to"),
        ("a token more", lambda t: t["streams"][2]["tokens"].append(5), "stream 2: expected the"),
        ("another token", lambda t: t["streams"][2]["tokens"].__setitem__(0, 0), "others"),
        ("an order with a stream twice", lambda t: t.update(merge_order=[0, 0, 1, 2]), "merge_order: expected each of 4 streams once"),
    ]
    for name, change, part in cases:
        yield name, changed(line, change), part


def refusals(run):
    """One message, no page, and a file that is there is left alone."""
    with open(run.path("trace")) as f:
        line = f.readline()
    with open(run.path("journal"), "rb") as f:
        journal_bytes = bytearray(f.read())
    journal_bytes[len(journal_bytes) // 2] ^= 1
    files = {"damaged": bytes(journal_bytes), "empty": b"", "text": b"hello\n"}
    wrong = [(name, text, part) for name, text, part in traces_that_are_wrong(line)]
    for i, (_, text, _) in enumerate(wrong):
        files[f"trace-{i}"] = text.encode()
    for name, data in files.items():
        with open(run.path(name), "wb") as f:
            f.write(data)
    view, out = lambda *words: [run.pdt, "view", "--out", run.path("kept"), *words], run.path("kept")
    with open(out, "w") as f:
        f.write("kept")
    cases = [
        ("no file", view(run.path("nowhere")), 1, "cannot open"), ("a folder", view(run.folder), 1, "expected a regular file"),
        ("empty", view(run.path("empty")), 1, "expected a journal or a trace, found neither (hint:"),
        ("another kind", view(run.path("answers")), 1, "expected a journal or a trace, found neither (hint:"),
        ("text", view(run.path("text")), 1, "expected a journal or a trace, found neither"),
        ("a damaged journal", view(run.path("damaged")), 1, "checksum"),
        ("a model that is none", view("--model", run.folder, run.path("journal")), 1, "found neither model.safetensors nor"),
        ("gamma of a journal", view("--gamma", "0.5", run.path("journal")), 2, "--gamma belongs to a trace"),
        ("no such request", view("--request", 3, run.path("journal")), 2, "--request: expected one that"),
        ("no such request of a trace", view("--request", 3, run.path("trace")), 2, "--request: expected one that"),
        ("onto what is read", [run.pdt, "view", "--out", run.path("trace"), run.path("trace")], 2, "which would be lost"),
        ("onto a journal", [run.pdt, "view", "--out", run.path("journal"), run.path("trace")], 2, "holds a journal"),
        ("no folder", [run.pdt, "view", "--out", run.path("no/where"), run.path("trace")], 1, "cannot create"),
        ("nothing to view", [run.pdt, "view"], 2, "expected a PATH"),
    ]
    cases += [(name, view(run.path(f"trace-{i}")), 1, part) for i, (name, _, part) in enumerate(wrong)]
    if problem := harness.refusals(cases, "pdt view: "):
        return problem
    left = [x for x in os.listdir(run.folder) if ".tmp" in x]
    with open(out) as f:
        return f"left behind: {left}" if left else None if f.read() == "kept" else "a file that was there was changed"


def main():
    pdt, _ = harness.arguments("0")
    with tempfile.TemporaryDirectory() as folder:
        run = Run(pdt, folder)
        names = (journal, trace, without_model, one_request, torn, to_standard_output, refusals)
        harness.run_checks([(f.__name__.replace("_", " "), lambda f=f: f(run)) for f in names])


if __name__ == "__main__":
    main()
