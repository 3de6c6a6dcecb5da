#!/usr/bin/env python3
"""pdt perplexity: the oracle's logits, window by window; the same bytes in every layout; a model against itself; what cannot be.

usage: perplexity.py PDT [--ranks 2,4]
"""
import json
import os
import shutil
import sys
import tempfile

import harness

MODEL = os.path.join(harness.ROOT, "launch", "model")
TEXT = "Describe Velmora. Sections: history; trade.\nHistory: The first house was built by Sesan. The town dates from the year 840.\n"


def told(pdt, text, *words, ranks=0, model=MODEL):
    result = harness.run([pdt, "perplexity", "--model", model, "--text", text, "--json", *words], ranks=ranks)
    if result.status != 0:
        raise harness.Failed(f"status {result.status}: {result.err.strip()}")
    return result.out


def by_oracle(ids, context, stride):
    """Losses of all tokens but the first: each by a window of its own, computed anew."""
    sys.path.insert(0, os.path.join(harness.TESTS, "oracle"))
    try:
        import numpy as np
        import pdt_oracle
    except ImportError as e:
        harness.skip(f"the oracle needs numpy ({e})")
    trunk = pdt_oracle.Trunk(MODEL)
    losses, first, begin = [], 1, 0
    while first < len(ids):
        end = min(begin + context, len(ids))
        cache = [[[], []] for _ in range(trunk.layers)]
        for i, token in enumerate(ids[begin:end - 1]):
            logits = trunk.logits(trunk.step(token, cache, None)).astype(np.float64)
            if begin + i + 1 >= first:
                losses.append(np.log(np.sum(np.exp(logits - logits.max()))) + logits.max() - logits[ids[begin + i + 1]])
        first, begin = end, begin + stride
    return losses


def oracle(pdt, text, _):
    ids = json.loads(harness.run([pdt, "tokenize", "--model", MODEL], stdin=json.dumps(TEXT).encode()).out)
    wrong = []
    for context, stride in ((len(ids), 1), (16, 8), (5, 1), (7, 6), (2, 1)):
        found = json.loads(told(pdt, text, "--context", context, "--stride", stride))
        losses = by_oracle(ids, context, stride)
        want = sum(losses) / len(losses)
        if found["tokens"] != len(ids) - 1 or len(losses) != len(ids) - 1 or abs(found["model"]["cross_entropy"] - want) > 2e-5 * want:
            wrong.append(f"context {context}, stride {stride}: {found['tokens']} tokens, {found['model']['cross_entropy']}, expected {want}")
    return "; ".join(wrong) or None


def layouts(pdt, text, ranks):
    want = told(pdt, text, "--context", 16, "--threads", 1, "--against", MODEL, "--quantize", "q8_0")
    wrong = [str((n, tp)) for n in ranks for tp in (1, 2, 4) if n % tp == 0 and told(
        pdt, text, "--context", 16, "--tp", tp, "--threads", 1, "--against", MODEL, "--quantize", "q8_0", ranks=n) != want]
    if told(pdt, text, "--context", 16, "--threads", 2, "--against", MODEL, "--quantize", "q8_0") != want:
        wrong.append("2 threads")
    return f"other figures: {wrong}" if wrong else None


def itself(pdt, text, _):
    pair = json.loads(told(pdt, text, "--against", MODEL))["pair"]
    coarse = json.loads(told(pdt, text, "--against", MODEL, "--quantize", "q4_0"))["pair"]
    sound = pair["divergence"] == pair["most"] == pair["cross_entropy_more"] == 0 and pair["same_top"] == 1
    sound = sound and 1e-5 < coarse["divergence"] < 0.5 and coarse["median"] <= coarse["p99"] <= coarse["most"]
    return None if sound else f"{pair}, {coarse}"


def refused(pdt, text, ranks):
    with tempfile.TemporaryDirectory() as folder:
        path = lambda name: os.path.join(folder, name)
        for name, content in (("empty", b""), ("latin", b"caf\xe9 and more")):
            with open(path(name), "wb") as f:
                f.write(content)
        shutil.copytree(MODEL, path("other"))
        with open(path("other/config.json")) as f:
            config = json.load(f)
        with open(path("other/config.json"), "w") as f:
            json.dump(dict(config, vocab_size=1400), f)
        command = [pdt, "perplexity", "--model", MODEL, "--text"]
        cases = [
            ("no text", [pdt, "perplexity", "--model", MODEL], 2, "--text FILE"),
            ("no such file", [*command, path("x")], 1, "x"),
            ("an empty one", [*command, path("empty")], 1, "2 tokens or more, found 1"),
            ("no UTF-8", [*command, path("latin")], 1, "UTF-8"),
            ("another vocabulary", [*command, text, "--against", path("other")], 1, "vocab_size: expected the model's"),
            ("a context beyond the model's", [*command, text, "--context", 769], 2, "at most the model's 768"),
            ("a stride beyond the context", [*command, text, "--context", 8, "--stride", 8], 2, "less than the --context"),
            ("no context", [*command, text, "--context", 1], 2, "--context"),
        ]
        wrong = [harness.refusals(cases, "pdt perplexity: ", n) for n in (0, *ranks[:1])]
    return "; ".join(w for w in wrong if w) or None


def main():
    pdt, ranks = harness.arguments("2,4")
    with tempfile.TemporaryDirectory() as folder:
        text = os.path.join(folder, "text")
        with open(text, "w") as f:
            f.write(TEXT)
        harness.run_checks([(f.__name__, lambda f=f: f(pdt, text, ranks)) for f in (oracle, layouts, itself, refused)])


main()
