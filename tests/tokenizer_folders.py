#!/usr/bin/env python3
"""Tokens that only tokenizer_config.json, special_tokens_map.json or added_tokens.json know: `pdt
tokenize` against transformers' AutoTokenizer, on random folders.

usage: tests/tokenizer_folders.py PDT [--count N] [--seed S] [--record FILE]

--record writes cases as tests/unit/test_folder.c replays them, one a line: {"files": {name: value},
"texts": [[text, ids, text of the ids], ...]}.
Status 0: all equal; 1: something differs; 77: the package `transformers` is not installed.
"""
import argparse
import json
import os
import random
import sys
import tempfile

import compare_tokenizers as compare

os.environ.update(TRANSFORMERS_VERBOSITY="critical", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
try:
    from transformers import AutoTokenizer
    import transformers
    if int(transformers.__version__.split(".")[0]) < 5:
        raise ImportError
except ImportError:
    print("skipped: the Python package transformers, 5 or later, is not installed (hint: pip install transformers)")
    sys.exit(77)

CONTENTS = ["<s>", "</s>", "<pad>", "<x>", "<y>", "[Z]", "ab", "a", "</s>x", "Q Q", "é", "<X>"]
NAMES = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]
FLAGS = ["single_word", "lstrip", "rstrip", "normalized", "special"]


def some_flags(rng):
    return {f: rng.random() < 0.4 for f in FLAGS if rng.random() < 0.6}


def full(rng, content, id):
    return {"id": id, "content": content, **{f: rng.random() < 0.4 for f in FLAGS}}


def make_tokenizer(rng):
    vocab = {c: i for i, c in enumerate(["<unk>", "<s>", "a", "b", "<", ">", "x", "y", "s", "/", " ", "▁", "ab", "é", "[", "]", "Z", "Q", "X"])}
    if rng.random() < 0.2:
        vocab["gap"] = 25
    added, n = [], len(vocab)
    for content in rng.sample(CONTENTS, rng.randrange(4)):
        added.append(full(rng, content, vocab.get(content, n)))
        n += content not in vocab
    template = None
    if rng.random() < 0.3:
        template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": rng.choice((None, None, {"type": "Lowercase"}, {"type": "NFD"})),
            "pre_tokenizer": rng.choice((None, compare.metaspace("first"))), "post_processor": template, "decoder": {"type": "Fuse"},
            "model": {"type": "BPE", "unk_token": "<unk>", "vocab": vocab, "merges": [["a", "b"]]}}


def typed(rng, content, marked=True):
    token = {"content": content, **some_flags(rng)}
    return {"__type": "AddedToken", **token} if marked else token


def either(rng, content):
    return content if rng.random() < 0.6 else typed(rng, content)


def make_config(rng):
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name in NAMES:
        if rng.random() < 0.25:
            config[name] = either(rng, rng.choice(CONTENTS))
    if rng.random() < 0.2:
        config["image_token"] = either(rng, rng.choice(CONTENTS))
    if rng.random() < 0.5:
        config["added_tokens_decoder"] = {str(rng.randrange(40)): typed(rng, c, False) for c in rng.sample(CONTENTS, rng.randrange(4))}
    key = rng.choice(("additional_special_tokens", "extra_special_tokens"))
    kind = rng.random()
    if kind < 0.4:
        config[key] = [either(rng, c) for c in rng.sample(CONTENTS, rng.randrange(3))]
    elif kind < 0.5:
        config["extra_special_tokens"] = {f"{c}_token": c for c in rng.sample(CONTENTS, 2)}
    if rng.random() < 0.2:
        config.update(add_bos_token=rng.random() < 0.5, add_eos_token=rng.random() < 0.5, add_prefix_space=rng.random() < 0.5)
    if rng.random() < 0.1:
        config["split_special_tokens"] = True
    return config


def make_map(rng):
    found = {name: rng.choice(CONTENTS) if rng.random() < 0.5 else typed(rng, rng.choice(CONTENTS), False)
             for name in NAMES if rng.random() < 0.25}
    if rng.random() < 0.3:
        found["additional_special_tokens"] = rng.sample(CONTENTS, rng.randrange(3))
    if rng.random() < 0.2:
        found["extra_special_tokens"] = [c if rng.random() < 0.5 else typed(rng, c, False) for c in rng.sample(CONTENTS, 2)]
    if rng.random() < 0.2:
        found["video_token"] = rng.choice(CONTENTS)
    return found


def make_files(rng):
    files = {"tokenizer.json": make_tokenizer(rng), "config.json": {"model_type": "llama"}, "tokenizer_config.json": make_config(rng)}
    if rng.random() < 0.4:
        files["special_tokens_map.json"] = make_map(rng)
    if rng.random() < 0.3:
        contents = rng.sample(CONTENTS, rng.randrange(1, 4))
        files["added_tokens.json"] = dict(zip(contents, rng.sample(range(40), len(contents))))
    if rng.random() < 0.1:
        del files["tokenizer_config.json"]
    return files


def write(folder, files):
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))
    for name, value in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            json.dump(value, f)


def theirs(folder, texts):
    """Ids and texts; None where AutoTokenizer refuses, or takes one of two tokens that are the same in
    a text by chance."""
    try:
        t = AutoTokenizer.from_pretrained(folder)
    except Exception:
        return None
    found = []
    for token in t._tokenizer.get_added_tokens_decoder().values():
        if token.normalized:
            found.append(t._tokenizer.normalizer.normalize_str(token.content) if t._tokenizer.normalizer else token.content)
    if len(found) != len(set(found)):
        return None
    ids = compare.theirs(t.encode, texts)
    return ids, compare.theirs(lambda i: t._tokenizer.decode(i, skip_special_tokens=True), [i or [] for i in ids])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pdt")
    p.add_argument("--count", type=int, default=150)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--record")
    a = p.parse_args()
    bad = refused = 0
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(a.count):
            rng = random.Random(f"{a.seed} {i}")
            files = make_files(rng)
            texts = ["".join(rng.choice(CONTENTS + [" ", "b"]) for _ in range(rng.randrange(1, 7))) for _ in range(6)]
            write(folder, files)
            wanted = theirs(folder, texts)
            if wanted is None:
                refused += 1
                continue
            got = compare.pdt(a.pdt, folder, [json.dumps(t) for t in texts])
            back = compare.pdt(a.pdt, folder, [json.dumps(i or []) for i in wanted[0]], "--decode")
            if got is None or back is None:
                bad += 1
                continue
            rows = [r for r in zip(texts, got, wanted[0], back, wanted[1]) if r[2] is not None]
            wrong = [r for r in rows if r[1] != r[2] or r[3] != r[4]]
            if wrong:
                bad += 1
                if bad <= 4:
                    print(f"folder {i}: {wrong[0]!a}\n  {json.dumps({k: v if k != 'tokenizer.json' else v['added_tokens'] for k, v in files.items()})}"
                          f" {files['tokenizer.json']['normalizer']}")
            else:
                cases.append({"files": files, "texts": [[r[0], r[2], r[4]] for r in rows]})
    if a.record:
        with open(a.record, "w", encoding="utf-8") as f:
            for case in cases:
                f.write(json.dumps(case, separators=(",", ":")) + "\n")
    print(f"{a.count} folders, {refused} refused: {'equal' if not bad else f'{bad} differ'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
