#!/usr/bin/env python3
"""Requests as users write them: what each is called, what it costs, what is kept of it.

usage: requests.py PDT [--ranks N,...]

Runs small cases of the committed models: a session goes by its own number everywhere; sessions that
max_rounds ends say so; settings that ask for more than there can be take no memory for it; many
long requests cost a few times their file; seeds take 64 bits; a journal gives the answers back.
"""
import json
import os
import shutil
import subprocess
import tempfile
import time

import harness
import safetensors_edit

CASE = os.path.join(harness.TESTS, "data", "cases", "selective-rollback")
MODEL = os.path.join(harness.ROOT, "launch", "model")


class Checks:
    def __init__(self, pdt, ranks, folder):
        self.pdt, self.ranks, self.folder = pdt, ranks, folder
        with open(os.path.join(CASE, "request.json")) as f:
            self.base = {k: v for k, v in json.load(f).items() if v is not None}

    def path(self, name):
        return os.path.join(self.folder, name)

    def request(self, session=None, **settings):
        r = json.loads(json.dumps(self.base))
        r.pop("session", None)
        if session is not None:
            r["session"] = session
        r["settings"].update(settings)
        return r

    def file(self, name, requests):
        """One request, or a list of them, one a line; None is a blank line."""
        with open(self.path(name), "w") as f:
            lines = requests if isinstance(requests, list) else [requests]
            f.writelines(("" if r is None else r if isinstance(r, str) else json.dumps(r)) + "\n" for r in lines)
        return self.path(name)

    def decode(self, requests, *flags, ranks=0, status=0, case=CASE):
        many = isinstance(requests, list)
        source = self.file("requests.jsonl" if many else "request.json", requests)
        run = harness.run(
            [self.pdt, "decode", "--model", f"{case}/model", "--sidecar", f"{case}/sidecar.safetensors", "--threads", "1",
             "--requests" if many else "--request", source, *flags], ranks=ranks)
        if run.status != status:
            raise harness.Failed(f"status {run.status}, expected {status}: {run.err.strip()[-400:]}")
        return run

    # ---- what a session is called ----

    def names(self):
        rounds = self.decode(self.request(9), "--rounds").err
        if "session 9, round 1: " not in rounds or "request" in rounds.split("decoded")[0]:
            return f"one request: {rounds[:300]}"
        rounds = self.decode([self.request(9), None, self.request(4), self.request(9)], "--rounds").err
        for want in ("session 9 (request 0), round 1: ", "session 4 (request 1), round 1: ", "session 9 (request 2), round 1: "):
            if want not in rounds:
                return f"no '{want}' in {rounds[:300]}"
        return None

    def twice_the_same_number(self):
        """Two requests of one number are two sessions, told apart by the request's index, and write the same."""
        lines = self.decode([self.request(9, temperature=0.9), self.request(9, temperature=0.9)], "--json", "--quiet").out
        records = [json.loads(line) for line in lines.splitlines()]
        first, second = ([{**r, "request": 0} for r in records if r["request"] == i] for i in (0, 1))
        return None if len(first) == 5 and first == second else lines[:300]

    def a_failing_lane(self):
        """The error of a lane whose numbers overflow names the session."""
        case = self.path("nan")
        shutil.copytree(CASE, case)
        path = f"{case}/model/model.safetensors"
        file = safetensors_edit.File(path)
        file.fill("model.norm.weight", 3e38)
        file.write(path)
        for plan, want in (({}, "session 5 (request 0, line 1): planner: "), ({"plan": []}, "session 5 (request 0, line 1), round 1, stream 0: ")):
            err = self.decode([{**self.request(n), **plan} for n in (5, 77)], status=1, case=case).err
            if want not in err:
                return err
        return None

    # ---- how a session ends ----

    def out_of_rounds(self):
        requests = [self.request(7, max_rounds=1), self.request(8)]
        out = self.path("out")
        err = self.decode(requests, "--out", out, "--journal", self.path("j"), "--overwrite").err
        if "\n1 of them ended by max_rounds" not in err:
            return f"the summary: {err}"
        if "max_rounds" in self.decode(requests[1]).err:
            return "the summary of complete sessions speaks of max_rounds"
        records = [json.loads(x) for x in harness.run([self.pdt, "inspect", "--json", out]).out.splitlines()]
        endings = {(r["type"], r["session"], r["ended_by"]) for r in records}
        if endings != {(t, s, e) for t in ("artifact", "answer") for s, e in ((7, "max_rounds"), (8, "complete"))}:
            return str(endings)
        for path, want in ((out, "answer of session 7 (request 0), not complete, ended by max_rounds"), (self.path("j"), "ended by max_rounds")):
            shown = harness.run([self.pdt, "inspect", path]).out
            if want not in shown:
                return f"no '{want}' in {shown[-400:]}"
        return None

    def order_of_sections(self):
        """The plan names history first; with keep_order the answer has the sections as the request does, and nothing else changes."""
        heads = ["\nTrade:", "\nHistory:"]
        request = {"prompt": "Describe Velmora. Sections: history; trade.", "sections": heads, "settings": {"max_tokens": 12}}
        found = {}
        for keep in (0, 1):
            request["settings"]["keep_order"] = keep
            out = harness.run([self.pdt, "decode", "--model", MODEL, "--sidecar", f"{MODEL}/sidecar.safetensors", "--request",
                               self.file("order.json", request), "--threads", "1", "--json", "--quiet"]).out
            *found[keep], answer = [json.loads(line) for line in out.splitlines()]
            if answer["order"] != [1 - keep, keep] or not answer["text"].startswith(heads[answer["order"][0]]):
                return f"keep_order {keep}: {answer}"
        return None if found[0] == found[1] and len(found[0]) == 2 else f"other artifacts: {found}"

    def parts_of_the_plan(self):
        """A prompt alone has as many streams as its plan has parts, where the sidecar says what a part is; one that counts streams, or
        names them, has those; a stream without a part writes nothing, on any number of ranks."""
        sidecar = self.path("parts.safetensors")
        harness.run([self.pdt, "sidecar", "describe", "--model", MODEL, "--sidecar", f"{MODEL}/sidecar.safetensors", "--part-slots", "2",
                     "--out", sidecar])
        prompt = "Describe Velmora. Sections: history; trade; customs."
        plan = [0, 0, 5, 0, 9, 9]  # nothing for stream 0, and for those from 3 on
        for name, request, writes in (
            ("the planner's", {"prompt": prompt}, [0, 1, 2]),
            ("a plan with a gap", {"prompt": prompt, "plan_ids": plan + [0] * 10}, [1, 2]),
            ("streams are counted", {"prompt": prompt, "settings": {"streams": 5}}, [0, 1, 2, 3, 4]),
            ("counted, and following", {"prompt": prompt, "settings": {"streams": 2, "part_slots": 2}}, [0, 1]),
            ("sections", {"prompt": prompt, "sections": ["\nTrade:", "\nHistory:"]}, [0, 1]),
            ("not following", {"prompt": prompt, "settings": {"part_slots": 0}}, [0, 1, 2, 3, 4, 5]),
        ):
            request.setdefault("settings", {}).update(max_tokens=10)
            found = []
            for ranks in [0, *self.ranks]:
                run = harness.run([self.pdt, "decode", "--model", MODEL, "--sidecar", sidecar, "--request", self.file("parts.json", request),
                                   "--threads", "1", "--json", "--quiet"], ranks=ranks)
                if run.status != 0:
                    return f"{name}, {ranks} ranks: {run.err}"
                found.append(run.out)
            if len(set(found)) != 1:
                return f"{name}: other answers by {self.ranks} ranks"
            *artifacts, answer = [json.loads(line) for line in found[0].splitlines()]
            heads = request.get("sections", [""] * 6)
            texts = {a["stream"]: heads[a["stream"]] + a["text"] for a in artifacts}
            if [a["stream"] for a in artifacts if a["tokens"]] != writes or not answer["complete"]:
                return f"{name}: expected streams {writes}, found {found[0]}"
            if answer["text"] != "\n".join(texts[k] for k in answer["order"] if k in writes):
                return f"{name}: {answer}"
        return None

    # ---- memory in proportion ----

    def peaks(self, requests, *flags, ranks=0):
        """Most resident memory of each rank, in MiB."""
        err = self.decode(requests, "--verbose", *flags, ranks=ranks).err.splitlines()
        first = next(i for i, line in enumerate(err) if line.split()[-2:] == ["peak", "MiB"]) + 1
        return [float(line.split()[-1]) for line in err[first : first + max(ranks, 1)]]

    def large_settings(self):
        """Settings far above what there can be take as much memory as modest ones."""
        huge = dict(
            window=1 << 20, block_tokens=1 << 24, horizon=1 << 24, max_attempts=1 << 20, max_rounds=(1 << 31) - 1,
            reveal_delay=1 << 20, top_k=(1 << 31) - 1,
        )
        modest = max(self.peaks(self.request(max_tokens=8)))
        for name, value in [*huge.items(), ("all", None)]:
            settings = huge if name == "all" else {name: value, **({"horizon": value} if name == "block_tokens" else {})}
            for ranks in [0, *self.ranks] if name == "all" else [0]:
                peak = max(self.peaks(self.request(max_tokens=8, **settings), "--max-sessions", "1048576", ranks=ranks))
                if peak > (modest if not ranks else 3 * modest) + 8:
                    return f"{name}, {ranks} ranks: {peak} MiB, {modest} for a modest request"
        return None

    def one_round_of_a_long_text(self):
        """What max_rounds cuts off takes no cache."""
        with open(f"{MODEL}/config.json") as f:
            most = json.load(f)["max_position_embeddings"] - 2
        caches = []
        for tokens in (8, most):
            request = {"prompt_ids": [5, 6], "settings": {"max_tokens": tokens, "max_rounds": 1, "block_tokens": 5, "horizon": 20}}
            err = harness.run(
                [self.pdt, "decode", "--model", MODEL, "--sidecar", f"{MODEL}/sidecar.safetensors", "--verbose", "--request",
                 self.file("request.json", request)]).err
            caches.append(float(next(line for line in err.splitlines() if line.split()[:1] == ["0"]).split()[-2]))
        return None if caches[0] == caches[1] else f"cache of {caches} MiB"

    # ---- many requests ----

    def cost(self, source, ranks=0, model=MODEL, sidecar=f"{MODEL}/sidecar.safetensors", flags=()):
        """Most resident memory, in bytes, of any process of a run that reads its requests and ends before the first starts."""
        command = [self.pdt, "decode", "--model", model, "--sidecar", sidecar, "--threads", "1", "--requests", source,
                   "--kv-memory", "1", "--max-tokens", "1", *flags]
        if ranks:
            command = [os.path.join(harness.ROOT, "launch", "mpirun"), "-n", str(ranks), *command]
        # what a sanitizer keeps of freed memory is its own
        env = dict(os.environ, ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1:thread_local_quarantine_size_kb=64")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)
        err = process.stderr.read().decode("utf-8", "replace")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 1 or "--kv-memory allows" not in err:
            raise harness.Failed(f"status {process.returncode}: {err[-300:]}")
        return usage.ru_maxrss * 1024

    def many_requests(self):
        """Memory grows by a few times the file, on every rank, in whatever form the requests are."""
        words = "A town on the river. Carts leave with coffee, the founder sleeps and nobody counts the candles of Velmora; "
        text = (words * 20)[:1400]
        forms = {"text": {"prompt": text}, "ids": {"prompt_ids": [5 + i % 1000 for i in range(600)]}}
        for name, request in forms.items():
            one, many = self.file("one.jsonl", [request]), self.file("many.jsonl", [json.dumps(request)] * 2000)
            for ranks in [0, *self.ranks]:
                grown = (self.cost(many, ranks) - self.cost(one, ranks)) / os.path.getsize(many)
                if grown > 5:
                    return f"{name}, {ranks} ranks: {grown:.1f} bytes a byte of the file"
        return None

    def load_that_grows(self):
        """Ten thousand prompts of 2,000 bytes: seconds until the first could start, and no more memory than for a few."""
        model, sidecar = self.path("bytes"), self.path("bytes.safetensors")
        with open(self.path("config.json"), "w") as f:
            json.dump(dict(
                architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, vocab_size=320, rms_norm_eps=1e-5, rope_theta=10000.0, max_position_embeddings=4096, tie_word_embeddings=False,
                hidden_act="silu", bos_token_id=1, eos_token_id=2), f)
        for words in (["model", "random", "--config", self.path("config.json"), "--out", model], ["sidecar", "init", "--model", model, "--out", sidecar]):
            made = harness.run([self.pdt, *words])
            if made.status:
                return made.err
        prompt = ("Describe Velmora, where carts leave with coffee and the founder sleeps. " * 40)[:2000]
        costs, seconds, source = [], 0, self.path("load.jsonl")
        for n in (100, 10000):
            with open(source, "w") as f:  # a line at a time: what this process takes counts as the child's
                for i in range(n):
                    f.write(json.dumps({"prompt": prompt, "settings": {"seed": i}}) + "\n")
            for flags in ([], ["--journal", self.path("load.journal")]):
                start = time.time()
                costs.append(self.cost(source, 0, model, sidecar, flags))
                seconds = max(seconds, time.time() - start)
        grown = [(costs[2 + i] - costs[i]) / 2**20 for i in range(2)]
        print(f"        {seconds:.1f} s, {max(costs) / 2**20:.0f} MiB, {max(grown):.1f} MiB more than for 100", flush=True)
        return None if max(grown) < 4 and seconds < 60 else f"{grown} MiB more, {seconds:.1f} s"

    def from_pipes(self):
        """A file that can be read but once: named, of another descriptor, and standard input; what is wrong in it is told all the same."""
        requests = self.varied(5)
        source = self.file("p.jsonl", requests)
        with open(source, "rb") as f:
            text = f.read()
        want = harness.run(self.text_decode(source, "--json")).out
        pipe = self.path("pipe")
        os.mkfifo(pipe)
        writer = subprocess.Popen(["sh", "-c", 'sleep 0.3 && cat "$1" > "$2"', "sh", source, pipe])
        runs = [harness.run(self.text_decode(pipe, "--json"))]
        writer.wait()
        runs += [harness.run(self.text_decode(name, "--json"), stdin=text) for name in ("-", "/dev/stdin")]
        for n in self.ranks:
            forward = [os.path.join(harness.ROOT, "launch", "mpirun"), "--stdin", "0", "-n", str(n)]
            runs.append(harness.run([*forward, *self.text_decode("-", "--json")], stdin=text))
        for i, run in enumerate(runs):
            if run.status != 0 or run.out != want:
                return f"{i}: status {run.status}: {run.err[-300:]}"
        bad = harness.run(self.text_decode("-"), stdin=text + b"{\n")
        if bad.status != 1 or "-: line 6: " not in bad.err or bad.out:
            return f"a broken line: {bad.status} {bad.err}"
        with open(source, "rb") as f:
            lost = subprocess.run(self.text_decode("-", "--out", source), stdin=f, stderr=subprocess.PIPE)
        if lost.returncode != 2 or b"would be lost" not in lost.stderr or os.path.getsize(source) != len(text):
            return f"its own input: {lost.returncode} {lost.stderr}"
        folder = harness.run(self.text_decode(self.folder))
        return None if folder.status == 1 and "found a folder" in folder.err else folder.err

    def lines_are_named(self):
        """Errors name file and line, also behind blank lines, many pieces of requests and in a path that is too long to be shown."""
        folder = self.path("/".join(["Zwölf" * 20] * 4))
        os.makedirs(folder)
        good = json.dumps({"prompt_ids": [7] * 40})
        for name, n, ranks in [("r.jsonl", 3, 0), (os.path.join(folder, "r.jsonl"), 3, 0)] + [("r.jsonl", 20000, r) for r in self.ranks]:
            bad = json.dumps({"prompt_ids": [1], "settings": {"window": 0}})
            path = self.file(name, [good, None, *[good] * (n - 3), "  \t", bad])
            run = harness.run(
                [self.pdt, "decode", "--model", f"{CASE}/model", "--sidecar", f"{CASE}/sidecar.safetensors", "--requests", path], ranks=ranks)
            want = f"r.jsonl: line {n + 1}: settings: window: expected an integer from 1 to 1048576, found 0"
            if run.status != 2 or want not in run.err or "\ufffd" in run.err:
                return f"{n} lines, {ranks} ranks: status {run.status}: {run.err}"
        return None

    def seeds(self):
        """Of 64 bits, in a request and as a flag; a negative one is the one with the same bits."""
        largest = 2**64 - 1
        runs = []
        for value, flag in ((largest, None), (0, largest), (-1, None), (0, -1), (largest - 1, None)):
            flags = [] if flag is None else [f"--seed={flag}"]
            runs.append(self.decode([self.request(3, seed=value, temperature=0.9)], "--json", "--quiet", *flags).out)
        if len(set(runs[:4])) != 1 or runs[4] == runs[0]:
            return "the answers: " + " | ".join(r[:100] for r in runs)
        err = self.decode([self.request(3, seed=2**64)], status=1).err
        return None if "expected an integer from -2^63 to 2^64 - 1, found 18446744073709551616" in err else err

    # ---- what the journal keeps ----

    def journal_lines(self, path):
        run = harness.run([self.pdt, "inspect", "--json", path])
        if run.status:
            raise harness.Failed(run.err)
        return [json.loads(line) for line in run.out.splitlines()]

    def requests_in_the_journal(self):
        """A request is in the entry of its session's start, and gives the same answers again."""
        requests = [self.request(i, seed=2**64 - 1 - i, temperature=0.5, max_tokens=4 + i) for i in range(5)]
        outs, journal = [], self.path("j")
        for ranks in [0, *self.ranks, 0]:
            flags = ["--json", "--quiet", "--max-sessions", "2", "--journal", journal, "--overwrite"]
            outs.append(self.decode(requests, *flags, ranks=ranks).out)
            lines = self.journal_lines(journal)
            starts = [line for line in lines if line["type"] == "start"]
            if lines[0]["requests"] != 5 or [s["request"] for s in starts] != list(range(5)):
                return str(lines[0])
            requests = [s["resolved"] for s in starts]
            fingerprints = {lines[0]["requests_fingerprint"], *([] if len(outs) == 1 else [fingerprint])}
            fingerprint = lines[0]["requests_fingerprint"]
            if len(fingerprints) != 1:
                return "the same requests have another fingerprint"
        return None if len(set(outs)) == 1 else "other answers from the journal's requests"

    def too_large_for_the_journal(self):
        """Told before anything is loaded, and the journal that is there stays."""
        journal = self.path("kept")
        self.decode([self.request(1)], "--journal", journal)
        size = os.path.getsize(journal)
        many = ['{"prompt_ids":[5]}'] * 150000
        err = self.decode(many, "--journal", journal, "--overwrite", "--max-sessions", "150000", status=2).err
        if "--journal: a decision would be an entry of up to" not in err or "--max-sessions" not in err:
            return err
        return None if os.path.getsize(journal) == size else "the old journal is gone"

    # ---- answers from a journal ----

    def varied(self, n=9):
        """Requests that end at different times, some by max_rounds, two of one session number."""
        prompt = "Describe Velmora. Sections: history; trade; food; landmarks."
        headings = ["\nHistory:", "\nTrade:", "\nFood:", "\nLandmarks:"]
        return [
            {"prompt": prompt, "sections": headings[: 1 + i % 4], "session": 40 + i // 2,
             "settings": {"max_tokens": 10 + 17 * (i % 5), "temperature": 0.8, "seed": i, "max_rounds": 4 if i % 4 == 3 else 500,
                          "max_attempts": 2 + i % 3, "gamma": [0.5, 0.99][i % 2], "policy": ["selective", "stall", "global", "local"][i % 4]}}
            for i in range(n)
        ]

    def text_decode(self, source, *flags):
        return [self.pdt, "decode", "--model", MODEL, "--sidecar", f"{MODEL}/sidecar.safetensors", "--threads", "1", "--quiet",
                "--requests", source, "--max-sessions", "3", *flags]

    def answers(self, journal, *flags):
        run = harness.run([self.pdt, "inspect", "--answers", "--model", MODEL, journal, *flags])
        if run.status:
            raise harness.Failed(f"inspect --answers: {run.err}")
        return run

    def answers_of_a_whole_run(self):
        source, out, journal, again = self.file("v.jsonl", self.varied()), self.path("v.out"), self.path("v.journal"), self.path("again")
        for ranks in [0, *self.ranks]:
            for form in ([], ["--json"]):
                run = harness.run(self.text_decode(source, "--out", out, "--journal", journal, "--overwrite", *form), ranks=ranks)
                if run.status:
                    return run.err
                shown = self.answers(journal, "--out", again, *form)
                with open(out, "rb") as f, open(again, "rb") as g:
                    if f.read() != g.read() or shown.err:
                        return f"{ranks} ranks, {form}: other bytes than --out has {shown.err}"
                if form and self.answers(journal, "--json").out != open(again).read():
                    return "standard output has other bytes than --out"
        for extra, want in (["--out", journal], "--out"), (["--model", f"{CASE}/model"], "expected the model that it was written with"):
            run = harness.run([self.pdt, "inspect", "--answers", "--json", journal, *extra])
            if run.status == 0 or want not in run.err:
                return f"{extra}: {run.err}"
        return None

    def answers_of_a_broken_run(self):
        """A run killed while some sessions are done and others not, and its journal cut anywhere."""
        source, journal, cut = self.file("w.jsonl", self.varied(40)), self.path("w.journal"), self.path("cut")
        whole = harness.run(self.text_decode(source, "--json"))
        want = {}
        for line in whole.out.splitlines(keepends=True):
            want.setdefault(json.loads(line)["request"], []).append(line)
        process = subprocess.Popen(self.text_decode(source, "--journal", journal), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.time() + 60
        while process.poll() is None and time.time() < deadline and not (os.path.exists(journal) and os.path.getsize(journal) > 40000):
            time.sleep(0.001)
        process.kill()
        process.wait()
        with open(journal, "rb") as f:
            data = f.read()
        for size in [len(data), *(len(data) * i // 7 for i in range(2, 7))]:
            with open(cut, "wb") as f:
                f.write(data[:size])
            lines = self.journal_lines(cut)
            ended = sorted(x["request"] for x in lines if x["type"] == "end")
            left = [x for x in lines if x["type"] == "start" and x["request"] not in ended]
            got = self.answers(cut, "--json")
            if got.out != "".join(line for i in ended for line in want[i]):
                return f"cut at {size} of {len(data)}: other answers for requests {ended}"
            if any(f"session {x['session']} (request {x['request']}) had no end" not in got.err for x in left):
                return f"cut at {size}: not told: {got.err}"
        return None if ended and left else f"nothing to tell: {len(ended)} ended, {len(left)} did not"

    def all(self):
        return [
            ("a session goes by its own number", self.names),
            ("two requests may name one session", self.twice_the_same_number),
            ("a failing lane names its session", self.a_failing_lane),
            ("max_rounds ends a session, and it is said", self.out_of_rounds),
            ("sections keep their order where that is asked for", self.order_of_sections),
            ("as many streams write as the plan has parts", self.parts_of_the_plan),
            ("large settings take no memory", self.large_settings),
            ("many requests cost a few times their file", self.many_requests),
            ("load that grows takes no memory", self.load_that_grows),
            ("requests come from pipes, too", self.from_pipes),
            ("errors name file and line", self.lines_are_named),
            ("seeds take 64 bits", self.seeds),
            ("a journal holds requests where their sessions start", self.requests_in_the_journal),
            ("what is too large for a journal is told at once", self.too_large_for_the_journal),
            ("a journal gives the answers of a whole run", self.answers_of_a_whole_run),
            ("a journal gives the answers of a run that was killed", self.answers_of_a_broken_run),
            ("one round of a long text takes the cache of one round", self.one_round_of_a_long_text),
        ]


def main():
    pdt, ranks = harness.arguments("0,4")
    with tempfile.TemporaryDirectory() as folder:
        harness.run_checks(Checks(pdt, ranks, folder).all())


main()
