#!/usr/bin/env python3
"""Small random tokenizers and texts, through `pdt tokenize` and Hugging Face's `tokenizers`.

usage: tests/random_tokenizers.py PDT [--count N] [--seed S] [--show N] [--record FILE]

Added tokens with every flag, side by side, overlapping, twice, normalized to something else or to
nothing; normalizers that change lengths; pre-tokenizers of every kind; a vocabulary of a few characters.
Compared are ids, with and without special tokens, their text, and sections behind prompts. --record
writes cases that are equal, one a line, as tests/unit/test_tokenizer.c replays them: {"tokenizer": ...,
"texts": [[text, ids, ids with special tokens, text of these], ...]}.
Status 0: all equal; 1: something differs; 77: the package `tokenizers` is not installed.
"""
import argparse
import json
import os
import random
import resource
import sys
import tempfile

import compare_tokenizers as compare
from compare_tokenizers import Tokenizer

# Letters, digits and spaces of which normal forms, lowercase and accents make more, fewer or other ones.
ALPHABET = ["a", "b", "A", "B", "1", "2", " ", " ", "\n", "\t", ".", ",", "_", "\u00a0", "\u3000", "é", "e", "\u0301", "\u0323", "½", "ﬁ", "İ", "ß",
            "Å", "각", "\u1100", "\u1161", "ㅏ", "①", "你", "😀", "▁", "\u0345", "\u0958", "ǆ", "'", "s", "\u200d", "\u0897", "ﷺ"]
REGEXES = [r"\s+", r"a|b+", r"[0-9]", r"\w+|[^\w\s]+", r"(?=a)", r"\p{L}+", r" ?\p{L}+", r"x*", r"^.", r"\b", r"[^a]", r"e", r"(?<=a)b", r"\s$"]
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


def text_of(rng, most, extra=()):
    parts = []
    for _ in range(rng.randrange(1, most + 1)):
        parts.append(rng.choice(extra) if extra and rng.random() < 0.45 else rng.choice(ALPHABET) * rng.choice((1, 1, 1, 2)))
        if rng.random() < 0.15:
            parts.append(" " * rng.randrange(1, 4))
    return "".join(parts)


def pattern(rng):
    return {"Regex": rng.choice(REGEXES)} if rng.random() < 0.6 else {"String": text_of(rng, 2)}


def some(rng, key, most, one):
    n = rng.randrange(most + 1)
    return None if n == 0 else one() if n == 1 else compare.sequence(key, *[one() for _ in range(n)])


def make_normalizer(rng):
    def one():
        kind = rng.choice(("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip", "Prepend", "Replace", "Replace"))
        part = {"type": kind}
        if kind == "Strip":
            part.update(strip_left=rng.random() < 0.6, strip_right=rng.random() < 0.6)
        elif kind == "Prepend":
            part.update(prepend=rng.choice(("▁", " ", "a", "é", "ab", "\u0301")))
        elif kind == "Replace":
            part.update(pattern=pattern(rng), content=rng.choice(("", " ", "▁", "a", "ab", "é", "1")))
        return part
    return some(rng, "normalizers", 3, one)


def make_pretokenizer(rng):
    def one():
        kind = rng.choice(("Metaspace", "Metaspace", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "Split", "Split", "ByteLevel"))
        if kind == "Metaspace":
            return compare.metaspace(rng.choice(("always", "first", "first", "never")), rng.random() < 0.7)
        part = {"type": kind}
        if kind == "Digits":
            part.update(individual_digits=rng.random() < 0.5)
        elif kind == "Punctuation":
            part.update(behavior=rng.choice(BEHAVIORS))
        elif kind == "Split":
            part.update(pattern=pattern(rng), behavior=rng.choice(BEHAVIORS), invert=rng.random() < 0.3)
        elif kind == "ByteLevel":
            part.update(add_prefix_space=rng.random() < 0.5, trim_offsets=True, use_regex=rng.random() < 0.5)
        return part
    return some(rng, "pretokenizers", 3, one)


def make_model(rng):
    vocab, merges = {}, []
    def add(token):
        vocab.setdefault(token, len(vocab))
    add("<unk>")
    for c in dict.fromkeys("".join(ALPHABET) + "fiksmoi\u0307ÅĠĊ½⁄\u030a\u0915\u093c١٢"):
        if rng.random() < 0.9:
            add(c)
    fallback = rng.random() < 0.4
    for byte in range(256 if fallback else 0):
        if rng.random() < 0.98:
            add(f"<0x{byte:02X}>")
    for _ in range(rng.randrange(30)):
        known = [t for t in vocab if not t.startswith("<") and " " not in t]
        left, right = rng.choice(known), rng.choice(known)
        if len(left + right) < 5 and [left, right] not in merges:
            add(left + right)
            merges.append([left, right])
    return {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": rng.random() < 0.5, "byte_fallback": fallback, "ignore_merges": rng.random() < 0.2, "vocab": vocab, "merges": merges}


def make_added(rng, model):
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    tokens, n = [], len(model["vocab"])
    for _ in range(rng.randrange(7)):
        kind = rng.random()
        content = text_of(rng, 3) if kind < 0.55 else rng.choice((" ", "  ", "[A]", "[AB]", "b]", "é", "½", "1", "a", "\n", "", "<s>"))
        if tokens and kind > 0.93:
            content = rng.choice(tokens)["content"]
        token = {"id": n + len(tokens), "content": content, **{f: rng.random() < (0.3 if f == "single_word" else 0.5) for f in flags}}
        if any(t["content"] == content for t in tokens) and rng.random() < 0.5:
            token = dict(next(t for t in tokens if t["content"] == content))
        tokens.append(token)
    return tokens


def renumber(tokenizer):
    """The ids that the library would write, so that it does not warn of others."""
    ids, n = dict(tokenizer["model"]["vocab"]), len(tokenizer["model"]["vocab"])
    for t in tokenizer["added_tokens"]:
        if t["content"] and t["content"] not in ids:
            ids[t["content"]], n = n, n + 1
        t["id"] = ids.get(t["content"], 0)
    return tokenizer


def make(rng):
    model = make_model(rng)
    t = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": make_added(rng, model), "normalizer": make_normalizer(rng),
         "pre_tokenizer": make_pretokenizer(rng), "post_processor": None, "decoder": None, "model": model}
    if rng.random() < 0.3:
        t["post_processor"] = {"type": "RobertaProcessing", "sep": ["a", 1], "cls": ["<unk>", 0], "trim_offsets": True, "add_prefix_space": True}
    return renumber(t)


def ambiguous(loaded, tokenizer):
    """Two contents that are the same once normalized: the library takes either, by chance."""
    last = {t["content"]: t for t in tokenizer["added_tokens"]}
    found = [loaded.normalizer.normalize_str(c) if loaded.normalizer else c for c, t in last.items() if t["normalized"]]
    return len(found) != len(set(found))


def known():
    """Tokenizers and texts that went wrong once."""
    def added(content, **flags):
        return dict({"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}, **flags)
    def build(tokens, normalizer=None, pre=None):
        vocab = {c: i for i, c in enumerate(["<unk>", *dict.fromkeys("ab12 \n▁⁄½éfi\u0301e")])}
        return renumber({"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, "normalizer": normalizer,
                         "pre_tokenizer": pre, "post_processor": None, "decoder": None,
                         "model": {"type": "BPE", "unk_token": "<unk>", "vocab": vocab, "merges": []}})
    spaces = ["<a>  <b>", "<a> <b> <a>", "a <b> <a>  b", " <a>\n <b>\n", "<a><b>", "  ", "a   b", "<a> ", " <b>"]
    for flags in ({"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}, {}):
        yield build([added("<a>", rstrip=True), added("<b>", lstrip=True), added(" ", **flags)]), spaces
        yield build([added("<a>", rstrip=True), added(" <b>", normalized=True, **flags), added("  ", single_word=True, **flags)]), spaces
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        for split in ({"type": "Digits", "individual_digits": True}, compare.split(".")):
            yield (build([], {"type": form}, compare.sequence("pretokenizers", split, compare.metaspace("first"))),
                   ["½", "½a", "a½", "1½", "é", "e\u0301", "\u0301e", "éa", "ﬁa", "ﬁ½", " ½"])
    twice = [added("ab"), added("a", normalized=True), added("ab"), added("b", special=True), added("b", rstrip=True)]
    yield build(twice), ["ab", "aab", "b  b", "abb a"]
    nothing = compare.sequence("normalizers", {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "StripAccents"})
    yield build([added(" ", normalized=True), added("\u0301", normalized=True), added("ab")], nothing), [" ", "a \u0301 ab", "\u0301", "1ab2"]
    for flags in ({}, {"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}, {"lstrip": True, "rstrip": True, "single_word": True}):
        gone = {"type": "Replace", "pattern": {"String": "Q"}, "content": ""}
        yield build([added("Q", normalized=True, **flags), added("ab")], gone), ["a  b", " ab", "ab  ", "1  1", "ab ab", "   ", "aQb", "Q", "b 2b"]
    yield dict(build([]), truncation={"max_length": 2, "strategy": "LongestFirst", "direction": "Right", "stride": 0},
               padding={"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
                        "pad_token": "<unk>"}), ["abab12", "a"]


def expected(tokenizer, texts):
    """What the library says: ids, ids with special tokens, their texts, sections; None where it refuses."""
    loaded = compare.theirs(Tokenizer.from_str, [json.dumps(tokenizer)], errors=True)[0]
    if loaded is None or ambiguous(loaded, tokenizer):
        return None
    loaded.no_truncation()  # as AutoTokenizer has it
    loaded.no_padding()
    def encode(text):
        return loaded.encode(text, add_special_tokens=False).ids
    plain = compare.theirs(encode, texts)
    special = compare.theirs(lambda s: loaded.encode(s).ids, texts)
    decoded = compare.theirs(lambda ids: loaded.decode(ids), [x or [] for x in special])
    pairs = []
    for text, ids in zip(texts, plain):
        for cut in {len(text) // 2, len(text) - 1}:
            first = compare.theirs(encode, [text[:cut]])[0]
            if ids is not None and first is not None and ids[:len(first)] == first:
                pairs.append((text[:cut], text[cut:], ids[len(first):]))
    return plain, special, decoded, pairs


def apart(function):
    """The result of a function in a process of its own, None where that does not end: some texts make
    the library go on for ever."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (4, 4))
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with os.fdopen(write, "w") as f:
            json.dump(function(), f)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as f:
        text = f.read()
    return json.loads(text) if os.waitpid(child, 0)[1] == 0 else None


def compare_all(program, folder, name, tokenizer, texts, show):
    """Cases that are equal, or None when something differs; [] where the library refuses the file."""
    wanted = apart(lambda: expected(tokenizer, texts))
    if not wanted:
        return []
    plain, special, decoded, pairs = wanted
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(tokenizer, f)
    lines = [json.dumps(t) for t in texts]
    ours = [compare.pdt(program, folder, lines, "--no-special"), compare.pdt(program, folder, lines),
            compare.pdt(program, folder, [json.dumps(x or []) for x in special], "--decode")]
    behind = compare.pdt(program, folder, [json.dumps(p[:2]) for p in pairs], "--no-special") if pairs else []
    if None in ours or behind is None:
        print(f"{name}: {json.dumps(tokenizer)[:3000]}")
        return None
    bad = 0
    for what, got, wanted, asked in (("ids", ours[0], plain, texts), ("special", ours[1], special, texts), ("text", ours[2], decoded, special),
                                     ("behind", behind, [p[2] for p in pairs], [p[:2] for p in pairs])):
        for g, w, a in zip(got, wanted, asked):
            if w is not None and g != w and a is not None:
                bad += 1
                if bad <= show:
                    parts = {k: v for k, v in tokenizer.items() if k not in ("model", "version", "truncation", "padding")}
                    print(f"{name}: {what} of {a!a}\n  pdt {g!a}\n  hf  {w!a}\n  {json.dumps(parts)}")
                    names = {i: t for t, i in tokenizer["model"]["vocab"].items()}
                    if what != "text":
                        print("  pdt", [names.get(i, i) for i in g], "\n  hf ", [names.get(i, i) for i in w])
    if bad:
        return None
    return [list(x) for x in zip(texts, plain, special, decoded) if None not in x]


def record(path, cases):
    """The cases of few bytes."""
    with open(path, "w", encoding="utf-8") as f:
        for tokenizer, texts in cases:
            if len(json.dumps(tokenizer)) < 3000:
                json.dump({"tokenizer": tokenizer, "texts": texts}, f, ensure_ascii=True, separators=(",", ":"))
                f.write("\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pdt")
    p.add_argument("--count", type=int, default=300)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--show", type=int, default=1)
    p.add_argument("--record")
    a = p.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    bad = n_texts = 0
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        asked = list(known())
        for i in range(a.count):
            rng = random.Random(f"{a.seed} {i}")
            tokenizer = make(rng)
            contents = [t["content"] for t in tokenizer["added_tokens"]] + [" "]
            asked.append((tokenizer, [text_of(rng, 7, contents) for _ in range(12)]))
        for i, (tokenizer, texts) in enumerate(asked):
            equal = compare_all(a.pdt, folder, f"tokenizer {i}", tokenizer, texts, a.show)
            bad += equal is None
            n_texts += len(equal or [])
            if equal:
                cases.append((tokenizer, equal))
    if a.record:
        record(a.record, cases)
    print(f"{len(asked)} tokenizers, {n_texts} texts: {'equal' if not bad else f'{bad} tokenizers differ'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
