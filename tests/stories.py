#!/usr/bin/env python3
"""A real trained model tells its known story: alone, and as one of many streams.

usage: stories.py PDT [--model DIR] [--layouts ...]

The model is stories260k, from --model, or PDT_STORIES, or ../shared/models/stories260k; without it
the test is skipped. With a sidecar whose gates are closed, every stream is plain greedy decoding of
what it has read, so a stream whose prefix is the story's beginning must go on with the rest.
"""
import argparse
import json
import os
import sys
import tempfile

import harness

STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball."
)
BOS = 1
SETTINGS = dict(
    block_tokens=8, reveal_delay=1, window=8, horizon=16, gamma=0.0, policy="selective", max_attempts=2,
    max_rounds=100, temperature=0.0,
)


def texts(pdt, model, ids):
    """Token id lists to texts, by pdt's own tokenizer."""
    lines = "".join(json.dumps(x) + "\n" for x in ids).encode()
    result = harness.run([pdt, "tokenize", "--model", model, "--decode"], stdin=lines)
    if result.status != 0:
        raise harness.Failed(f"tokenize --decode: {result.err.strip()}")
    return [json.loads(line) for line in result.out.splitlines()]


class Stories:
    def __init__(self, pdt, model, scratch):
        self.pdt, self.model, self.scratch = pdt, model, scratch
        self.sidecar = os.path.join(scratch, "sidecar.safetensors")
        harness.closed_sidecar(pdt, model, self.sidecar, 8)

    def tokens(self, layout, streams, max_tokens, **request):
        """The committed tokens of every stream."""
        path = os.path.join(self.scratch, "request.json")
        settings = dict(SETTINGS, streams=streams, max_tokens=max_tokens)
        with open(path, "w") as f:
            json.dump(dict(prompt_ids=[BOS], settings=settings, **request), f)
        trace = os.path.join(self.scratch, "trace.json")
        got = harness.decode(self.pdt, self.model, self.sidecar, path, trace, layout)
        return [s["tokens"] for s in got["streams"]]

    def alone(self, layout):
        """What the story is when one stream tells it; its ids."""
        [ids] = self.tokens(layout, 1, 80)
        [text] = texts(self.pdt, self.model, [ids])
        return ids, None if text.startswith(STORY) else f"alone: {text!r}"

    def by_prefixes(self, layout, story):
        """Eight streams that have read 0, 3, 6 ... tokens of the story go on with it."""
        prefixes = [story[: 3 * k] for k in range(8)]
        got = self.tokens(layout, 8, 40, prefix_ids=prefixes)
        for k, ids in enumerate(got):
            want = story[3 * k : 3 * k + 40]
            if ids != want:
                return f"stream {k} after {3 * k} tokens: {ids} for {want}"
        return None

    def by_sections(self, layout):
        """Streams that have read sentences of the story go on with it."""
        ends = [STORY.index(w) + len(w) for w in ("little girl", "Lily.", "outside", "One day,")]
        got = self.tokens(layout, len(ends), 40, sections=[STORY[:end] for end in ends])
        for end, text in zip(ends, texts(self.pdt, self.model, got)):
            rest = STORY[end:].strip()
            shorter = min(len(rest), len(text.strip()))
            if shorter < 20 or text.strip()[:shorter] != rest[:shorter]:
                return f"after {STORY[:end]!r}: {text!r}"
        return None


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pdt")
    p.add_argument("--model", default=os.environ.get("PDT_STORIES"))
    p.add_argument("--layouts", default="1x1,2x1,3x3,4x2,4x4")
    a = p.parse_args()
    model = a.model or os.path.join(harness.ROOT, "..", "shared", "models", "stories260k")
    if not os.path.exists(os.path.join(model, "model.safetensors")):
        harness.skip("stories260k is not here (PDT_STORIES names its folder)")
    harness.need_mpirun()
    bad, runs = 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        stories = Stories(a.pdt, model, scratch)
        for layout in [harness.Layout(x) for x in a.layouts.split(",")]:
            story, wrong = stories.alone(layout)
            for what in (wrong, stories.by_prefixes(layout, story), stories.by_sections(layout)):
                runs += 1
                bad += bool(what)
                if what:
                    print(f"{layout.name}: {what}", flush=True)
    print(f"{runs - bad} of {runs} stories are the known one")
    sys.exit(bool(bad))


main()
