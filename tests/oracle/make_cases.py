#!/usr/bin/env python3
"""Make small random models with their expected traces.

usage: make_cases.py OUT_DIR [--first-seed N] [--small] [--only NAME ...]

Each case is a folder: model/ (config.json, model.safetensors), sidecar.safetensors, request.json
(prompt token ids and run settings) and expected.json (what the oracle computed, to 9 digits). Cases
are kept only when every greedy choice and every readiness has a clear margin, so float32 code must
reproduce tokens and actions exactly. A sampled token has no such margin: a uniform number would have
to fall within rounding of a border. tests/data/cases was made with --small --first-seed 1, and its
wide-margins with 419.
"""
import argparse
import json
import os
import sys

import numpy as np

import pdt_oracle as pdt
import safetensors_io as st

TRUNKS = {
    "llama": dict(hidden_size=64, intermediate_size=160, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4),
    "llama-mha-tied": dict(
        hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
        tie_word_embeddings=True,
    ),
    "llama3-rope": dict(
        hidden_size=64, intermediate_size=192, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2,
        rope_theta=500000.0,
        rope_scaling=dict(
            rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
    ),
    "qwen2": dict(
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2,
        attention_bias=True, architectures=["Qwen2ForCausalLM"], model_type="qwen2",
    ),
    "qwen3": dict(
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=4,
        head_dim=16, qk_norm=True, architectures=["Qwen3ForCausalLM"], model_type="qwen3",
    ),
    "mistral-window": dict(  # every layer, three positions: less than a block
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=4,
        architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=3,
    ),
    "qwen2-window": dict(  # from the second layer on
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2,
        attention_bias=True, architectures=["Qwen2ForCausalLM"], model_type="qwen2", use_sliding_window=True,
        sliding_window=6, max_window_layers=1,
    ),
    "qwen3-window": dict(  # named layer by layer; longer than a page of the cache
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=4,
        head_dim=16, qk_norm=True, architectures=["Qwen3ForCausalLM"], model_type="qwen3", use_sliding_window=True,
        sliding_window=19, layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "odd-heads": dict(  # like SmolLM2-135M: 9 heads over 3 key/value heads; no power of two divides them
        hidden_size=72, intermediate_size=168, num_hidden_layers=3, num_attention_heads=9, num_key_value_heads=3,
    ),
}


def small(trunk):
    """Half as wide, one layer less (two at least): for the cases that are kept in the repository."""
    halves = {k: trunk[k] // 2 for k in ("hidden_size", "intermediate_size", "head_dim") if k in trunk}
    layers = max(2, trunk["num_hidden_layers"] - 1)
    types = {"layer_types": trunk["layer_types"][:layers]} if "layer_types" in trunk else {}
    return dict(trunk, **halves, **types, num_hidden_layers=layers)


def nine_digits(x):
    """Floats as short as float32 allows without loss: a trace is mostly these."""
    if isinstance(x, float):
        return float(f"{x:.9g}")
    if isinstance(x, list):
        return [nine_digits(v) for v in x]
    return {k: nine_digits(v) for k, v in x.items()} if isinstance(x, dict) else x


def make_trunk(path, rng, dtype, vocab=259, **over):
    c = dict(
        architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=vocab, rms_norm_eps=1e-5, rope_theta=10000.0,
        max_position_embeddings=512, tie_word_embeddings=False, hidden_act="silu", bos_token_id=256, eos_token_id=257,
        torch_dtype={"F32": "float32", "BF16": "bfloat16", "F16": "float16"}[dtype],
    )
    c.update(over)
    bias, qk_norm = c.pop("attention_bias", False), c.pop("qk_norm", False)
    d, ff, nh, nkv = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"], c["num_key_value_heads"]
    hd = c.get("head_dim") or d // nh
    w = {"model.embed_tokens.weight": rng.normal(0, 1.0, (vocab, d)), "model.norm.weight": rng.normal(1, 0.1, d)}
    if not c["tie_word_embeddings"]:
        w["lm_head.weight"] = rng.normal(0, 0.5, (vocab, d))

    def lin(name, n_out, n_in, with_bias=False):
        w[name + ".weight"] = rng.normal(0, 1.6 / np.sqrt(n_in), (n_out, n_in))
        if with_bias:
            w[name + ".bias"] = rng.normal(0, 0.3, n_out)

    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        w[p + "input_layernorm.weight"] = rng.normal(1, 0.1, d)
        w[p + "post_attention_layernorm.weight"] = rng.normal(1, 0.1, d)
        lin(p + "self_attn.q_proj", nh * hd, d, bias)
        lin(p + "self_attn.k_proj", nkv * hd, d, bias)
        lin(p + "self_attn.v_proj", nkv * hd, d, bias)
        lin(p + "self_attn.o_proj", d, nh * hd)
        lin(p + "mlp.gate_proj", ff, d)
        lin(p + "mlp.up_proj", ff, d)
        lin(p + "mlp.down_proj", d, ff)
        if qk_norm:
            w[p + "self_attn.q_norm.weight"] = rng.normal(1, 0.1, hd)
            w[p + "self_attn.k_norm.weight"] = rng.normal(1, 0.1, hd)
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(c, f, indent=1)
    st.save(os.path.join(path, "model.safetensors"), w, {"format": "pt"}, dtype)
    return c


def make_sidecar(path, rng, trunk, streams, planner="full", pool="attention", gate=0.0, dtype="F32", layers=None, hidden=0, places=0, orders=0, plan_layer=None, pool_layer=None, pool_copies=0, scales=None, note_query=False):
    d, n = trunk["hidden_size"], trunk["num_hidden_layers"]
    c = dict(
        format="pdt-sidecar", version=1, hidden_size=d, streams=streams, notes_dim=24, snc_heads=4, snc_head_dim=8,
        instrumented_layers=layers if layers is not None else list(range(n // 2, n)), adapter_dim=20, planner=planner, plan_slots=6, plan_vocab_size=97,
        plan_dim=16, plan_hash_salt="parallel-decoder-v1", pool=pool, pool_heads=3, pool_dim=12, coverage_dim=10,
        agree_dim=14, defaults=dict(block_tokens=4, reveal_delay=1, window=9, horizon=8, gamma=0.5),
    )
    if pool_layer is not None:
        c["pool_layer"] = pool_layer
    if pool_copies:
        c["pool_copies"] = pool_copies
    if plan_layer is not None:
        c["plan_layer"] = plan_layer
    if scales:
        c["layer_scales"] = scales[: len(c["instrumented_layers"])]
    s, vp, dn, de, q = c["plan_slots"], c["plan_vocab_size"], c["notes_dim"], c["plan_dim"], c["snc_heads"] * c["snc_head_dim"]
    pooled = d if pool == "last" else c["pool_heads"] * c["pool_dim"]

    def mat(*shape):
        return rng.normal(0, 1.5 / np.sqrt(shape[-1]), shape)

    w = {"plan.embedding.weight": rng.normal(0, 1, (vp, de)), "plan.to_notes.weight": mat(dn, de)}
    if planner == "full":
        w["planner.proj.weight"] = mat(s * vp, d)
    else:
        w["planner.slot.weight"], w["planner.slot.bias"] = mat(s * de, d), rng.normal(0, 0.5, s * de)
    if places:
        w["planner.place.weight"] = rng.normal(0, 0.3, (s, places))
    if orders:
        w["planner.order.weight"] = rng.normal(0, 1.5, (s, orders))
        w["planner.mark.weight"], w["planner.mark.bias"] = rng.normal(0, 0.6 / np.sqrt(d), d), rng.normal(0, 0.1, 1)
    for l in c["instrumented_layers"]:
        w[f"snc.{l}.norm.weight"] = rng.normal(1, 0.1, d)
        w[f"snc.{l}.q_proj.weight"], w[f"snc.{l}.k_proj.weight"] = mat(q, d), mat(q, dn)
        w[f"snc.{l}.v_proj.weight"], w[f"snc.{l}.o_proj.weight"] = mat(q, dn), mat(d, q)
        w[f"snc.{l}.gate"] = np.array([gate])
        w[f"adapter.{l}.norm.weight"] = rng.normal(1, 0.1, d)
        w[f"adapter.{l}.down.weight"] = mat(streams, c["adapter_dim"], d)
        w[f"adapter.{l}.down.bias"] = rng.normal(0, 0.1, (streams, c["adapter_dim"]))
        w[f"adapter.{l}.up.weight"] = mat(streams, d, c["adapter_dim"])
        w[f"adapter.{l}.up.bias"] = rng.normal(0, 0.1, (streams, d))
        w[f"adapter.{l}.gate"] = np.array([gate])
    if pool == "attention":
        w["pool.query.weight"], w["pool.value.weight"] = mat(c["pool_heads"], d) * 3, mat(c["pool_heads"], c["pool_dim"], d)
    w["speculation.weight"], w["speculation.bias"] = mat(dn, pooled), rng.normal(0, 0.1, dn)
    if hidden:
        w["speculation.hidden.weight"], w["speculation.hidden.bias"] = mat(hidden, pooled), rng.normal(0, 0.1, hidden)
        w["speculation.out.weight"] = mat(dn, hidden)
    w["coverage.item.weight"], w["coverage.block.weight"] = mat(c["coverage_dim"], de), mat(c["coverage_dim"], pooled)
    w["coverage.bias"] = rng.normal(0, 0.1, 1)
    a = c["agree_dim"]
    for name, n_in in [("hidden", d), ("pool", pooled), ("note", dn), ("coverage", s), ("query", d)]:
        w[f"agree.{name}.weight"] = mat(a, n_in)
    w["agree.key.weight"], w["agree.value.weight"] = mat(a, dn), mat(a, dn)
    if note_query:
        w["agree.note_query.weight"] = mat(a, dn)
    w["agree.bias"], w["agree.out.weight"] = rng.normal(0, 0.1, a), mat(1, a)
    w["agree.out.bias"] = np.zeros(1)
    if dtype == "BF16":  # the oracle must see what the file holds
        w = {k: st.f32_from_bf16(st.bf16_from_f32(v)) for k, v in w.items()}
    st.save(path, w, {"config": json.dumps(c)}, dtype)
    return c


# name: (trunk, trunk dtype, sidecar options, run settings)
CASES = {
    "closed-gates": ("llama", "F32", dict(streams=3, gate=-40.0), dict()),
    "open-gates": ("llama", "F32", dict(streams=4), dict()),
    "bf16": ("llama", "BF16", dict(streams=4, dtype="BF16"), dict()),
    "tied-planner-last-pool": ("llama-mha-tied", "F32", dict(streams=3, planner="tied", pool="last"), dict()),
    "delay-2-narrow-window": ("llama3-rope", "F32", dict(streams=4), dict(reveal_delay=2, window=4, max_tokens=28)),
    "selective-rollback": ("qwen2", "F32", dict(streams=4), dict(gamma="mid", horizon=8)),
    "stall-policy": ("qwen3", "F32", dict(streams=3, hidden=18), dict(gamma="mid", policy="stall", horizon=4)),
    "global-policy": ("llama", "F32", dict(streams=3), dict(gamma="mid", policy="global", max_attempts=2)),
    "forced": ("llama", "F32", dict(streams=3), dict(gamma=0.999999, max_attempts=3, max_tokens=12)),
    "sampled": ("llama", "F32", dict(streams=3), dict(temperature=0.8, top_k=20, top_p=0.9, gamma="mid", seed=12345678901)),
    "sampled-full": ("llama3-rope", "F32", dict(streams=2), dict(temperature=1.3, seed=7)),
    "odd-heads": ("odd-heads", "F32", dict(streams=5), dict(gamma="mid")),
    "one-stream": ("llama", "F32", dict(streams=1), dict(block_tokens=5, max_tokens=23)),
    "given-plan-and-prefixes": ("llama", "F32", dict(streams=3), dict(plan=True, prefixes=True)),
    "all-layers": ("qwen3", "F32", dict(streams=3, layers=[0, 1, 2]), dict(gamma="mid")),
    "long": ("llama", "F32", dict(streams=2, hidden=30), dict(block_tokens=16, max_tokens=96, prompt=40, window=5, horizon=32)),
    # optional tensors (EXTENSIONS.md): more places than the prompt has tokens, and fewer
    "many-places": ("llama-mha-tied", "F32", dict(streams=3, planner="tied", places=16), dict()),
    "few-places": ("llama", "F32", dict(streams=2, places=5), dict(gamma="mid")),
    # orders: marks that are cut and that are not, more of them than there are orders; with places, behind another layer
    "orders": ("llama", "F32", dict(streams=3, orders=4), dict(prompt=17)),
    "orders-and-places": ("qwen3", "BF16", dict(streams=3, planner="tied", orders=9, places=5, plan_layer=1, dtype="BF16"), dict(gamma="mid")),
    # a pool that reads a layer's output (EXTENSIONS.md): below all that is conditioned, and amid it
    "pool-below": ("llama", "F32", dict(streams=3, pool_layer=0), dict(gamma="mid", prefixes=True)),
    "pool-amid": ("qwen3", "BF16", dict(streams=3, layers=[0, 1, 2], pool_layer=1, dtype="BF16", scales=[0.5, 3.0, 1.75]), dict(gamma="mid", horizon=8)),
    # pool heads that mix embeddings (EXTENSIONS.md): some beside a layer's output, all of them beside the final states
    "pool-copies": ("llama", "F32", dict(streams=3, pool_layer=0, pool_copies=2), dict(gamma="mid", prefixes=True)),
    "pool-all-copies": ("llama-mha-tied", "BF16", dict(streams=3, layers=[0, 1], pool_copies=3, dtype="BF16"), dict(gamma="mid", prefixes=True)),
    # readiness that asks the window about the block's note (EXTENSIONS.md)
    "note-query": ("qwen3", "F32", dict(streams=3, note_query=True), dict(gamma="mid")),
    # what was rolled back is drawn, where first attempts are not (EXTENSIONS.md)
    "retry-temperature": ("llama", "F32", dict(streams=3), dict(gamma="mid", policy="global", max_attempts=5, retry_temperature=1.2, seed=3)),
    # strong blocks are committed whatever others do (EXTENSIONS.md)
    "parts-of-the-plan": ("llama", "F32", dict(streams=4), dict(gamma="mid", plan=True, part_slots=1, max_tokens=16)),
    "local-policy": ("qwen2", "F32", dict(streams=3), dict(gamma="mid", policy="local", max_attempts=3, temperature=0.9)),
    # sliding windows (EXTENSIONS.md): rollbacks put the position back behind where a window began
    "short-window": (
        "mistral-window", "F32", dict(streams=3), dict(gamma="mid", policy="global", max_attempts=3, prefixes=True),
    ),
    "layers-with-windows": ("qwen2-window", "BF16", dict(streams=4, dtype="BF16"), dict(gamma="mid", horizon=8)),
    "window-over-pages": (
        "qwen3-window", "F32", dict(streams=3), dict(gamma="mid", policy="stall", prompt=37, max_tokens=24, prefixes=True),
    ),
}
# One seed in a hundred gives one of these.
SELDOM = {
    # every choice so clear that activations rounded to bf16 make the same ones
    "wide-margins": ("llama", "BF16", dict(streams=3, dtype="BF16"), dict(plan=True, gamma="mid", max_tokens=8, clear=50)),
}


def clear_owners(trace, least):
    """Is every slot's owner beyond rounding: ahead of all others, or the first of equals? Streams that
    do the same (closed gates) have the same coverage but for the last bits."""
    best = np.array(trace.pop("best_coverage"))
    for slot, owner in trace["slot_owner"].items():
        behind = best[owner, int(slot)] - best[:, int(slot)]
        if np.any((behind >= 1e-9) & (behind < least)) or np.any(behind[:owner] < 1e-9):
            return False
    return True


def attempt_case(folder, name, seed, make_small=False):
    """Write one case; (actions that occur, rounds), or None when the seed gave no clear one."""
    trunk_name, dtype, side, run = (CASES | SELDOM)[name]
    shape = small(TRUNKS[trunk_name]) if make_small else TRUNKS[trunk_name]
    if "layers" in side:
        side = dict(side, layers=[l for l in side["layers"] if l < shape["num_hidden_layers"]])
    rng = np.random.default_rng(seed)
    trunk_config = make_trunk(os.path.join(folder, "model"), rng, dtype, **shape)
    make_sidecar(os.path.join(folder, "sidecar.safetensors"), rng, trunk_config, **side)
    trunk, sidecar = pdt.Trunk(os.path.join(folder, "model")), pdt.Sidecar(os.path.join(folder, "sidecar.safetensors"))
    cfg = dict(
        streams=side["streams"], block_tokens=4, reveal_delay=1, window=9, horizon=8, gamma=0.0, policy="selective",
        max_attempts=4, max_tokens=20, max_rounds=40, temperature=0.0, top_k=0, top_p=1.0, seed=1,
    )
    extra = dict(prompt=11, plan=False, prefixes=False, clear=1)
    for k, v in run.items():
        (extra if k in extra else cfg)[k] = v
    prompt = [256] + rng.integers(0, 256, extra["prompt"]).tolist()
    plan = [5, 0, 17, 90, 0, 3] if extra["plan"] else None
    prefixes = [rng.integers(0, 256, k + 1).tolist() for k in range(cfg["streams"])] if extra["prefixes"] else None
    if cfg["gamma"] == "mid":
        cfg["gamma"] = 0.0
        dry = pdt.decode(trunk, sidecar, prompt, cfg, 0, plan, prefixes)
        scores = sorted(s["readiness"] for r in dry["rounds"] for s in r["streams"])
        cfg["gamma"] = round(float(np.quantile(scores, 0.3)) + 1e-4, 6)
    trace = pdt.decode(trunk, sidecar, prompt, cfg, 0, plan, prefixes)
    margins = [s["min_margin"] for r in trace["rounds"] for s in r["streams"]]
    scores = [s["readiness"] for r in trace["rounds"] for s in r["streams"]]
    least = 1e-4 * extra["clear"]
    clear = (cfg["temperature"] > 0 or min(margins) > 20 * least) and min(abs(x - cfg["gamma"]) for x in scores) > least
    clear = trace.pop("draw_margin") > least and clear
    clear = clear_owners(trace, least) and clear
    actions = {a for r in trace["rounds"] for a in r["actions"].values()}
    wanted = {"mid": "rollback", 0.999999: "force"}.get(run.get("gamma"))
    if not clear or (wanted and wanted not in actions):
        return None
    request = dict(prompt_ids=prompt, plan_ids=plan, prefix_ids=prefixes, session=0, settings=cfg)
    for file, value in [("request.json", request), ("expected.json", trace)]:
        with open(os.path.join(folder, file), "w") as f:
            json.dump(nine_digits(value), f, separators=(",", ":"))
            f.write("\n")
    return actions, len(trace["rounds"])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--first-seed", type=int, default=1)
    p.add_argument("--small", action="store_true")
    p.add_argument("--only", nargs="+", choices=[*CASES, *SELDOM], default=list(CASES), metavar="NAME")
    a = p.parse_args()
    for name in a.only:
        folder = os.path.join(a.out, name)
        os.makedirs(folder, exist_ok=True)
        for seed in range(a.first_seed, a.first_seed + 200):
            done = attempt_case(folder, name, seed, a.small)
            if done:
                print(f"{name}: seed {seed}, {done[1]} rounds, actions {sorted(done[0])}", flush=True)
                break
        else:
            sys.exit(f"{name}: no seed gave a clear case")


if __name__ == "__main__":
    main()
