#!/usr/bin/env python3
"""Sections behind prompts: `pdt tokenize` of ["prompt", "section"] against Hugging Face's `tokenizers`.

usage: tests/sections.py PDT [--folder DIR] [--pairs N] [--seed S] [--only NAME]

The ids of a section are those of prompt and section as one text, behind the prompt's, for every
DIR/NAME/tokenizer.json and for variants of it with each way to put something in front of a text; long
prompts too. Where a token spans the border, a text in the middle is expected: what a tokenizer without
such a prefix makes of the section alone. Status 0: all equal; 1: not; 77: no package `tokenizers`.
"""
import argparse
import copy
import glob
import json
import os
import random
import sys
import tempfile

import compare_tokenizers as compare
from compare_tokenizers import HERE, Tokenizer

PROMPTS = ["", "Describe Velmora.", "a", "is ", "Hello\n", "x  ", "[INST] What? [/INST]", "é", "the end of th", "1", "你", "<s>", "</s> ",
           "a<s>", "a</s>\n", "\n", "don'", "a one", "[A]", "[B] ", "fi", "e"]
SECTIONS = ["", "is", "\nis", " is", "  is", "History:", "\nHistory:", "\n\nHistory:\n", "</s>", "<s>is", " <s> is", "one", "'t", "e", "\u0301",
            "23", "界", "▁is", "\u00a0is", "!", "\n", " ", "[A]", "  [A] x", "[B]  y", "HELLO", "ish one two"]
METASPACE = ("always", "first", "never")


def front(base, kind):
    """The tokenizer with one way to begin a text, and the same without any (None: there is none)."""
    t = copy.deepcopy(base)
    part, _, scheme = kind.partition(" ")
    mark = compare.metaspace(scheme or "never", True)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    if part == "prepend":
        t["normalizer"], t["pre_tokenizer"] = compare.sequence("normalizers", {"type": "Prepend", "prepend": "▁"}, replace), None
    elif part == "strip":
        t["normalizer"] = compare.sequence("normalizers", {"type": "Strip", "strip_left": True, "strip_right": False},
                                           {"type": "Prepend", "prepend": "▁"}, replace)
        t["pre_tokenizer"] = None
    elif part == "nfkc":
        t["normalizer"], t["pre_tokenizer"] = {"type": "NFKC"}, mark
    elif part == "metaspace":
        t["normalizer"], t["pre_tokenizer"] = None, mark
    elif part == "unsplit":
        t["normalizer"], t["pre_tokenizer"] = None, compare.metaspace(scheme, False)
    elif part == "digits":
        t["normalizer"] = None
        t["pre_tokenizer"] = compare.sequence("pretokenizers", {"type": "Digits", "individual_digits": True}, mark)
    elif part == "bytes":
        t["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return t


def plain(tokenizer):
    """The same tokenizer without what goes in front of a text."""
    def strip(part):
        if not isinstance(part, dict):
            return part
        part = {k: [strip(x) for x in v if not (isinstance(x, dict) and x.get("type") in ("Prepend", "Strip"))]
                if isinstance(v, list) else v for k, v in part.items()}
        if part.get("type") == "Metaspace":
            part["prepend_scheme"] = "never"
        if part.get("type") == "ByteLevel":
            part["add_prefix_space"] = False
        return part
    t = dict(tokenizer)
    for key in ("normalizer", "pre_tokenizer"):
        t[key] = strip(t[key])
        if isinstance(t[key], dict) and t[key].get("type") in ("Prepend", "Strip"):
            t[key] = None
    return t


def check(program, name, tokenizer, pairs):
    hf = Tokenizer.from_str(json.dumps(tokenizer))
    middle = Tokenizer.from_str(json.dumps(plain(tokenizer)))
    contents = [t["content"] for t in tokenizer["added_tokens"]]
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
            json.dump(tokenizer, f)
        ours = compare.pdt(program, folder, [json.dumps(list(p)) for p in pairs], "--no-special")
    if ours is None:
        return 1
    bad = spans = 0
    for (prompt, section), got in zip(pairs, ours):
        before, joined = (hf.encode(x, add_special_tokens=False).ids for x in (prompt, prompt + section))
        if joined[:len(before)] == before:
            wanted = joined[len(before):]
        elif "digits always" in name or any(c in section or c in prompt for c in contents):
            continue  # every piece of a text in the middle has a mark there
        else:
            wanted, spans = middle.encode(section, add_special_tokens=False).ids, spans + 1
        if got != wanted:
            bad += 1
            if bad <= 3:
                print(f"{name}: {prompt[-40:]!a} + {section[:40]!a}\n  pdt {got[:20]}\n  hf  {wanted[:20]}")
    print(f"{name}: {len(pairs)} pairs, {spans} with a token across the border: {'equal' if not bad else f'{bad} differ'}")
    return bad


def make_pairs(rng, n, specials, words):
    pairs = [(p, s) for p in PROMPTS for s in SECTIONS]
    strings = compare.make_strings(rng, n, specials)
    for text in strings[5:]:
        cut = rng.randrange(len(text) + 1)
        pairs.append((text[:cut], text[cut:]))
        pairs.append((text, rng.choice(SECTIONS)))
    for i in range(n // 20):  # longer than what is read again
        text = "".join(rng.choice(words) + rng.choice((" ", " ", " ", "\n", ". ", "", "  ")) for _ in range(rng.choice((400, 2000))))
        if i % 4 == 1:
            text = "".join(rng.choice("你好世界的一是，。在不了有") for _ in range(rng.randrange(1000, 3000)))
        if i % 4 == 0:
            text = rng.choice("= a.-1é你") * rng.randrange(2000, 4000) + (text[:600] if i % 8 else "")
        pairs.append((text, rng.choice(SECTIONS)))
        pairs.append((text + rng.choice(("", " ", "\n", "é", ".")), rng.choice(strings)))
    return pairs


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pdt")
    p.add_argument("--folder", default=os.path.join(HERE, "data", "tokenizers"))
    p.add_argument("--pairs", type=int, default=200)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--only", default="")
    a = p.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    bad = 0
    for path in sorted(glob.glob(os.path.join(a.folder, "*", "tokenizer.json"))):
        name = os.path.basename(os.path.dirname(path))
        if a.only and a.only not in name:
            continue
        base = json.load(open(path, encoding="utf-8"))
        kinds = [""]
        if base["model"].get("byte_fallback") or name == "metaspace":
            kinds += ["prepend", "strip"] + [f"{k} {s}" for k in ("metaspace", "unsplit", "digits", "nfkc") for s in METASPACE]
        elif not base["model"].get("end_of_word_suffix"):
            kinds += ["bytes"]
        for kind in kinds:
            rng = random.Random(f"{a.seed} {name} {kind}")
            specials = [t["content"] for t in base["added_tokens"]]
            pairs = make_pairs(rng, a.pairs, specials, compare.WORDS)
            bad += check(a.pdt, f"{name}, {kind}" if kind else name, front(base, kind), pairs)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
