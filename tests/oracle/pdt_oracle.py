"""Executable specification of Parallel Decoder Transformer inference, in float64 numpy.

Slow on purpose: one process, no batching, no sharding. It states what all ranks of the runtime must
compute together; where prose and this file disagree, this file is right. Section numbers are those
of arXiv:2512.10054v2.

Shapes: d hidden size, T prompt tokens, S plan slots, Vp plan vocabulary, dn notes width,
de plan embedding width, K streams, tau tokens per block.
"""
import json
import math
import os

import numpy as np

import safetensors_io as st

# ---------------------------------------------------------------------------- small functions


def rms_norm(x, weight=None, eps=1e-6):
    y = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    return y if weight is None else y * weight


def softmax(x, axis=-1):
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


_erf = np.vectorize(math.erf)


def gelu(x):
    return 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))


def silu(x):
    return x * sigmoid(x)


def philox4x32(counter, key):
    """Philox4x32-10 (Salmon et al. 2011): four 32-bit words of counter, two of key -> four words."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [
            ((p1 >> 32) ^ c[1] ^ k[0]) & 0xFFFFFFFF,
            p1 & 0xFFFFFFFF,
            ((p0 >> 32) ^ c[3] ^ k[1]) & 0xFFFFFFFF,
            p0 & 0xFFFFFFFF,
        ]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def uniform(seed, position, stream, attempt, session):
    """The one random number behind one sampled token, in (0, 1). It depends on nothing else."""
    x = philox4x32((position, stream, attempt, session), (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    return ((x[0] >> 5) * 67108864.0 + (x[1] >> 6) + 0.5) / 9007199254740992.0


def sample(logits, temperature, top_k, top_p, u):
    """Token id. temperature 0 is argmax; ties go to the lowest id. Filters: top_k, then top_p."""
    if temperature == 0.0:
        return int(np.argmax(logits))
    z = logits / temperature
    order = np.lexsort((np.arange(z.size), -z))  # by logit descending, then id ascending
    if top_k > 0:
        order = order[:top_k]
    p = softmax(z[order])
    if top_p < 1.0:
        keep = int(np.searchsorted(np.cumsum(p), top_p)) + 1
        order, p = order[:keep], p[:keep]
    c = np.cumsum(p)
    return int(order[min(int(np.searchsorted(c, u * c[-1], side="right")), order.size - 1)])


def draw_margin(logits, temperature, top_k, top_p, u, token):
    """How far a draw is from another token: the least change of a logit that would reorder the drawn one
    or change the list of candidates, or the least change of u. Infinite for argmax."""
    if temperature == 0.0:
        return np.inf
    z = logits / temperature
    order = np.lexsort((np.arange(z.size), -z))
    at = int(np.flatnonzero(order == token)[0])
    gap = -np.diff(z[order], prepend=np.inf, append=-np.inf)  # [V + 1]: between a candidate and the one before it
    listed = min(top_k, z.size) if top_k > 0 else z.size
    margin = min(gap[at], gap[at + 1], gap[listed])
    p = softmax(z[order[:listed]])
    c = np.cumsum(p)
    if top_p < 1.0:
        keep = int(np.searchsorted(c, top_p)) + 1
        margin = min(margin, gap[keep], np.min(np.abs(c - top_p)))
        c = c[:keep]
    edges = np.array([0.0 if at == 0 else c[at - 1], c[at]])
    edges = edges[(edges > 0) & (edges < c[-1])]  # nothing lies beyond the first and the last one
    return float(min([margin, *np.abs(edges - u * c[-1])]))


# ---------------------------------------------------------------------------- frozen trunk (3.1)


class Trunk:
    """Llama-family decoder read from a Hugging Face directory (config.json + model.safetensors)."""

    def __init__(self, directory):
        with open(os.path.join(directory, "config.json")) as f:
            c = self.config = json.load(f)
        self.w, _ = st.load(os.path.join(directory, "model.safetensors"))
        self.d, self.layers = c["hidden_size"], c["num_hidden_layers"]
        self.heads, self.kv_heads = c["num_attention_heads"], c.get("num_key_value_heads", c["num_attention_heads"])
        self.hd = c.get("head_dim") or self.d // self.heads
        self.eps, self.vocab = c["rms_norm_eps"], c["vocab_size"]
        eos = c.get("eos_token_id")
        self.eos = set(eos if isinstance(eos, list) else [] if eos is None else [eos])
        self.inv_freq = self._inv_freq()
        self.windows = self._windows()

    def _windows(self):
        """Positions that each layer's attention reaches back to, its own counted; None for all (EXTENSIONS.md)."""
        c, family = self.config, self.config.get("model_type")
        window = c.get("sliding_window", 4096) if family in ("mistral", "qwen2", "qwen3") else None
        if family != "mistral" and not c.get("use_sliding_window"):
            window = None
        first = 0 if family == "mistral" else c.get("max_window_layers", 28)
        types = c.get("layer_types") or ["sliding_attention" if l >= first else "full_attention" for l in range(self.layers)]
        return [window if t == "sliding_attention" else None for t in types]

    def _inv_freq(self):
        c = self.config
        s = c.get("rope_parameters") or c.get("rope_scaling")  # transformers 5 writes the first, 4 the second
        theta = (s or {}).get("rope_theta", c.get("rope_theta", 10000.0))
        f = theta ** (-np.arange(0, self.hd, 2) / self.hd)
        if not s or s.get("rope_type", s.get("type")) == "default":
            return f
        if s.get("rope_type", s.get("type")) != "llama3":
            raise ValueError(f"{c.get('model_type')}: the oracle knows rope types default and llama3 only")
        old, lo, hi = s["original_max_position_embeddings"], s["low_freq_factor"], s["high_freq_factor"]
        wavelength = 2 * math.pi / f
        smooth = (old / wavelength - lo) / (hi - lo)
        mid = (1 - smooth) * f / s["factor"] + smooth * f
        return np.where(wavelength > old / lo, f / s["factor"], np.where(wavelength < old / hi, f, mid))

    def _rope(self, x, pos):
        """Rotate-half rotary embedding of x [n, hd] at one position."""
        a = pos * self.inv_freq
        cos, sin = np.concatenate([np.cos(a)] * 2), np.concatenate([np.sin(a)] * 2)
        half = self.hd // 2
        return x * cos + np.concatenate([-x[:, half:], x[:, :half]], axis=1) * sin

    def _linear(self, name, x):
        y = self.w[name + ".weight"] @ x
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def embed(self, token):
        return self.w["model.embed_tokens.weight"][token].copy()

    def step(self, token, cache, sidecar=None):
        """Advance one sequence by one token.

        cache: list of per-layer [keys, values], each a list of [kv_heads, hd] arrays; appended to.
        sidecar: None (plain frozen trunk) or a function (layer, where, h) -> h.
        Returns the final-norm hidden state [d]; self.outputs are those of all layers then.
        """
        pos = len(cache[0][0])
        x = self.embed(token)
        self.outputs = []
        for l in range(self.layers):
            pre = f"model.layers.{l}."
            a = rms_norm(x, self.w[pre + "input_layernorm.weight"], self.eps)
            q = self._linear(pre + "self_attn.q_proj", a).reshape(self.heads, self.hd)
            k = self._linear(pre + "self_attn.k_proj", a).reshape(self.kv_heads, self.hd)
            v = self._linear(pre + "self_attn.v_proj", a).reshape(self.kv_heads, self.hd)
            if pre + "self_attn.q_norm.weight" in self.w:  # Qwen3
                q = rms_norm(q, self.w[pre + "self_attn.q_norm.weight"], self.eps)
                k = rms_norm(k, self.w[pre + "self_attn.k_norm.weight"], self.eps)
            cache[l][0].append(self._rope(k, pos))
            cache[l][1].append(v)
            first = max(0, pos + 1 - self.windows[l]) if self.windows[l] else 0
            keys, values = np.stack(cache[l][0][first:]), np.stack(cache[l][1][first:])  # [pos+1-first, kv_heads, hd]
            group = self.heads // self.kv_heads
            q = self._rope(q, pos)
            out = np.empty((self.heads, self.hd))
            for h in range(self.heads):
                p = softmax(keys[:, h // group] @ q[h] / math.sqrt(self.hd))
                out[h] = p @ values[:, h // group]
            x = x + self._linear(pre + "self_attn.o_proj", out.reshape(-1))
            if sidecar:
                x = sidecar(l, "after_attention", x)
            a = rms_norm(x, self.w[pre + "post_attention_layernorm.weight"], self.eps)
            up = silu(self._linear(pre + "mlp.gate_proj", a)) * self._linear(pre + "mlp.up_proj", a)
            x = x + self._linear(pre + "mlp.down_proj", up)
            if sidecar:
                x = sidecar(l, "after_ffn", x)
            self.outputs.append(x)
        return rms_norm(x, self.w["model.norm.weight"], self.eps)

    def logits(self, hidden):
        tied = self.config.get("tie_word_embeddings") or "lm_head.weight" not in self.w
        return self.w["model.embed_tokens.weight" if tied else "lm_head.weight"] @ hidden

    def new_cache(self):
        return [[[], []] for _ in range(self.layers)]


# ---------------------------------------------------------------------------- sidecar phi


class Sidecar:
    """Trainable modules; one safetensors file whose metadata key 'config' is JSON."""

    def __init__(self, path):
        self.w, meta = st.load(path)
        self.c = json.loads(meta["config"])

    def snc(self, layer, h, window):
        """3.5, eq. 6-7: gated cross-attention from the hidden state [d] to the window [n, dn]."""
        c, pre = self.c, f"snc.{layer}."
        if len(window) == 0:
            return h
        q = (self.w[pre + "q_proj.weight"] @ rms_norm(h, self.w[pre + "norm.weight"])).reshape(c["snc_heads"], -1)
        k = (window @ self.w[pre + "k_proj.weight"].T).reshape(len(window), c["snc_heads"], -1)
        v = (window @ self.w[pre + "v_proj.weight"].T).reshape(len(window), c["snc_heads"], -1)
        p = softmax(np.einsum("hd,nhd->hn", q, k) / math.sqrt(q.shape[1]))
        context = np.einsum("hn,nhd->hd", p, v).reshape(-1)
        return h + self.scale(layer) * sigmoid(self.w[pre + "gate"][0]) * (self.w[pre + "o_proj.weight"] @ context)

    def adapter(self, layer, h, stream):
        """3.1: bottleneck adapter of one stream, gated residual."""
        pre = f"adapter.{layer}."
        a = self.w[pre + "down.weight"][stream] @ rms_norm(h, self.w[pre + "norm.weight"])
        a = gelu(a + self.w[pre + "down.bias"][stream])
        delta = self.w[pre + "up.weight"][stream] @ a + self.w[pre + "up.bias"][stream]
        return h + self.scale(layer) * sigmoid(self.w[pre + "gate"][0]) * delta

    def scale(self, layer):
        """What SNC and adapters of a layer add is multiplied by this (EXTENSIONS.md)."""
        scales = self.c.get("layer_scales")
        return scales[self.c["instrumented_layers"].index(layer)] if scales else 1.0

    def read_in_order(self, inner):
        """What slots read of the tokens that are marked (EXTENSIONS.md) [S, d], from the residual stream [n, d]."""
        orders = self.w["planner.order.weight"]
        read, count = np.zeros((orders.shape[1], inner.shape[1])), 0.0
        for x in map(rms_norm, inner):
            logit = self.w["planner.mark.weight"] @ rms_norm(x) + self.w["planner.mark.bias"][0]
            end = count + min(1.0, max(0.0, logit + 0.5))
            for r in range(len(read)):
                read[r] += max(0.0, min(end, r + 1) - max(count, r)) * x
            count = end
        return orders @ read

    def plan(self, hidden, inner):
        """3.2, eq. 2: slot ids z [S] from the prompt's hidden states [n, d], and the residual stream [n, d] behind
        the planner's layer. Id 0 is the empty slot.

        Every slot reads the mean of the former; with places (EXTENSIONS.md) also a sum of the first ones of its own,
        with orders what it reads of the latter.
        """
        c = self.c
        pooled = np.tile(np.mean(hidden, axis=0), (c["plan_slots"], 1))
        if "planner.order.weight" in self.w:
            pooled = pooled + self.read_in_order(np.array(inner))
        if "planner.place.weight" in self.w:
            places = self.w["planner.place.weight"][:, : len(hidden)]
            pooled = pooled + places @ np.array(hidden[: places.shape[1]])
        if c["planner"] == "full":
            proj = self.w["planner.proj.weight"].reshape(c["plan_slots"], c["plan_vocab_size"], -1)
            logits = np.einsum("svd,sd->sv", proj, pooled)
        else:  # tied to the plan embedding
            slot = self.w["planner.slot.weight"].reshape(c["plan_slots"], c["plan_dim"], -1)
            slots = np.einsum("sed,sd->se", slot, pooled) + self.w["planner.slot.bias"].reshape(c["plan_slots"], -1)
            logits = slots @ self.w["plan.embedding.weight"].T / math.sqrt(c["plan_dim"])
        return np.argmax(logits, axis=1), logits

    def plan_note(self, ids):
        """3.2, eq. 3: snapshot 0 [dn]."""
        e = self.w["plan.embedding.weight"][ids[ids != 0]]
        if len(e) == 0:
            return np.zeros(self.c["notes_dim"])
        return rms_norm(np.mean(e @ self.w["plan.to_notes.weight"].T, axis=0))

    def pool(self, states, embedded):
        """Summary of a block from what is read of it [n, d]: the last one, or attention heads over all.

        EXTENSIONS.md: the last `pool_copies` heads mix embeddings, what the trunk read [n, d].
        """
        c = self.c
        if c["pool"] == "last":
            return states[-1]
        scores = states @ self.w["pool.query.weight"].T / math.sqrt(states.shape[1])  # [n, heads]
        p = softmax(scores, axis=0)
        mixed = p.T @ states  # [heads, d]
        copies = c.get("pool_copies", 0)
        if copies:
            mixed[-copies:] = p.T[-copies:] @ embedded
        return np.einsum("hvd,hd->hv", self.w["pool.value.weight"], mixed).reshape(-1)

    def note(self, pooled):
        """3.6, eq. 8: provisional note [dn]; linear, or with a hidden layer beside it when the file has one."""
        w = self.w
        x = w["speculation.weight"] @ pooled + w["speculation.bias"]
        if "speculation.hidden.weight" in w:
            hidden = gelu(w["speculation.hidden.weight"] @ pooled + w["speculation.hidden.bias"])
            x = x + w["speculation.out.weight"] @ hidden
        return rms_norm(x)

    def coverage(self, pooled, ids):
        """3.6, eq. 9: logit per plan slot [S]; empty slots are 0."""
        q = self.w["plan.embedding.weight"][ids] @ self.w["coverage.item.weight"].T
        k = self.w["coverage.block.weight"] @ pooled
        logits = q @ k / math.sqrt(k.size) + self.w["coverage.bias"][0]
        return np.where(ids != 0, logits, 0.0)

    def readiness(self, last, pooled, window, coverage, note, ids):
        """3.7, eq. 10: r in (0, 1)."""
        w = self.w
        x = w["agree.hidden.weight"] @ last + w["agree.pool.weight"] @ pooled + w["agree.note.weight"] @ note
        x = x + w["agree.coverage.weight"] @ np.where(ids != 0, sigmoid(coverage), 0.0) + w["agree.bias"]
        if len(window):
            q = w["agree.query.weight"] @ last
            if "agree.note_query.weight" in w:
                q = q + w["agree.note_query.weight"] @ note
            p = softmax(window @ w["agree.key.weight"].T @ q / math.sqrt(q.size))
            x = x + p @ (window @ w["agree.value.weight"].T)
        return float(sigmoid(w["agree.out.weight"][0] @ gelu(x) + w["agree.out.bias"][0]))


# ---------------------------------------------------------------------------- notes bus (3.3)


class NotesBus:
    """Versioned store. A note is (round emitted, stream, vector); stream -1 is the planner at round 0."""

    def __init__(self, delay, budget):
        self.delay, self.budget, self.notes = delay, budget, []

    def publish(self, round_, stream, vector):
        self.notes.append((round_, stream, vector))

    def withdraw(self, stream, rounds):
        self.notes = [n for n in self.notes if not (n[1] == stream and n[0] in rounds)]

    def window(self, round_):
        """Eq. 4: the plan note, then newest rounds first, streams ascending, at most `budget` notes."""
        plan = [n for n in self.notes if n[1] < 0]
        rest = [n for n in self.notes if n[1] >= 0 and n[0] <= round_ - self.delay]
        rest.sort(key=lambda n: (-n[0], n[1]))
        return (plan + rest)[: self.budget]


# ---------------------------------------------------------------------------- synchronized rounds (3.4-3.8)


class Stream:
    def __init__(self, index, prefix_cache):
        self.index = index
        self.cache = [[list(k), list(v)] for k, v in prefix_cache]
        self.committed = []  # tokens
        self.pending = []  # blocks since the commit point: (round, tokens, coverage logits)
        self.forced, self.attempt, self.done = [], 0, False
        self.first = None  # token that the first decode step consumes
        self.base = 0  # cached positions that no rollback may touch

    def tokens(self):
        return self.committed + [t for _, block, _ in self.pending for t in block]

    def truncate_cache(self, keep):
        for kv in self.cache:
            del kv[0][keep:]
            del kv[1][keep:]


def decide(emitted, attempts, gamma, policy, max_attempts):
    """3.7, eq. 11, the coordinator's whole decision: (gate, {stream: action}).

    emitted, attempts: {stream: readiness}, {stream: earlier attempts since its commit point}.
    commit    the gate passed: all pending blocks of every stream are committed; or policy local and strong
    hold      strong, but the gate failed: the block stays pending, its note is published
    rollback  weak: pending blocks are dropped, to be regenerated
    force     weak, and out of attempts: this stream's pending blocks are committed and flagged
    """
    gate = all(r > gamma for r in emitted.values())
    actions = {}
    for k, r in emitted.items():
        exhausted = attempts[k] + 1 >= max_attempts
        if gate:
            actions[k] = "commit"
        elif r <= gamma:
            actions[k] = "force" if exhausted else "rollback"
        else:
            actions[k] = "commit" if policy == "local" else "rollback" if policy == "global" and not exhausted else "hold"
    return gate, actions


def decode(trunk, sidecar, prompt, cfg, session=0, plan_ids=None, prefixes=None):
    """Run one session to the end; returns a trace dict (JSON-serialisable).

    cfg: streams, block_tokens (tau), reveal_delay (Delta >= 1), window (B), horizon (H tokens),
         gamma, policy (selective|stall|global|local), max_attempts, max_tokens (per stream), max_rounds,
         temperature, top_k, top_p, seed; optional: retry_temperature, keep_order, part_slots.
    plan_ids: slot ids given by the caller instead of the planner's. prefixes: token ids, one list
    a stream, that the stream reads after the prompt before it generates (not counted as output).
    """
    tau, budget = cfg["block_tokens"], cfg["max_tokens"]
    # 1. encode the prompt once with the plain frozen trunk
    cache = trunk.new_cache()
    hidden, inner = [], []
    for t in prompt:
        hidden.append(trunk.step(t, cache))
        inner.append(trunk.outputs[sidecar.c.get("plan_layer", 0)])
    # 2-3. plan, snapshot 0
    ids, _ = sidecar.plan(hidden, inner)
    if plan_ids is not None:
        ids = np.array(plan_ids)
    bus = NotesBus(cfg["reveal_delay"], cfg["window"])
    bus.publish(0, -1, sidecar.plan_note(ids))
    # every stream reads the last prompt token itself, with its own conditioning: so the shared
    # cache ends one token earlier
    shared = [[k[:-1], v[:-1]] for k, v in cache]
    streams = [Stream(k, shared) for k in range(cfg["streams"])]
    # EXTENSIONS.md: streams may follow the plan
    n = cfg.get("part_slots", 0)
    parts = [bool(np.any(ids[s.index * n : (s.index + 1) * n])) for s in streams]
    for s in streams:
        s.done = any(parts) and not parts[s.index]
    best_coverage = np.full((len(streams), len(ids)), -np.inf)
    trace = {"plan_ids": ids.tolist(), "plan_note": bus.notes[0][2].tolist(), "rounds": [], "draw_margin": 1e300}
    stalled = set()

    for round_ in range(1, cfg["max_rounds"] + 1):
        window = bus.window(round_)
        vectors = np.array([n[2] for n in window])
        record = {"round": round_, "window": [[n[0], n[1]] for n in window], "streams": []}
        emitted, attempts = {}, {}
        for s in streams:
            if s.done or s.index in stalled:
                continue

            def condition(layer, where, h, s=s):
                if layer not in sidecar.c["instrumented_layers"]:
                    return h
                if where == "after_attention":
                    return sidecar.snc(layer, h, vectors)
                return sidecar.adapter(layer, h, s.index)

            if s.first is None:
                lead = [prompt[-1]] + list(prefixes[s.index] if prefixes else [])
                for t in lead[:-1]:
                    trunk.step(t, s.cache, condition)
                s.first, s.base = lead[-1], len(prompt) - 1 + len(lead) - 1
            # (a)-(b) emit up to tau provisional tokens
            have, block, states, read, embedded, margins = s.tokens(), [], [], [], [], []
            while len(block) < tau and len(have) + len(block) < budget:
                previous = (have + block)[-1] if have or block else s.first
                states.append(trunk.step(previous, s.cache, condition))
                # what the pool reads: those states, or what a layer puts out (EXTENSIONS.md)
                layer = sidecar.c.get("pool_layer")
                read.append(states[-1] if layer is None else rms_norm(trunk.outputs[layer]))
                embedded.append(rms_norm(trunk.embed(previous)))
                logits = trunk.logits(states[-1])
                u = uniform(cfg["seed"], len(have) + len(block), s.index, s.attempt, session)
                # EXTENSIONS.md: a block that was rolled back may be drawn at another temperature
                again = cfg.get("retry_temperature", 0.0) if s.attempt > 0 else 0.0
                choice = again or cfg["temperature"], cfg["top_k"], cfg["top_p"], u
                block.append(sample(logits, *choice))
                trace["draw_margin"] = min(trace["draw_margin"], draw_margin(logits, *choice, block[-1]))
                margins.append(float(np.diff(np.partition(logits, -2)[-2:])[0]))
                if block[-1] in trunk.eos:
                    break
            # (c)-(d) note, coverage, readiness
            pooled = sidecar.pool(np.array(read), np.array(embedded))
            note = sidecar.note(pooled)
            coverage = sidecar.coverage(pooled, ids)
            emitted[s.index] = sidecar.readiness(states[-1], pooled, vectors, coverage, note, ids)
            attempts[s.index] = s.attempt
            s.proposal = (block, note, coverage)
            record["streams"].append(
                {
                    "stream": s.index, "attempt": s.attempt, "tokens": block, "note": note.tolist(),
                    "coverage": coverage.tolist(), "readiness": emitted[s.index], "min_margin": min(margins),
                    "last_hidden": states[-1].tolist(),
                }
            )
        # (e)-(f) decide, then apply the decision as every replica does
        gate, actions = decide(emitted, attempts, cfg["gamma"], cfg["policy"], cfg["max_attempts"])
        for s in streams:
            action = actions.get(s.index)
            if action == "rollback":
                bus.withdraw(s.index, {r for r, _, _ in s.pending})
                s.pending = []
                s.attempt += 1
                s.truncate_cache(s.base + len(s.committed))
            elif action:
                block, note, coverage = s.proposal
                s.pending.append((round_, block, coverage))
                bus.publish(round_, s.index, note)
            if action == "force":
                s.forced.append(round_)
            if s.pending and (gate or action in ("commit", "force")):
                for _, _, coverage in s.pending:
                    best_coverage[s.index] = np.maximum(best_coverage[s.index], coverage)
                s.committed, s.pending, s.attempt = s.tokens(), [], 0
        # who waits next round: complete but uncommitted, at the horizon, or held under 'stall'
        stalled = set()
        for s in streams:
            complete = bool(s.tokens()) and (s.tokens()[-1] in trunk.eos or len(s.tokens()) >= budget)
            s.done = s.done or (complete and not s.pending)
            if s.pending:
                at_horizon = sum(len(b) for _, b, _ in s.pending) + tau > cfg["horizon"]
                if complete or at_horizon or cfg["policy"] == "stall":
                    stalled.add(s.index)
        record["gate"] = gate
        record["actions"] = {str(k): actions[k] for k in sorted(actions)}
        record["stalled_next"] = sorted(stalled)
        record["committed"] = [len(s.committed) for s in streams]
        trace["rounds"].append(record)
        if all(s.done for s in streams):
            break

    trace["streams"] = [
        {
            "stream": s.index, "tokens": s.committed, "uncommitted": s.tokens()[len(s.committed) :],
            "done": s.done, "forced_rounds": s.forced,
        }
        for s in streams
    ]
    # 3.8 step 5: a slot belongs to the stream whose committed blocks cover it best; streams are
    # merged by the first slot they own, then by index; a stream that owns none comes last
    owner = {
        i: int(np.argmax(best_coverage[:, i]))
        for i in range(len(ids))
        if ids[i] != 0 and np.max(best_coverage[:, i]) > -np.inf
    }
    first = [min([i for i, k in owner.items() if k == s.index], default=len(ids)) for s in streams]
    trace["slot_owner"] = {str(i): k for i, k in owner.items()}
    trace["best_coverage"] = np.maximum(best_coverage, -1e300).tolist()  # [K, S]
    # EXTENSIONS.md: sections may keep the order in which they were asked for
    kept = cfg.get("keep_order", 0) == 1
    trace["merge_order"] = sorted(range(len(streams)), key=lambda k: (0 if kept else first[k], k))
    return trace
