#!/usr/bin/env python3
"""What pdt answers to bad input: exit status, one message, within ten seconds, on 1 and on 4 ranks.

usage: bad_input.py PDT [--ranks 1,4] [--only TEXT] [--list]

A case breaks one thing of a sound model, sidecar and request, and names the exit status (2: a flag or
setting that cannot be; 1: a bad file, or what the system refused) and a part of the message, which
must stand on standard error exactly once, whatever the number of ranks. No case may crash or leave a
half-written output. Commands that run in one process are tried on one rank only.
"""
import argparse
import json
import os
import shutil
import signal
import struct
import sys
import tempfile
import time

import gguf_writer
import harness
import safetensors_edit
from gguf_writer import Raw, Tensor, typed

SECONDS = 10
CONFIG = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, vocab_size=320, rms_norm_eps=1e-5, rope_theta=10000.0,
    max_position_embeddings=128, tie_word_embeddings=False, hidden_act="silu", bos_token_id=1, eos_token_id=2,
    torch_dtype="float32",
)
SETTINGS = dict(streams=2, block_tokens=4, max_tokens=8, gamma=0.0)
WEIGHT = "model.layers.1.mlp.up_proj.weight"


class World:
    """A folder with a sound model/, sidecar.safetensors and request.json, one a case to break."""

    def __init__(self, folder):
        self.folder = folder
        self.model, self.sidecar = self.path("model"), self.path("sidecar.safetensors")
        self.request, self.weights = self.path("request.json"), self.path("model/model.safetensors")

    def path(self, name):
        return os.path.join(self.folder, name)

    def text(self, name, text):
        with open(self.path(name), "wb") as f:
            f.write(text if isinstance(text, bytes) else text.encode())

    def edit_json(self, name, **changes):
        """Changes keys; DROP removes one."""
        with open(self.path(name)) as f:
            value = json.load(f)
        value.update(changes)
        self.text(name, json.dumps({k: v for k, v in value.items() if v is not DROP}))

    def decode(self, *flags):
        return ["decode", "--model", self.model, "--sidecar", self.sidecar, "--request", self.request, *flags]


DROP = object()

# ------------------------------------------------------------------ ways of breaking things
# Each gives a function of the World, which returns the command line, or None for a plain decode.


def flags(*words):
    return lambda w: w.decode(*[word.replace("@", w.folder) for word in words])


def command(*words, stdin=None):
    def prepare(w):
        w.stdin = stdin if stdin is not None else b""
        return [word.replace("@", w.folder) for word in words]

    return prepare


def config(**changes):
    return lambda w: w.edit_json("model/config.json", **changes)


def request(**changes):
    return lambda w: w.edit_json("request.json", **changes)


def setting(**changes):
    return lambda w: w.edit_json("request.json", settings=dict(SETTINGS, **changes))


def file(name, text):
    return lambda w: w.text(name, text)


def gone(name):
    return lambda w: os.remove(w.path(name))


def cut(name, keep):
    """Keeps so many bytes, or that fraction of them."""

    def prepare(w):
        size = os.path.getsize(w.path(name))
        os.truncate(w.path(name), int(size * keep) if isinstance(keep, float) else keep)

    return prepare


def grown(name, size):
    """So large in name only: a sparse file."""
    return lambda w: os.truncate(w.path(name), size)


def tensors(name, change):
    """change(File) edits a safetensors file; what it returns goes to File.write."""

    def prepare(w):
        f = safetensors_edit.File(w.path(name))
        f.write(w.path(name), **(change(f) or {}))

    return prepare


def tensor(name, which, **fields):
    """Changes fields of a tensor's entry in the header."""
    return tensors(name, lambda f: f.header[which].update(fields))


def filled(name, which, value):
    return tensors(name, lambda f: f.fill(which, value))


def dropped(name, which):
    """Takes a tensor out of the file, its bytes too."""

    def change(f):
        begin, end = f.header.pop(which)["data_offsets"]
        del f.data[begin:end]
        for key, entry in f.header.items():
            if key != "__metadata__" and entry["data_offsets"][0] >= end:
                entry["data_offsets"] = [at - (end - begin) for at in entry["data_offsets"]]

    return tensors(name, change)


def moved(name, which, by):
    return tensors(name, lambda f: f.header[which].update(data_offsets=[at + by for at in f.header[which]["data_offsets"]]))


def sidecar_config(**changes):
    return tensors("sidecar.safetensors", lambda f: f.config(**changes))


def tokenizer(change):
    """change(dict) edits tokenizer.json; the request then brings a text."""

    def prepare(w):
        with open(w.path("model/tokenizer.json")) as f:
            t = json.load(f)
        change(t)
        w.text("model/tokenizer.json", json.dumps(t))
        w.edit_json("request.json", prompt="hello", prompt_ids=DROP)

    return prepare


def both(*parts):
    def prepare(w):
        line = None
        for part in parts:
            line = part(w) or line
        return line

    return prepare


def gguf(change=None, raw=None, tokens=None):
    """The model as a GGUF file: change(Gguf) edits it before, raw(bytes) gives other bytes after it was
    made; tokens(dict) edits a sound tokenizer, and the request then brings a text."""

    def prepare(w):
        made = gguf_writer.from_folder(w.model)
        if tokens:
            made.metadata.update(byte_tokens())
            tokens(made.metadata)
            w.edit_json("request.json", prompt="hello", prompt_ids=DROP)
        if change:
            change(made)
        made = made.bytes()
        w.text("m.gguf", raw(made) if raw else made)
        return ["decode", "--model", w.path("m.gguf"), "--sidecar", w.sidecar, "--request", w.request]

    return prepare


def byte_tokens():
    """A byte-level tokenizer as metadata."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    tokens = ["<|bos|>", "<|end|>", *map(chr, plain), *map(chr, range(256, 256 + 68)), "he", "ll"][:320]
    return {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, *[1] * (len(tokens) - 2)], "tokenizer.ggml.merges": ["h e", "l l"],
    }


def meta(**changes):
    """Changes metadata: a double underscore is a dot."""
    return gguf(lambda g: g.metadata.update({k.replace("__", "."): v for k, v in changes.items()}))


def meta_gone(key):
    return gguf(lambda g: g.metadata.pop(key))


def with_tensor(which, **fields):
    return gguf(lambda g: g.find(which).__dict__.update(fields))


UP = "blk.1.ffn_up.weight"
MODEL, SIDE = "model/model.safetensors", "sidecar.safetensors"
INDEX = "model/model.safetensors.index.json"

# ------------------------------------------------------------------ the table
# name: (preparation, exit status, part of the message)
WEIGHTS = {
    "weights: empty file": (file(MODEL, ""), 1, "model.safetensors: truncated"),
    "weights: five bytes": (cut(MODEL, 5), 1, "model.safetensors: truncated"),
    "weights: cut inside the header": (cut(MODEL, 100), 1, "header length"),
    "weights: cut inside the data": (cut(MODEL, 0.5), 1, "model.safetensors"),
    "weights: one byte short": (lambda w: os.truncate(w.weights, os.path.getsize(w.weights) - 1), 1, "model.safetensors"),
    "weights: bytes after the end": (lambda w: os.truncate(w.weights, os.path.getsize(w.weights) + 8), 1, "after the last"),
    "weights: header longer than the file": (tensors(MODEL, lambda f: {"header_length": 1 << 30}), 1, "header length"),
    "weights: header of 2^63 bytes": (tensors(MODEL, lambda f: {"header_length": 1 << 63}), 1, "header length"),
    "weights: header of 2^64-1 bytes": (tensors(MODEL, lambda f: {"header_length": (1 << 64) - 1}), 1, "header length"),
    "weights: header is no JSON": (tensors(MODEL, lambda f: {"header_text": b"{oops}"}), 1, "not sound JSON"),
    "weights: header is an array": (tensors(MODEL, lambda f: {"header_text": b"[1, 2]"}), 1, "begin with '{'"),
    "weights: header nested 100,000 deep": (tensors(MODEL, lambda f: {"header_text": b'{"a":' + b"[" * 100000}), 1, "header"),
    "weights: two tensors of one name": (
        tensors(MODEL, lambda f: {"header_text": json.dumps(f.header).replace("model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj").encode()}), 1, "model.safetensors"),
    "weights: overlapping offsets": (moved(MODEL, WEIGHT, -64), 1, "tensor"),
    "weights: offsets beyond the end": (moved(MODEL, WEIGHT, 1 << 40), 1, "model.safetensors"),
    "weights: offsets that wrap around": (tensor(MODEL, WEIGHT, data_offsets=[(1 << 63) - 8, -(1 << 63)]), 1, "data_offsets"),
    "weights: end before begin": (tensor(MODEL, WEIGHT, data_offsets=[4096, 64]), 1, WEIGHT),
    "weights: negative offset": (tensor(MODEL, WEIGHT, data_offsets=[-4, 6140]), 1, "data_offsets"),
    "weights: fractional offset": (tensor(MODEL, WEIGHT, data_offsets=[0.5, 64]), 1, "data_offsets"),
    "weights: shape whose product wraps around": (tensor(MODEL, WEIGHT, shape=[1 << 33, 1 << 33]), 1, WEIGHT),
    "weights: negative dimension": (tensor(MODEL, WEIGHT, shape=[-48, -32]), 1, WEIGHT),
    "weights: shape of other size than the data": (tensor(MODEL, WEIGHT, shape=[48, 31]), 1, "do not make shape"),
    "weights: shape transposed": (tensor(MODEL, WEIGHT, shape=[32, 48]), 1, "expected shape [48, 32], found [32, 48]"),
    "weights: unknown dtype": (tensor(MODEL, WEIGHT, dtype="F31"), 1, "F31"),
    "weights: integers": (tensor(MODEL, WEIGHT, dtype="I32"), 1, "expected dtype F32, F16 or BF16, found I32"),
    "weights: tensor missing": (dropped(MODEL, WEIGHT), 1, f"tensor '{WEIGHT}' is missing"),
    "weights: norm missing": (dropped(MODEL, "model.norm.weight"), 1, "model.norm.weight"),
    "weights: NaN": (filled(MODEL, WEIGHT, float("nan")), 1, WEIGHT),
    "weights: infinity": (filled(MODEL, "model.norm.weight", float("inf")), 1, "model.norm.weight"),
    "weights: none": (gone(MODEL), 1, "found neither model.safetensors nor"),
    "weights: a folder": (both(gone(MODEL), lambda w: os.mkdir(w.weights)), 1, "model.safetensors"),
    "index: names a file that is not there": (both(gone(MODEL), file(INDEX, json.dumps({"weight_map": {WEIGHT: "model-9.safetensors"}}))), 1, "model-9.safetensors"),
    "index: leaves the folder": (both(gone(MODEL), file(INDEX, json.dumps({"weight_map": {WEIGHT: "../../etc/passwd"}}))), 1, "expected a file in the model's folder"),
    "index: no weight_map": (both(gone(MODEL), file(INDEX, "{}")), 1, "weight_map"),
    "index: the file has not the tensor": (
        both(gone(MODEL), file("model/a.safetensors", b"\2\0\0\0\0\0\0\0{}"), file(INDEX, json.dumps({"weight_map": {"model.embed_tokens.weight": "a.safetensors"}}))), 1,
        "has it in 'a.safetensors', which does not have it"),
}
CONFIGS = {
    "config: none": (gone("model/config.json"), 1, "config.json: cannot open"),
    "config: empty": (file("model/config.json", ""), 1, "config.json"),
    "config: broken JSON": (file("model/config.json", '{"a": '), 1, "not sound JSON"),
    "config: an array": (file("model/config.json", "[]"), 1, "expected a JSON object"),
    "config: nested 100,000 deep": (file("model/config.json", '{"a":' + "[" * 100000), 1, "config.json"),
    "config: 5 GiB": (grown("model/config.json", 5 << 30), 1, "too large"),
    "config: not UTF-8": (file("model/config.json", b'{"model_type": "\xff\xfe"}'), 1, "config.json"),
    "config: no model type": (config(model_type=DROP, architectures=DROP), 1, "model_type"),
    "config: another architecture": (config(model_type="gpt2", architectures=["GPT2LMHeadModel"]), 1, "gpt2"),
    "config: hidden_size missing": (config(hidden_size=DROP), 1, "hidden_size"),
    "config: hidden_size negative": (config(hidden_size=-32), 1, "hidden_size"),
    "config: hidden_size 1e18": (config(hidden_size=10**18), 1, "hidden_size"),
    "config: hidden_size text": (config(hidden_size="32"), 1, "hidden_size"),
    "config: no layers": (config(num_hidden_layers=0), 1, "num_hidden_layers"),
    "config: more layers than the file": (config(num_hidden_layers=3), 1, "model.layers.2"),
    "config: vocabulary of another model": (config(vocab_size=321), 1, "expected shape [321, 32], found [320, 32]"),
    "config: heads no multiple of kv heads": (config(num_key_value_heads=3), 1, "num_key_value_heads"),
    "config: odd head size": (config(head_dim=7), 1, "size of a head"),
    "config: eps negative": (config(rms_norm_eps=-1e-5), 1, "rms_norm_eps"),
    "config: eps too large for a number": (lambda w: w.text("model/config.json", json.dumps(CONFIG).replace("1e-05", "1e999")), 1, "config.json"),
    "config: another activation": (config(hidden_act="gelu"), 1, "hidden_act"),
    "config: unknown rope type": (config(rope_scaling={"rope_type": "dynamic", "factor": 4.0}), 1, "dynamic"),
    "config: rope_scaling beside rope_parameters": (config(rope_scaling={"type": "nonsense"}, rope_parameters={"rope_type": "default"}), 1, "nonsense"),
    "config: untied, and no head": (dropped(MODEL, "lm_head.weight"), 1, "tensor 'lm_head.weight' is missing"),
    "config: llama3 rope without factor": (config(rope_scaling={"rope_type": "llama3"}), 1, "factor"),
    "config: a window of no tokens": (config(model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=0), 1, "'sliding_window'"),
    "config: layers that slide without a window": (config(layer_types=["sliding_attention"] * 2), 1, "models of type llama have none"),
    "config: a type for fewer layers than there are": (config(layer_types=["full_attention"]), 1, "'layer_types'"),
    "config: end of sequence outside the vocabulary": (config(eos_token_id=320), 1, "eos_token_id"),
}
SIDECARS = {
    "sidecar: none": (gone(SIDE), 1, "sidecar.safetensors: cannot open"),
    "sidecar: the model's file": (lambda w: shutil.copy(w.weights, w.sidecar) and None, 1, "__metadata__"),
    "sidecar: cut": (cut(SIDE, 0.7), 1, "sidecar.safetensors"),
    "sidecar: config is no JSON": (tensors(SIDE, lambda f: f.header["__metadata__"].update(config="{")), 1, "not sound JSON"),
    "sidecar: another format": (sidecar_config(format="lora"), 1, "pdt-sidecar"),
    "sidecar: version 2": (sidecar_config(version=2), 1, "version"),
    "sidecar: another model's": (sidecar_config(hidden_size=64), 1, "hidden_size"),
    "sidecar: a layer that is not there": (sidecar_config(instrumented_layers=[0, 7]), 1, "instrumented_layers"),
    "sidecar: a layer twice": (sidecar_config(instrumented_layers=[1, 1]), 1, "instrumented_layers"),
    "sidecar: unknown planner": (sidecar_config(planner="magic"), 1, "magic"),
    "sidecar: unknown pool": (sidecar_config(pool="magic"), 1, "magic"),
    "sidecar: no streams": (sidecar_config(streams=0), 1, "'streams': expected an integer"),
    "sidecar: huge plan": (sidecar_config(plan_slots=1 << 30, plan_vocab_size=1 << 30), 1, "plan_"),
    "sidecar: more streams than its tensors": (sidecar_config(streams=9), 1, "adapter."),
    "sidecar: tensor missing": (dropped(SIDE, "agree.out.weight"), 1, "agree.out.weight"),
    "sidecar: wrong shape": (tensors(SIDE, lambda f: f.header["plan.to_notes.weight"]["shape"].reverse()), 1, "plan.to_notes.weight"),
    "sidecar: NaN": (filled(SIDE, "agree.out.bias", float("nan")), 1, "agree.out.bias"),
}
REQUESTS = {
    "request: none": (gone("request.json"), 1, "request.json: cannot open"),
    "request: broken JSON": (file("request.json", '{"prompt_ids": [1,'), 1, "not sound JSON"),
    "request: no prompt": (request(prompt_ids=DROP), 1, "expected a prompt or prompt_ids, found neither"),
    "request: empty prompt": (request(prompt_ids=[]), 1, "prompt_ids"),
    "request: text and ids": (request(prompt="hello"), 1, "expected prompt or prompt_ids, found both"),
    "request: an unknown key": (request(promt="hello"), 1, "promt"),
    "request: id outside the vocabulary": (request(prompt_ids=[1, 320]), 1, "prompt_ids"),
    "request: negative id": (request(prompt_ids=[-1]), 1, "prompt_ids"),
    "request: prompt longer than the context": (request(prompt_ids=[5] * 129), 1, "max_position_embeddings"),
    "request: prompt and answer longer than the context": (request(prompt_ids=[5] * 125), 1, "max_position_embeddings"),
    "request: more prefixes than streams": (request(prefix_ids=[[3], [4], [5]]), 1, "prefix_ids"),
    "request: prefix id outside the vocabulary": (request(prefix_ids=[[3], [999]]), 1, "prefix_ids"),
    "request: plan of wrong length": (request(plan_ids=[1, 2]), 1, "plan_ids"),
    "request: plan id outside the plan vocabulary": (lambda w: w.edit_json("request.json", plan_ids=[1 << 30] * w.slots), 1, "plan_ids"),
    "request: settings are no object": (request(settings=[1]), 1, "'settings': expected an object"),
    "request: unknown setting": (setting(blok_tokens=4), 1, "blok_tokens"),
    "request: more streams than adapters": (setting(streams=9), 2, "streams: expected at most 4"),
    "request: no streams": (setting(streams=0), 2, "streams: expected an integer"),
    "request: empty blocks": (setting(block_tokens=0), 2, "block_tokens: expected"),
    "request: no delay": (setting(reveal_delay=0), 2, "reveal_delay"),
    "request: horizon below a block": (setting(horizon=2), 2, "horizon: expected at least block_tokens, 4, found 2"),
    "request: gamma is text": (setting(gamma="high"), 1, "gamma"),
    "request: unknown policy": (setting(policy="lenient"), 2, "lenient"),
    "request: negative temperature": (setting(temperature=-1), 2, "temperature"),
    "request: top_p zero": (setting(top_p=0), 2, "top_p"),
    "request: top_k negative": (setting(top_k=-1), 2, "top_k"),
    "request: seed of 70 bits": (lambda w: w.text("request.json", '{"prompt_ids": [1], "settings": {"seed": %d}}' % (1 << 70)), 1, "request.json"),
    "requests: second line broken": (both(file("r.jsonl", '{"prompt_ids": [1]}\n{"prompt'), lambda w: ["decode", "--model", w.model, "--sidecar", w.sidecar, "--requests", w.path("r.jsonl")]), 1, "r.jsonl: line 2"),
    "requests: empty file": (both(file("r.jsonl", ""), lambda w: ["decode", "--model", w.model, "--sidecar", w.sidecar, "--requests", w.path("r.jsonl")]), 1, "expected one request a line, found none"),
}
TOKENIZERS = {
    "tokenizer: none": (both(gone("model/tokenizer.json"), request(prompt="hello", prompt_ids=DROP)), 1, "tokenizer.json"),
    "tokenizer: broken JSON": (both(file("model/tokenizer.json", "{"), request(prompt="hello", prompt_ids=DROP)), 1, "not sound JSON"),
    "tokenizer: another model type": (tokenizer(lambda t: t["model"].update(type="Unigram")), 1, "Unigram"),
    "tokenizer: merge of an unknown piece": (tokenizer(lambda t: t["model"].update(merges=["qqq zzz"])), 1, "merge"),
    "tokenizer: id outside the model's vocabulary": (tokenizer(lambda t: t["model"]["vocab"].update({"qqq": 1 << 40})), 1, "tokenizer.json"),
    "tokenizer: two pieces of one id": (tokenizer(lambda t: t["model"]["vocab"].update({"qqq": 5})), 1, "tokenizer.json"),
    "tokenizer: unknown normalizer": (tokenizer(lambda t: t.update(normalizer={"type": "Shout"})), 1, "Shout"),
    "tokenizer: bad regular expression": (tokenizer(lambda t: t.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False})), 1, "tokenizer.json"),
    "tokenize: a line that is no JSON": (command("tokenize", "--model", "@/model", stdin=b'"fine"\nhello\n'), 1, "line 2"),
    "tokenize: ids that are none": (command("tokenize", "--model", "@/model", "--decode", stdin=b"[1, 99999]\n"), 1, "99999"),
    "tokenize: no model": (command("tokenize"), 2, "--model"),
}
FLAGS = {
    "flag: unknown": (flags("--blok", "3"), 2, "--blok"),
    "flag: no command": (command(), 2, "pdt: expected a command"),
    "flag: unknown command": (command("decoed"), 2, "decoed"),
    "flag: no model": (command("decode", "--sidecar", "@/sidecar.safetensors", "--prompt", "x"), 2, "--model is missing"),
    "flag: no sidecar": (command("decode", "--model", "@/model", "--prompt", "x"), 2, "--sidecar is missing"),
    "flag: nothing to decode": (command("decode", "--model", "@/model", "--sidecar", "@/sidecar.safetensors"), 2, "--prompt, --request and --requests, found none"),
    "flag: prompt and request": (flags("--prompt", "x"), 2, "found --prompt and --request"),
    "flag: request and requests": (flags("--requests", "@/request.json"), 2, "found --request and --requests"),
    "flag: an argument too many": (flags("extra"), 2, "unexpected argument 'extra'"),
    "flag: model folder that is not there": (command("decode", "--model", "@/nowhere", "--sidecar", "@/sidecar.safetensors", "--prompt", "x"), 1, "nowhere"),
    "flag: no streams": (flags("--streams", "0"), 2, "--streams: expected an integer"),
    "flag: more streams than adapters": (flags("--streams", "9"), 2, "streams: expected at most 4"),
    "flag: streams in words": (flags("--streams", "two"), 2, "found 'two'"),
    "flag: ranks no multiple of --tp": (flags("--tp", "3"), 2, "--tp: expected a number that divides the {ranks} ranks"),
    "flag: --tp 0": (flags("--tp", "0"), 2, "--tp: expected an integer"),
    "flag: negative threads": (flags("--threads", "-1"), 2, "--threads: expected"),
    "flag: a million threads": (flags("--threads", "1000000"), 2, "--threads: expected"),
    "flag: rounding for weights that are whole": (flags("--device", "cpu", "--compute", "bf16"), 2, "--compute bf16: expected weights of BF16"),
    "flag: a type that nothing is computed in": (flags("--compute", "f64"), 2, "--compute: expected f32 or bf16, found 'f64'"),
    "flag: gamma NaN": (flags("--gamma", "nan"), 2, "--gamma: expected"),
    "flag: unknown policy": (flags("--policy", "lenient"), 2, "lenient"),
    "flag: top-p above 1": (flags("--top-p", "1.5"), 2, "--top-p: expected"),
    "flag: negative temperature": (flags("--temperature", "-0.5"), 2, "--temperature: expected"),
    "flag: horizon below a block": (flags("--block-tokens", "8", "--horizon", "4"), 2, "horizon: expected at least block_tokens, 8, found 4"),
    "flag: no window": (flags("--window", "0"), 2, "--window: expected"),
    "flag: seed of 70 bits": (flags("--seed", str(1 << 70)), 2, "--seed: expected"),
    "flag: no sessions at once": (flags("--max-sessions", "0"), 2, "--max-sessions: expected"),
    "flag: cache too small for one session": (flags("--kv-memory", "4096"), 1, "--kv-memory allows"),
    "flag: no attempts": (flags("--max-attempts", "0"), 2, "--max-attempts: expected"),
    "flag: a plan that is not there": (flags("--plan", "@/plan.json"), 1, "plan.json"),
}
OUTPUTS = {
    "output: trace where there is no folder": (flags("--trace", "@/no/trace.json"), 1, "no/trace.json"),
    "output: answers where there is no folder": (flags("--out", "@/no/out"), 1, "no/out"),
    "output: journal where there is no folder": (flags("--journal", "@/no/journal"), 1, "no/journal"),
    "output: journal is a folder": (flags("--journal", "@/model"), 1, "Is a directory"),
    "output: trace on a full disk": (flags("--trace", "/dev/full"), 1, "/dev/full"),
    "output: answers on a full disk": (flags("--out", "/dev/full"), 1, "/dev/full"),
    "output: journal on a full disk": (flags("--journal", "/dev/full"), 1, "/dev/full"),
    "output: JSON on a full disk": (flags("--json", "--out", "/dev/full"), 1, "/dev/full"),
}
HELPERS = {
    "inspect: nothing there": (command("inspect", "@/nowhere"), 1, "nowhere"),
    "inspect: no path": (command("inspect"), 2, "expected a PATH"),
    "inspect: an unknown kind of file": (both(file("x", "hello"), command("inspect", "@/x")), 1, "expected a model directory, a GGUF file, a sidecar, a journal or the output"),
    "inspect: a broken model": (both(cut(MODEL, 0.5), command("inspect", "@/model")), 1, "model.safetensors"),
    "model random: no config": (command("model", "random", "--config", "@/nowhere.json", "--out", "@/new"), 1, "nowhere.json"),
    "model random: nothing said": (command("model", "random"), 2, "expected --out and one of --config and --preset"),
    "model random: impossible config": (both(config(num_key_value_heads=3), command("model", "random", "--config", "@/model/config.json", "--out", "@/new")), 1, "num_key_value_heads"),
    "model random: unknown dtype": (command("model", "random", "--config", "@/model/config.json", "--out", "@/new", "--dtype", "F31"), 2, "F31"),
    "model random: no folder to write to": (command("model", "random", "--config", "@/model/config.json", "--out", "@/no/new/x"), 1, "no/new/x"),
    "sidecar init: no model": (command("sidecar", "init", "--model", "@/nowhere", "--out", "@/s"), 1, "nowhere"),
    "sidecar init: no streams": (command("sidecar", "init", "--model", "@/model", "--out", "@/s", "--streams", "0"), 2, "--streams: expected an integer"),
    "sidecar init: no folder to write to": (command("sidecar", "init", "--model", "@/model", "--out", "@/no/s"), 1, "no/s"),
}
DATA = {
    "data atlas: no file": (command("data", "atlas"), 2, "--out"),
    "data atlas: unknown split": (command("data", "atlas", "--out", "@/d", "--split", "all"), 2, "split"),
    "data atlas: no folder to write to": (command("data", "atlas", "--out", "@/no/d", "--count", "2"), 1, "no/d"),
    "data atlas: full disk": (command("data", "atlas", "--out", "/dev/full", "--count", "2"), 1, "/dev/full"),
    "data check: nothing there": (command("data", "check", "@/nowhere"), 1, "nowhere"),
    "data check: empty": (both(file("d", ""), command("data", "check", "@/d")), 1, "/d"),
    "data check: no header": (both(file("d", '{"id": "x"}\n'), command("data", "check", "@/d")), 1, "line 1"),
    "data check: broken JSON": (both(file("d", '{"format": '), command("data", "check", "@/d")), 1, "line 1"),
}
HUGE = (1 << 64) - 1
GGUF = {
    "gguf: none": (command("decode", "--model", "@/m.gguf", "--sidecar", "@/sidecar.safetensors", "--request", "@/request.json"), 1, "m.gguf: cannot open"),
    "gguf: empty file": (gguf(raw=lambda b: b""), 1, "the file is cut short"),
    "gguf: another file": (gguf(raw=lambda b: b"GGML" + b[4:]), 1, "a file that begins with 'GGUF'"),
    "gguf: version 1": (gguf(lambda g: setattr(g, "version", 1)), 1, "expected version 2 or 3, found 1"),
    "gguf: version 4": (gguf(lambda g: setattr(g, "version", 4)), 1, "expected version 2 or 3, found 4"),
    "gguf: big-endian": (gguf(raw=lambda b: b[:4] + b"\0\0\0\3" + b[8:]), 1, "found a big-endian file"),
    "gguf: cut in the metadata": (gguf(raw=lambda b: b[:200]), 1, "no more tensors than the file has room for, found 21"),
    "gguf: cut in the list of tensors": (gguf(raw=lambda b: b[: b.index(b"output_norm.weight") + 20]), 1, "the file is cut short"),
    "gguf: cut in the data": (gguf(raw=lambda b: b[:-100]), 1, "the file is cut short"),
    "gguf: bytes after the end": (gguf(raw=lambda b: b + b"\0" * 64), 1, "bytes after the last tensor's data"),
    "gguf: 2^64-1 tensors": (gguf(lambda g: setattr(g, "n_tensors", HUGE)), 1, "no more tensors than the file has room for"),
    "gguf: 2^64-1 keys": (gguf(lambda g: setattr(g, "n_metadata", HUGE)), 1, "no more metadata than the file has room for"),
    "gguf: one key too many": (gguf(lambda g: setattr(g, "n_metadata", len(g.metadata) + 1)), 1, "m.gguf"),
    "gguf: an array of 2^62 values": (meta(x=Raw(struct.pack("<IIQ", 9, 4, 1 << 62))), 1, "no more values than the file has room for"),
    "gguf: an array of 2^61 strings": (meta(x=Raw(struct.pack("<IIQ", 9, 8, 1 << 61))), 1, "no more values than the file has room for"),
    "gguf: a string of 2^64-1 bytes": (meta(x=Raw(struct.pack("<IQ", 8, HUGE))), 1, "the file is cut short"),
    "gguf: an array of arrays": (meta(x=Raw(struct.pack("<IIQ", 9, 9, 1))), 1, "found arrays"),
    "gguf: an unknown type of value": (meta(x=Raw(struct.pack("<I", 13))), 1, "a type of value from 0 to 12, found 13"),
    "gguf: a key twice": (gguf(lambda g: g.__dict__.update(n_metadata=len(g.metadata) + 1, more=gguf_writer.string("llama.block_count") + gguf_writer.value(2))), 1, "found it twice"),
    "gguf: a key without name": (meta(**{"": 1}), 1, "a key of 1 to 65535 bytes"),
    "gguf: a key that is no text": (gguf(raw=lambda b: b.replace(b"llama.block_count", b"llama.block\xff\xfecount"[:17])), 1, "a name of printable UTF-8"),
    "gguf: alignment 24": (meta(general__alignment=24), 1, "expected a power of two, found 24"),
    "gguf: alignment 0": (meta(general__alignment=typed(4, 0)), 1, "general.alignment"),
    "gguf: an unknown type of tensor": (with_tensor(UP, number=77), 1, "expected a known type, found 77"),
    "gguf: a type that is not computed": (
        gguf(lambda g: g.find(UP).__dict__.update(number=20, data=bytes(48 * 18))), 1, "found IQ4_NL"),
    "gguf: rows that are no blocks": (
        gguf(lambda g: g.find("blk.1.ffn_down.weight").__dict__.update(number=8)), 1, "rows of a multiple of 32 elements, for Q8_0, found 48"),
    "gguf: a shape that wraps around": (with_tensor(UP, dims=[1 << 33, 1 << 33]), 1, "a shape that can be counted"),
    "gguf: a dimension of 0": (with_tensor(UP, dims=[0, 48]), 1, "a dimension of 1 or more, found 0"),
    "gguf: no dimensions": (with_tensor(UP, dims=[]), 1, "1 to 4 dimensions, found 0"),
    "gguf: five dimensions": (with_tensor(UP, dims=[32, 48, 1, 1, 1]), 1, "1 to 4 dimensions, found 5"),
    "gguf: shape transposed": (with_tensor(UP, dims=[48, 32]), 1, "expected shape [48, 32], found [32, 48]"),
    "gguf: overlapping offsets": (with_tensor(UP, offset=0), 1, "overlaps another"),
    "gguf: a hole": (with_tensor(UP, offset=1 << 40), 1, "hole before it"),
    "gguf: an offset of 2^64-1": (with_tensor(UP, offset=HUGE), 1, "one beyond 2^63"),
    "gguf: two tensors of one name": (with_tensor(UP, name="blk.0.ffn_up.weight"), 1, "there are two of that name"),
    "gguf: a tensor's name of 100 bytes": (with_tensor(UP, name="x" * 100), 1, "a name of 1 to 63 bytes, found 100"),
    "gguf: a tensor that no model has": (with_tensor(UP, name="blk.1.ffn_gate_exps.weight"), 1, "found a name that none has"),
    "gguf: a tensor of a layer too many": (with_tensor(UP, name="blk.2.ffn_up.weight"), 1, "found a name that none has"),
    "gguf: a tensor missing": (gguf(lambda g: g.tensors.remove(g.find(UP))), 1, "model.layers.1.mlp.up_proj.weight' is missing"),
    "gguf: no embedding": (gguf(lambda g: g.tensors.remove(g.find("token_embd.weight"))), 1, "token_embd.weight': is missing"),
    "gguf: NaN": (gguf(lambda g: setattr(g.find(UP), "data", struct.pack("<f", float("nan")) * 48 * 32)), 1, "found NaN or infinity"),
    "gguf: a scale that is NaN": (
        gguf(lambda g: g.find(UP).__dict__.update(number=8, data=(b"\0\x7e" + bytes(32)) * 48)), 1, "found NaN or infinity"),
    "gguf: another architecture": (meta(general__architecture="gemma3"), 1, "expected llama, qwen2 or qwen3, found 'gemma3'"),
    "gguf: no architecture": (meta_gone("general.architecture"), 1, "'general.architecture' is missing"),
    "gguf: architecture is a number": (meta(general__architecture=3), 1, "expected a string, found u32"),
    "gguf: experts": (meta(llama__expert_count=8), 1, "experts are not computed, found 8"),
    "gguf: a key of another model": (meta(llama__attention__scale=2.0), 1, "'llama.attention.scale': the model asks for"),
    "gguf: no layers": (meta(llama__block_count=0), 1, "llama.block_count"),
    "gguf: sizes missing": (meta_gone("llama.embedding_length"), 1, "'llama.embedding_length' is missing"),
    "gguf: a size a layer": (meta(llama__feed_forward_length=[48, 48]), 1, "found an array of i32"),
    "gguf: heads that do not divide": (gguf(lambda g: (g.metadata.pop("llama.attention.key_length"), g.metadata.update({"llama.attention.head_count": 5}))), 1, "expected a divisor"),
    "gguf: half of a head turns": (meta(llama__rope__dimension_count=4), 1, "the size of a head, 8, found 4"),
    "gguf: keys and values of two sizes": (meta(llama__attention__value_length=4), 1, "attention.value_length"),
    "gguf: eps NaN": (meta(llama__attention__layer_norm_rms_epsilon=float("nan")), 1, "expected a finite number, found"),
    "gguf: an unknown rope": (meta(llama__rope__scaling__type="longrope"), 1, "expected none, linear or yarn, found 'longrope'"),
    "gguf: other rope factors": (
        gguf(lambda g: g.tensors.append(Tensor("rope_freqs.weight", [4], "F32", struct.pack("<4f", 1, 2, 3, 4)))), 1, "expected the factors of llama3"),
    "gguf: too few rope factors": (
        gguf(lambda g: g.tensors.append(Tensor("rope_freqs.weight", [2], "F32", struct.pack("<2f", 1, 2)))), 1, "expected 4 of F32, found 2"),
    "gguf: end of sequence outside the vocabulary": (meta(**{"tokenizer__ggml__eos_token_id": 320}), 1, "tokenizer.ggml.eos_token_id"),
    "gguf: part of several": (meta(split__no=typed(2, 0), split__count=typed(2, 2), split__tensors__count=typed(5, 9)), 1, "-00001-of-00002.gguf"),
    "gguf: no tokenizer": (both(gguf(), request(prompt="hello", prompt_ids=DROP)), 1, "tokenizer"),
    "gguf tokenizer: an unknown model": (gguf(tokens=lambda m: m.update({"tokenizer.ggml.model": "t5"})), 1, "expected gpt2 or llama, found 't5'"),
    "gguf tokenizer: an unknown pre": (gguf(tokens=lambda m: m.update({"tokenizer.ggml.pre": "bloom"})), 1, "found 'bloom'"),
    "gguf tokenizer: no pre": (gguf(tokens=lambda m: m.pop("tokenizer.ggml.pre")), 1, "convert the model anew"),
    "gguf tokenizer: no tokens": (gguf(tokens=lambda m: m.pop("tokenizer.ggml.tokens")), 1, "expected 1 to"),
    "gguf tokenizer: a token twice": (gguf(tokens=lambda m: m["tokenizer.ggml.tokens"].__setitem__(9, "<|end|>")), 1, "elements 1 and 9: both are '<|end|>'"),
    "gguf tokenizer: a token that is no text": (gguf(tokens=lambda m: m["tokenizer.ggml.tokens"].__setitem__(9, b"\xff")), 1, "element 9: expected UTF-8"),
    "gguf tokenizer: types for fewer tokens": (gguf(tokens=lambda m: m["tokenizer.ggml.token_type"].pop()), 1, "expected a type for each of"),
    "gguf tokenizer: a type of 9": (gguf(tokens=lambda m: m["tokenizer.ggml.token_type"].__setitem__(9, 9)), 1, "element 9: expected 1 to 6, found 9"),
    "gguf tokenizer: a merge of an unknown token": (gguf(tokens=lambda m: m["tokenizer.ggml.merges"].append("qq zz")), 1, "merges: 'qq' + 'zz'"),
    "gguf tokenizer: a merge of one part": (gguf(tokens=lambda m: m["tokenizer.ggml.merges"].append("he")), 1, "merges: element 2"),
    "gguf tokenizer: scores for fewer tokens": (gguf(tokens=lambda m: m.update({"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": [0.0]})), 1, "expected a score for each of"),
    "gguf tokenizer: a score that is NaN": (
        gguf(tokens=lambda m: m.update({"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": [float("nan")] * 260})), 1, "expected a number as its score"),
    "gguf tokenizer: a file that is no JSON": (gguf(tokens=lambda m: m.update({"tokenizer.huggingface.json": "{"})), 1, "not sound JSON"),
    "model convert: nothing said": (command("model", "convert"), 2, "expected SRC and DST"),
    "model convert: nothing there": (command("model", "convert", "@/nowhere.gguf", "@/new"), 1, "nowhere.gguf: cannot open"),
    "model convert: no folder to write to": (command("model", "convert", "@/model", "@/no/new.gguf"), 1, "no/new.gguf"),
    "model convert: a weight that is NaN": (both(filled(MODEL, WEIGHT, float("nan")), command("model", "convert", "--quantize", "q8_0", "@/model", "@/new.gguf")), 1, "is not finite as Q8_0"),
    "model convert: too large for half precision": (both(filled(MODEL, WEIGHT, 1e30), command("model", "convert", "--dtype", "F16", "@/model", "@/new.gguf")), 1, "is not finite as F16"),
}
TABLE = {**DATA, **GGUF, **WEIGHTS, **CONFIGS, **SIDECARS, **REQUESTS, **TOKENIZERS, **FLAGS, **OUTPUTS, **HELPERS}

# ------------------------------------------------------------------ running


def make_base(pdt, folder):
    """The sound files; the number of plan slots of the sidecar."""
    world = World(folder)
    world.text("config.json", json.dumps(CONFIG))
    for line in (
        [pdt, "model", "random", "--config", world.path("config.json"), "--out", world.model, "--dtype", "F32"],
        [pdt, "sidecar", "init", "--model", world.model, "--out", world.sidecar, "--streams", "4", "--dtype", "F32", "--random", "--plan-vocab", "97"],
    ):
        result = harness.run(line)
        if result.status != 0:
            sys.exit(f"could not make a sound model: {' '.join(line)}: {result.err.strip()}")
    world.text("request.json", json.dumps(dict(prompt_ids=[3, 4, 5], settings=SETTINGS)))
    made = safetensors_edit.File(world.sidecar)
    return json.loads(made.header["__metadata__"]["config"])["plan_slots"]


def attempt(pdt, base, slots, prepare, ranks):
    """Runs one case in a folder of its own; a Run with `seconds` and `left` (files that should not be
    there), or None for a command of one process when there are more ranks."""
    folder = tempfile.mkdtemp(dir=os.path.dirname(base))
    try:
        shutil.copytree(base, folder, dirs_exist_ok=True)
        world = World(folder)
        world.slots, world.stdin = slots, b""
        line = prepare(world)
        line = world.decode() if line is None else line
        if ranks > 1 and line[:1] != ["decode"]:
            return None
        begin = time.monotonic()
        result = harness.run([pdt, *line], ranks if ranks > 1 else 0, timeout=SECONDS, stdin=world.stdin)
        result.seconds = time.monotonic() - begin
        result.left = [f for f in os.listdir(folder) if f.startswith(("new", "s.", "out", "trace")) or ".tmp" in f]
        return result
    finally:
        shutil.rmtree(folder)


def judge(result, status, part):
    """What is wrong with how it ended, or None."""
    if result.status is None:
        return f"no end within {SECONDS} s"
    said = [line for line in result.err.splitlines() if part in line]
    wrong = []
    if result.status != status:
        name = f" ({signal.Signals(-result.status).name})" if result.status < 0 else ""
        wrong.append(f"exit status {result.status}{name} for {status}")
    if len(said) != 1:
        wrong.append(f"'{part}' on {len(said)} lines for 1")
    for sign in ("AddressSanitizer", "runtime error:", "Segmentation fault", "signal 6", "signal 11"):
        if sign in result.err:
            wrong.append(sign)
    if result.left:
        wrong.append(f"left behind: {result.left}")
    return "; ".join(wrong) + f": {result.err.strip()[:300]!r}" if wrong else None


def sound_first(pdt, base, slots, ranks):
    """The unbroken input must pass, or the table would prove nothing."""
    result = attempt(pdt, base, slots, lambda w: None, ranks)
    if result.status != 0:
        sys.exit(f"sound input is refused on {ranks} ranks: status {result.status}: {result.err.strip()[-400:]}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pdt")
    p.add_argument("--ranks", default="1,4")
    p.add_argument("--only", default="", help="cases whose name has this in it")
    p.add_argument("--list", action="store_true", help="print what pdt said to each")
    a = p.parse_args()
    rank_counts = [int(r) for r in a.ranks.split(",")]
    if max(rank_counts) > 1:
        harness.need_mpirun()
    chosen = {name: case for name, case in TABLE.items() if a.only in name}
    counts = {}
    with tempfile.TemporaryDirectory() as scratch:
        base = os.path.join(scratch, "base")
        os.mkdir(base)
        slots = make_base(a.pdt, base)
        for ranks in rank_counts:
            sound_first(a.pdt, base, slots, ranks)
            for name, (prepare, status, part) in chosen.items():
                result = attempt(a.pdt, base, slots, prepare, ranks)
                if result is None:
                    continue
                part = part.replace("{ranks}", str(ranks))
                bad = judge(result, status, part)
                if bad:
                    print(f"FAILED  {ranks} ranks, {name}: {bad}", flush=True)
                elif a.list and ranks == rank_counts[0]:
                    print(f"{status}  {name}: {next(x for x in result.err.splitlines() if part in x)}", flush=True)
                kind = counts.setdefault((name.split(":")[0], ranks), [0, 0, 0.0])
                kind[0] += not bad
                kind[1] += 1
                kind[2] = max(kind[2], result.seconds)
    print(f"# {'kind':<14}{'ranks':>6}{'right':>7}{'of':>5}{'slowest, s':>12}")
    for (kind, ranks), (right, of, slowest) in counts.items():
        print(f"  {kind:<14}{ranks:>6}{right:>7}{of:>5}{slowest:>12.2f}")
    bad = sum(of - right for right, of, _ in counts.values())
    print(f"{len(chosen)} cases of bad input, {bad} answered wrongly")
    sys.exit(bool(bad) or not chosen)


main()
