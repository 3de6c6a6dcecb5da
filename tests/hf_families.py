#!/usr/bin/env python3
"""Compare pdt with Hugging Face transformers on random models of each family.

usage: hf_families.py PDT [--seed N] [--layouts ...]   fresh models (needs torch and transformers)
       hf_families.py PDT --replay                     the models recorded in tests/data/hf
       hf_families.py --record                         make tests/data/hf anew

transformers saves the model as it would any other, with its own config.json, dtype and shards, and
computes in float64 what the file holds. pdt decodes it with the gates of its sidecar closed: the
greedy tokens must be equal, and the final hidden states within tolerance. Without transformers the
fresh comparison is skipped (pip install torch transformers; PDT_HF_PYTHON names a Python that has
them).
"""
import argparse
import inspect
import json
import os
import shutil
import sys
import tempfile

import harness

RECORDED = os.path.join(harness.TESTS, "data", "hf")
BLOCK, TOKENS, PROMPT = 4, 12, 9
LAYOUTS = "1x1,2x2,3x3"
# Greedy choices closer than this would make the test one of rounding, not of the model.
MARGIN = 2e-3

LLAMA3_ROPE = dict(
    rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
# name: (configuration class, its arguments for width d = 4 * u, dtype of the file, size of a shard)
FAMILIES = {
    "llama-2": ("LlamaConfig", lambda u: dict(heads=4, kv=4), "float32", None),
    "llama-3": ("LlamaConfig", lambda u: dict(heads=4, kv=2, rope_parameters=LLAMA3_ROPE, eos_token_id=[1, 2]), "bfloat16", None),
    "llama-biases": ("LlamaConfig", lambda u: dict(heads=4, kv=1, attention_bias=True, mlp_bias=True), "float16", None),
    "mistral": ("MistralConfig", lambda u: dict(heads=4, kv=2, head_dim=6, sliding_window=None), "float32", None),
    "qwen2": ("Qwen2Config", lambda u: dict(heads=4, kv=2, tie_word_embeddings=True), "float16", None),
    "qwen3": ("Qwen3Config", lambda u: dict(heads=4, kv=2, head_dim=8), "bfloat16", None),
    "smollm2": ("LlamaConfig", lambda u: dict(heads=9, kv=3, hidden=9 * u // 2 * 2, tie_word_embeddings=True), "bfloat16", None),
    "sharded": ("LlamaConfig", lambda u: dict(heads=4, kv=2), "float16", "6KB"),
    "mistral-window": ("MistralConfig", lambda u: dict(heads=4, kv=2, head_dim=6, sliding_window=5), "float32", None),
    "mistral-default-window": ("MistralConfig", lambda u: dict(heads=2, kv=1, positions=8192), "bfloat16", None),
    "mistral-mixed": ("MistralConfig", lambda u: dict(heads=4, kv=1, sliding_window=7), "bfloat16", None),
    "qwen2-window": ("Qwen2Config", lambda u: dict(heads=4, kv=2, use_sliding_window=True, sliding_window=6, max_window_layers=1), "float16", None),
    "qwen3-window": (
        "Qwen3Config",
        lambda u: dict(heads=4, kv=2, head_dim=8, use_sliding_window=True, sliding_window=19, layer_types=["sliding_attention", "full_attention"]),
        "bfloat16", None,
    ),
    "qwen3-unused-window": ("Qwen3Config", lambda u: dict(heads=4, kv=2, head_dim=8), "bfloat16", None),
    "mistral-defaults": ("MistralConfig", lambda u: dict(heads=8, kv=8, sliding_window=None), "bfloat16", None),
    "qwen2-defaults": ("Qwen2Config", lambda u: dict(heads=32, kv=32, hidden=64), "bfloat16", None),
    "qwen3-defaults": ("Qwen3Config", lambda u: dict(heads=2, kv=1), "bfloat16", None),
}
# What a family has where its config says nothing.
OPEN = dict(max_position_embeddings=None, rms_norm_eps=None, rope_parameters=None, tie_word_embeddings=None, hidden_act=None)
# Keys of config.json that are put there by hand (None: taken away) before anybody reads it, for what
# transformers reads but does not write.
EDITS = {
    "mistral-default-window": dict(sliding_window=None),
    "mistral-mixed": dict(layer_types=["full_attention", "sliding_attention"]),
    "qwen2-window": dict(layer_types=None),
    "qwen3-unused-window": dict(sliding_window=5, max_window_layers=0, layer_types=None),
    "mistral-defaults": dict(OPEN, num_key_value_heads=None, head_dim=None),
    "qwen2-defaults": dict(OPEN, num_key_value_heads=None),
    "qwen3-defaults": dict(OPEN, head_dim=None),
}
# Prompts longer than a window. Past LONG tokens, transformers reads a prompt once and goes on from its
# cache: reading it for every token would take a minute.
LONG = 1000
PROMPTS = {name: 23 for name in FAMILIES if "window" in name or name == "mistral-mixed"} | {"mistral-default-window": 4103}

# ------------------------------------------------------------------ with transformers


def import_transformers():
    """(torch, transformers), in this Python or by starting again in PDT_HF_PYTHON."""
    # tests/requests.py must not stand for the package of that name.
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != harness.TESTS]
    try:
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        return torch, transformers
    except ImportError as e:
        other = os.environ.get("PDT_HF_PYTHON")
        if other and not os.environ.get("PDT_HF_TRIED"):
            os.execve(other, [other, *sys.argv], dict(os.environ, PDT_HF_TRIED="1"))
        harness.skip(f"no transformers here ({e}; PDT_HF_PYTHON names a Python that has it)")


def make_model(torch, transformers, name, unit, seed):
    """A random model whose weights are what its file's dtype can hold, and that dtype."""
    kind, arguments, dtype, _ = FAMILIES[name]
    more = arguments(unit)
    config = getattr(transformers, kind)(
        hidden_size=more.pop("hidden", 4 * unit), intermediate_size=5 * unit, num_hidden_layers=2, vocab_size=72,
        num_attention_heads=more.pop("heads"), num_key_value_heads=more.pop("kv"), max_position_embeddings=more.pop("positions", 128),
        bos_token_id=0, **{**dict(eos_token_id=1, tie_word_embeddings=False), **more},
    )
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for key, p in model.named_parameters():
        noise = torch.randn(p.shape, dtype=torch.float32)
        with torch.no_grad():
            if p.ndim == 2:
                p.copy_(noise * (1.0 if "embed" in key else 1.6 / p.shape[1] ** 0.5))
            else:
                p.copy_(noise * 0.3 if key.endswith("bias") else 1 + 0.1 * noise)
    return model.to(getattr(torch, dtype)).eval()


def expected(torch, transformers, folder, seed, length):
    """Prompt, greedy tokens and the hidden states at block ends; None when a choice is not clear. The
    model is read anew, so that its rotary frequencies are not rounded to the dtype of the file."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager"
    ).eval()
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.randint(3, 72, (length,), generator=generator).tolist()
    ids, hidden, cache = list(prompt), [], {}
    if length > LONG:
        newer = "cache" in inspect.signature(model.forward).parameters
        cache = {"cache" if newer else "past_key_values": transformers.DynamicCache(config=model.config)}
    with torch.no_grad():
        for _ in range(TOKENS):
            new = ids if not cache or len(ids) == length else ids[-1:]
            out = model(torch.tensor([new]), output_hidden_states=True, use_cache=bool(cache), **cache)
            best = torch.topk(out.logits[0, -1], 2)
            ids.append(int(best.indices[0]))
            hidden.append(out.hidden_states[-1][0, -1].tolist())
            if float(best.values[0] - best.values[1]) < MARGIN or ids[-1] in (1, 2):
                return None
    ends = [[float(f"{x:.9g}") for x in h] for h in hidden[BLOCK - 1 :: BLOCK]]
    return dict(prompt=prompt, tokens=ids[length:], hidden=ends)


def edit(path, changes):
    """Sets keys of a JSON file, or takes those away whose value is None."""
    with open(path) as f:
        config = {**json.load(f), **changes}
    with open(path, "w") as f:
        json.dump({k: v for k, v in config.items() if k not in changes or v is not None}, f, indent=1)


def save(torch, transformers, name, unit, seed, folder):
    """Writes one model with expected.json; of the seeds from this one on, the first that is clear."""
    for s in range(seed, seed + 50):
        model = make_model(torch, transformers, name, unit, s)
        shutil.rmtree(folder, ignore_errors=True)
        shard = FAMILIES[name][3]
        model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
        edit(os.path.join(folder, "config.json"), EDITS.get(name, {}))
        want = expected(torch, transformers, folder, s, PROMPTS.get(name, PROMPT))
        if want:
            with open(os.path.join(folder, "expected.json"), "w") as f:
                json.dump(want, f, separators=(",", ":"))
                f.write("\n")
            return
    sys.exit(f"{name}: no seed from {seed} on gave clear choices")


def other_spelling(folder, copy):
    """The same model with config.json as transformers 4 wrote it, if 5 wrote this one; or the other
    way round."""
    shutil.copytree(folder, copy)
    path = os.path.join(copy, "config.json")
    with open(path) as f:
        c = json.load(f)
    if "rope_parameters" in c:
        rope = c.pop("rope_parameters")
        c["rope_theta"] = rope.pop("rope_theta")
        c["rope_scaling"] = None if rope["rope_type"] == "default" else rope
        c["torch_dtype"] = c.pop("dtype")
    else:
        c["rope_parameters"] = dict(c.pop("rope_scaling", None) or {"rope_type": "default"}, rope_theta=c.pop("rope_theta", 10000.0))
        if "torch_dtype" in c:
            c["dtype"] = c.pop("torch_dtype")
    with open(path, "w") as f:
        json.dump(c, f)


# ------------------------------------------------------------------ with pdt


def compare(pdt, folder, layout, scratch):
    """The first difference in words, or None."""
    with open(os.path.join(folder, "expected.json")) as f:
        want = json.load(f)
    sidecar, request = os.path.join(scratch, "sidecar.safetensors"), os.path.join(scratch, "request.json")
    settings = dict(
        streams=2, block_tokens=BLOCK, max_tokens=TOKENS, reveal_delay=1, window=4, horizon=BLOCK, gamma=0.0, temperature=0.0
    )
    with open(request, "w") as f:
        json.dump(dict(prompt_ids=want["prompt"], settings=settings), f)
    try:
        harness.closed_sidecar(pdt, folder, sidecar, 2)
        got = harness.decode(pdt, folder, sidecar, request, os.path.join(scratch, "trace.json"), layout)
    except harness.Failed as e:
        return str(e)
    for stream in got["streams"]:
        if stream["tokens"] != want["tokens"]:
            return f"tokens {stream['tokens']} for {want['tokens']}"
    for round_, hidden in zip(got["rounds"], want["hidden"], strict=True):
        for stream in round_["streams"]:
            if not harness.close(stream["last_hidden"], hidden):
                return f"round {round_['round']} stream {stream['stream']}: last_hidden differs"
    return None


def compare_all(pdt, folders, layouts):
    bad = runs = 0
    with tempfile.TemporaryDirectory() as scratch:
        for folder in folders:
            for layout in layouts:
                wrong = compare(pdt, folder, layout, scratch)
                runs += 1
                if wrong:
                    bad += 1
                    print(f"{os.path.basename(folder)} {layout.name}: {wrong}", flush=True)
    print(f"{runs - bad} of {runs} runs equal Hugging Face transformers")
    return bad == 0 and runs > 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pdt", nargs="?")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--layouts", default=LAYOUTS)
    p.add_argument("--replay", action="store_true")
    p.add_argument("--record", action="store_true")
    a = p.parse_args()
    layouts = [harness.Layout(x) for x in a.layouts.split(",")]
    if a.record:
        torch, transformers = import_transformers()
        for name in FAMILIES:
            save(torch, transformers, name, 4, a.seed, os.path.join(RECORDED, name))
        return
    if not a.pdt:
        p.error("no program given")
    torch = transformers = None
    if not a.replay:
        torch, transformers = import_transformers()
    harness.need_mpirun()
    with tempfile.TemporaryDirectory() as scratch:
        for name in FAMILIES:
            folder = os.path.join(scratch, name)
            if a.replay:
                shutil.copytree(os.path.join(RECORDED, name), folder)
            else:
                save(torch, transformers, name, 16, a.seed, folder)
            other_spelling(folder, folder + "-respelled")
        good = compare_all(a.pdt, [os.path.join(scratch, n) for n in sorted(os.listdir(scratch))], layouts)
    sys.exit(not good)


if __name__ == "__main__":
    main()
