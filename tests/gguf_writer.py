"""GGUF files made byte by byte, sound ones and broken ones, and what their quantized blocks hold.

Written from the format's description alone, so that it shares no mistake with the program.
"""
import json
import os
import random
import struct

from safetensors_edit import File

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
U16 = 2
PLAIN = {U16: "<H", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B", U64: "<Q"}
# name: (number, elements of a block, its bytes)
TYPES = {
    "F32": (0, 1, 4), "F16": (1, 1, 2), "BF16": (30, 1, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q5_0": (6, 32, 22),
    "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210),
    "IQ4_NL": (20, 32, 18),
}
QUANTIZED = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]


def string(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def kind_of(value):
    return {bool: BOOL, int: U32, float: F32, str: STRING, bytes: STRING}[type(value)]


def plain(kind, value):
    return string(value) if kind == STRING else struct.pack(PLAIN[kind], value)


class Raw(bytes):
    """A value as it stands in the file, its type in front."""


def value(x):
    """A value with its type in front; of lists, integers are i32."""
    if isinstance(x, Raw):
        return bytes(x)
    if not isinstance(x, list):
        return struct.pack("<I", kind_of(x)) + plain(kind_of(x), x)
    kind = kind_of(x[0]) if x else U32
    kind = I32 if kind == U32 else kind
    return struct.pack("<IIQ", ARRAY, kind, len(x)) + b"".join(plain(kind, y) for y in x)


def typed(kind, x):
    return Raw(struct.pack("<I", kind) + plain(kind, x))


class Tensor:
    def __init__(self, name, dims, kind, data):
        self.name, self.dims, self.number, self.data, self.offset = name, dims, TYPES[kind][0], data, None


class Gguf:
    """A file in memory: metadata by key, tensors in order; what is set of the rest replaces what would be right."""

    def __init__(self):
        self.metadata, self.tensors = {}, []
        self.magic, self.version, self.n_tensors, self.n_metadata, self.more = b"GGUF", 3, None, None, b""

    def find(self, name):
        return next(t for t in self.tensors if t.name == name)

    def bytes(self):
        align = self.metadata.get("general.alignment", 32)
        align = align if isinstance(align, int) and align > 0 else 32
        out = self.magic + struct.pack("<I", self.version)
        out += struct.pack("<Q", len(self.tensors) if self.n_tensors is None else self.n_tensors)
        out += struct.pack("<Q", len(self.metadata) if self.n_metadata is None else self.n_metadata)
        out += b"".join(string(k) + value(v) for k, v in self.metadata.items()) + self.more
        data = b""
        for t in self.tensors:
            offset = len(data) if t.offset is None else t.offset
            out += string(t.name) + struct.pack("<I", len(t.dims)) + b"".join(struct.pack("<Q", d) for d in t.dims)
            out += struct.pack("<IQ", t.number, offset)
            data += t.data + b"\0" * (-len(t.data) % align)
        return out + b"\0" * (-len(out) % align) + data

    def write(self, path):
        with open(path, "wb") as f:
            f.write(self.bytes())
        return path


# ------------------------------------------------------------------ what blocks hold


def half(raw):
    return struct.unpack("<e", raw)[0]


def scales_of_k(s):
    """Eight scales and eight mins of six bits in twelve bytes."""
    low = [(s[j] & 63, s[j + 4] & 63) for j in range(4)]
    return low + [((s[j + 4] & 15) | (s[j - 4] >> 6) << 4, (s[j + 4] >> 4) | (s[j] >> 6) << 4) for j in range(4, 8)]


def of_32(kind, b):
    with_min, five = kind.endswith("_1"), kind.startswith("Q5")
    d, low = half(b[:2]), half(b[2:4]) if with_min else 0.0
    at = 4 if with_min else 2
    if kind == "Q8_0":
        return [d * q for q in struct.unpack("<32b", b[2:])]
    high = struct.unpack("<I", b[at : at + 4])[0] if five else 0
    nibbles = b[at + 4 * five :]
    codes = [q & 15 for q in nibbles] + [q >> 4 for q in nibbles]
    codes = [q | (high >> i & 1) << 4 for i, q in enumerate(codes)]
    return [d * (q - (0 if with_min else 16 if five else 8)) + low for q in codes]


def of_256(kind, b):
    out = []
    if kind == "Q6_K":
        ql, qh, s, d = b[:128], b[128:192], struct.unpack("<16b", b[192:208]), half(b[208:])
        for i in range(256):
            n, quarter, l = i // 128, i % 128 // 32, i % 32
            low = ql[64 * n + 32 * (quarter % 2) + l] >> 4 * (quarter // 2) & 15
            q = (low | (qh[32 * n + l] >> 2 * quarter & 3) << 4) - 32
            out.append(d * s[i // 16] * q)
        return out
    d, low, scales = half(b[:2]), half(b[2:4]), scales_of_k(b[4:16])
    qh, qs = (b[16:48], b[48:]) if kind == "Q5_K" else (bytes(32), b[16:])
    for i in range(256):
        scale, least = scales[i // 32]
        q = (qs[i // 64 * 32 + i % 32] >> 4 * (i // 32 % 2) & 15) | (qh[i % 32] >> i // 32 & 1) << 4
        out.append(d * scale * q - low * least)
    return out


def floats(kind, raw):
    """The values of a row of blocks."""
    _, elems, size = TYPES[kind]
    if kind == "F32":
        return list(struct.unpack(f"<{len(raw) // 4}f", raw))
    if kind == "F16":
        return list(struct.unpack(f"<{len(raw) // 2}e", raw))
    if kind == "BF16":
        return [struct.unpack("<f", b"\0\0" + raw[i : i + 2])[0] for i in range(0, len(raw), 2)]
    one = of_32 if elems == 32 else of_256
    return [x for i in range(0, len(raw), size) for x in one(kind, raw[i : i + size])]


def random_block(kind, rng, spread):
    """A block of values of about that spread."""
    _, elems, size = TYPES[kind]
    if elems == 1:
        x = rng.gauss(0, spread)
        return {"F32": struct.pack("<f", x), "F16": struct.pack("<e", x), "BF16": struct.pack("<f", x)[2:]}[kind]
    b = bytearray(rng.randbytes(size))
    steps = {"Q8_0": 74, "Q5_0": 9, "Q5_1": 9, "Q6_K": 18 * 74, "Q5_K": 9 * 36, "Q4_K": 4.6 * 36}.get(kind, 4.6)
    d = struct.pack("<e", spread / steps * rng.uniform(0.7, 1.3))
    if kind == "Q6_K":
        b[208:] = d
    else:
        b[:2] = d
    if kind in ("Q4_1", "Q5_1"):
        b[2:4] = struct.pack("<e", -spread * rng.uniform(1.4, 1.8))
    if kind in ("Q4_K", "Q5_K"):
        b[2:4] = struct.pack("<e", spread * 1.6 / 32)
    return bytes(b)


def random_rows(kind, rows, width, rng, spread):
    _, elems, _ = TYPES[kind]
    return [b"".join(random_block(kind, rng, spread) for _ in range(width // elems)) for _ in range(rows)]


# ------------------------------------------------------------------ models

LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def gguf_name(name):
    stem, end = name.rsplit(".", 1)
    for ours, theirs in WHOLE.items():
        if stem == theirs:
            return f"{ours}.{end}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{next(k for k, v in LAYER.items() if v == rest)}.{end}"


def in_pairs(rows, head_dim):
    """Rows of heads in the order of pairs that turn together, as llama's are in GGUF."""
    half_dim = head_dim // 2
    heads = [rows[i : i + head_dim] for i in range(0, len(rows), head_dim)]
    return [head[j + half_dim * s] for head in heads for j in range(half_dim) for s in range(2)]


def metadata_of(config):
    """The metadata of a config.json of Hugging Face's."""
    kind = config["model_type"]
    arch = "llama" if kind == "mistral" else kind
    heads = config["num_attention_heads"]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    eos = config.get("eos_token_id")
    ends = dict(zip(("eos", "eot", "eom"), eos if isinstance(eos, list) else [eos]))
    dim = config.get("head_dim") or config["hidden_size"] // heads
    m = {
        "general.architecture": arch,
        f"{arch}.block_count": config["num_hidden_layers"],
        f"{arch}.context_length": config["max_position_embeddings"],
        f"{arch}.embedding_length": config["hidden_size"],
        f"{arch}.feed_forward_length": config["intermediate_size"],
        f"{arch}.attention.head_count": heads,
        f"{arch}.attention.head_count_kv": config["num_key_value_heads"],
        f"{arch}.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        f"{arch}.rope.freq_base": float(rope.get("rope_theta") or config.get("rope_theta", 10000.0)),
        f"{arch}.attention.key_length": dim,
        f"{arch}.attention.value_length": dim,
        "tokenizer.ggml.bos_token_id": config.get("bos_token_id", 0),
        **{f"tokenizer.ggml.{k}_token_id": v for k, v in ends.items() if v is not None},
    }
    if config.get("sliding_window") and kind == "mistral":
        m[f"{arch}.attention.sliding_window"] = config["sliding_window"]
    if rope.get("rope_type") in ("linear", "yarn"):
        m.update({f"{arch}.rope.scaling.type": rope["rope_type"], f"{arch}.rope.scaling.factor": float(rope["factor"])})
        if "original_max_position_embeddings" in rope:
            m[f"{arch}.rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
    if rope.get("rope_type") == "llama3":
        m[f"{arch}.rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
    return m


# As in Llama 3.2.
LLAMA3 = dict(rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)


def llama3_factors(rope, dim):
    """By how much llama3 stretches the wave of each pair."""
    out = []
    old, low, high = (rope[k] for k in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"))
    for j in range(dim // 2):
        wave = 2 * 3.141592653589793 * rope["rope_theta"] ** (2 * j / dim)
        smooth = min(max((old / wave - low) / (high - low), 0), 1)
        out.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return out


def from_folder(folder):
    """The same model as a Hugging Face folder of small tensors."""
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    out = Gguf()
    out.metadata = metadata_of(config)
    arch = out.metadata["general.architecture"]
    dim = out.metadata[f"{arch}.attention.key_length"]
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type") == "llama3":
        out.tensors.append(Tensor("rope_freqs.weight", [dim // 2], "F32", struct.pack(f"<{dim // 2}f", *llama3_factors(rope, dim))))
    for file in sorted(f for f in os.listdir(folder) if f.endswith(".safetensors")):
        source = File(os.path.join(folder, file))
        for name, entry in source.header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            rows, shape, kind = entry["shape"][0], entry["shape"], entry["dtype"]
            raw = bytes(source.data[begin:end])
            lines = [raw[i * len(raw) // rows : (i + 1) * len(raw) // rows] for i in range(rows)]
            if arch == "llama" and ("q_proj" in name or "k_proj" in name):
                lines = in_pairs(lines, dim)
            raw = b"".join(lines)
            if len(shape) == 1:
                raw, kind = struct.pack(f"<{rows}f", *floats(kind, raw)), "F32"
            out.tensors.append(Tensor(gguf_name(name), shape[::-1], kind, raw))
    return out


def random_llama(kind, seed, hidden=64, heads=4, kv_heads=2, ffn=96, layers=2, vocab=72):
    """A llama whose matrices are of one type, and its tensors by Hugging Face's names: (shape, values)."""
    rng = random.Random(seed)
    dim = hidden // heads
    config = dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=vocab, max_position_embeddings=128, rms_norm_eps=1e-5,
        rope_theta=10000.0, tie_word_embeddings=False, hidden_act="silu", bos_token_id=0, eos_token_id=1, head_dim=dim,
    )
    shapes = {"model.embed_tokens.weight": [vocab, hidden], "model.norm.weight": [hidden], "lm_head.weight": [vocab, hidden]}
    for i in range(layers):
        at = f"model.layers.{i}."
        shapes.update({at + "input_layernorm.weight": [hidden], at + "post_attention_layernorm.weight": [hidden]})
        shapes.update({at + f"self_attn.{x}_proj.weight": [dim * n, hidden] for x, n in (("q", heads), ("k", kv_heads), ("v", kv_heads))})
        shapes.update({at + "self_attn.o_proj.weight": [hidden, dim * heads], at + "mlp.down_proj.weight": [hidden, ffn]})
        shapes.update({at + f"mlp.{x}_proj.weight": [ffn, hidden] for x in ("gate", "up")})
    out, values = Gguf(), {}
    out.metadata = metadata_of(config)
    for name, shape in shapes.items():
        if len(shape) == 1:
            rows = [struct.pack("<f", 1 + rng.gauss(0, 0.1)) for _ in range(shape[0])]
            values[name] = (shape, floats("F32", b"".join(rows)))
            out.tensors.append(Tensor(gguf_name(name), shape, "F32", b"".join(rows)))
            continue
        rows = random_rows(kind, *shape, rng, 1.0 if "embed" in name else 1.6 / shape[1] ** 0.5)
        values[name] = (shape, floats(kind, b"".join(rows)))
        turned = in_pairs(rows, dim) if "q_proj" in name or "k_proj" in name else rows
        out.tensors.append(Tensor(gguf_name(name), shape[::-1], kind, b"".join(turned)))
    return out, config, values


def write_folder(folder, config, values):
    """A Hugging Face folder in F32."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)
    header, data = {}, b""
    for name, (shape, x) in values.items():
        raw = struct.pack(f"<{len(x)}f", *x)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)
    return folder


# ------------------------------------------------------------------ seeds for the fuzzer


def seeds():
    """Small sound files, by name."""
    tiny = dict(hidden=4, heads=2, kv_heads=1, ffn=4, layers=1, vocab=12)
    words = ["<s>", "</s>", "a", "b", "ab", "<0x0A>", "\u2581", "\u2581a", "<unk>", "1", "2", "12"]
    ids = {"tokenizer.ggml.tokens": words, "tokenizer.ggml.token_type": [3, 3, 1, 1, 1, 6, 1, 1, 2, 1, 1, 4]}
    made = {name: random_llama("F32", 1, **tiny)[0] for name in ("bytes", "pieces", "whole")}
    made["bytes"].metadata.update({**ids, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.merges": ["a b", "1 2"]})
    made["pieces"].metadata.update({**ids, "tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": [-float(i) for i in range(12)]})
    made["whole"].metadata["tokenizer.huggingface.json"] = json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})
    for kind in ("Q8_0", "Q5_1"):
        made[kind] = random_llama(kind, 2, hidden=32, heads=2, kv_heads=1, ffn=32, layers=1, vocab=4)[0]
    made["Q6_K"] = random_llama("Q6_K", 3, hidden=256, heads=64, kv_heads=1, ffn=256, layers=1, vocab=1)[0]
    made["Q6_K"].tensors = [t for t in made["Q6_K"].tensors if "attn_k" in t.name or "token" in t.name or "norm" in t.name]
    rope = made["bytes"].metadata
    rope.update({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 2.0, "llama.attention.sliding_window": 8})
    return made


if __name__ == "__main__":
    import sys

    if len(sys.argv) != 2:
        sys.exit("usage: gguf_writer.py FOLDER   (writes seeds for the fuzzer)")
    for seed, model in seeds().items():
        model.write(os.path.join(sys.argv[1], seed))
