#!/usr/bin/env python3
"""pdt serve: the same answers as pdt decode, whatever else happens.

usage: serve.py PDT [--layouts 1x1,2x2,4x1] [--only WORD]

A server of the default model is asked by twenty clients at once, in all its ways, while others go
away in the middle: what comes is, byte for byte, what pdt decode gives. Then what clients do wrong:
bad bodies by the table below, half of one, one that is too long, random bytes, reading slowly or not
at all, going away; limits; keys; TLS; signals; an idle server; the journal; curl, and OpenAI's own
client where it is installed. Rounds are what the trace of pdt decode has; what the page does with
them is tested by page.py.
"""
import argparse
import concurrent.futures
import http.client
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

import harness

MODEL = os.path.join(harness.ROOT, "launch", "model")
SIDECAR = os.path.join(MODEL, "sidecar.safetensors")
HEADS = ["\nHistory:", "\nTrade:", "\nLandmarks:", "\nCustoms:"]
# Seconds of tokens: no end-of-sequence ends it.
LONG = {"prompt": "Describe Velmora.", "sections": HEADS, "max_tokens": 700, "ignore_eos": True}


class Server:
    """A server that runs until the with-block ends."""

    def __init__(self, pdt, layout="1x1", extra=(), env=None, ready=True, model=MODEL):
        self.layout = harness.Layout(layout)
        command = [pdt, "serve", "--model", model, "--sidecar", SIDECAR, "--port", "0", "--tp", self.layout.tp, "--threads", 1, *extra]
        if self.layout.ranks > 1:
            command = [os.path.join(harness.ROOT, "launch", "mpirun"), "-n", self.layout.ranks, *command]
        self.err = tempfile.NamedTemporaryFile(prefix="serve-", suffix=".err")
        env = dict(os.environ, **(env or {}))
        if self.layout.ranks > 1:
            env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
        self.process = subprocess.Popen(
            [str(x) for x in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.err, env=env, start_new_session=True
        )
        self.port = self.wait_ready() if ready else None

    def said(self):
        with open(self.err.name) as f:
            return f.read()

    def wait_ready(self):
        deadline = time.time() + 60
        while time.time() < deadline and self.process.poll() is None:
            found = re.search(r"at (https?)://[^ ]*:(\d+): ", self.said())
            if found:
                return int(found.group(2))
            time.sleep(0.02)
        raise harness.Failed(f"the server did not start: {self.said()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.err.close()

    def stop(self, number=signal.SIGTERM, timeout=40):
        """Its exit status after a signal."""
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise harness.Failed(f"no end within {timeout} s of signal {number}: {self.said()}")

    def connect(self, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, path, body=None, headers=None, method=None, timeout=200):
        """Status, headers and body of one request; a body that is no bytes goes as JSON."""
        connection = self.connect(timeout)
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
        response = connection.getresponse()
        data = response.read().decode()
        connection.close()
        return response.status, dict(response.getheaders()), data

    def good(self, path, body=None):
        status, _, data = self.ask(path, body)
        if status != 200:
            raise harness.Failed(f"{path}: status {status}: {data}")
        return data

    def chunks(self, body, path="/v1/completions"):
        """The objects of a stream that ended as it should."""
        text = self.good(path, dict(body, stream=True))
        lines = [line for line in text.split("\n") if line and not line.startswith(":")]
        if not lines or lines[-1] != "data: [DONE]" or not all(line.startswith("data: ") for line in lines):
            raise harness.Failed(f"no stream of chunks: {text[-300:]}")
        return [json.loads(line[6:]) for line in lines[:-1]]

    def metric(self, name):
        for line in self.good("/metrics").splitlines():
            if line.startswith(f"pdt:{name} "):
                return float(line.split()[-1])
        raise harness.Failed(f"/metrics has no {name}")

    def idle(self, seconds=20):
        """Waits until nothing runs any more."""
        deadline = time.time() + seconds
        while self.metric("num_requests_running") > 0 or self.metric("num_requests_waiting") > 0:
            if time.time() > deadline:
                raise harness.Failed("what was given up still runs")
            time.sleep(0.02)


# ---- answers ----


def requests():
    """Thirty requests that end at different times and use different settings; the last ten have as many streams as their plan has parts."""
    out = []
    for i in range(20):
        k = 1 + i % 4
        settings = {
            "max_tokens": 24 + 7 * (i % 9), "temperature": [0, 0.8, 1.1][i % 3], "seed": i, "reveal_delay": 1 + i % 3, "window": 6 + i,
            "policy": ["selective", "stall", "global"][i % 3], "gamma": [0.3, 0.9][i % 2], "block_tokens": 4 + i % 5, "horizon": 16,
        }
        if i % 5 == 4:
            settings["min_tokens"] = 20
        r = {"prompt": f"{['Describe', 'Sketch'][i % 2]} Velmora. Sections: history; trade.", "sections": HEADS[:k], "settings": settings}
        out.append(dict(r, session=100 + i) if i % 2 else r)
    for i in range(10):
        r = {"prompt": "Describe Velmora. Sections: history; trade; food.", "settings": {
            "max_tokens": 20 + 3 * i, "part_slots": 2, "gamma": 0.5, "temperature": 0.8, "seed": i, "keep_order": i % 2}}
        out.append(dict(r, plan_ids=[0, 0, 5, 0, 9, 9, 0, 0, 3] + [0] * 7) if i % 3 else r)
    return out


def expected(pdt, asked, folder):
    """What pdt decode writes of each request alone, as lines."""
    out = []
    for r in asked:
        path = os.path.join(folder, "request.json")
        with open(path, "w") as f:
            json.dump(r, f)
        result = harness.run([pdt, "decode", "--model", MODEL, "--sidecar", SIDECAR, "--request", path, "--json", "--quiet", "--threads", 1])
        if result.status:
            raise harness.Failed(f"decode: {result.err}")
        out.append(result.out)
    return out


def parts_of(chunks):
    """The text of a stream of chunks, stream by stream."""
    parts = {}
    for c in chunks:
        if c["choices"] and "stream" in c["pdt"]:
            parts.setdefault(c["pdt"]["stream"], []).append(c["choices"][0]["text"])
    return {k: "".join(texts) for k, texts in parts.items()}


def check_completion(answer, lines):
    records = [json.loads(line) for line in lines.splitlines()]
    artifacts, merged = records[:-1], records[-1]
    if answer["choices"][0]["text"] != merged["text"]:
        return f"text {answer['choices'][0]['text']!r}, expected {merged['text']!r}"
    if answer["pdt"]["artifacts"] != artifacts or answer["pdt"]["order"] != merged["order"]:
        return "artifacts or order differ"
    tokens = sum(len(a["tokens"]) for a in artifacts)
    if answer["usage"]["completion_tokens"] != tokens or answer["pdt"]["ended_by"] != merged["ended_by"]:
        return f"usage {answer['usage']}, {answer['pdt']['ended_by']}: expected {tokens}, {merged['ended_by']}"
    return None


def check_chunks(chunks, lines, order):
    records = [json.loads(line) for line in lines.splitlines()]
    artifacts, merged = records[:-1], records[-1]
    text = "".join(c["choices"][0]["text"] for c in chunks if c["choices"])
    if order == "merged" and text != merged["text"]:
        return f"merged chunks {text!r}, expected {merged['text']!r}"
    parts, reasons = parts_of(chunks), [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]]
    told = [c["pdt"]["stream"] for c in chunks if c["choices"] and "stream" in c["pdt"]]
    if order == "streams" and told != sorted(told):
        return f"chunks by stream come as {told}"
    for a in artifacts:
        if a["tokens"] and not parts[a["stream"]].endswith(a["text"]):
            return f"stream {a['stream']}: {parts[a['stream']]!r} does not end with {a['text']!r}"
        if not a["tokens"] and a["done"] and a["stream"] in parts:
            return f"stream {a['stream']} has nothing to write: {parts[a['stream']]!r}"
    if any(reasons[:-1]) or not reasons[-1] or not chunks[-1]["usage"]["total_tokens"]:
        return f"reasons {reasons}"
    rounds = [c["pdt"]["round"] for c in chunks if c["choices"] and "stream" in c["pdt"]]
    if order == "interleaved" and sum(len(a["tokens"]) for a in artifacts) and max(rounds) != chunks[-2]["pdt"]["rounds"]:
        return f"rounds {rounds}"
    return None


def ask_in_some_way(server, i, request, lines):
    """One client; what is wrong with its answer."""
    way = i % 5
    if way < 2:
        got = server.good("/v1/pdt/decode", request)
        return None if got == lines else f"request {i}: {got!r}, expected {lines!r}"
    if way == 2:
        problem = check_completion(json.loads(server.good("/v1/completions", request)), lines)
    else:
        order = ["merged", "interleaved", "streams"][i % 3]
        chunks = server.chunks(dict(request, stream_options={"include_usage": True, "order": order}))
        problem = check_chunks(chunks, lines, order)
    return f"request {i}: {problem}" if problem else None


def go_away(server, how):
    """A client that leaves in the middle: before its answer, or after its first chunk."""
    body = json.dumps(dict(LONG, stream=how % 2 == 1, stream_options={"order": "interleaved"} if how % 2 else None)).encode()
    s = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    if how % 2:
        while b"data: " not in s.recv(1 << 16):
            pass
    else:
        time.sleep(0.05 * how)
    if how % 3 == 2:  # with a reset
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    s.close()


def answers(pdt, layout, asked, wanted):
    def check():
        with Server(pdt, layout, ["--max-sessions", 6]) as server, concurrent.futures.ThreadPoolExecutor(30) as pool:
            for _ in range(2):
                jobs = [pool.submit(ask_in_some_way, server, i, r, wanted[i]) for i, r in enumerate(asked)]
                leavers = [pool.submit(go_away, server, how) for how in range(6)]
                problems = [p for p in (j.result() for j in jobs) if p]
                for j in leavers:
                    j.result()
                if problems:
                    return problems[0]
            server.idle()
            gone = server.good("/metrics").split('reason="client_gone"} ')[1].split()[0]
            if int(gone) != 12:
                return f"{gone} clients went away, expected 12"
            if server.metric("kv_cache_pages_used") != 0 or server.metric("lanes") != 0:
                return "pages or lanes are still in use"
            status = server.stop()
            return f"status {status}: {server.said()}" if status else None

    return check


# ---- rounds ----


def split_rounds(chunks):
    """What began, what was decided, and the other chunks, without what differs from answer to answer."""
    own = [c["pdt"] for c in chunks if not c["choices"] and "pdt" in c]
    others = [{k: v for k, v in c.items() if k not in ("id", "created")} for c in chunks if c["choices"] or "pdt" not in c]
    return [p["began"] for p in own if "began" in p], [p["decided"] for p in own if "decided" in p], others


def committed_texts(rounds, K):
    """The text that each stream has committed, by what was decided about its blocks."""
    done, pending = [""] * K, [""] * K
    for r in rounds:
        for b in r["blocks"]:
            k = b["stream"]
            pending[k] = "" if b["action"] == "rollback" else pending[k] + b["text"]
            if b["action"] == "force":
                done[k], pending[k] = done[k] + pending[k], ""
        if r["gate"]:
            done, pending = [d + p for d, p in zip(done, pending)], [""] * K
    return done


def check_rounds(rounds, trace):
    """Rounds as the trace has them."""
    if len(rounds) != len(trace["rounds"]):
        return f"{len(rounds)} rounds, the trace has {len(trace['rounds'])}"
    for got, want in zip(rounds, trace["rounds"]):
        blocks = [(b["stream"], b["attempt"], b["action"], b["readiness"], b["tokens"]) for b in got["blocks"]]
        wanted = [(s["stream"], s["attempt"], want["actions"][str(s["stream"])], s["readiness"], len(s["tokens"])) for s in want["streams"]]
        if blocks != wanted or any(got[k] != want[k] for k in ("round", "gate", "window")):
            return f"round {got}, the trace has {wanted}, window {want['window']}"
    return None


def rounds(pdt, layout, asked):
    """Who asks for rounds gets them as the trace has them, and all else as it is without."""

    def check():
        actions = set()
        with Server(pdt, layout) as server, tempfile.TemporaryDirectory() as folder:
            for i, request in enumerate(asked):
                path = os.path.join(folder, "request.json")
                with open(path, "w") as f:
                    json.dump(request, f)
                trace = harness.decode(pdt, MODEL, SIDECAR, path, os.path.join(folder, "trace"))
                options = {"include_usage": True, "order": ["interleaved", "streams", "merged"][i % 3]}
                plain = server.chunks(dict(request, stream_options=options))
                began, decided, others = split_rounds(server.chunks(dict(request, stream_options=dict(options, rounds=True))))
                if split_rounds(plain) != ([], [], others):
                    return f"request {i}: other chunks with rounds than without"
                if problem := check_rounds(decided, trace):
                    return f"request {i}: {problem}"
                settings = request["settings"]
                if len(began) != 1 or began[0]["plan_ids"] != trace["plan_ids"] or any(began[0]["settings"][k] != v for k, v in settings.items()):
                    return f"request {i}: began as {began}"
                parts = parts_of(plain) if options["order"] == "interleaved" else None
                K = began[0]["settings"]["streams"]
                texts = {k: s + t for k, (s, t) in enumerate(zip(request.get("sections", [""] * K), committed_texts(decided, K))) if s or t}
                if parts and texts != parts:
                    return f"request {i}: rounds commit {texts}, chunks have {parts}"
                actions |= {b["action"] for r in decided for b in r["blocks"]}
            chunks = server.chunks(dict(asked[0], stop=".", stream_options={"rounds": True}))
            if len(split_rounds(chunks)[1]) != chunks[-1]["pdt"]["rounds"]:
                return f"of a cut answer: {chunks[-1]}"
            whole = json.loads(server.good("/v1/completions", dict(asked[0], stream_options={"rounds": True})))
            if "decided" in whole["pdt"]:
                return "a whole answer has rounds"
        return None if actions == {"commit", "hold", "rollback", "force"} else f"only {actions} were decided"

    return check


def page(pdt):
    """GET / whatever the phase and without a key; its scripts can be no others."""

    def check():
        with Server(pdt, env={"PDT_API_KEY": "key"}) as server:
            status, headers, text = server.ask("/")
            policy = headers.get("Content-Security-Policy", "")
            if status != 200 or headers["Content-Type"] != "text/html; charset=utf-8" or not text.startswith("<!doctype html>"):
                return f"status {status}, {headers}"
            if "default-src 'none'" not in policy or "unsafe" in policy or "frame-ancestors 'none'" not in policy:
                return f"its policy: {policy}"
            if re.search(r"https?:|\bsrc=|@[A-Z]+@", text):
                return "it asks for something, or a mark was left in it"
            status, _, text = server.ask("/", method="HEAD")
            post = server.ask("/", b"", method="POST")[0]
            return None if (status, text, post) == (200, "", 405) else f"HEAD {status} {text}, POST {post}"

    return check


# ---- what clients do wrong ----

GOOD = {"prompt": "Describe Velmora.", "max_tokens": 8}


def bad_bodies():
    """name, path, body, status, part of the message, field that is named."""
    c, d = "/v1/completions", "/v1/pdt/decode"
    yield "empty", c, b"", 400, "body: line 1", None
    yield "no JSON", c, b'{"prompt": \n tru}', 400, "body: line 2", None
    yield "twice", c, b'{"prompt": "a", "prompt": "b"}', 400, "prompt", None
    yield "no UTF-8", c, b'{"prompt": "\xff"}', 400, "body: line 1", None
    yield "deep", c, b"[" * 60000, 400, "body", None
    yield "a list", c, b"[]", 400, "body: expected an object, found array", "body"
    yield "no prompt", c, {}, 400, "expected a prompt or prompt_ids, found neither", None
    yield "empty prompt list", c, {"prompt": []}, 400, "prompt: expected one prompt a request, found 0", "prompt"
    yield "two prompts", c, {"prompt": ["a", "b"]}, 400, "prompt: expected one prompt a request, found 2", "prompt"
    yield "prompt no text", c, {"prompt": 7}, 400, "prompt: expected a text", "prompt"
    yield "unknown field", c, dict(GOOD, colour=1), 400, "'colour': there is no such field", "colour"
    yield "unknown setting", c, dict(GOOD, settings={"tau": 1}), 400, "tau", None
    yield "settings no object", c, dict(GOOD, settings=[1]), 400, "settings: expected an object", "settings"
    yield "given twice", c, dict(GOOD, settings={"max_tokens": 9}), 400, "max_tokens is given by another field", "max_tokens"
    yield "max_tokens 0", c, dict(GOOD, max_tokens=0), 400, "max_tokens: expected an integer from 1", "max_tokens"
    yield "temperature", c, dict(GOOD, temperature="hot"), 400, "temperature", "temperature"
    yield "top_p", c, dict(GOOD, top_p=1.5), 400, "top_p: expected a number from", "top_p"
    yield "other model", c, dict(GOOD, model="gpt-4"), 404, "model: expected 'model', found 'gpt-4'", "model"
    yield "n 0", c, dict(GOOD, n=0), 400, "n: expected 1 to 16 choices, found 0", "n"
    yield "n 17", c, dict(GOOD, n=17), 400, "n: expected 1 to 16 choices, found 17", "n"
    yield "n a text", c, dict(GOOD, n="2"), 400, "n: expected an integer, found string", "n"
    yield "best_of", c, dict(GOOD, n=2, best_of=3), 400, "best_of: not supported: expected 1", "best_of"
    yield "logprobs 6", c, dict(GOOD, logprobs=6), 400, "logprobs: expected 0 to 5, found 6", "logprobs"
    yield "logprobs true", c, dict(GOOD, logprobs=True), 400, "logprobs: expected an integer, found true", "logprobs"
    yield "logprobs 1", "/v1/chat/completions", {"messages": [], "logprobs": 1}, 400, "logprobs: expected true or false", "logprobs"
    yield "top_logprobs alone", "/v1/chat/completions", {"messages": [], "top_logprobs": 2}, 400, "top_logprobs: expected logprobs: true", "top_logprobs"
    yield "top_logprobs 21", "/v1/chat/completions", {"messages": [], "logprobs": True, "top_logprobs": 21}, 400, "top_logprobs: expected 0 to 20, found 21", "top_logprobs"
    yield "penalty", c, dict(GOOD, presence_penalty=0.5), 400, "presence_penalty: not supported: expected 0", "presence_penalty"
    yield "echo", c, dict(GOOD, echo=True), 400, "echo: not supported", "echo"
    yield "stop", c, dict(GOOD, stop=["a", ""]), 400, "stop: expected texts that are not empty", "stop"
    yield "stops", c, dict(GOOD, stop=["a"] * 17), 400, "stop: expected at most 16 texts", "stop"
    yield "stream", c, dict(GOOD, stream="yes"), 400, "stream: expected true or false", "stream"
    yield "order", c, dict(GOOD, stream=True, stream_options={"order": "up"}), 400, "stream_options: expected include_usage", "stream_options"
    yield "too long a prompt", c, {"prompt": "Velmora. " * 2000, "max_tokens": 8}, 400, "positions; max_position_embeddings is 768", None
    yield "too many streams", c, dict(GOOD, sections=["a"] * 9), 400, "streams: expected at most", None
    yield "too large a block", c, {"prompt": "a", "sections": ["b"], "settings": {"block_tokens": 500, "horizon": 500, "max_tokens": 600}}, 400, "tokens of a block: it needs 500, this run was made for", None
    yield "chat", "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}, 400, "the model has no chat template", "messages"
    yield "no messages", "/v1/chat/completions", {}, 400, "expected messages, found none", "messages"
    yield "messages", "/v1/chat/completions", {"messages": "a"}, 400, "messages: expected a list of messages, found string", "messages"
    yield "prompt in chat", "/v1/chat/completions", dict(GOOD), 400, "'prompt': there is no such field", "prompt"
    yield "messages elsewhere", c, dict(GOOD, messages=[]), 400, "'messages': there is no such field", "messages"
    yield "tools", "/v1/chat/completions", {"messages": [], "tools": [{}]}, 400, "tools: not supported", "tools"
    yield "OpenAI's field", d, dict(GOOD), 400, "max_tokens", None
    yield "decode no JSON", d, b"{", 400, "body: line 1", None
    yield "no such path", "/v2", {}, 404, "there is no such path", None


def bad_input(pdt):
    def check():
        with Server(pdt, extra=["--max-body", "64K"]) as server:
            before = server.good("/v1/completions", GOOD)
            for name, path, body, status, part, field in bad_bodies():
                got, _, data = server.ask(path, body)
                error = json.loads(data)["error"]
                if got != status or part not in error["message"] or (field and error["param"] != field):
                    return f"{name}: status {got}, expected {status} and '{part}' of {field}: {data}"
            for path, method, wanted in (("/v1/completions", "GET", 405), ("/health", "POST", 405), ("/v1/models/other", "GET", 404)):
                got, _, data = server.ask(path, b"{}" if method == "POST" else None, method=method)
                if got != wanted:
                    return f"{method} {path}: status {got}, expected {wanted}: {data}"
            got, _, data = server.ask("/v1/completions", b'{"prompt": "' + b"a" * 100000 + b'"}')
            if got != 413 or "at most 65536 bytes" not in data:
                return f"too long a body: status {got}: {data}"
            got, _, data = server.ask("/v1/completions", iter([b"a" * 10000] * 10), method="POST")
            if got != 413:
                return f"too long a body in chunks: status {got}: {data}"
            got, _, _ = server.ask("/health", headers={"X-Long": "a" * 100000})
            if got not in (413, 431):
                return f"too long a header: status {got}"
            after = server.good("/v1/completions", GOOD)
            same = [json.loads(x)["choices"] for x in (before, after)]
            return None if same[0] == same[1] and server.stop() == 0 else f"after all that: {after}"

    return check


def send(server, data, wait=0.0, read=False):
    s = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    try:
        s.sendall(data)
        time.sleep(wait)
        return s.recv(1 << 16) if read else b""
    except OSError:
        return b""
    finally:
        s.close()


def packed(pdt, asked):
    """As protobuf a request has the bytes that pdt decode --out writes."""

    def check():
        with Server(pdt) as server, tempfile.TemporaryDirectory() as folder:
            for request in asked[:4]:
                path, out = os.path.join(folder, "request.json"), os.path.join(folder, "out")
                with open(path, "w") as f:
                    json.dump(request, f)
                harness.run([pdt, "decode", "--model", MODEL, "--sidecar", SIDECAR, "--request", path, "--out", out, "--quiet", "--threads", 1])
                connection = server.connect()
                connection.request("POST", "/v1/pdt/decode", json.dumps(request), {"Accept": "application/x-protobuf"})
                response = connection.getresponse()
                with open(out, "rb") as f:
                    if response.read() != f.read() or response.headers["Content-Type"] != "application/x-protobuf":
                        return f"{request}: other bytes"
                connection.close()
        return None

    return check


def rough_clients(pdt):
    """Bytes that are no requests, halves of requests, and clients that do not read."""

    def check():
        rng = random.Random(7)
        with Server(pdt) as server:
            wanted = json.loads(server.good("/v1/completions", GOOD))["choices"]
            head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n"
            slow = []
            for _ in range(12):  # that do not read a stream, of more than a connection takes by itself
                body = {"prompt": "Describe Velmora.", "sections": ["river " * 150] * 4, "max_tokens": 150, "ignore_eos": True, "stream": True}
                body.update(stream_options={"order": "interleaved"}, settings={"block_tokens": 1, "horizon": 1})
                body = json.dumps(body).encode()
                s = socket.socket()
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                s.connect(("127.0.0.1", server.port))
                s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                slow.append(s)
            half = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(600)]
            for s in half:
                s.sendall(head + b'{"prompt": ')
            for _ in range(200):
                send(server, rng.randbytes(rng.randrange(1, 2000)))
                send(server, b"POST /v1/pdt/decode HTTP/1.1\r\nHost: x\r\nContent-Length: 64\r\n\r\n" + rng.randbytes(64), read=True)
            if server.ask("/health")[0] != 200:
                return "it is not well"
            got = json.loads(server.good("/v1/completions", GOOD))["choices"]
            for s in slow + half:
                s.close()
            server.idle(100)
            size = resident(server.process.pid)
            for i in range(1000):
                send(server, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" if i % 2 else head)
            deadline, open_files = time.time() + 10, 1000
            while open_files > 60 and time.time() < deadline:
                time.sleep(0.1)
                open_files = len(os.listdir(f"/proc/{server.process.pid}/fd"))
            more = resident(server.process.pid) - size
            if more > 64 << 20 or open_files > 60:
                return f"after 1000 connections {more} bytes more, {open_files} open files"
            if got != wanted or json.loads(server.good("/v1/completions", GOOD))["choices"] != wanted:
                return f"the answer is another: {got}"
            return None if server.stop() == 0 else server.said()

    return check


def many_bodies(pdt):
    """What is held of requests that do not end is bounded, and given back."""

    def check():
        with Server(pdt, extra=["--max-body", "64K"]) as server:
            head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 65000\r\n\r\n"
            held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(80)]
            for s in held:
                s.sendall(head + b" " * 64000)
            time.sleep(0.5)
            status, _, data = server.ask("/v1/completions", dict(GOOD, user="x" * 40000))
            if status != 503 or "too many large requests" not in data:
                return f"beside 80 long bodies: status {status}: {data}"
            for s in held:
                s.close()
            time.sleep(0.5)
            return None if server.ask("/v1/completions", dict(GOOD, user="x" * 40000))[0] == 200 else "their room is not given back"

    return check


def resident(pid):
    with open(f"/proc/{pid}/status") as f:
        return 1024 * int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


# ---- limits ----


def limits(pdt):
    def check():
        with Server(pdt, extra=["--max-queue", 2, "--max-sessions", 1, "--request-timeout", 2]) as server:
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                jobs = [pool.submit(server.ask, "/v1/completions", dict(LONG, session=i)) for i in range(8)]
                statuses = sorted(j.result()[0] for j in jobs)
            if 429 not in statuses or not set(statuses) <= {200, 429, 504}:
                return f"eight clients at a queue of two: {statuses}"
            full = [j.result() for j in jobs if j.result()[0] == 429][0]
            if full[1].get("Retry-After") != "1" or "2 requests wait" not in full[2]:
                return f"a full queue: {full}"
        with Server(pdt, extra=["--request-timeout", 0.2]) as server:
            status, _, data = server.ask("/v1/completions", LONG)
            if status != 504 or "took longer" not in data:
                return f"a request out of its time: {status} {data}"
            text = server.good("/v1/completions", dict(LONG, stream=True))
            if '"code":"timeout"' not in text or not text.endswith("data: [DONE]\n\n"):
                return f"a stream out of its time: {text[-300:]}"
            return None if server.stop() == 0 else server.said()

    return check


def keys(pdt):
    def check():
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "key")
            with open(path, "w") as f:
                f.write("secret one\n")
            for extra, env in ((["--api-key-file", path], {}), ([], {"PDT_API_KEY": "secret one"})):
                with Server(pdt, extra=extra, env=env) as server:
                    tried = [
                        (None, 401), ("Bearer secret on", 401), ("Bearer secret one!", 401), ("secret one", 401), ("Bearer secret one", 200),
                    ]
                    for key, wanted in tried:
                        headers = {"Authorization": key} if key else {}
                        got = server.ask("/v1/completions", GOOD, headers)[0], server.ask("/v1/models", headers=headers)[0]
                        if got != (wanted, wanted):
                            return f"key {key!r}: {got}, expected {wanted}"
                    if server.ask("/health")[0] != 200:
                        return "/health asks for a key"
        return None

    return check


def tls(pdt):
    def check():
        if not shutil.which("openssl"):
            return None
        with tempfile.TemporaryDirectory() as folder:
            key, cert = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
                 "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
            with Server(pdt, extra=["--tls-certificate", cert, "--tls-key", key]) as server:
                context = ssl.create_default_context(cafile=cert)
                connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=30)
                connection.request("POST", "/v1/completions", json.dumps(GOOD))
                response = connection.getresponse()
                if response.status != 200 or b'"choices"' not in response.read():
                    return f"https: status {response.status}"
            result = harness.run([pdt, "serve", "--model", MODEL, "--sidecar", SIDECAR, "--port", 0, "--tls-certificate", key, "--tls-key", cert])
            if result.status != 1 or "are certificate and key good?" not in result.err:
                return f"a key as certificate: {result.status} {result.err}"
        return None

    return check


# ---- beginnings and ends ----


def signals(pdt, layout):
    def check():
        with Server(pdt, layout) as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(server.ask, "/v1/completions", dict(LONG, max_tokens=300, session=i)) for i in range(3)]
            while server.metric("num_requests_running") < 3:
                time.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.4)
            late = server.ask("/health")[0], server.ask("/v1/completions", GOOD)[0]
            if late != (503, 503):
                return f"while it drains: {late}"
            if [j.result()[0] for j in jobs] != [200, 200, 200] or server.process.wait(30) != 0:
                return f"what ran was not finished: {[j.result()[0] for j in jobs]}, {server.process.returncode}"
        with Server(pdt, layout, ["--shutdown-timeout", 0.3]) as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
            job = pool.submit(server.ask, "/v1/completions", LONG)
            while server.metric("num_requests_running") < 1:
                time.sleep(0.01)
            began, status = time.time(), server.stop()
            if status != 0 or job.result()[0] != 503 or time.time() - began > 10:
                return f"out of its time: status {status}, answer {job.result()[0]}, {time.time() - began:.1f} s"
        with Server(pdt, layout) as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
            job = pool.submit(server.ask, "/v1/completions", LONG)
            while server.metric("num_requests_running") < 1:
                time.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            began, status = time.time(), server.stop()
            job.exception()
            if status == 0 or time.time() - began > 5:
                return f"a second signal: status {status}, {time.time() - began:.1f} s"
        return None

    return check


def ranks_of(server):
    """Processes of the server's group that are pdt."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as f:
                name, fields = re.fullmatch(r"\d+ \((.*)\) (.*)", f.read().strip(), re.S).groups()
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read().split(b"\0")
        except OSError:
            continue
        if int(fields.split()[3]) == server.process.pid and b"serve" in words and name.startswith("pdt"):
            found.append(int(pid))
    return sorted(found)


def death(pdt, layout):
    """A rank that dies is the end of all, with a message, in seconds; idle, and with a request under way."""

    def check():
        for busy in (False, True):
            with Server(pdt, layout) as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
                job = pool.submit(server.ask, "/v1/completions", LONG) if busy else None
                while busy and server.metric("num_requests_running") < 1:
                    time.sleep(0.01)
                ranks = ranks_of(server)
                if len(ranks) != server.layout.ranks:
                    return f"processes {ranks}"
                os.kill(ranks[-1], signal.SIGKILL)
                began = time.time()
                status = server.process.wait(30)
                if job:
                    job.exception()
                if status == 0 or time.time() - began > 10 or "has ended" not in server.said():
                    return f"{'busy' if busy else 'idle'}: status {status} after {time.time() - began:.1f} s: {server.said()}"
        return None

    return check


def stuck(pdt, layout):
    """A rank that stands still is told of while a request is in flight, and forgotten when it goes on."""

    def wait(server, status, seconds=20):
        deadline = time.time() + seconds
        while time.time() < deadline:
            got, _, data = server.ask("/health")
            if got == status:
                return json.loads(data)
            time.sleep(0.05)
        raise harness.Failed(f"/health: no {status} within {seconds} s, but {got}: {data}")

    def check():
        with Server(pdt, layout, ["--stuck", 0.8]) as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
            wanted = json.loads(server.good("/v1/completions", LONG))["choices"]
            rank = ranks_of(server)[-1]
            os.kill(rank, signal.SIGSTOP)
            try:
                time.sleep(1)
                idle = json.loads(server.good("/health"))  # nobody waits for a round
                job = pool.submit(server.ask, "/v1/completions", LONG)
                began = time.time()
                told, after = wait(server, 503), time.time() - began
            finally:
                os.kill(rank, signal.SIGCONT)
            well = wait(server, 200)
            if idle["status"] != "ok" or well["status"] != "ok" or idle["reason"] or well["reason"]:
                return f"before {idle}, afterwards {well}"
            if told["status"] != "stuck" or "1 requests are in flight, and no round has ended for" not in told["reason"] or after < 0.8:
                return f"{told} after {after:.2f} s"
            status, _, data = job.result()
            if status != 200 or json.loads(data)["choices"] != wanted:
                return f"the request: status {status}: {data[:300]}"
            return None if server.stop() == 0 else server.said()

    return check


def cpu_seconds(group):
    """Of all processes of a group."""
    total = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group or int(fields[3]) == group:
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def idle(pdt, layout):
    def check():
        with Server(pdt, layout) as server:
            took = []
            for _ in range(3):
                began = time.time()
                server.good("/v1/completions", dict(GOOD, max_tokens=64))
                took.append(time.time() - began)
            time.sleep(0.5)
            before = cpu_seconds(server.process.pid)
            time.sleep(3)
            used = cpu_seconds(server.process.pid) - before
            ranks = server.layout.ranks
            if used > 0.03 * 3 * ranks:
                return f"idle, {ranks} ranks took {used:.2f} s of processors' time in 3 s"
            print(f"        {layout}: idle {100 * used / 3 / ranks:.1f}% of a core a rank; answers took {', '.join(f'{1000 * x:.0f}' for x in took)} ms")
            return None if server.stop() == 0 else server.said()

    return check


def refusals(pdt):
    def check():
        base = [pdt, "serve", "--model", MODEL, "--sidecar", SIDECAR]
        with Server(pdt) as server, tempfile.TemporaryDirectory() as folder:
            empty = os.path.join(folder, "key")
            open(empty, "w").close()
            return harness.refusals(
                [
                    ("port in use", [*base, "--port", server.port], 1, "cannot listen there: Address already in use"),
                    ("host", [*base, "--host", "no.such.host.invalid", "--port", 0], 2, "--host"),
                    ("key file", [*base, "--port", 0, "--api-key-file", folder + "/none"], 1, "none"),
                    ("no key", [*base, "--port", 0, "--api-key-file", empty], 1, "expected a key in its first line"),
                    ("one of two", [*base, "--port", 0, "--tls-key", empty], 2, "expected both --tls-certificate and --tls-key"),
                    ("model", [pdt, "serve", "--sidecar", SIDECAR, "--port", 0], 2, "--model is missing"),
                    ("no such model", [pdt, "serve", "--model", folder, "--sidecar", SIDECAR, "--port", 0], 1, "config.json"),
                    ("journal", [*base, "--port", 0, "--journal", SIDECAR], 2, "--journal"),
                    ("cache", [*base, "--port", 0, "--kv-memory", "64K"], 1, "key/value cache: rank 0 needs"),
                ],
                "pdt serve: ",
            )

    return check


# ---- the rest ----


def stops(pdt):
    """Texts to stop at cut every part, and end a session whose parts are all over."""

    def check():
        with Server(pdt) as server:
            body = dict(LONG, sections=HEADS[:2], max_tokens=400)
            whole = json.loads(server.good("/v1/completions", body))
            parts = parts_of(server.chunks(body))
            stop = [" The", ".\n"]
            wanted = {}
            for k, text in parts.items():
                text, section = text.lstrip("\n") if k else text, HEADS[k].lstrip("\n") if k else HEADS[k]
                at = [i for i in (text.find(s, len(section)) for s in stop) if i >= 0]
                wanted[k] = text[: min(at)] if at else text
            cut = json.loads(server.good("/v1/completions", dict(body, stop=stop)))
            for order in ("merged", "interleaved", "streams"):
                got = {k: t.lstrip("\n") if k else t for k, t in parts_of(server.chunks(dict(body, stop=stop, stream_options={"order": order}))).items()}
                if got != wanted:
                    return f"{order}: {got}, expected {wanted}"
            text = "\n".join(wanted[k] if k == 0 else "\n" + wanted[k] for k in cut["pdt"]["order"])
            if cut["choices"][0]["text"] != text or cut["choices"][0]["finish_reason"] != "stop":
                return f"{cut['choices']}, expected {text!r}"
            if cut["pdt"]["rounds"] >= whole["pdt"]["rounds"] or cut["pdt"]["ended_by"] != "stop":
                return f"{cut['pdt']['rounds']} rounds of {whole['pdt']['rounds']}"
            with concurrent.futures.ThreadPoolExecutor(8) as pool:  # however late a withdrawal comes
                jobs = [pool.submit(server.good, "/v1/completions", dict(body, stop=stop)) for _ in range(8)]
                for answer in (json.loads(j.result()) for j in jobs):
                    if any(answer[key] != cut[key] for key in ("choices", "usage", "pdt")):
                        return f"another answer: {answer}, expected {cut}"
            for mine, full in zip(cut["pdt"]["artifacts"], whole["pdt"]["artifacts"]):
                if not mine["tokens"] or mine["tokens"] != full["tokens"][: len(mine["tokens"])]:
                    return f"{mine['tokens']} do not begin {full['tokens']}"
            return None if server.stop() == 0 else server.said()

    return check


def choices(pdt, layout):
    """n choices are what n requests with seeds one above the other give, whole and in chunks; they wait, end and are
    given up together."""
    sampled = {"prompt": "Describe Velmora.", "sections": HEADS[:2], "max_tokens": 40, "temperature": 1.1, "seed": 2**64 - 2}

    def of(chunks, i):
        return [c for c in chunks if c["choices"] and c["choices"][0]["index"] == i]

    def check():
        with Server(pdt, layout, ["--max-sessions", 3, "--max-queue", 8, "--cache-positions", 1 << 14]) as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
            for more in ({}, {"stop": ["."]}):
                body = dict(sampled, **more)
                alone = [json.loads(server.good("/v1/completions", dict(body, seed=(body["seed"] + i) % 2**64))) for i in range(4)]
                got = json.loads(server.good("/v1/completions", dict(body, n=4)))
                if [dict(c, index=0) for c in got["choices"]] != [a["choices"][0] for a in alone] or got["pdt"] != [a["pdt"] for a in alone]:
                    return f"{got['choices']}, expected {[a['choices'] for a in alone]}"
                if [c["index"] for c in got["choices"]] != [0, 1, 2, 3] or len({c["text"] for c in got["choices"]}) != 4:
                    return f"choices {got['choices']}"
                tokens, prompt = sum(a["usage"]["completion_tokens"] for a in alone), alone[0]["usage"]["prompt_tokens"]
                if got["usage"] != {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}:
                    return f"usage {got['usage']}: expected {prompt} and {tokens}"
                for order in ("merged", "interleaved", "streams"):
                    options = {"order": order, "include_usage": True}
                    chunks = server.chunks(dict(body, n=4, stream_options=options))
                    for i in range(4):
                        want = server.chunks(dict(body, seed=(body["seed"] + i) % 2**64, stream_options=options))
                        mine = [(c["choices"][0]["text"], c["choices"][0]["finish_reason"], c["pdt"]) for c in of(chunks, i)]
                        if mine != [(c["choices"][0]["text"], c["choices"][0]["finish_reason"], c["pdt"]) for c in of(want, 0)]:
                            return f"{order}, choice {i}: {mine}"
                    if chunks[-1]["usage"] != got["usage"]:
                        return f"{order}: usage {chunks[-1]['usage']}"
            status, _, data = server.ask("/v1/completions", dict(GOOD, n=9))
            if status != 400 or "n: expected at most 8, the queue's places" not in data:
                return f"more than can wait: {status} {data}"
            held = [pool.submit(server.ask, "/v1/completions", dict(LONG, max_tokens=300, session=i)) for i in range(3)]
            while server.metric("num_requests_running") < 3:
                time.sleep(0.01)
            s = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            body = json.dumps(dict(LONG, max_tokens=300, n=6)).encode()
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            while server.metric("num_requests_waiting") < 6:
                time.sleep(0.01)
            status, _, data = server.ask("/v1/completions", dict(GOOD, n=3))
            if status != 429:
                return f"3 choices where 2 may wait: {status} {data}"
            if [h.result()[0] for h in held] != [200, 200, 200]:
                return "those before it fail"
            while server.metric("num_requests_running") < 3:
                time.sleep(0.01)
            s.close()  # three run by now, three wait
            server.idle()
            gone = server.good("/metrics").split('reason="client_gone"} ')[1].split()[0]
            return None if int(gone) == 6 and server.stop() == 0 else f"{gone} choices were given up, expected 6"

    return check


def check_likely(choice, top, greedy, ids):
    """What is wrong with a completion's logprobs."""
    l, text = choice["logprobs"], choice["text"]
    if len(l["tokens"]) != ids or any(l[key] is not None and len(l[key]) != ids for key in l) or (l["top_logprobs"] is None) != (top == 0):
        return f"{ids} tokens: {l}"
    last = -1
    for i, (token, value, at) in enumerate(zip(l["tokens"], l["token_logprobs"], l["text_offset"])):
        if at < last or not value <= 0 or (token != "<|end|>" and not token.startswith("<") and text[at : at + len(token)] != token):
            return f"token {i}, {token!r} at {at}: {value}, {text[at:at + 20]!r}"
        last = at
        best = l["top_logprobs"][i] if top else {token: value}
        values = list(best.values())
        if not top <= len(best) <= top + 1 or best[token] != value or sum(map(math.exp, values)) > 1 + 1e-6 or values[:top] != sorted(values[:top], reverse=True):
            return f"token {i}, {token!r}: {value}, {best}"
        if greedy and value != max(values):
            return f"token {i}, {token!r} is not the likeliest: {best}"
    return None


def logprobs(pdt, layouts):
    """How likely tokens were: the same in every layout, whole and in chunks, and nothing else is changed by it."""
    plain = {"prompt": "Describe Velmora. Sections: history; trade.", "sections": HEADS[:3], "max_tokens": 40, "seed": 4}
    asked = [(plain, 0), (plain, 3), (dict(plain, temperature=1.2, top_p=0.8, settings={"policy": "stall", "gamma": 0.9}), 5), (dict(plain, stop=[" The"], temperature=0.7), 2)]

    def joined(server, body, order):
        """The lists of a stream's chunks, one behind the other."""
        chunks = [c["choices"][0]["logprobs"] for c in server.chunks(dict(body, stream_options={"order": order})) if c["choices"]]
        if chunks.pop() is not None:
            raise harness.Failed("the last chunk has logprobs")
        return {key: None if chunks[0][key] is None else sum((c[key] for c in chunks), []) for key in chunks[0]}

    def ask_all(layout):
        told = []
        with Server(pdt, layout) as server, concurrent.futures.ThreadPoolExecutor(2) as pool:
            for body, top in asked:
                whole = json.loads(server.good("/v1/completions", body))
                beside = pool.submit(server.good, "/v1/completions", body)
                choice = json.loads(server.good("/v1/completions", dict(body, logprobs=top)))
                ids = sum(len(a["tokens"]) for a in choice["pdt"]["artifacts"])
                if json.loads(beside.result())["choices"] != whole["choices"] or dict(choice["choices"][0], logprobs=None) != whole["choices"][0]:
                    raise harness.Failed(f"{layout}: the text is another: {choice['choices']}, {whole['choices']}")
                choice = choice["choices"][0]
                ids = len(choice["logprobs"]["tokens"]) if "stop" in body else ids
                problem = check_likely(choice, top, "temperature" not in body, ids)
                if problem:
                    raise harness.Failed(f"{layout}, {top} likeliest: {problem}")
                if joined(server, dict(body, logprobs=top), "merged") != choice["logprobs"]:
                    raise harness.Failed(f"{layout}, {top} likeliest, in chunks: {joined(server, dict(body, logprobs=top), 'merged')}, expected {choice['logprobs']}")
                values = [sorted(joined(server, dict(body, logprobs=top), order)["token_logprobs"]) for order in ("streams", "interleaved")]
                if values != [sorted(choice["logprobs"]["token_logprobs"])] * 2:
                    raise harness.Failed(f"{layout}, {top} likeliest, by stream and interleaved: {values}")
                told.append(choice["logprobs"])
            if server.stop():
                raise harness.Failed(server.said())
        return told

    def check():
        told = {x: ask_all(x) for x in layouts}
        for x in layouts[1:]:
            if told[x] != told[layouts[0]]:
                return f"{x} gives others than {layouts[0]}"
        with tempfile.TemporaryDirectory() as folder, Server(pdt, model=chat_model(folder)) as server:
            talk = {"messages": [{"role": "user", "content": "Describe Velmora."}], "max_tokens": 12, "logprobs": True, "top_logprobs": 2, "settings": {"streams": 1}}
            choice = json.loads(server.good("/v1/chat/completions", talk))["choices"][0]
            likely = choice["logprobs"]["content"]
            chunks = server.chunks(talk, "/v1/chat/completions")
            if sum((c["choices"][0]["logprobs"]["content"] for c in chunks[:-1]), []) != likely:
                return f"chat in chunks: {chunks}"
            for t in likely:
                if len(t["top_logprobs"]) != 2 or t["top_logprobs"][0]["logprob"] != t["logprob"] or bytes(t["bytes"]).decode() != t["token"]:
                    return f"chat: {t}"
            text = "".join(t["token"] for t in likely)
            return None if text == choice["message"]["content"] and server.stop() == 0 else f"chat: {text!r}, expected {choice['message']['content']!r}"

    return check


def early(pdt):
    """Merged chunks come as soon as what stands before them in the answer is known and there."""

    def check():
        with Server(pdt) as server:
            slots = len(json.loads(server.good("/v1/completions", GOOD))["pdt"]["plan_ids"])
            body = dict(LONG, plan_ids=[0] * slots)  # no slot is anybody's: streams come by index
            whole = json.loads(server.good("/v1/completions", body))
            connection = server.connect()
            connection.request("POST", "/v1/completions", json.dumps(dict(body, stream=True)))
            response = connection.getresponse()
            first = json.loads(next(line for line in response if line.startswith(b"data: "))[6:])
            running = server.metric("num_requests_running")
            rest = [json.loads(line[6:]) for line in response if line.startswith(b"data: {")]
            connection.close()
            if running != 1 or first["pdt"]["stream"] != 0 or first["pdt"]["round"] != 1:
                return f"{running} requests run when {first} comes"
            text = "".join(c["choices"][0]["text"] for c in [first] + rest)
            if text != whole["choices"][0]["text"] or whole["pdt"]["order"] != [0, 1, 2, 3]:
                return f"{text!r}, expected {whole['choices'][0]['text']!r}"
            return None if server.stop() == 0 else server.said()

    return check


def min_tokens(pdt):
    """A stream alone goes on behind ends that come too early, and stops at the first that does not."""

    def tokens(server, least):
        settings = {"streams": 1, "max_tokens": 300, "min_tokens": least, "temperature": 1, "seed": 3}
        lines = server.good("/v1/pdt/decode", {"prompt": "Describe Velmora. Sections: history.", "sections": HEADS[:1], "settings": settings})
        return json.loads(lines.splitlines()[0])["tokens"]

    def check():
        with open(os.path.join(MODEL, "config.json")) as f:
            ends = json.load(f)["eos_token_id"]
        with Server(pdt) as server:
            whole = tokens(server, 300)
            ends = [i for i, token in enumerate(whole) if token in ends]
            if len(whole) != 300 or len(ends) < 3:
                return f"{len(whole)} tokens with ends at {ends}"
            for least in (0, ends[0], ends[0] + 1, ends[1], ends[1] + 1):
                last = next(i for i in ends if i >= least)
                if tokens(server, least) != whole[: last + 1]:
                    return f"min_tokens {least}: expected an end at {last}"
            return None if server.stop() == 0 else server.said()

    return check


def strict_gamma(pdt, layout):
    """A gamma at which blocks are forced: the operator hears of it once, and answers tell how many there were."""

    def check():
        body = {"prompt": "Describe Velmora. Sections: history; trade.", "sections": HEADS[:2], "max_tokens": 48}
        with Server(pdt, layout) as server:
            found = []
            for gamma in (0.5, 1, 0.9995):
                artifacts = [json.loads(x) for x in server.good("/v1/pdt/decode", dict(
                    prompt=body["prompt"], sections=body["sections"], settings={"max_tokens": 48, "gamma": gamma})).splitlines()][:2]
                told = json.loads(server.good("/v1/completions", dict(body, settings={"gamma": gamma})))["pdt"]["forced"]
                if told != sum(len(a["forced_rounds"]) for a in artifacts):
                    return f"gamma {gamma}: {told} forced, {artifacts}"
                found.append(told)
            warnings = [x for x in server.said().splitlines() if "gamma is" in x]
            if found[0] > 0 or not found[1] > 0 or len(warnings) != 1 or "gamma is 1: from 0.999 on" not in warnings[0]:
                return f"forced {found}, {warnings}"
            return None if server.stop() == 0 else server.said()

    return check


def journal(pdt, asked, wanted, layout):
    def check():
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "serve.journal")
            with Server(pdt, layout, ["--journal", path]) as server, concurrent.futures.ThreadPoolExecutor(30) as pool:
                jobs = [pool.submit(ask_in_some_way, server, i, r, wanted[i]) for i, r in enumerate(asked)]
                leavers = [pool.submit(go_away, server, how) for how in range(4)]
                problems = [p for p in (j.result() for j in jobs + leavers) if p]
                server.idle()
                if problems or server.stop() != 0:
                    return f"{problems} {server.said()}"
            shown = harness.run([pdt, "inspect", path])
            if shown.status or "it is withdrawn" not in shown.out:
                return f"inspect: {shown.status} {shown.out[-500:]} {shown.err}"
            result = harness.run([pdt, "inspect", "--answers", "--json", "--model", MODEL, path])
            records = [json.loads(line) for line in result.out.splitlines()]
            texts = sorted(r["text"] for r in records if r["type"] == "answer")
            expected_texts = sorted(json.loads(lines.splitlines()[-1])["text"] for lines in wanted)
            failures = sum(r["type"] == "error" for r in records)
            if result.status or texts != expected_texts or not 1 <= failures <= 4:
                return f"answers of the journal: status {result.status}, {len(texts)} answers, {failures} failures: {result.err}"
            verified = harness.run([pdt, "inspect", "--verify", "--model", MODEL, "--sidecar", SIDECAR, path], timeout=120)
            if verified.status:
                return f"verify: {verified.err}"
        return None

    return check


TEMPLATE = "{% for m in messages %}{{ m['content'] | trim }}{% endfor %}{{ tail }}"


def chat_model(folder):
    """The default model, with a chat template."""
    for name in os.listdir(MODEL):
        os.symlink(os.path.join(MODEL, name), os.path.join(folder, name))
    with open(os.path.join(folder, "chat_template.jinja"), "w") as f:
        f.write(TEMPLATE)
    return folder


def chat(pdt):
    """A conversation is answered as the prompt that its template makes of it."""
    talk = [{"role": "system", "content": "Describe Velmora. "}, {"role": "user", "content": [{"type": "text", "text": "Sections:"}, {"type": "text", "text": "history; trade."}]}]
    asked = {"messages": talk, "sections": HEADS[:2], "max_completion_tokens": 40, "temperature": 0.8, "seed": 5}

    def check():
        with tempfile.TemporaryDirectory() as folder, Server(pdt, model=chat_model(folder)) as server:
            for more, tail in (({}, ""), ({"chat_template_kwargs": {"tail": " Go."}}, " Go.")):
                text = "Describe Velmora.Sections:\nhistory; trade." + tail
                ids = json.loads(harness.run([pdt, "tokenize", "--model", folder, "--no-special"], stdin=json.dumps(text).encode()).out)
                want = {"prompt": ids, "sections": HEADS[:2], "max_tokens": 40, "temperature": 0.8, "seed": 5}
                want = json.loads(server.good("/v1/completions", want))
                got = json.loads(server.good("/v1/chat/completions", dict(asked, **more)))
                message = got["choices"][0]["message"]
                if message != {"role": "assistant", "content": want["choices"][0]["text"]} or got["object"] != "chat.completion":
                    return f"{message}, expected {want['choices'][0]['text']!r}"
                chunks = server.chunks(dict(asked, **more), "/v1/chat/completions")
                deltas = [c["choices"][0]["delta"] for c in chunks]
                if "".join(d["content"] for d in deltas) != message["content"] or ["role" in d for d in deltas] != [i == 0 for i in range(len(deltas))]:
                    return f"deltas {deltas}"
            request = {"messages": [{"role": "user", "content": "Describe Velmora."}], "sections": HEADS[:2], "settings": {"max_tokens": 20}}
            path = os.path.join(folder, "request.json")
            with open(path, "w") as f:
                json.dump(request, f)
            want = harness.run([pdt, "decode", "--model", folder, "--sidecar", SIDECAR, "--request", path, "--json", "--quiet", "--threads", 1])
            got = server.good("/v1/pdt/decode", request)
            if want.status or got != want.out:
                return f"a request of messages: {got!r}, expected {want.out!r}"
            image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
            status, _, data = server.ask("/v1/chat/completions", {"messages": [image]})
            if status != 400 or "messages[0]: content[0]: not supported: expected a part of type 'text', found 'image_url'" not in data:
                return f"an image: {status} {data}"
            status, _, data = server.ask("/v1/chat/completions", {"messages": []})
            return None if status == 400 and server.stop() == 0 else f"no message: {status} {data}"

    return check


def curl(pdt):
    def check():
        if not shutil.which("curl"):
            print("        no curl here")
            return None
        with Server(pdt) as server:
            url = f"http://127.0.0.1:{server.port}/v1/completions"
            whole = harness.run(["curl", "-sS", "--fail", url, "-d", json.dumps(GOOD)])
            chunks = harness.run(["curl", "-sSN", "--fail", url, "-H", "Content-Type: application/json", "-d", json.dumps(dict(GOOD, stream=True))])
            large = harness.run(["curl", "-sS", url, "-d", "@-"], stdin=json.dumps(dict(GOOD, user="x" * 2000000)).encode())
            text = json.loads(whole.out)["choices"][0]["text"]
            if chunks.status or not chunks.out.endswith("data: [DONE]\n\n"):
                return f"chunks: {chunks.out} {chunks.err}"
            if "expected at most 1048576 bytes" not in large.out:
                return f"a long body: {large.out} {large.err}"
            return None if text else "no text"

    return check


def openai_client(pdt):
    def check():
        try:
            import openai
        except ImportError:
            print("        no package openai here: not tested with it")
            return None
        with tempfile.TemporaryDirectory() as folder, Server(pdt, env={"PDT_API_KEY": "key"}, model=chat_model(folder), extra=["--model-name", "m"]) as server:
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="key", max_retries=0)
            name = client.models.list().data[0].id
            ask = {"model": name, "prompt": "Describe Velmora.", "max_tokens": 24, "seed": 1, "temperature": 0.8, "stop": ["\n\n\n"]}
            ask["extra_body"] = {"sections": HEADS[:2], "settings": {"block_tokens": 6, "horizon": 12}}
            whole = client.completions.create(**ask)
            chunks = list(client.completions.create(stream=True, stream_options={"include_usage": True}, **ask))
            text = "".join(c.choices[0].text for c in chunks if c.choices)
            if text != whole.choices[0].text or chunks[-1].usage != whole.usage or whole.pdt["order"] is None:
                return f"{text!r} in chunks, {whole.choices[0].text!r} as a whole, {chunks[-1].usage} and {whole.usage}"
            ask.pop("prompt")
            ask["messages"] = [{"role": "user", "content": "Describe Velmora."}]
            whole = client.chat.completions.create(**ask).choices[0]
            chunks = [c.choices[0] for c in client.chat.completions.create(stream=True, **ask)]
            if "".join(c.delta.content for c in chunks) != whole.message.content or chunks[-1].finish_reason != whole.finish_reason:
                return f"{chunks}, {whole} as a whole"
            ask = {"model": name, "prompt": "Describe Velmora."}
            for kind, extra in ((openai.BadRequestError, {"n": 99}), (openai.NotFoundError, {"model": "other"})):
                try:
                    client.completions.create(**{**ask, **extra})
                    return f"{extra} was taken"
                except kind:
                    pass
            try:
                openai.OpenAI(base_url=client.base_url, api_key="other", max_retries=0).models.list()
                return "another key was taken"
            except openai.AuthenticationError:
                return None

    return check


def arguments(layouts):
    """Of a driver called as PDT [--layouts A,B] [--only PART]: the program's path, the layouts, and the part of a
    check's name; ends here where something is missing that they need."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pdt")
    parser.add_argument("--layouts", default=layouts)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    pdt, layouts = os.path.abspath(args.pdt), args.layouts.split(",")
    if any(harness.Layout(x).ranks > 1 for x in layouts):
        harness.need_mpirun()
    if "microhttpd  not built in" in harness.run([pdt, "--version"]).out:
        harness.skip("pdt was built without libmicrohttpd (launch/setup --for demo installs it)")
    return pdt, layouts, args.only


def main():
    pdt, layouts, only = arguments("1x1,2x2,4x1")
    asked = requests()
    with tempfile.TemporaryDirectory() as folder:
        wanted = expected(pdt, asked, folder)
    checks = [(f"answers {x}", answers(pdt, x, asked, wanted)) for x in layouts]
    checks += [("packed", packed(pdt, asked)), ("bad input", bad_input(pdt)), ("rough clients", rough_clients(pdt)), ("many bodies", many_bodies(pdt)), ("limits", limits(pdt)), ("keys", keys(pdt)), ("TLS", tls(pdt))]
    checks += [(f"signals {x}", signals(pdt, x)) for x in layouts[:2]] + [(f"idle {x}", idle(pdt, x)) for x in layouts]
    checks += [(f"death {x}", death(pdt, x)) for x in layouts if harness.Layout(x).ranks > 1][:1]
    checks += [(f"stuck {x}", stuck(pdt, x)) for x in layouts if harness.Layout(x).ranks > 1][:1]
    checks += [("refusals", refusals(pdt)), ("stop", stops(pdt)), ("early", early(pdt)), ("logprobs", logprobs(pdt, layouts)), *((f"choices {x}", choices(pdt, x)) for x in sorted({layouts[0], layouts[-1]})), ("min_tokens", min_tokens(pdt)), ("strict gamma", strict_gamma(pdt, layouts[-1])), ("chat", chat(pdt)), (f"journal {layouts[-1]}", journal(pdt, asked, wanted, layouts[-1]))]
    checks += [(f"rounds {layouts[0]}", rounds(pdt, layouts[0], asked)), ("page", page(pdt))]
    checks += [("curl", curl(pdt)), ("openai", openai_client(pdt))]
    harness.run_checks([c for c in checks if only in c[0]])


if __name__ == "__main__":
    main()
