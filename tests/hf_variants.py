#!/usr/bin/env python3
"""Models that are written in ways of their own: read as Hugging Face transformers reads them.

usage: hf_variants.py PDT              what transformers answered, as recorded in tests/data/hf_variants.json
       hf_variants.py PDT --fresh      the same, and transformers asked anew (needs torch and transformers)
       hf_variants.py --record         make tests/data/hf_variants.json anew

Every variant is a model of tests/data/hf that was edited: its config.json, its tensors' names, its
index, its header. pdt must give the same tokens and hidden states (see hf_families.py), and say what
it took where a user should know. Where transformers refuses, and pdt need not, the answer is that of
the model before it was edited. Those that nobody can compute are refused by name.
"""
import argparse
import json
import os
import random
import re
import shutil
import struct
import sys
import tempfile

import harness
import hf_families
from safetensors_edit import File

ANSWERS = os.path.join(harness.TESTS, "data", "hf_variants.json")
DROP = object()

# ------------------------------------------------------------------ edits of a model's folder


def config(**changes):
    def edit(folder):
        path = os.path.join(folder, "config.json")
        with open(path) as f:
            value = {**json.load(f), **changes}
        with open(path, "w") as f:
            json.dump({k: v for k, v in value.items() if v is not DROP}, f)

    return edit


def text(name, change):
    """Changes a file's bytes."""

    def edit(folder):
        path = os.path.join(folder, name)
        with open(path, "rb") as f:
            raw = f.read()
        with open(path, "wb") as f:
            f.write(change(raw))

    return edit


def tensors(change, name="model.safetensors"):
    """Changes the tensors of a file: a dict of name: (entry, bytes)."""

    def edit(folder):
        path = os.path.join(folder, name)
        f = File(path)
        held = {n: (e, bytes(f.data[slice(*e["data_offsets"])])) for n, e in f.header.items() if n != "__metadata__"}
        change(held)
        f.header, f.data = {"__metadata__": f.header["__metadata__"]}, bytearray()
        for n, (entry, data) in held.items():
            f.header[n] = dict(entry, data_offsets=[len(f.data), len(f.data) + len(data)])
            f.data += data
        f.write(path)

    return edit


def header(change, name="model.safetensors"):
    """Changes the header's text."""

    def edit(folder):
        path = os.path.join(folder, name)
        f = File(path)
        f.write(path, header_text=change(json.dumps(f.header)).encode())

    return edit


def rename(rule):
    def change(held):
        for name in list(held):
            held[rule(name)] = held.pop(name)

    return tensors(change)


def add(name, dtype, shape, data):
    return tensors(lambda held: held.update({name: (dict(dtype=dtype, shape=shape), data)}))


def drop(part):
    return tensors(lambda held: [held.pop(name) for name in list(held) if part in name])


def index(change):
    def edit(folder):
        path = os.path.join(folder, "model.safetensors.index.json")
        with open(path) as f:
            value = json.load(f)
        change(value["weight_map"])
        with open(path, "w") as f:
            json.dump(value, f)

    return edit


def into_subfolder(folder):
    os.mkdir(os.path.join(folder, "shards"))
    for name in os.listdir(folder):
        if name.startswith("model-"):
            os.rename(os.path.join(folder, name), os.path.join(folder, "shards", name))
    index(lambda m: m.update({k: "./shards/" + v for k, v in m.items()}))(folder)


def swap_shards(weight_map):
    """Every tensor is listed for the other file."""
    a, b = sorted(set(weight_map.values()))
    weight_map.update({k: b if v == a else a for k, v in weight_map.items()})


def numbers(n, kind):
    """n random numbers as struct writes them: "f", or "e" for F16."""
    r = random.Random(1)
    return struct.pack(f"<{n}{kind}", *[r.gauss(0, 0.4) for _ in range(n)])


def as_head(held):
    held["lm_head.weight"] = held["model.embed_tokens.weight"]


def as_head_only(held):
    held["lm_head.weight"] = held.pop("model.embed_tokens.weight")


def scaled(**keys):
    return config(rope_scaling=keys)


ODD_KEYS = '"nan": NaN, "inf": -Infinity, "huge": 123456789012345678901234567890, "half": "\\ud800", "far": 1e999, "\\udfff": {"x": [NaN]}, '
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=8)

# ------------------------------------------------------------------ what is tried
# name: (model of tests/data/hf, edit or edits, what pdt inspect says or None)
SAME = {
    "rope_scaling beside rope_parameters, linear": ("llama-2", config(rope_parameters=dict(rope_type="default", rope_theta=500.0), rope_scaling=dict(type="linear", factor=2.0)), "warning: .*'rope_scaling' is taken"),
    "rope_scaling beside rope_parameters, its own theta": ("qwen3", scaled(rope_type="linear", factor=4.0, rope_theta=700.0), "warning: "),
    "rope_scaling beside rope_parameters, theta outside": ("mistral", [config(rope_theta=300.0), scaled(type="linear", factor=1.5)], "warning: "),
    "rope_scaling beside rope_parameters, llama3": ("sharded", scaled(**LLAMA3, original_max_position_embeddings=16), "warning: "),
    "rope_scaling of nothing": ("llama-2", [config(rope_parameters=dict(rope_theta=50.0)), config(rope_scaling={})], None),
    "rope theta outside of rope_parameters": ("llama-2", config(rope_parameters=dict(rope_type="default"), rope_theta=50.0), None),
    "linear, factor 1": ("llama-2", config(rope_parameters=DROP, rope_scaling=dict(type="linear", factor=1)), None),
    "linear in rope_parameters": ("qwen2", config(rope_parameters=dict(rope_type="linear", factor=3.0, rope_theta=100.0)), None),
    "llama3 without its original length": ("llama-biases", config(rope_parameters=dict(LLAMA3, rope_theta=10000.0)), "note: .*'original_max_position_embeddings' is missing: 128"),
    "llama3, original length in both": ("llama-2", config(rope_parameters=dict(LLAMA3, original_max_position_embeddings=64), original_max_position_embeddings=16), None),
    "yarn": ("llama-2", config(rope_parameters=dict(YARN, rope_theta=10000.0)), None),
    "yarn, whole heads of 8": ("qwen3", config(rope_parameters=dict(YARN, rope_theta=10000.0)), None),
    "yarn, of the config's length": ("mistral", config(rope_parameters=dict(rope_type="yarn", factor=4.0)), "note: "),
    "yarn, factor by lengths": ("qwen3", config(rope_parameters=dict(YARN, factor=None)), None),
    "yarn, not truncated": ("qwen3", config(rope_parameters=dict(YARN, truncate=False)), None),
    "yarn, attention_factor": ("qwen3", config(rope_parameters=dict(YARN, attention_factor=0.7)), None),
    "yarn, mscale": ("qwen2", config(rope_parameters=dict(YARN, mscale=0.9, mscale_all_dim=0.3)), None),
    "yarn, one mscale": ("qwen2", config(rope_parameters=dict(YARN, mscale=0.9)), None),
    "yarn, other turns": ("qwen3", config(rope_parameters=dict(YARN, beta_fast=2, beta_slow=0.25, original_max_position_embeddings=64)), None),
    "yarn by hand, as model cards say": ("qwen2", scaled(type="yarn", factor=4.0, original_max_position_embeddings=32), "warning: "),
    "tied, another head": ("qwen2", add("lm_head.weight", "F16", [72, 16], numbers(72 * 16, "e")), "warning: .*ties the head"),
    "tied, a copy": ("qwen2", tensors(as_head), None),
    "tied, the head only": ("qwen2", tensors(as_head_only), None),
    "tied, the head only, with a prefix": ("smollm2", [tensors(as_head_only), rename(lambda n: "model." + n if n.startswith("lm") else n)], None),
    "names without a prefix": ("llama-3", rename(lambda n: n.removeprefix("model.")), None),
    "names with two": ("llama-2", rename(lambda n: "model." + n), None),
    "some names without": ("qwen3", rename(lambda n: n.removeprefix("model.") if "layers.1" in n else n), None),
    "a base model": ("smollm2", [rename(lambda n: n.removeprefix("model.")), config(architectures=["LlamaModel"])], None),
    "a layer's tensor twice, one without a prefix": ("llama-2", add("layers.0.mlp.up_proj.weight", "F32", [20, 16], numbers(320, "f")), "warning: .*'layers.0.mlp.up_proj.weight' is used and 'model.layers.0.mlp.up_proj.weight' is not"),
    "the last norm twice, one with two": ("llama-2", add("model.model.norm.weight", "F32", [16], numbers(16, "f")), "warning: .*'model.model.norm.weight' is used"),
    "the last norm twice, one without": ("llama-2", add("norm.weight", "F32", [16], numbers(16, "f")), "warning: .*'model.norm.weight' is used and 'norm.weight' is not"),
    "a tied embedding twice": ("qwen2", add("embed_tokens.weight", "F16", [72, 16], numbers(72 * 16, "e")), "warning: .*'embed_tokens.weight' is used"),
    "three names of a tensor": ("llama-2", [add("layers.1.mlp.up_proj.weight", "F32", [20, 16], numbers(320, "f")), add("model.model.layers.1.mlp.up_proj.weight", "F32", [20, 16], numbers(320, "f"))], "warning: .*'layers.1.mlp.up_proj.weight' is used"),
    "is_causal": ("llama-2", config(is_causal=True), None),
    "no head_dim": ("llama-2", config(head_dim=DROP), None),
    "head_dim null": ("llama-2", config(head_dim=None), None),
    "no key/value heads": ("llama-2", config(num_key_value_heads=DROP), "note: .*'num_key_value_heads' is missing: 4"),
    "no longest sequence": ("llama-2", config(max_position_embeddings=DROP), "note: .*'max_position_embeddings' is missing: 2048, the default of llama"),
    "no epsilon, theta, tie": ("llama-2", config(rms_norm_eps=DROP, rope_parameters=DROP, tie_word_embeddings=DROP), "note: .*'tie_word_embeddings' is missing: false"),
    "eos and bos of -1": ("llama-2", [config(eos_token_id=-1, bos_token_id=-1), lambda f: os.remove(os.path.join(f, "generation_config.json"))], None),
    "keys that ask for nothing": ("llama-2", config(layer_norm_eps=1e-5, num_experts=0, logits_scaling=1.0, embedding_multiplier=1, residual_multiplier=1.0, attention_multiplier=1.0, alibi=False, text_config=None, clip_qkv=None), None),
    "odd values that nobody needs": ("llama-2", [text("config.json", lambda b: b.replace(b"{", b"{" + ODD_KEYS.encode(), 1)), text("generation_config.json", lambda b: b.replace(b"{", b"{" + ODD_KEYS.encode(), 1))], None),
    "keys given twice": ("llama-2", text("config.json", lambda b: b.replace(b"{", b'{"hidden_size": 12, "num_hidden_layers": 1,', 1)), None),
    "tensors that nobody needs": ("llama-2", [add("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", [2], numbers(2, "f")), add("steps", "I64", [], b"\1" * 8), add("scales", "F8_E4M3", [3], b"abc"), add("mask", "BOOL", [2, 2], b"\1\0\1\0")], None),
    "__metadata__ null": ("llama-3", header(lambda t: t.replace('{"format": "pt"}', "null")), None),
    "more keys in an entry": ("llama-3", header(lambda t: t.replace('"dtype": "BF16"', '"dtype": "BF16", "more": {"a": [123456789012345678901234567890]}')), None),
    "blanks before the header": ("llama-3", header(lambda t: " \n" + t), None),
    "index: ./": ("sharded", index(lambda m: m.update({k: "./" + v for k, v in list(m.items())[::2]})), None),
    "index: a subfolder": ("sharded", into_subfolder, None),
    "index: tensors that no file has": ("sharded", index(lambda m: m.update({"model.extra": m["lm_head.weight"]})), None),
    "index: tensors left out": ("sharded", index(lambda m: [m.pop(k) for k in list(m) if "q_proj" in k]), None),
    "index: the wrong file": ("sharded", index(swap_shards), None),
}
# transformers refuses these for how they are written; the answer is that of the model as it was
OURS = {
    "a byte-order mark": ("llama-2", [text("config.json", lambda b: b"\xef\xbb\xbf" + b), text("generation_config.json", lambda b: b"\xef\xbb\xbf" + b)], None),
    "whole numbers as 64.0": ("llama-2", config(hidden_size=16.0, num_hidden_layers=2.0, vocab_size=72.0, eos_token_id=1.0), None),
    "an integer for epsilon and theta": ("llama-2", config(rope_parameters=dict(rope_type="default", rope_theta=10000)), None),
    "index: a file that is not there, and not needed": ("sharded", index(lambda m: m.update({"model.extra": "model-9.safetensors"})), "note: .*'model-9.safetensors'"),
    "a type that nobody knows, and nobody needs": ("llama-2", add("q", "Q4_0", [32], b"x" * 18), None),
}
# transformers leaves these biases out and says so; PROTOCOL.md has them used where they are. What is
# compared with is transformers with the biases asked for.
BIASED = ("llama-biases", config(attention_bias=False, mlp_bias=False), "warning: .*bias' and others are used")
# What transformers fills with random numbers, or cannot compute.
REFUSED = {
    "qwen3 without q/k norms": ("qwen3", drop("_norm.weight"), "tensor 'model.layers.0.self_attn.q_norm.weight' is missing"),
    "qwen3 without q norms": ("qwen3", drop("q_norm"), "tensor 'model.layers.0.self_attn.q_norm.weight' is missing"),
    "qwen3 without them in one layer": ("qwen3", drop("1.self_attn.k_norm"), "tensor 'model.layers.1.self_attn.k_norm.weight' is missing"),
    "qwen2 without biases": ("qwen2", drop(".bias"), "tensor 'model.layers.0.self_attn.q_proj.bias' is missing"),
    "qwen2 without one bias": ("qwen2", drop("1.self_attn.v_proj.bias"), "tensor 'model.layers.1.self_attn.v_proj.bias' is missing"),
    "biases that the config asks for": ("llama-2", config(attention_bias=True), "tensor 'model.layers.0.self_attn.q_proj.bias' is missing"),
    "untied without a head": ("llama-2", drop("lm_head"), "tensor 'lm_head.weight' is missing"),
    "untied, the embedding as head only": ("llama-2", tensors(as_head_only), "tensor 'model.embed_tokens.weight' is missing"),
    "rope_scaling that nobody knows": ("llama-2", scaled(rope_type="nonsense", factor=2.0), "found 'nonsense'"),
    "no causal mask": ("llama-2", config(is_causal=False), "'is_causal'"),
    "dynamic": ("llama-2", scaled(rope_type="dynamic", factor=2.0), "found 'dynamic'"),
    "longrope": ("llama-2", scaled(rope_type="longrope", factor=2.0), "found 'longrope'"),
    "a rope for each kind of layer": ("qwen3", config(rope_parameters=dict(full_attention=dict(rope_type="default", rope_theta=1e4))), "'full_attention'"),
    "an epsilon that is no number": ("llama-2", text("config.json", lambda b: b.replace(b"1e-06", b"NaN")), "'rms_norm_eps': expected a number from 1e-30 to 1, found NaN"),
    "an epsilon without end": ("llama-2", text("config.json", lambda b: b.replace(b"1e-06", b"-1e999")), "found -1e999"),
    "a generation config that leads nowhere": ("llama-2", lambda f: (os.remove(os.path.join(f, "generation_config.json")), os.symlink("nowhere", os.path.join(f, "generation_config.json"))), "it is a symbolic link to a file that is not there"),
    "an extra tensor of another shape": ("llama-2", add("model.layers.0.self_attn.q_proj.bias", "F32", [3], numbers(3, "f")), "config.json does not ask for this tensor"),
    "an index beside a file": ("llama-2", [drop("model.norm.weight"), lambda f: shutil.copy(os.path.join(hf_families.RECORDED, "sharded", "model.safetensors.index.json"), f)], "model.safetensors.index.json is there, too, and was not read"),
}

# ------------------------------------------------------------------ running


def prepare(case, folder):
    base, edits, _ = case
    shutil.copytree(os.path.join(hf_families.RECORDED, base), folder)
    for edit in edits if isinstance(edits, list) else [edits]:
        edit(folder)


def ask_transformers(found, case, folder):
    """The answer of transformers, with the first prompt whose choices are clear."""
    prepare(case, folder)
    for seed in range(1, 50):
        want = hf_families.expected(*found, folder, seed, hf_families.PROMPT)
        if want:
            return want
    sys.exit(f"{case[0]}: no clear choices")


def put_answer(folder, want):
    with open(os.path.join(folder, "expected.json"), "w") as f:
        json.dump(want, f)


def compare(pdt, name, case, want, scratch):
    """What is wrong, or None."""
    folder = os.path.join(scratch, "model")
    prepare(case, folder)
    if want:
        put_answer(folder, want)
    wrong = hf_families.compare(pdt, folder, harness.Layout("1x1"), scratch)
    said = harness.run([pdt, "inspect", folder]).err
    shutil.rmtree(folder)
    notices = [line for line in said.splitlines() if "warning: " in line or "note: " in line]
    if not wrong and case[2] and not any(re.search(case[2], line) for line in notices):
        wrong = f"'{case[2]}' was not said: {notices}"
    if not wrong and not case[2] and any("warning: " in line for line in notices):
        wrong = f"said without need: {notices}"
    return wrong


def decode_says(pdt, scratch):
    """decode says it once; what only fills gaps, when it is asked to."""
    folder = os.path.join(scratch, "model")
    prepare((SAME["tied, another head"][0], [SAME["tied, another head"][1], config(rms_norm_eps=DROP)], None), folder)
    sidecar, request = os.path.join(scratch, "sidecar.safetensors"), os.path.join(scratch, "request.json")
    harness.closed_sidecar(pdt, folder, sidecar, 2)
    with open(request, "w") as f:
        json.dump(dict(prompt_ids=[3, 4, 5], settings=dict(max_tokens=4)), f)
    command = [pdt, "decode", "--model", folder, "--sidecar", sidecar, "--request", request]
    plain, verbose = [harness.run(command + more).err for more in ([], ["--verbose"])]
    shutil.rmtree(folder)
    counts = [text.count(word) for text in (plain, verbose) for word in ("warning: ", "'rms_norm_eps' is missing")]
    return None if counts == [1, 0, 1, 1] else f"{counts}: {plain} {verbose}"


def refused(pdt, case, scratch):
    folder = os.path.join(scratch, "model")
    sidecar, request = os.path.join(scratch, "sidecar.safetensors"), os.path.join(scratch, "request.json")
    harness.closed_sidecar(pdt, os.path.join(hf_families.RECORDED, case[0]), sidecar, 2)
    with open(request, "w") as f:
        json.dump(dict(prompt_ids=[3, 4, 5]), f)
    prepare(case, folder)
    wrong = harness.refusals([("decode", [pdt, "decode", "--model", folder, "--sidecar", sidecar, "--request", request], 1, case[2])], "pdt decode: ")
    shutil.rmtree(folder)
    return wrong


def close_answers(a, b):
    return a["prompt"] == b["prompt"] and a["tokens"] == b["tokens"] and harness.close(a["hidden"], b["hidden"], 1e-6)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pdt", nargs="?")
    p.add_argument("--fresh", action="store_true")
    p.add_argument("--record", action="store_true")
    a = p.parse_args()
    found = hf_families.import_transformers() if a.fresh or a.record else None
    if a.record:
        with tempfile.TemporaryDirectory() as scratch:
            answers = {name: ask_transformers(found, case, os.path.join(scratch, name.replace("/", ""))) for name, case in SAME.items()}
        with open(ANSWERS, "w") as f:
            f.write("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in answers.items()) + "\n}\n")
        return
    if not a.pdt:
        p.error("no program given")
    with open(ANSWERS) as f:
        answers = json.load(f)
    pdt = os.path.abspath(a.pdt)
    with tempfile.TemporaryDirectory() as scratch:

        def same(name, case):
            if found and not close_answers(ask_transformers(found, case, os.path.join(scratch, "theirs", name.replace("/", ""))), answers[name]):
                return "transformers answers otherwise than recorded"
            return compare(pdt, name, case, answers[name], scratch)

        checks = [(name, lambda n=name, c=case: same(n, c)) for name, case in SAME.items()]
        checks += [(name, lambda n=name, c=case: compare(pdt, n, c, None, scratch)) for name, case in OURS.items()]
        checks += [("biases that the config denies", lambda: compare(pdt, "biases", BIASED, None, scratch))]
        checks += [("decode says it once", lambda: decode_says(pdt, scratch))]
        checks += [("refused: " + name, lambda c=case: refused(pdt, c, scratch)) for name, case in REFUSED.items()]
        harness.run_checks(checks)


if __name__ == "__main__":
    main()
