#!/usr/bin/env python3
"""What pdt prints of others' text: no name in a message or table, and no answer on a terminal, steers it; as JSON the value is kept.

usage: terminal_text.py PDT
"""
import json
import os
import pty
import struct
import subprocess
import sys
import tempfile
import unicodedata

import harness

EVIL = "\x1b[31m\x9b2J\u202etxt\u2028\u200b\ufeff\u2066\x7f\r"
NAME = EVIL + "\nsecond line"


def steers(text, lines=True):
    """The first character that a terminal would act on, or that is not seen."""
    for c in text:
        if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") and not (lines and c in "\n\t"):
            return repr(c)
    return None


def write(path, data):
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode("utf-8", "surrogateescape"))


def safetensors(entries, metadata=None):
    header = {"__metadata__": metadata or {}, **entries}
    text = json.dumps(header, ensure_ascii=False).encode()
    size = max((x["data_offsets"][1] for x in entries.values()), default=0)
    return struct.pack("<Q", len(text)) + text + bytes(size)


class World:
    def __init__(self, pdt, folder):
        self.pdt, self.folder = pdt, folder
        self.run("model", "random", "--preset", "tiny", "--out", self.path("m"))
        self.run("sidecar", "init", "--model", self.path("m"), "--plan-salt", NAME, "--out", self.path("s"))
        f4 = dict(dtype="F32", shape=[1], data_offsets=[0, 4])
        write(self.path("names"), safetensors({NAME: f4}))
        write(self.path("dtype"), safetensors({"x": dict(f4, dtype=EVIL)}))
        write(self.path("hole"), safetensors({NAME: dict(f4, data_offsets=[4, 8], shape=[1])}))
        write(self.path("request.json"), json.dumps({"prompt": "x", NAME: 1}))
        write(self.path("setting.json"), json.dumps({"prompt": "x", "settings": {NAME: 1}}))
        write(self.path("policy.json"), json.dumps({"prompt": "x", "settings": {"policy": EVIL}}))
        write(self.path("broken.jsonl"), '{"prompt": "x", "' + EVIL)
        write(self.path("data.jsonl"), json.dumps({"format": NAME}))
        os.makedirs(self.path("bad"))
        write(self.path("bad/config.json"), json.dumps({"model_type": NAME, "architectures": [NAME]}))
        write(self.path("bad2.json"), json.dumps(dict(model_type="llama", hidden_act=EVIL, **dict.fromkeys(
            ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"), 8))))

    def path(self, name):
        return os.path.join(self.folder, name)

    def run(self, *command):
        result = harness.run([self.pdt, *command])
        if result.status != 0:
            raise harness.Failed(f"{command[:2]}: {result.err}")
        return result.out


def messages(w):
    """One line each, whatever is quoted."""
    decode = ["decode", "--model", w.path("m"), "--sidecar", w.path("s"), "--max-tokens", "2"]
    cases = {
        "request key": [*decode, "--request", w.path("request.json")], "setting": [*decode, "--request", w.path("setting.json")],
        "policy": [*decode, "--request", w.path("policy.json")], "broken JSON": [*decode, "--requests", w.path("broken.jsonl")],
        "flag": ["decode", "--seed", NAME], "unknown flag": ["decode", "--" + NAME], "command": [NAME], "file": ["inspect", w.path(NAME)],
        "place": ["inspect", w.path("hole")], "family": ["inspect", w.path("bad")],
        "config": ["model", "random", "--config", w.path("bad2.json"), "--out", w.path("o")], "data": ["data", "check", w.path("data.jsonl")],
        "no tensors": ["decode", "--model", w.path("m"), "--sidecar", w.path("names"), "--prompt", "x"],
        "stage": ["train", "--stage", NAME], "bytes": ["inspect", b"no\xff\x9b".decode("utf-8", "surrogateescape")],
    }
    wrong = []
    for name, command in cases.items():
        result = subprocess.run([w.pdt, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)
        said = result.stderr.decode("utf-8", "surrogateescape")
        lines = [x for x in said.split("\n")[:-1] if not x.startswith("pdt inspect: note")]
        if result.returncode not in (1, 2) or len(lines) != 1 or steers(said) or "\udcff" in said:
            wrong.append(f"{name}: {result.returncode}, {steers(said)}: {said!r}")
    return "\n".join(wrong) or None


def tables(w):
    wrong = []
    for name, shown in (("names", "\\x1b[31m\\x9b2J\\u202etxt\\u2028\\u200b\\ufeff\\u2066\\x7f\\x0d\\nsecond line"), ("s", ""), ("dtype", "\\x1b[31m")):
        table = w.run("inspect", "--tensors", w.path(name))
        text = w.run("inspect", "--tensors", "--json", w.path(name))
        value = json.loads(text)
        if steers(table) or shown not in table or steers(text):
            wrong.append(f"{name}: {steers(table)} {steers(text)}\n{table}")
        if name == "names" and [x["name"] for x in value["tensor_list"]] != [NAME]:
            wrong.append(f"names: {text}")
        if name == "s" and value["config"]["plan_hash_salt"] != NAME:
            wrong.append(f"salt: {value['config']}")
    return "\n".join(wrong) or None


def texts(w):
    """Through the tokenizer and back; and an answer in JSON, in a file, in a pipe and on a terminal."""
    ids = harness.run([w.pdt, "tokenize", "--model", w.path("m"), "--no-special"], stdin=(json.dumps(EVIL) + "\n").encode())
    back = harness.run([w.pdt, "tokenize", "--model", w.path("m"), "--decode"], stdin=ids.out.encode())
    if steers(back.out) or json.loads(back.out) != EVIL:
        return f"tokenize: {ids.err} {back.out!r}"
    decode = [
        w.pdt, "decode", "--model", w.path("m"), "--sidecar", w.path("s"), "--max-tokens", "1", "--prompt", "x", "--section", EVIL,
        "--section", "plain", "--temperature", "0",
    ]
    answer = harness.run([*decode, "--json"])
    if answer.status or steers(answer.out) or not any(EVIL in json.loads(x)["text"] for x in answer.out.splitlines()):
        return f"--json: {answer.err} {answer.out!r}"
    piped = subprocess.run(decode, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)
    if EVIL.encode() not in piped.stdout:
        return f"a pipe gets other bytes: {piped.stdout!r}"
    for more in ([], ["--rounds"], ["--quiet"]):
        status, seen = on_terminal([*decode, *more])
        # What progress moves the cursor with is pdt's own: lines up, clearing.
        for own in ("\x1b[K", "\x1b[J", *(f"\x1b[{i}A" for i in range(9)), "\r"):
            seen = seen.replace(own, "")
        if status != 0 or steers(seen) or "\ufffd[31m\ufffd2J\ufffdtxt" not in seen:
            return f"{more} on a terminal: {status}, {steers(seen)}: {seen!r}"
    return None


def on_terminal(command):
    """Status and everything that a terminal got."""
    lead, follow = pty.openpty()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=follow, stderr=follow, start_new_session=True)
    os.close(follow)
    seen = b""
    while True:
        try:
            piece = os.read(lead, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    os.close(lead)
    return process.wait(), seen.decode("utf-8", "replace")


def main():
    pdt = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        w = World(pdt, folder)
        harness.run_checks([("messages", lambda: messages(w)), ("tables", lambda: tables(w)), ("texts", lambda: texts(w))])


if __name__ == "__main__":
    main()
