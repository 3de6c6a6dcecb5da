#!/usr/bin/env python3
"""Files that pdt writes: none is lost, none is half there, whatever a command is told and however it ends.

usage: files.py PDT [--ranks 1,4]

Outputs that name an input, one another, or a file of another kind; closed standard descriptors; places
where nothing can be written; endings by signals; modes and links; the old journal; memory; order; full
disks. What needs several ranks runs on the largest number given.
"""
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

import harness

CONFIG = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, vocab_size=320, rms_norm_eps=1e-5, rope_theta=10000.0,
    max_position_embeddings=2048, tie_word_embeddings=False, hidden_act="silu", bos_token_id=1, eos_token_id=2,
)
SETTINGS = dict(streams=2, block_tokens=4, max_tokens=8, gamma=0.0)
SMALL = "--plan-vocab 97 --plan-dim 16 --notes-dim 24 --adapter-dim 8 --pool-dim 12 --agree-dim 16 --coverage-dim 8".split()


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, text):
    with open(path, "wb") as f:
        f.write(text if isinstance(text, bytes) else text.encode())


class World:
    """A folder with a model, a sharded one, a sidecar, requests and data; `run` gives each check one of its own."""

    def __init__(self, pdt, ranks, folder):
        self.pdt, self.ranks, self.folder = pdt, max(ranks, default=0), folder
        write(self.path("config.json"), json.dumps(CONFIG))
        self.must("model", "random", "--config", self.path("config.json"), "--out", self.path("m"), "--dtype", "F32")
        self.must("model", "random", "--config", self.path("config.json"), "--out", self.path("sharded"), "--shard-bytes", "40000")
        self.must("sidecar", "init", "--model", self.path("m"), "--out", self.path("s"), "--random", *SMALL)
        self.must("data", "atlas", "--count", "3", "--out", self.path("d"))
        write(self.path("r.json"), json.dumps(dict(prompt_ids=[3, 4, 5], settings=SETTINGS)))
        write(self.path("r.jsonl"), read(self.path("r.json")) + b"\n")
        write(self.path("plan.json"), "[]")
        self.requests("many.jsonl", 3000)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def requests(self, name, n, first=8, last=8):
        lines = []
        for i in range(n):
            tokens = first if i == 0 else last if i == n - 1 else 8
            lines.append(json.dumps(dict(prompt_ids=[3 + i % 7, 4, 5], session=i, settings=dict(SETTINGS, max_tokens=tokens, seed=i))))
        write(self.path(name), "\n".join(lines) + "\n")

    def must(self, *words, **more):
        result = harness.run([self.pdt, *words], **more)
        if result.status != 0:
            raise harness.Failed(f"{' '.join(words[:2])}: status {result.status}: {result.err.strip()[-300:]}")
        return result

    def decode(self, *more, model="m", requests=("--request", "r.json")):
        return ["decode", "--model", self.path(model), "--sidecar", self.path("s"), requests[0], self.path(requests[1]),
                "--threads", "1", "--quiet", *more]

    def scratch(self):
        """A new empty folder."""
        return tempfile.mkdtemp(dir=self.folder)


def wrong(problems):
    return "; ".join(p for p in problems if p) or None


def refused(w, name, words, status=2, part="", keeps=(), **more):
    """What is wrong where a command line must be refused with one line that has `part`, and keep files as they are."""
    before = [read(p) for p in keeps]
    result = harness.run([w.pdt, *words], **more)
    lines = [x for x in result.err.splitlines() if x.startswith("pdt")]
    if result.status != status or len(lines) != 1 or part not in lines[0]:
        return f"{name}: status {result.status}, expected {status} and '{part}': {result.err.strip()[-300:]}"
    if before != [read(p) for p in keeps]:
        return f"{name}: a file was changed"
    return None


# ------------------------------------------------------------------ one file for two


def inputs_named(w):
    """--out, --trace and --journal name what is read, by its name, another spelling, a link, a hard link."""
    bad, d = [], w.scratch()
    files = ["m/model.safetensors", "m/config.json", "m/tokenizer.json", "s", "r.json", "plan.json"]
    for i, name in enumerate(files):
        target = w.path(name)
        os.symlink(target, os.path.join(d, f"soft{i}"))
        os.link(target, os.path.join(d, f"hard{i}"))
        spellings = [target, w.path("m", "..", name), os.path.join(d, f"soft{i}"), os.path.join(d, f"hard{i}")]
        for k, path in enumerate(spellings):
            flags = [("--out", path), ("--trace", path), ("--journal", path, "--overwrite")]
            for flag in flags if k == 0 else [flags[(i + k) % 3]]:
                words = w.decode("--plan", w.path("plan.json"), *flag)
                bad.append(refused(w, f"{flag[0]} {path}", words, 2, "which would be lost", [target]))
    for flag in ("--out", "--trace"):
        words = w.decode(flag, w.path("r.jsonl"), requests=("--requests", "r.jsonl"))
        bad.append(refused(w, flag + " requests", words, 2, "--requests", [w.path("r.jsonl")]))
    shards = [n for n in os.listdir(w.path("sharded")) if n.startswith("model-")]
    for name in [shards[0], shards[-1], "model.safetensors.index.json"]:
        bad.append(refused(w, name, w.decode("--out", w.path("sharded", name), model="sharded"), 2, "of --model", [w.path("sharded", name)]))
    sub = w.path("sub")
    shutil.copytree(w.path("m"), sub)
    os.mkdir(os.path.join(sub, "in"))
    os.rename(os.path.join(sub, "model.safetensors"), os.path.join(sub, "in", "a"))
    write(os.path.join(sub, "model.safetensors.index.json"), '{"weight_map": {"x": "in/a", "x": "./in/a", "y": NaN}}')
    bad.append(refused(w, "a shard in a subfolder", w.decode("--out", os.path.join(sub, "in", "a"), model="sub"), 2, "of --model", [os.path.join(sub, "in", "a")]))
    # not there, but the model would have it from then on
    for name in ("model.safetensors", "generation_config.json"):
        bad.append(refused(w, "new " + name, w.decode("--out", w.path("sharded", name), model="sharded"), 2, "of --model"))
        bad.append("it was made" if os.path.exists(w.path("sharded", name)) else None)
    for name in ("m/model.safetensors", "s", "d"):
        words = ["eval", "--model", w.path("m"), "--sidecar", w.path("s"), "--data", w.path("d"), "--out", w.path(name)]
        bad.append(refused(w, "eval --out " + name, words, 2, "would be lost", [w.path(name)]))
    model = w.path("m/model.safetensors")
    bad.append(refused(w, "sidecar init", ["sidecar", "init", "--model", w.path("m"), "--out", model, "--overwrite"], 2, "of --model", [model]))
    bad.append(refused(w, "data atlas", ["data", "atlas", "--model", w.path("m"), "--out", w.path("m/tokenizer.json"), "--overwrite"], 2, "of --model", [w.path("m/tokenizer.json")]))
    with open(w.path("r.jsonl"), "ab") as f:  # a descriptor that is an input
        p = subprocess.run([w.pdt, *w.decode("--out", f"/dev/fd/{f.fileno()}", requests=("--requests", "r.jsonl"))], pass_fds=[f.fileno()], stderr=subprocess.PIPE)
    bad.append(None if p.returncode == 2 and b"of --requests" in p.stderr else f"a descriptor of an input: {p}")
    if w.ranks:
        bad.append(refused(w, "several ranks", w.decode("--out", w.path("s")), 2, "of --sidecar", [w.path("s")], ranks=w.ranks))
    return wrong(bad)


def training_inputs(w):
    bad, d = [], w.scratch()
    for name in ("log.jsonl", "config.json", "checkpoint.safetensors"):
        shutil.copy(w.path("d"), os.path.join(d, name))
        words = ["train", "--stage", "trunk", "--config", w.path("config.json"), "--data", os.path.join(d, name), "--out", d, "--resume"]
        bad.append(refused(w, "--data " + name, words, 2, "of --data", [os.path.join(d, name)]))
        os.remove(os.path.join(d, name))
    os.mkdir(os.path.join(d, "out"))
    os.mkdir(os.path.join(d, "out", "log.jsonl"))
    write(os.path.join(d, "texts"), '{"ids": [1, 2, 3, 4]}\n')
    words = ["train", "--stage", "trunk", "--config", w.path("config.json"), "--data", os.path.join(d, "texts"), "--out", os.path.join(d, "out"), "--resume"]
    bad.append(refused(w, "a log that is a folder", words, 1, "log.jsonl: cannot write: Is a directory"))
    shutil.copy(w.path("s"), os.path.join(d, "sidecar.safetensors"))
    words = ["train", "--stage", "0", "--model", w.path("m"), "--sidecar", os.path.join(d, "sidecar.safetensors"), "--data", w.path("d"), "--out", d, "--resume"]
    bad.append(refused(w, "--sidecar", words, 2, "of --sidecar", [os.path.join(d, "sidecar.safetensors")]))
    words = ["train", "--stage", "trunk", "--model", w.path("m"), "--data", w.path("d"), "--out", w.path("m"), "--resume"]
    bad.append(refused(w, "--model", words, 2, "of --model", [w.path("m/model.safetensors")]))
    return wrong(bad)


def outputs_alike(w):
    """Two outputs that are one file, there or not there yet; and the file that standard output goes to."""
    bad, d = [], w.scratch()
    os.mkdir(os.path.join(d, "in"))
    os.symlink("in", os.path.join(d, "also"))
    os.symlink("x", os.path.join(d, "dangling"))
    write(os.path.join(d, "there"), "")
    os.link(os.path.join(d, "there"), os.path.join(d, "hard"))
    pairs = [("x", "x"), ("x", "./x"), ("x", "in/../x"), ("in/x", "also/x"), ("x", "dangling"), ("there", "hard")]
    for a, b in pairs:
        for other in ("--trace", "--journal"):
            words = w.decode("--out", os.path.join(d, a), other, os.path.join(d, b))
            bad.append(refused(w, f"{a} {other} {b}", words, 2, "one of them would be lost"))
    bad.append(refused(w, "trace and journal", w.decode("--trace", os.path.join(d, "x"), "--journal", os.path.join(d, "x")), 2, "one of them"))
    bad.append(refused(w, "two on standard output", w.decode("--json", "--trace", "-"), 2, "one of them"))
    bad.append(refused(w, "two on standard output", w.decode("--out", "-", "--trace", "/dev/stdout"), 2, "one of them"))
    left = set(os.listdir(d)) - {"in", "also", "dangling", "there", "hard"}
    bad.append(f"left: {left}" if left else None)
    with open(os.path.join(d, "both"), "w") as f:
        p = subprocess.run([w.pdt, *w.decode("--out", os.path.join(d, "both"))], stdout=f, stderr=subprocess.PIPE)
    bad.append(None if p.returncode == 2 and b"standard output goes" in p.stderr else f"--out is standard output's file: {p}")
    w.must(*w.decode("--out", "/dev/null", "--trace", "/dev/null", "--journal", "/dev/null"))
    return wrong(bad)


def other_kinds(w):
    """Files that are not of the kind that is written: kept, unless it can be asked for."""
    bad, d = [], w.scratch()
    path = lambda n: os.path.join(d, n)
    w.must(*w.decode("--journal", path("j"), "--out", path("o"), "--trace", path("t")))
    shutil.copy(w.path("s"), path("s"))
    shutil.copy(w.path("d"), path("d"))
    for flag in ("--out", "--trace"):
        for name, kind in (("j", "a journal"), ("s", "a sidecar"), ("d", "a file of data")):
            bad.append(refused(w, f"{flag} over {kind}", w.decode(flag, path(name)), 2, "holds " + kind, [path(name)]))
    for name in ("s", "d", "o"):
        bad.append(refused(w, f"--journal over {name}", w.decode("--journal", path(name), "--overwrite"), 2, "another kind of file", [path(name)]))
    init = ["sidecar", "init", "--model", w.path("m"), *SMALL, "--out"]
    bad.append(refused(w, "sidecar init again", [*init, path("s")], 2, "--overwrite", [path("s")]))
    bad.append(refused(w, "sidecar init over a journal", [*init, path("j"), "--overwrite"], 2, "holds a journal", [path("j")]))
    bad.append(refused(w, "sidecar init to nowhere", [*init, "-"], 2, "name of a file"))
    w.must(*init, path("s"), "--overwrite", "--seed", "9")
    bad.append("sidecar init --overwrite did nothing" if read(path("s")) == read(w.path("s")) else None)
    beside = path("m/sidecar.safetensors")  # a sidecar kept in its model's folder, as that of launch/model
    shutil.copytree(w.path("m"), path("m"))
    shutil.copy(w.path("s"), beside)
    init[3] = path("m")
    bad.append(refused(w, "sidecar init again in the model's folder", [*init, beside], 2, "--overwrite", [beside]))
    w.must(*init, beside, "--overwrite", "--seed", "9")
    bad.append(refused(w, "--out over it", w.decode("--out", beside), 2, "holds a sidecar", [beside]))
    atlas = ["data", "atlas", "--count", "2", "--seed", "4", "--out"]
    bad.append(refused(w, "data atlas again", [*atlas, path("d")], 2, "--overwrite", [path("d")]))
    bad.append(refused(w, "data atlas over a sidecar", [*atlas, path("s"), "--overwrite"], 2, "holds a sidecar", [path("s")]))
    w.must(*atlas, path("d"), "--overwrite")
    w.must("data", "tokenizer", "--out", path("tok"))
    bad.append(refused(w, "data tokenizer again", ["data", "tokenizer", "--out", path("tok")], 2, "--overwrite", [path("tok/tokenizer.json")]))
    w.must("data", "tokenizer", "--out", path("tok"), "--overwrite")
    for words in (["data", "tokenizer", "--out", "-"], ["model", "random", "--preset", "tiny", "--out", "-"]):
        bad.append(refused(w, " ".join(words), words, 2, "name of a folder"))
    bad.append(refused(w, "model random again", ["model", "random", "--preset", "tiny", "--out", w.path("m")], 1, "already"))
    w.must(*w.decode("--out", path("o"), "--trace", path("t")))  # again, over its own
    return wrong(bad)


# ------------------------------------------------------------------ descriptors and places


def closed_descriptors(w):
    bad = []
    for ranks in [0] + [w.ranks] * bool(w.ranks):
        for closed in ((1,), (0, 1), (0, 1, 2), (1, 2), (0,), (2,)) if not ranks else ((1,), (0, 1, 2)):
            d = w.scratch()
            path = lambda n: os.path.join(d, n)
            command = [w.pdt, *w.decode("--out", path("o"), "--journal", path("j"), "--trace", path("t"))]
            if ranks:
                command = [os.path.join(harness.ROOT, "launch", "mpirun"), "-n", str(ranks), *command]
            p = subprocess.run(["sh", "-c", 'exec "$@" ' + " ".join(f"{n}>&-" for n in closed), "sh", *command], timeout=60, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env=dict(os.environ, ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"))
            if p.returncode:
                bad.append(f"{closed} closed, {ranks} ranks: status {p.returncode}")
                continue
            w.must("inspect", path("o"))
            said = w.must("inspect", path("j")).out
            bad.append(None if "whole" in said else f"{closed} closed: journal: {said[-100:]}")
            json.loads(read(path("t")))
    say = lambda *words: subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", w.pdt, *words], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    cases = [w.decode(), w.decode("--json"), w.decode("--out", "-"), ["inspect", w.path("m")], ["--version"], ["decode", "--help"],
             ["data", "check", w.path("d")], ["data", "atlas", "--count", "2", "--out", "-"]]
    for words in cases:
        p = say(*words)
        bad.append(None if p.returncode == 1 and p.stderr.count(b"pdt") >= 1 else f"standard output closed, {words[:1]}: {p}")
    for words in cases:
        with open("/dev/full", "wb") as full:
            p = subprocess.run([w.pdt, *words], stdout=full, stderr=subprocess.PIPE)
        bad.append(None if p.returncode == 1 and p.stderr else f"standard output full, {words[:1]}: {p}")
    return wrong(bad)


def told_at_the_start(w):
    """Where nothing can be written: told before the weights, which are damaged, are looked at."""
    bad, d = [], w.scratch()
    shutil.copytree(w.path("m"), os.path.join(d, "m"))
    os.truncate(os.path.join(d, "m", "model.safetensors"), 1000)
    write(os.path.join(d, "plain"), "x")
    os.mkdir(os.path.join(d, "dir"))
    places = {"no/x": "No such file", "plain/x": "Not a directory", "dir": "Is a directory", "n" * 300: "File name too long"}
    decode = w.decode(model=os.path.join(d, "m"))
    evaluation = ["eval", "--model", os.path.join(d, "m"), "--sidecar", w.path("s"), "--data", w.path("d")]
    for place, said in places.items():
        path = os.path.join(d, place)
        for flag in ("--out", "--trace", "--journal"):
            bad.append(refused(w, f"decode {flag} {place[:8]}", [*decode, flag, path], 1, said))
        bad.append(refused(w, "eval --out " + place[:8], [*evaluation, "--out", path], 1, said))
        for words in (["sidecar", "init", "--model", w.path("m")], ["data", "atlas", "--count", "2"]):
            bad.append(refused(w, f"{words[0]} --out {place[:8]}", [*words, "--out", path], 1, said))
        if place != "dir":
            for words in (["data", "tokenizer"], ["model", "random", "--preset", "tiny"]):
                bad.append(refused(w, f"{words[:2]} --out {place[:8]}", [*words, "--out", path], 1, said))
    for flag in ("--out", "--trace", "--journal"):
        bad.append(refused(w, f"{flag} without a name", [*decode, flag, ""], 2, flag))
    for words in (evaluation, ["sidecar", "init", "--model", w.path("m")], ["data", "atlas"], ["data", "tokenizer"], ["model", "random", "--preset", "tiny"]):
        bad.append(refused(w, f"{words[:2]} --out without a name", [*words, "--out", ""], 2, "--out"))
    if os.geteuid() != 0:  # nothing is forbidden to root
        os.chmod(os.path.join(d, "dir"), 0o500)
        for flag in ("--out", "--trace", "--journal"):
            bad.append(refused(w, f"{flag} not writable", [*decode, flag, os.path.join(d, "dir", "x")], 1, "Permission denied"))
    if w.ranks:
        bad.append(refused(w, "several ranks", [*decode, "--trace", os.path.join(d, "no", "x")], 1, "No such file", ranks=w.ranks))
    left = set(os.listdir(d)) - {"m", "plain", "dir"}
    return wrong(bad + [f"left: {left}" if left else None])


# ------------------------------------------------------------------ endings


def ended(w, number, ranks):
    """What is wrong after a run of many sessions that got a signal in the middle."""
    d = w.scratch()
    path = lambda n: os.path.join(d, n)
    command = [w.pdt, *w.decode("--out", path("o"), "--trace", path("t"), "--journal", path("j"), requests=("--requests", "many.jsonl"))]
    if ranks:
        command = [os.path.join(harness.ROOT, "launch", "mpirun"), "-n", str(ranks), *command]
    p = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.time() + 60
    while p.poll() is None and time.time() < deadline and not (os.path.exists(path("j")) and os.path.getsize(path("j")) > 150000):
        time.sleep(0.001)
    p.send_signal(number)
    try:
        p.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        return f"{number!r}, {ranks} ranks: no end"
    deadline = time.time() + 10  # ranks of a killed launcher end a little later
    while ranks and time.time() < deadline and len(os.listdir(d)) > 1:
        time.sleep(0.05)
    if p.returncode == 0:
        return None if set(os.listdir(d)) == {"o", "t", "j"} else "it ended before the signal, without its files"
    if not ranks and p.returncode != (-number if number == signal.SIGKILL else 75):
        return f"{number!r}: status {p.returncode}"
    if os.listdir(d) != ["j"]:
        return f"{number!r}, {ranks} ranks: left {sorted(os.listdir(d))}"
    seen = harness.run([w.pdt, "inspect", path("j")])
    return f"{number!r}, {ranks} ranks: the journal: {seen.err}" if seen.status else None


def endings(w):
    kinds = [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, 0)]
    if w.ranks:
        kinds += [(signal.SIGTERM, w.ranks), (signal.SIGKILL, w.ranks)]
    return wrong(ended(w, *kind) for kind in kinds)


def half_models(w):
    """model random and sidecar init, killed while they write: nothing that a later command believes in."""
    bad = []
    big = dict(CONFIG, hidden_size=256, intermediate_size=512, vocab_size=60000)
    write(w.path("big.json"), json.dumps(big))
    for wait in (0.05, 0.2):
        d = w.scratch()
        out = os.path.join(d, "new")
        p = subprocess.Popen([w.pdt, "model", "random", "--config", w.path("big.json"), "--out", out, "--shard-bytes", "4000000"], stdout=subprocess.DEVNULL)
        while p.poll() is None and not os.path.exists(out):
            time.sleep(0.001)
        time.sleep(wait)
        p.kill()
        if p.wait() == 0:
            continue
        if os.path.exists(os.path.join(out, "config.json")):
            bad.append("a half model has a config.json")
        for words in (["inspect", out], ["sidecar", "init", "--model", out, "--out", os.path.join(d, "s")]):
            bad.append(None if harness.run([w.pdt, *words]).status == 1 else f"{words[0]} took a half model")
        p = subprocess.Popen([w.pdt, "sidecar", "init", "--model", w.path("m"), "--out", os.path.join(d, "s"), "--plan-vocab", "400000"], stdout=subprocess.DEVNULL)
        time.sleep(wait)
        p.kill()
        if p.wait() != 0 and set(os.listdir(d)) != {"new"}:
            bad.append(f"sidecar init left {os.listdir(d)}")
    return wrong(bad)


# ------------------------------------------------------------------ modes, links, the old journal


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def modes_and_links(w):
    bad, d = [], w.scratch()
    path = lambda n: os.path.join(d, n)
    umask = lambda: os.umask(0o027)
    flags = w.decode("--out", path("o"), "--trace", path("t"), "--journal", path("j"), "--overwrite")
    init = ["sidecar", "init", "--model", w.path("m"), *SMALL, "--overwrite", "--out", path("s")]
    for _ in range(2):
        w.must(*flags, preexec=umask)
        w.must(*init, preexec=umask)
    bad += [f"new {n}: mode {mode_of(path(n)):o}" if mode_of(path(n)) != 0o640 else None for n in "otjs"]
    for n in "otjs":
        os.chmod(path(n), 0o600)
    w.must(*flags)
    w.must(*init)
    bad += [f"{n}: mode {mode_of(path(n)):o} for 600" if mode_of(path(n)) != 0o600 else None for n in "otjs"]
    for n in "otjs":
        os.rename(path(n), path("real-" + n))
        os.symlink("real-" + n, path(n))
    before = [os.stat(path(n)).st_mtime_ns for n in "otjs"]
    w.must(*flags)
    w.must(*init)
    bad += [f"{n} is no link any more" if not os.path.islink(path(n)) else None for n in "otjs"]
    bad += ["the file behind a link was not written" if [os.stat(path(n)).st_mtime_ns for n in "otjs"] == before else None]
    os.symlink("made", path("dangling"))
    w.must(*w.decode("--out", path("dangling")))
    bad.append(None if os.path.islink(path("dangling")) and os.path.isfile(path("made")) else "a dangling link was replaced")
    return wrong(bad)


def old_journal(w):
    """It stands until the new run begins; a start that fails leaves no new one."""
    bad, d = [], w.scratch()
    path = lambda n: os.path.join(d, n)
    shutil.copytree(w.path("m"), path("m"))
    os.truncate(path("m/model.safetensors"), 1000)
    write(path("bad.json"), '{"prompt_ids": [999]}')
    w.must(*w.decode("--journal", path("j")))
    more = ["--journal", path("j"), "--overwrite"]
    failing = [("damaged model", w.decode(*more, model=path("m"))), ("request", w.decode(*more, requests=("--request", path("bad.json")))),
               ("--out", w.decode(*more, "--out", path("no/o"))), ("memory", w.decode(*more, "--kv-memory", "4096"))]
    for name, words in failing:
        bad.append(refused(w, name, words, 1, "", [path("j")]))
        fresh = [path("fresh") if x == path("j") else x for x in words]
        bad.append(refused(w, name + ", new journal", fresh, 1, ""))
        bad.append(f"{name}: a journal without a run" if os.path.exists(path("fresh")) else None)
    bad.append(refused(w, "without --overwrite", w.decode("--journal", path("j"), model=path("m")), 2, "overwrite", [path("j")]))
    if w.ranks:
        bad.append(refused(w, "several ranks", failing[0][1], 1, "", [path("j")], ranks=w.ranks))
    before = read(path("j"))
    w.must(*w.decode(*more, "--seed", "5", "--temperature", "1"))
    bad.append("--overwrite did nothing" if read(path("j")) == before else None)
    return wrong(bad)


# ------------------------------------------------------------------ order, memory, standard output


def peak(w, *more, requests):
    p = subprocess.Popen([w.pdt, *w.decode(*more, requests=("--requests", requests))], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(p.pid, 0)
    if status:
        raise harness.Failed(f"status {status}")
    return usage.ru_maxrss


def large_data(w):
    """Data is hashed as it is read: a file that is refused, or of which few entries are asked for, is not kept in memory."""
    large = os.path.join(w.scratch(), "d")
    write(large, b" ")
    os.truncate(large, 600 << 20)
    p = subprocess.Popen([w.pdt, "eval", "--model", w.path("m"), "--sidecar", w.path("s"), "--data", large, "--threads", "1"], stderr=subprocess.PIPE)
    err = p.stderr.read()
    _, _, usage = os.wait4(p.pid, 0)
    return f"{usage.ru_maxrss >> 10} MiB: {err}" if usage.ru_maxrss >> 10 > 400 or b"line 1: expected a line of at most" not in err else None


def memory(w):
    """Traces and results of many sessions, those that wait behind a slow one too, are not kept in memory."""
    d = w.scratch()
    path = lambda n: os.path.join(d, n)
    sizes = {}
    for n in (200, 3000):
        w.requests(f"slow{n}.jsonl", n, first=1200)
        plain = peak(w, requests=f"slow{n}.jsonl")
        full = peak(w, "--trace", path("t"), "--out", path("o"), requests=f"slow{n}.jsonl")
        sizes[n] = (full - plain, os.path.getsize(path("t")) >> 10)
    if sizes[3000][1] < 12 << 10:
        return f"the trace is too short to tell: {sizes}"
    # two runs of the same differ by up to 3 MiB, of what the allocator and MPI happen to touch
    return f"KiB more with a trace, of so many: {sizes}" if sizes[3000][0] - sizes[200][0] > sizes[3000][1] // 2 else None


def order(w):
    """The same bytes whatever ends first; answers come one by one, as soon as it is their turn."""
    bad, d = [], w.scratch()
    w.requests("slow.jsonl", 30, first=300)
    got = []
    for at_once in (1, 8):
        names = [os.path.join(d, n + str(at_once)) for n in "ot"]
        out = w.must(*w.decode("--json", "--out", names[0], "--trace", names[1], "--max-sessions", at_once, requests=("--requests", "slow.jsonl"))).out
        text = w.must(*w.decode("--max-sessions", at_once, requests=("--requests", "slow.jsonl"))).out
        got.append((out, text, read(names[0]), read(names[1])))
    bad.append("results depend on how many run at once" if got[0] != got[1] else None)
    w.requests("late.jsonl", 60, last=1500)
    p = subprocess.Popen([w.pdt, *w.decode("--json", "--max-sessions", "1", requests=("--requests", "late.jsonl"))], stdout=subprocess.PIPE)
    p.stdout.readline()
    bad.append("the first result came with the last" if p.poll() is not None else None)
    p.kill()
    p.communicate()
    return wrong(bad)


def standard_output(w):
    bad, d = [], w.scratch()
    path = lambda n: os.path.join(d, n)
    w.must(*w.decode("--json", "--out", path("o"), "--trace", path("t")))
    w.must("data", "atlas", "--count", "3", "--out", path("d"))
    here = dict(cwd=d, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    for name in ("-", "/dev/stdout"):
        for file, words in (("o", w.decode("--json", "--out", name)), ("t", w.decode("--trace", name)), ("d", ["data", "atlas", "--count", "3", "--out", name])):
            p = subprocess.run([w.pdt, *words], **here)
            bad.append(None if p.returncode == 0 and p.stdout == read(path(file)) else f"{words[0]} {name}: status {p.returncode}")
    bad.append("a file called '-'" if os.path.exists(path("-")) else None)
    os.mkfifo(path("fifo"))
    reader = subprocess.Popen(["cat", path("fifo")], stdout=subprocess.PIPE)
    w.must(*w.decode("--json", "--out", path("fifo")))
    bad.append(None if reader.communicate()[0] == read(path("o")) else "a pipe got something else")
    return wrong(bad)


# ------------------------------------------------------------------ full disks


def small_files():
    """No file may grow beyond 512 bytes, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))


def full_disk(w):
    bad = []
    launch = os.path.join(harness.ROOT, "launch", "model")
    evaluation = ["eval", "--model", launch, "--sidecar", launch + "/sidecar.safetensors", "--data", w.path("e"), "--arms", "blind", "--no-teacher",
                  "--threads", "1", "--max-tokens", "12", "--max-rounds", "4", "--json"]
    w.must("data", "atlas", "--count", "1", "--split", "test", "--plan-vocab", "1024", "--plan-salt", "atlas-5", "--out", w.path("e"))
    commands = [(w.decode("--max-tokens", "200"), ("--out", "--trace", "--journal")), (evaluation, ("--out",)),
                (["sidecar", "init", "--model", w.path("m")], ("--out",)), (["data", "atlas", "--count", "4"], ("--out",)),
                (["data", "tokenizer"], ("--out",)), (["model", "random", "--config", w.path("config.json")], ("--out",)),
                (["model", "random", "--config", w.path("config.json"), "--shard-bytes", "4000"], ("--out",))]
    for words, flags in commands:
        for flag in flags:
            d = w.scratch()
            name = f"{' '.join(words[:2])} {flag}"
            result = harness.run([w.pdt, *words, flag, os.path.join(d, "x")], preexec=small_files)
            lines = [x for x in result.err.splitlines() if x.startswith("pdt") and "File too large" in x]
            bad.append(None if result.status == 1 and len(lines) == 1 else f"{name}: status {result.status}: {result.err.strip()[-200:]}")
            left = os.listdir(d)
            if flag == "--journal" and left == ["x"]:
                left = [] if harness.run([w.pdt, "inspect", os.path.join(d, "x")]).status == 0 else ["a journal with half an entry"]
            bad.append(f"{name}: left {left}" if left else None)
            if words[0] in ("decode", "eval") or words[1] == "atlas":
                bad.append(refused(w, name + " /dev/full", [*words, flag, "/dev/full"], 1, "No space left"))
    return wrong(bad) or mounted_disk(w)


def mounted_disk(w):
    """The same on a small file system of its own, where one can be mounted."""
    d = w.scratch()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", d], stderr=subprocess.DEVNULL).returncode:
        return None
    try:
        x = os.path.join(d, "x")
        bad = [refused(w, f"{words[:2]}", [*words, x], 1, "No space left") for words in
               (w.decode("--max-tokens", "1500", "--trace"), ["sidecar", "init", "--model", w.path("m"), "--out"], ["model", "random", "--preset", "tiny", "--out"])]
        return wrong(bad + [f"left: {os.listdir(d)}" if os.listdir(d) else None])
    finally:
        subprocess.run(["umount", d])


def main():
    pdt, ranks = harness.arguments("1,4")
    ranks = [r for r in ranks if r > 1]
    with tempfile.TemporaryDirectory() as folder:
        w = World(pdt, ranks, os.path.realpath(folder))
        checks = [inputs_named, training_inputs, outputs_alike, other_kinds, closed_descriptors, told_at_the_start, endings, half_models,
                  modes_and_links, old_journal, memory, large_data, order, standard_output, full_disk]
        harness.run_checks((c.__name__.replace("_", " "), lambda c=c: c(w)) for c in checks)


main()
