#!/usr/bin/env python3
"""Compares `pdt tokenize` with Hugging Face's `tokenizers` on random Unicode strings.

usage: tests/compare_tokenizers.py PDT [--folder DIR] [--strings N] [--seed S] [--variants] [--only NAME]

Every DIR/NAME/tokenizer.json (by default those of tests/data/tokenizers) is asked for ids, with and
without special tokens, and for the text of those ids and of random ones. DIR/strings.json, a list,
adds strings. --variants also rebuilds the first of them with many normalizers, pre-tokenizers and
decoders. Status 0: all equal; 1: something differs; 77: the package `tokenizers` is not installed.
"""
import argparse
import glob
import json
import os
import random
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
# requests.py here must not stand for the package of that name.
sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != HERE]
try:
    from tokenizers import Tokenizer
except ImportError:
    print("skipped: the Python package tokenizers is not installed (hint: pip install tokenizers)")
    sys.exit(77)

SPACES = "\t\n\v\f\r \x85\xa0\u1680\u180e\u2000\u2003\u200a\u200b\u2028\u2029\u202f\u205f\u3000\ufeff\x1c\x1f"
MARKS = "\u0300\u0301\u0323\u0327\u0334\u0345\u05b0\u0591\u0e38\u0f71\u3099\u1ab0\u0308\u20dd\u0338\ufe0f\u200d\u1100\u1161\u11a8"
WORDS = (
    "the of and to in I'm we'LL DON'T it'S you'Re they'vE 'Tis hello world Hello, World! naïve café Straße ſharp K2 "
    "x'\u017fy a'\u212a 123 45678 3.14 １２３ ٣٤٥ ①② Ⅷ ½ ² 你好世界 こんにちは カタカナ 안녕 각 Привет мир שלום مرحبا नमस्ते "
    "ไทย İstanbul ΣΑΣ ﬁne Ǆ ǆ 𝔘𝔫𝔦 😀 👍🏽 👨‍👩‍👧 🇩🇪 ▁ ▁▁ Ġ <0x41> <0x0A> <s> </s> <unk> http://a.b/c?d=e&f "
    "int main(void){return 0;} \\n \\ \" ' `` -- … « » 。 ， ! ? #@$%^&*()_+=~[]{}|;:<>/ é e\u0301 ö o\u0308 ệ Å \u212b ﷺ ｶﾞ "
    "\u0958 \u2126 \ud55c \u1112\u1161\u11ab"
).split(" ")


def assigned():
    """Characters of all planes: what Python knows, what it does not, private use, the last ones."""
    ranges = [(0, 0x7F), (0x80, 0x24F), (0x250, 0x58F), (0x590, 0x8FF), (0x900, 0xDFF), (0xE00, 0x1CFF),
              (0x1D00, 0x2BFF), (0x2C00, 0x33FF), (0x3400, 0x9FFF), (0xA000, 0xABFF), (0xAC00, 0xD7FF),
              (0xE000, 0xFAFF), (0xFB00, 0xFFFF), (0x10000, 0x10FFF), (0x11000, 0x13FFF), (0x14000, 0x18FFF),
              (0x1B000, 0x1CFFF), (0x1D000, 0x1DFFF), (0x1E000, 0x1EFFF), (0x1F000, 0x1FBFF), (0x20000, 0x323AF),
              (0xE0000, 0xE01EF), (0xF0000, 0x10FFFF)]
    return ranges


def make_strings(rng, n, specials):
    ranges = assigned()

    def char():
        return chr(rng.randint(*rng.choice(ranges)))

    def part():
        kind = rng.randrange(12)
        if kind < 3:
            return rng.choice(WORDS)
        if kind == 3:
            return rng.choice(SPACES) * rng.choice((1, 1, 1, 2, 3, 7))
        if kind == 4:
            return " " * rng.choice((1, 1, 2, 5, 20))
        if kind == 5:
            return char() + "".join(rng.choice(MARKS) for _ in range(rng.randrange(5)))
        if kind == 6:
            return "".join(char() for _ in range(rng.randrange(1, 6)))
        if kind == 7:
            return "".join(rng.choice("0123456789") for _ in range(rng.randrange(1, 9)))
        if kind == 8 and specials:
            return rng.choice(("", " ", "\n", "a")) + rng.choice(specials) + rng.choice(("", " ", "  \t", "b"))
        if kind == 9:
            return rng.choice(("\r\n", "\n\n", " \n", "\n ", "\r", "\t\t"))
        if kind == 10:
            return rng.choice((rng.choice(WORDS), char(), "a", "=", " ")) * rng.choice((2, 3, 30, 200))
        return rng.choice(WORDS) + " "

    strings = ["", " ", "\n", "\0", "a\0b"]
    while len(strings) < n:
        strings.append("".join(part() for _ in range(rng.choice((1, 2, 3, 5, 8, 20)))))
    return strings


def pdt(program, folder, lines, *flags):
    done = subprocess.run([program, "tokenize", "--model", folder, *flags], input="\n".join(lines) + "\n",
                          capture_output=True, text=True)
    if done.returncode:
        print(f"{folder}: pdt tokenize {' '.join(flags)}: status {done.returncode}: {done.stderr.strip()}")
        return None
    return [json.loads(line) for line in done.stdout.split("\n")[:-1]]


def theirs(function, inputs, errors=False):
    """What the library makes of the inputs; None where it panics (it does when a normalizer that
    removes characters meets added tokens) or, with `errors`, refuses. Its reports of that are kept
    off standard error."""
    def one(x):
        try:
            return function(x)
        except BaseException as e:
            if type(e).__name__ != "PanicException" and not (errors and type(e) is Exception):
                raise
            return None

    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        return [one(x) for x in inputs]
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def differing(name, what, inputs, ours, hf):
    if ours is None:
        return 1
    bad = [i for i in range(len(inputs)) if hf[i] is not None and (i >= len(ours) or ours[i] != hf[i])]
    for i in bad[:3]:
        print(f"{name}: {what}: {inputs[i]!a:.300}\n  pdt {str(ours[i])[:300]!a}\n  hf  {str(hf[i])[:300]!a}")
    return len(bad)


def compare(program, name, folder, strings, rng):
    hf = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    lines = [json.dumps(s) for s in strings]
    plain = theirs(lambda s: hf.encode(s, add_special_tokens=False).ids, strings)
    special = theirs(lambda s: hf.encode(s, add_special_tokens=True).ids, strings)
    bad = differing(name, "ids", strings, pdt(program, folder, lines, "--no-special"), plain)
    bad += differing(name, "ids with special tokens", strings, pdt(program, folder, lines), special)
    size = 1 + max(hf.get_vocab(with_added_tokens=True).values())
    arrays = [a for a in special if a is not None]
    arrays += [[rng.randrange(size) for _ in range(rng.randrange(1, 30))] for _ in range(len(strings) // 2)]
    texts = theirs(hf.decode, arrays)
    bad += differing(name, "text", arrays, pdt(program, folder, [json.dumps(a) for a in arrays], "--decode"), texts)
    panics = plain.count(None) + special.count(None) + texts.count(None)
    print(f"{name}: {len(strings)} strings, {len(arrays)} arrays, {sum(map(len, filter(None, plain)))} ids: "
          f"{'equal' if not bad else f'{bad} differ'}{f' ({panics} panics of theirs left out)' if panics else ''}")
    return bad


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def metaspace(scheme, cut=True):
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut}


def sequence(key, *parts):
    return {"type": "Sequence", key: list(parts)}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
NORMALIZERS = [
    {"type": t} for t in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "ByteLevel")
] + [
    {"type": "Strip", "strip_left": True, "strip_right": False},
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
    {"type": "Replace", "pattern": {"Regex": r"l+|(?<=o) ?"}, "content": "-"},
    {"type": "Replace", "pattern": {"String": "l"}, "content": ""},
    sequence("normalizers", {"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, {"type": "NFKC"}),
]
PRETOKENIZERS = [
    sequence("pretokenizers", {"type": t}, BYTES) for t in ("Whitespace", "WhitespaceSplit", "Punctuation")
] + [
    sequence("pretokenizers", {"type": "Digits", "individual_digits": i}, {**BYTES, "use_regex": u, "add_prefix_space": p})
    for i in (True, False) for u in (True, False) for p in (True, False)
] + [
    sequence("pretokenizers", {"type": "Punctuation", "behavior": b}, split(r"\s+", b, True), split("a", b, False, "String"), BYTES)
    for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
] + [
    sequence("pretokenizers", split(pattern, behavior, invert), BYTES)
    for behavior in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous")
    for invert in (False, True)
    for pattern in (r"\p{N}{1,3}", r"\w+|[^\w\s]+", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{Lu}?\p{Ll}*")
] + [
    sequence("pretokenizers", *[split(p) for p in chain], BYTES)
    for chain in (
        [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}"],
        [r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+",
         r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
        [r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
        [r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"],
        [r" ?[^(\s|[.,!?…。，、।۔،])]+"],
        [r"^.", r".$", r"\b", r"\Aa+", r"(?m:a.b)", r"\h{2}", r"[[:digit:]]+", r"\p{Han}+|\p{Hiragana}", r"\p{^L}{3}?", r"a{,2}b"],
        [r"(?i)straße|ΣΑΣ|k|[a-c]"],
        [r"(?<=\s)\S", r"(?<!\p{L})\d+(?=\.)", r"(?>a+|b)c?"],
    )
] + [metaspace(s, c) for s in ("always", "first", "never") for c in (True, False)] + [
    sequence("pretokenizers", split(r"\d", b), metaspace("first")) for b in ("Isolated", "MergedWithNext")
]
DECODERS = [
    None,
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "ByteFallback"}, metaspace("always"), metaspace("never"),
    sequence("decoders", {"type": "Replace", "pattern": {"Regex": "[aeiou]+"}, "content": "_"}, {"type": "Fuse"},
             {"type": "Replace", "pattern": {"String": "__"}, "content": "▁"}, metaspace("first")),
    sequence("decoders", {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 2, "stop": 0}),
    sequence("decoders", {"type": "ByteFallback"}, {"type": "Strip", "content": "a", "start": 1, "stop": 0}, {"type": "Fuse"}),
]


def variants(base):
    """The tokenizer with other parts, and added tokens of all kinds."""
    def added(content, **flags):
        return dict({"id": 0, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
                     "normalized": False, "special": False}, **flags)

    more = [added("[A]", lstrip=True), added("[B]", rstrip=True, special=True), added("[AB]"), added("one", single_word=True),
            added("Naïve", normalized=True), added("HELLO", normalized=True, lstrip=True, rstrip=True),
            added("\t\t"), added("12", single_word=True, special=True), added("é", normalized=True)]
    known = {t["content"] for t in base["added_tokens"]} | set(base["model"]["vocab"])
    n = len(base["model"]["vocab"]) + len([t for t in base["added_tokens"] if t["content"] not in base["model"]["vocab"]])
    new = [dict(t, id=n + i) for i, t in enumerate(t for t in more if t["content"] not in known)]
    for key, values in (("normalizer", NORMALIZERS), ("pre_tokenizer", PRETOKENIZERS), ("decoder", DECODERS)):
        for i, value in enumerate(values):
            yield f"{key} {i}", dict(base, **{key: value}, added_tokens=base["added_tokens"] + new)
    for i, pre in enumerate(PRETOKENIZERS):
        yield f"mixed {i}", dict(base, normalizer=NORMALIZERS[i % len(NORMALIZERS)], pre_tokenizer=pre,
                                 added_tokens=base["added_tokens"] + new)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pdt")
    p.add_argument("--folder", default=os.path.join(HERE, "data", "tokenizers"))
    p.add_argument("--strings", type=int, default=500)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--variants", action="store_true")
    p.add_argument("--only", default="")
    a = p.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    paths = sorted(glob.glob(os.path.join(a.folder, "*", "tokenizer.json")))
    if not paths:
        print(f"{a.folder}: no tokenizers")
        return 1
    extra = []
    if os.path.exists(os.path.join(a.folder, "strings.json")):
        extra = json.load(open(os.path.join(a.folder, "strings.json"), encoding="utf-8"))
    bad = 0
    for path in paths:
        name = os.path.basename(os.path.dirname(path))
        if a.only and a.only != name:
            continue
        base = json.load(open(path, encoding="utf-8"))
        rng = random.Random(f"{a.seed} {name}")
        specials = [t["content"] for t in base["added_tokens"]] + ["[A]", "[B]", "[AB]", "one", "naïve", "Hello", "12"]
        bad += compare(a.pdt, name, os.path.dirname(path), extra + make_strings(rng, a.strings, specials), rng)
        if not a.variants:
            continue
        with tempfile.TemporaryDirectory() as folder:
            for label, variant in variants(base):
                json.dump(variant, open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8"))
                bad += compare(a.pdt, f"{name}, {label}", folder, make_strings(rng, a.strings, specials), rng)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
