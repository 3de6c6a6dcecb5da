#!/usr/bin/env python3
"""A run that died goes on: pdt decode --resume, whenever and however it died.

usage: resume.py PDT CASES_DIR [--ranks N,...] [--count N] [--seed S]

Twelve requests of all kinds (tests/sessions.py) and some with long prompts, three at a time, are decoded
once; then again and again by runs that are killed at some moment, or whose journal is cut anywhere, which is
the same to who comes after. What --resume then writes, on as many ranks as it likes, must be what the whole
run wrote, byte for byte, and its journal must pass inspect --verify. Journals of other runs and damaged ones
are refused; requests that cannot be served are told in their place (--on-error skip), and survive it too.
"""
import argparse
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import harness
import safetensors_edit
import sessions

CASE = sessions.CASE
FRAME, HEAD = 12, 12  # bytes around an entry's payload, and before the first entry


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())


def entries(data):
    """Offsets of a journal's entries, and of its end."""
    at = [HEAD]
    while at[-1] < len(data):
        at.append(at[-1] + int.from_bytes(data[at[-1] : at[-1] + 4], "little") + FRAME)
    return at


def descendants(pid):
    """A process and all that it has started."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            children = [int(x) for x in f.read().split()]
    except OSError:
        children = []
    return [pid, *(d for c in children for d in descendants(c))]


def wait_for(journal):
    """Until nobody writes the journal any more: who was killed holds it a moment longer."""
    deadline = time.time() + 20
    while os.path.exists(journal) and time.time() < deadline:
        with open(journal) as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                time.sleep(0.01)


class Resume:
    def __init__(self, pdt, cases, folder, ranks, count, seed):
        self.pdt, self.folder, self.ranks, self.count = pdt, folder, ranks, count
        self.case, self.random = os.path.join(cases, CASE), random.Random(seed)
        self.requests = sessions.make_requests(self.case)
        for i, r in enumerate(self.requests):
            if i % 5 == 3:  # more than one piece
                r["prompt_ids"] = [5 + j % 90 for j in range(150)]
                r["settings"]["max_tokens"] = 6
        self.model = self.long_model()
        self.source = self.path("requests.jsonl")
        sessions.write_lines(self.source, self.requests)
        self.whole = {form: self.decode_whole(form) for form in ("json", "proto")}

    def path(self, name):
        return os.path.join(self.folder, name)

    def long_model(self):
        """The case's model with room for longer prompts."""
        model = self.path("model")
        shutil.copytree(os.path.join(self.case, "model"), model)
        with open(os.path.join(model, "config.json")) as f:
            config = json.load(f)
        config["max_position_embeddings"] = 1024
        write(os.path.join(model, "config.json"), json.dumps(config))
        return model

    def command(self, *flags, form="json", at_once=3, source=None, model=None, sidecar=None):
        sidecar = sidecar or os.path.join(self.case, "sidecar.safetensors")
        return [self.pdt, "decode", "--model", model or self.model, "--sidecar", sidecar, "--requests", source or self.source,
                "--max-sessions", at_once, "--threads", "1", *(["--json"] if form == "json" else []), *flags]

    def decode_whole(self, form):
        out, journal = self.path(f"whole.{form}"), self.path("whole.journal")
        result = harness.run(self.command("--out", out, "--journal", journal, "--overwrite", form=form), timeout=120)
        if result.status:
            raise harness.Failed(f"the whole run: {result.err.strip()}")
        return read(out)

    def some_ranks(self):
        """Ranks and shard groups that give the same bits."""
        ranks = self.random.choice([0, 0, *self.ranks])
        return ranks, ["--tp", self.random.choice([t for t in (1, 2, 4) if ranks % t == 0]) if ranks else 1]

    def resume(self, journal, form="json", at_once=3, ranks=0, flags=()):
        """The output of a run that goes on, or Failed."""
        out = self.path("resumed")
        if os.path.exists(out):
            os.remove(out)
        result = harness.run(self.command("--out", out, "--journal", journal, "--resume", *flags, form=form, at_once=at_once), ranks=ranks, timeout=120)
        if result.status:
            raise harness.Failed(f"--resume: status {result.status}: {result.err.strip()[-500:]}")
        return read(out), result.err

    def verify(self, journal, ranks=0):
        result = harness.run([self.pdt, "inspect", "--verify", "--model", self.model, "--sidecar", os.path.join(self.case, "sidecar.safetensors"), journal], ranks=ranks)
        return None if result.status == 0 else f"verify: {result.err.strip()}"

    # ---- cut anywhere ----

    def cuts(self, data, n):
        """Where a journal is cut: nothing, the head, its first entries, ends of entries, in their frames, anywhere."""
        at, r = entries(data), self.random
        fixed = [0, 5, HEAD, HEAD + 3, at[1], at[1] - 1, at[2], len(data) - 1, len(data)]
        some = [(r.choice(at), r.choice(at) + r.randrange(FRAME), r.randrange(len(data)))[i % 3] for i in range(max(0, n - len(fixed)))]
        return [min(x, len(data)) for x in (fixed + some)[:n]]

    def cut_anywhere(self):
        """Outputs are those of the whole run, and so is the journal, but for what its header says of ranks and for when a long prompt joins."""
        data, journal = read(self.path("whole.journal")), self.path("cut.journal")
        same = 0
        for i, cut in enumerate(self.cuts(data, self.count)):
            form, (ranks, tp) = ["json", "proto"][i % 2], self.some_ranks()
            write(journal, data[:cut])
            at_once = self.random.choice([3, 3, 1, 8])
            out, _ = self.resume(journal, form, at_once, ranks, tp)
            if out != self.whole[form]:
                return f"cut at {cut} of {len(data)}, {ranks} ranks: another output"
            kept = max((x for x in entries(data) if x <= cut), default=0)
            if kept > HEAD and read(journal)[:kept] != data[:kept]:
                return f"cut at {cut}: entries that were whole are gone"
            wrong = self.verify(journal) if i % 4 == 0 else None
            if wrong:
                return f"cut at {cut}: {wrong}"
            same += read(journal) == data
        print(f"        {same} of {self.count} journals are those of the whole run", flush=True)
        return None if same > 0 or self.count < 20 else "no journal is that of the whole run"

    def short_prompts(self):
        """Where no prompt is read in pieces the journal is that of the whole run, byte for byte."""
        source, out, journal = self.path("short.jsonl"), self.path("short.out"), self.path("short.journal")
        sessions.write_lines(source, sessions.make_requests(self.case))
        run = lambda *flags: harness.run(self.command("--out", out, "--journal", journal, *flags, source=source))
        if run().status:
            return "the whole run"
        data, want = read(journal), read(out)
        for cut in self.cuts(data, 12)[4:]:
            write(journal, data[:cut])
            result = run("--resume")
            if result.status or read(out) != want or read(journal) != data:
                return f"cut at {cut} of {len(data)}: status {result.status}, another output or journal: {result.err[-300:]}"
        return None

    # ---- killed ----

    def kill(self, journal, ranks, tp, flags, wait):
        """Starts a run and kills all of it, mpirun first, once the journal has grown by so many bytes."""
        command = [str(x) for x in self.command("--out", self.path("killed"), "--journal", journal, *tp, *flags)]
        if ranks:
            command = [os.path.join(harness.ROOT, "launch", "mpirun"), "-n", str(ranks), *command]
        had = os.path.getsize(journal) if os.path.exists(journal) else 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.time() + 60
        while process.poll() is None and time.time() < deadline:
            if os.path.exists(journal) and os.path.getsize(journal) >= had + wait:
                break
            time.sleep(0.0005)
        for pid in descendants(process.pid) if process.poll() is None else []:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait()
        wait_for(journal)

    def killed(self):
        """kill -9, again and again, each time in another layout; then it is let finish."""
        journal, died = self.path("killed.journal"), 0
        for i in range(self.count):
            if os.path.exists(journal):
                os.remove(journal)
            for times in range(1 + i % 3):
                ranks, tp = self.some_ranks()
                self.kill(journal, ranks, tp, ["--resume"] if times else [], self.random.randrange(1, 9000))
            ranks, tp = self.some_ranks()
            out, err = self.resume(journal, "json", 3, ranks, tp)
            if out != self.whole["json"]:
                return f"killed {times + 1} times: another output"
            died += "go on behind boundary" in err and "of 12 requests 12 are kept" not in err
            wrong = self.verify(journal) if i % 4 == 0 else None
            if wrong:
                return wrong
        print(f"        {died} of {self.count} runs died in the middle", flush=True)
        return None if died > 0 else "none died in the middle"

    # ---- what is kept ----

    def finished(self):
        """Of a finished journal the output is written again, and nothing is computed or loaded; the journal stays as it is."""
        journal = self.path("finished.journal")
        shutil.copyfile(self.path("whole.journal"), journal)
        before = read(journal)
        out, err = self.resume(journal, "json", flags=["--kv-memory", "1"])
        if out != self.whole["json"] or read(journal) != before or "of 12 requests 12 are kept" not in err:
            return f"another output or journal: {err}"
        for ranks in self.ranks[-1:]:
            if self.resume(journal, "proto", ranks=ranks)[0] != self.whole["proto"]:
                return f"{ranks} ranks: another output"
        text = harness.run(self.command("--journal", journal, "--resume", "--quiet", form="text"))
        whole = harness.run(self.command("--quiet", form="text"))
        return None if text.out == whole.out and not text.err else f"printed answers differ: {text.err}"

    def nothing_yet(self):
        """No journal, an empty one, a head alone: the run starts, and says so."""
        for name, data in (("absent", None), ("empty", b""), ("head", read(self.path("whole.journal"))[:HEAD])):
            journal = self.path(f"{name}.journal")
            if data is not None:
                write(journal, data)
            out, err = self.resume(journal)
            if out != self.whole["json"] or "starts anew" not in err:
                return f"{name}: {err}"
        return None

    def standard_input(self):
        """Requests that came through a pipe must come again, all of them."""
        journal, data = self.path("pipe.journal"), read(self.source)
        write(journal, read(self.path("whole.journal"))[:6000])
        command = self.command("--journal", journal, "--resume", source="-")
        short = harness.run(command, stdin=data[: data.index(b"\n") + 1])
        if short.status != 1 or "expected the 12 requests that it was written with, found 1" not in short.err:
            return f"one request: {short.status}: {short.err}"
        again = harness.run(command, stdin=data)
        return None if again.status == 0 and again.out.encode() == self.whole["json"] else again.err

    # ---- refused ----

    def refuses(self):
        journal, data = self.path("r.journal"), read(self.path("whole.journal"))[:6000]
        write(journal, data)
        other = [dict(r) for r in self.requests]
        other[1] = {**other[1], "prompt_ids": [9, 9]}
        last = [*self.requests[:-1], {**self.requests[-1], "prompt_ids": [9, 9]}]
        sessions.write_lines(self.path("other.jsonl"), other)
        sessions.write_lines(self.path("last.jsonl"), last)
        sidecar, model = self.path("other.safetensors"), self.path("other-model")
        file = safetensors_edit.File(os.path.join(self.case, "sidecar.safetensors"))
        file.fill(sorted(file.header)[1], 0.25)
        file.write(sidecar)
        shutil.copytree(self.model, model)
        write(os.path.join(model, "config.json"), read(os.path.join(model, "config.json")) + b"\n")
        text = self.path("text")
        write(text, "hello, world")
        go = ["--journal", journal, "--resume"]
        cases = [
            ("model", self.command(*go, model=model), 1, "expected the model that it was written with"),
            ("sidecar", self.command(*go, sidecar=sidecar), 1, "expected the sidecar that it was written with"),
            ("a setting", self.command(*go, "--seed", "77"), 1, "found others: request 0 has another seed"),
            ("a prompt", self.command(*go, source=self.path("other.jsonl")), 1, "request 1 has another prompt"),
            ("one to come", self.command(*go, source=self.path("last.jsonl")), 1, "one that had not started"),
            ("no journal named", self.command("--resume"), 2, "--resume: expected --journal FILE"),
            ("overwrite", self.command(*go, "--overwrite"), 2, "or --overwrite"),
            ("trace", self.command(*go, "--trace", os.devnull), 2, "expected no --trace"),
            ("no file", self.command("--resume", "--journal", "-", "--out", os.devnull), 2, "expected the name of a file"),
            ("a device", self.command("--resume", "--journal", "/dev/null"), 2, "found another kind of file"),
            ("another file", self.command("--resume", "--journal", text), 2, "found another kind of file"),
            ("an older format", self.command("--resume", "--journal", self.older(data)), 1, "expected format version 3, found 2"),
            ("a rule", self.command("--on-error", "ignore"), 2, "--on-error: expected stop or skip, found 'ignore'"),
            ("a policy", self.command("--journal-sync", "often"), 2, "--journal-sync: expected never, end or round"),
        ]
        wrong = harness.refusals(cases, "pdt decode: ")
        if not wrong and self.ranks:
            wrong = harness.refusals(cases[:1], "pdt decode: ", ranks=self.ranks[-1])
        return wrong or (None if read(journal) == data else "a run that was refused has changed the journal")

    def older(self, data):
        write(self.path("older"), data[:8] + b"\2" + data[9:])
        return self.path("older")

    def damage(self):
        """A flipped byte in the middle is no torn end: refused, and the journal stays as it is."""
        journal, data = self.path("d.journal"), read(self.path("whole.journal"))
        at = entries(data)
        for i in range(6):
            entry = at[1 + i * (len(at) - 3) // 6]
            place = entry + 4 + self.random.randrange(8)
            bad = data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]
            write(journal, bad)
            wrong = harness.refusals([(f"byte {place}", self.command("--journal", journal, "--resume"), 1, "its checksum is wrong")], "pdt decode: ")
            if wrong or read(journal) != bad:
                return wrong or f"byte {place}: the journal was changed"
        return None

    def sync(self):
        """However often it is synchronized, the journal is the same."""
        for policy in ("never", "end", "round"):
            journal = self.path(f"{policy}.journal")
            result = harness.run(self.command("--journal", journal, "--journal-sync", policy))
            if result.status or read(journal) != read(self.path("whole.journal")):
                return f"{policy}: {result.err}"
        return None

    # ---- requests that cannot be served ----

    def failing(self):
        """Lines that are no request, and requests that are wrong, between good ones."""
        lines = [json.dumps(r) for r in self.requests]
        for at, line in ((0, "{"), (3, '{"prompt_ids": []}'), (4, '{"prompt_ids": [1], "settings": {"window": 0}}'), (9, '"text"'), (16, "[]")):
            lines.insert(at, line)
        write(self.path("failing.jsonl"), "".join(x + "\n" for x in lines))
        return self.path("failing.jsonl"), {0, 3, 4, 9, 16}

    def skip(self):
        source, bad = self.failing()
        stop = harness.run(self.command(source=source))
        if stop.status != 1 or "line 1" not in stop.err or stop.out:
            return f"stop: {stop.status} {stop.err}"
        journal, out = self.path("skip.journal"), self.path("skip.out")
        flags = ["--on-error", "skip", "--journal", journal, "--out", out]
        run = harness.run(self.command(*flags, source=source))
        records = [json.loads(x) for x in read(out).splitlines()]
        errors = {r["request"]: r for r in records if r["type"] == "error"}
        if run.status or set(errors) != bad or [r["request"] for r in records] != sorted(r["request"] for r in records):
            return f"skip: {run.status} {run.err} {sorted(errors)}"
        if any(f"line {i + 1}" not in r["error"] or r["line"] != i + 1 for i, r in errors.items()):
            return f"lines are not named: {errors}"
        if "5 of 17 requests were not served" not in run.err:
            return f"it is not said: {run.err}"
        good = [dict(r, request=0) for r in records if r["type"] != "error"]
        whole = [dict(json.loads(x), request=0) for x in self.whole["json"].splitlines()]
        if good != whole:
            return "the others are served otherwise"
        answers = harness.run([self.pdt, "inspect", "--answers", "--json", journal])
        shown = [json.loads(x) for x in answers.out.splitlines()]
        if answers.err or [(r["request"], r["type"]) for r in shown] != [(r["request"], r["type"]) for r in records]:
            return f"answers of the journal: {answers.err}"
        return self.verify(journal) or self.skip_resumed(source, read(out), read(journal))

    def skip_resumed(self, source, want, data):
        journal, out = self.path("skip.journal"), self.path("skip.out")
        for cut in self.cuts(data, 16):
            ranks, tp = self.some_ranks()
            write(journal, data[:cut])
            run = harness.run(self.command("--on-error", "skip", "--journal", journal, "--out", out, "--resume", *tp, source=source), ranks=ranks)
            if run.status or read(out) != want:
                return f"cut at {cut} of {len(data)}, {ranks} ranks: {run.status} {run.err[-300:]}"
            wrong = self.verify(journal)
            if wrong:
                return f"cut at {cut}: {wrong}"
        return None

    def overflow(self):
        """Numbers that overflow end their session alone, before its plan or in a round; the others finish, also after a death."""
        model, source = self.path("nan"), self.path("nan.jsonl")
        shutil.copytree(self.model, model)
        file = safetensors_edit.File(f"{model}/model.safetensors")
        file.fill("model.norm.weight", 3e38)
        file.write(f"{model}/model.safetensors")
        plans = [{**r, "plan": []} if i % 2 else r for i, r in enumerate(self.requests[:6])]
        sessions.write_lines(source, [{k: v for k, v in r.items() if k != "plan_ids" or i % 2 == 0} for i, r in enumerate(plans)])
        journal, out = self.path("nan.journal"), self.path("nan.out")
        run = lambda *flags: harness.run(self.command("--journal", journal, "--out", out, *flags, source=source, model=model))
        first = run("--on-error", "skip")
        want, data = read(out), read(journal)
        records = [json.loads(x) for x in want.splitlines()]
        if first.status or [r["type"] for r in records] != ["error"] * 6 or sum("planner" in r["error"] for r in records) in (0, 6):
            return f"{first.status} {first.err} {records}"
        for cut in entries(data):
            write(journal, data[:cut])
            again = run("--on-error", "skip", "--resume")
            if again.status or read(out) != want:
                return f"cut at {cut} of {len(data)}: {again.status} {again.err[-400:]}"
        return None

    def all(self):
        return [
            ("cut anywhere", self.cut_anywhere),
            ("short prompts: the same journal", self.short_prompts),
            ("killed", self.killed),
            ("a finished run", self.finished),
            ("nothing to go on from", self.nothing_yet),
            ("standard input", self.standard_input),
            ("refuses", self.refuses),
            ("damage", self.damage),
            ("synchronized", self.sync),
            ("requests that cannot be served", self.skip),
            ("numbers that overflow", self.overflow),
        ]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pdt")
    p.add_argument("cases")
    p.add_argument("--ranks", default="2,4")
    p.add_argument("--count", type=int, default=20, help="runs that are cut, and as many that are killed")
    p.add_argument("--seed", type=int, default=None)
    a = p.parse_args()
    ranks = [int(x) for x in a.ranks.split(",") if int(x) > 0]
    if ranks:
        harness.need_mpirun()
    seed = a.seed if a.seed is not None else random.randrange(1 << 30)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        harness.run_checks(Resume(os.path.abspath(a.pdt), os.path.abspath(a.cases), folder, ranks, a.count, seed).all())


if __name__ == "__main__":
    main()
