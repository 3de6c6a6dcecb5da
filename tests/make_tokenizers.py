#!/usr/bin/env python3
"""Trains the small tokenizers of tests/data/tokenizers, one of each family, on this repository's own
text, and records what Hugging Face's `tokenizers` makes of test strings.

usage: tests/make_tokenizers.py (needs the package tokenizers; run it only to change the fixtures)
vectors.jsonl: one object a line: text, ids (with special tokens), plain (without), decoded (of ids).
"""
import glob
import json
import os
import random
import sys

import compare_tokenizers as compare
from compare_tokenizers import HERE, Tokenizer
from tokenizers import models, pre_tokenizers, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")
VOCABULARY = 560


def corpus():
    paths = sorted(glob.glob(os.path.join(HERE, "..", "runtime", "*", "*.h")))
    return [open(p, encoding="utf-8").read() for p in paths] + [" ".join(compare.WORDS)] * 20


def byte_level(prefix=False, regex=True):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def added(content, **flags):
    return dict({"id": 0, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
                 "normalized": False, "special": True}, **flags)


def train_bytes(size):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return json.loads(tok.to_str())["model"]


def train_pieces(size):
    tok = Tokenizer(models.BPE(unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)],
        limit_alphabet=120, show_progress=False))
    return dict(json.loads(tok.to_str())["model"], fuse_unk=True, byte_fallback=True)


def train_suffix(size):
    tok = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>", continuing_subword_prefix="##"))
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    tok.train_from_iterator([t.lower() for t in corpus()], trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<unk>"], end_of_word_suffix="</w>", continuing_subword_prefix="##",
        limit_alphabet=80, show_progress=False))
    return json.loads(tok.to_str())["model"]


def template(bos, id):
    return {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}}}


def families():
    bytes_model = train_bytes(VOCABULARY)
    n = len(bytes_model["vocab"])
    pieces = train_pieces(VOCABULARY + 256)
    chain = compare.sequence
    spm = [added(t, id=i) for i, t in enumerate(("<unk>", "<s>", "</s>"))]
    spm_decoder = chain("decoders", {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0})
    yield "gpt2", dict(model=dict(bytes_model, merges=[" ".join(m) for m in bytes_model["merges"]]), normalizer=None,
                       pre_tokenizer=byte_level(), post_processor=byte_level(), decoder=byte_level(),
                       added_tokens=[added("<|endoftext|>", id=n, normalized=True)])
    yield "llama3", dict(model=dict(bytes_model, ignore_merges=True), normalizer=None,
                         pre_tokenizer=chain("pretokenizers", compare.split(LLAMA3), byte_level(regex=False)),
                         post_processor=chain("processors", byte_level(), template("<|begin_of_text|>", n)), decoder=byte_level(),
                         added_tokens=[added("<|begin_of_text|>", id=n), added("<|eot_id|>", id=n + 1)])
    yield "qwen2", dict(model=bytes_model, normalizer={"type": "NFC"},
                        pre_tokenizer=chain("pretokenizers", compare.split(LLAMA3.replace("{1,3}", "")), byte_level(regex=False)),
                        post_processor=byte_level(), decoder=byte_level(),
                        added_tokens=[added("<|im_start|>", id=n), added("<|im_end|>", id=n + 1),
                                      added("<think>", id=n + 2, special=False), added("Å", id=n + 3, normalized=True, special=False)])
    yield "smollm2", dict(model=bytes_model, normalizer=None,
                          pre_tokenizer=chain("pretokenizers", {"type": "Digits", "individual_digits": True}, byte_level()),
                          post_processor=None, decoder=byte_level(),
                          added_tokens=[added("<|endoftext|>", id=n), added("<mask>", id=n + 1, lstrip=True),
                                        added("<end>", id=n + 2, rstrip=True), added("word", id=n + 3, single_word=True, special=False)])
    yield "llama2", dict(model=pieces, pre_tokenizer=None, post_processor=template("<s>", 1), decoder=spm_decoder, added_tokens=spm,
                         normalizer=chain("normalizers", {"type": "Prepend", "prepend": "▁"},
                                          {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}))
    yield "metaspace", dict(model=dict(pieces, byte_fallback=False), normalizer={"type": "NFKC"}, pre_tokenizer=compare.metaspace("first"),
                            post_processor={"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": True,
                                            "add_prefix_space": True},
                            decoder=compare.metaspace("first"), added_tokens=spm)
    yield "suffix", dict(model=train_suffix(400), normalizer=chain("normalizers", {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}),
                         pre_tokenizer=chain("pretokenizers", {"type": "Whitespace"}, {"type": "Punctuation", "behavior": "Contiguous"}),
                         post_processor=None, decoder=None, added_tokens=[added("<unk>", id=0)])


def main():
    for name, parts in families():
        folder = os.path.join(HERE, "data", "tokenizers", name)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "tokenizer.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(dict(version="1.0", truncation=None, padding=None, **parts), f, ensure_ascii=False, separators=(",", ":"))
            f.write("\n")
        hf = Tokenizer.from_file(path)
        specials = [t["content"] for t in parts["added_tokens"]]
        rng = random.Random(name)
        strings = [" ".join(compare.WORDS), " <s>a</s> b", "x <mask> y<end>  z wordy word."]
        strings += [s for s in compare.make_strings(rng, 120, specials) if len(s) < 120][:50]
        with open(os.path.join(folder, "vectors.jsonl"), "w", encoding="utf-8") as f:
            for text in strings:
                ids = hf.encode(text).ids
                json.dump(dict(text=text, ids=ids, plain=hf.encode(text, add_special_tokens=False).ids, decoded=hf.decode(ids)), f,
                          separators=(",", ":"))
                f.write("\n")


main()
