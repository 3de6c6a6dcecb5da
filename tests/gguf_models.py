#!/usr/bin/env python3
"""Models in GGUF: the same answers as the same model in a Hugging Face directory, and conversions.

usage: gguf_models.py PDT

The files are written by tests/gguf_writer.py. Of the families in tests/data/hf each is decoded from
its directory, from a GGUF file and from what `pdt model convert` makes of either; of every type of
weights a small llama is. Where the Python packages gguf and tokenizers are installed they read what pdt writes. With
PDT_GGUF_VOCABS, a folder of llama.cpp's ggml-vocab-*.gguf and what Hugging Face made of their strings
(.inp, .out), ids are compared as well.
"""
import glob
import importlib
import json
import os
import shutil
import struct
import sys
import tempfile

import gguf_writer
import harness
from gguf_writer import Gguf, Tensor, typed
from safetensors_edit import File

PROMPT = [3, 9, 27, 17, 50, 8, 23, 68, 60]
FAMILIES = [
    "llama-2", "llama-3", "llama-biases", "mistral", "mistral-window", "qwen2", "qwen3", "smollm2", "sharded", "qwen3-unused-window",
]
SPLITTERS = {"llama-bpe", "qwen2", "smollm", "gpt-2", "tekken", "deepseek-coder", "default", "starcoder", "refact", "deepseek-r1-qwen"}


def pdt_run(pdt, *words, stdin=b""):
    result = harness.run([pdt, *words], stdin=stdin)
    if result.status != 0:
        raise harness.Failed(f"{' '.join(map(str, words[:3]))}: status {result.status}: {result.err.strip()[-300:]}")
    return result.out


class Bench:
    """A scratch folder in which models are decoded."""

    def __init__(self, pdt, scratch):
        self.pdt, self.scratch = pdt, scratch
        self.request = self.path("request.json")
        with open(self.request, "w") as f:
            json.dump({"prompt_ids": PROMPT, "settings": {"streams": 2, "block_tokens": 4, "max_tokens": 12}}, f)

    def path(self, *names):
        return os.path.join(self.scratch, *names)

    def trace(self, model, sidecar, layout="1x1", extra=()):
        return harness.decode(self.pdt, model, sidecar, self.request, self.path("trace.json"), harness.Layout(layout), extra)

    def sidecar(self, model):
        harness.closed_sidecar(self.pdt, model, self.path("sidecar"), 2)
        return self.path("sidecar")

    def differ(self, models, tolerance=0.0, extra=()):
        """The first of the models whose trace is not that of the first one, in words."""
        sidecar = self.sidecar(models[0])
        want = self.trace(models[0], sidecar, extra=extra)
        for model in models[1:]:
            bad = harness.difference(self.trace(model, sidecar, extra=extra), want, tolerance)
            if bad:
                return f"{os.path.basename(model)}: {bad}"
        return None

    def convert(self, source, target, *flags):
        pdt_run(self.pdt, "model", "convert", "--overwrite", *flags, source, target)
        return target


def check_family(bench, name):
    """Bit for bit, since no weight changes: directory, our GGUF, pdt's GGUF, and a directory of it."""
    folder = os.path.join(harness.TESTS, "data", "hf", name)
    ours = gguf_writer.from_folder(folder).write(bench.path("ours.gguf"))
    theirs = bench.convert(folder, bench.path("theirs.gguf"))
    back = bench.convert(ours, bench.path("back"))
    bad = bench.differ([folder, ours, theirs, back])
    shutil.rmtree(back)
    return bad


def check_window(bench):
    """What GGUF has no key for is refused, into it and out of it."""
    source = os.path.join(harness.TESTS, "data", "hf", "qwen2-window")
    made = gguf_writer.from_folder(source)
    made.metadata["qwen2.attention.sliding_window"] = 6
    return harness.refusals(
        [
            ("into GGUF", [bench.pdt, "model", "convert", source, bench.path("w.gguf")], 1, "which layers have a sliding window"),
            ("out of it", [bench.pdt, "inspect", made.write(bench.path("w2.gguf"))], 1, "sliding_window"),
        ],
        "pdt ",
    )


def check_rope(bench, rope):
    """Ropes that the metadata says: the same as config.json says it."""
    folder = bench.path("rope")
    shutil.copytree(os.path.join(harness.TESTS, "data", "hf", "llama-2"), folder, dirs_exist_ok=True)
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    config["rope_parameters"] = {"rope_theta": 10000.0, **rope}
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)
    made = gguf_writer.from_folder(folder)
    if rope["rope_type"] == "llama3":  # as others write it: the factors alone
        made.metadata.pop("llama.rope.scaling.original_context_length")
    ours = made.write(bench.path("rope.gguf"))
    return bench.differ([folder, ours, bench.convert(folder, bench.path("rope2.gguf"))])


def check_type(bench, kind):
    """A model of one type: its values in a directory, written by us and by pdt, give the same."""
    shape = dict(hidden=256, heads=4, kv_heads=1, ffn=256, layers=1) if kind.endswith("_K") else {}
    made, config, values = gguf_writer.random_llama(kind, 7, **shape)
    model = made.write(bench.path("m.gguf"))
    folder = gguf_writer.write_folder(bench.path("f32"), config, values)
    converted = bench.convert(model, bench.path("converted"), "--dtype", "F32")
    theirs, ours = (File(os.path.join(x, "model.safetensors")) for x in (converted, folder))
    for name, entry in ours.header.items():
        got = theirs.header[name]
        if got["shape"] != entry["shape"] or theirs.data[slice(*got["data_offsets"])] != ours.data[slice(*entry["data_offsets"])]:
            return f"{name} of the converted directory"
    copy = bench.convert(model, bench.path("copy.gguf"))
    whole = ("--compute", "f32")  # activations too: then only the order of sums differs
    return bench.differ([folder, model, converted], harness.TOLERANCE, whole) or bench.differ([model, copy])


def rounded(kind, row):
    """A row in blocks of 32 as ggml's reference rounds it."""
    f32 = lambda x: struct.unpack("<f", struct.pack("<f", x))[0]
    out = b""
    for at in range(0, len(row), 32):
        block = row[at : at + 32]
        largest = max(block, key=abs)
        d = f32(abs(largest) / 127) if kind == "Q8_0" else f32(largest / -8)
        inverse = f32(1 / d) if d else 0.0
        out += struct.pack("<e", d)
        if kind == "Q8_0":
            scaled = [f32(x * inverse) for x in block]
            out += struct.pack("<32b", *[int(abs(x) + 0.5) * (1 if x >= 0 else -1) for x in scaled])
        else:
            codes = [min(15, int(f32(f32(x * inverse) + 8.5))) for x in block]
            out += bytes(codes[j] | codes[j + 16] << 4 for j in range(16))
    return out


def tensors_of(path):
    """The tensors of a file that pdt wrote, read by hand: name: (dims, number, bytes)."""
    with open(path, "rb") as f:
        raw = f.read()
    at = 24
    n, entries = struct.unpack("<QQ", raw[8:24])

    def take(form):
        nonlocal at
        at += struct.calcsize(form)
        return struct.unpack(form, raw[at - struct.calcsize(form) : at])

    def text():
        nonlocal at
        (length,) = take("<Q")
        at += length
        return raw[at - length : at]

    for _ in range(entries):
        text()
        (kind,) = take("<I")
        (kind, count) = take("<IQ") if kind == 9 else (kind, 1)
        for _ in range(count):
            text() if kind == 8 else take(gguf_writer.PLAIN[kind])
    listed = []
    for _ in range(n):
        name = text().decode()
        dims = take(f"<{take('<I')[0]}Q")
        listed.append((name, dims, *take("<IQ")))
    data = at + -at % 32
    sizes = {number: (elems, size) for number, elems, size in gguf_writer.TYPES.values()}
    out = {}
    for name, dims, number, offset in listed:
        elems, size = sizes[number]
        count = 1
        for d in dims:
            count *= d
        out[name] = (dims, number, raw[data + offset : data + offset + count // elems * size])
    return out


def check_quantize(bench, kind):
    """--quantize rounds as ggml's reference, puts rows in GGUF's order, and leaves what it should."""
    _, config, values = gguf_writer.random_llama("F32", 3, ffn=80)
    folder = gguf_writer.write_folder(bench.path("q"), config, values)
    made = tensors_of(bench.convert(folder, bench.path("q.gguf"), "--quantize", kind.lower()))
    number = lambda name: gguf_writer.TYPES[name][0]
    for name, (shape, x) in values.items():
        dims, found, raw = made[gguf_writer.gguf_name(name)]
        head = name == "lm_head.weight"
        want = "F32" if len(shape) == 1 else "F16" if shape[1] % 32 else "Q8_0" if head else kind
        if list(dims) != shape[::-1] or found != number(want):
            return f"{name}: type {found} and dimensions {dims}"
        if want in ("F32", "F16"):
            continue
        rows = [rounded(want, x[i * shape[1] : (i + 1) * shape[1]]) for i in range(shape[0])]
        if "q_proj" in name or "k_proj" in name:
            rows = gguf_writer.in_pairs(rows, config["head_dim"])
        if raw != b"".join(rows):
            return f"{name}: other blocks than ggml's reference makes"
    return None


def check_package(bench):
    """The package gguf reads what pdt writes, and makes the same values of every type."""
    gguf, np = package("gguf"), package("numpy")
    if not gguf or not np:
        return None
    for kind in [*gguf_writer.QUANTIZED, "F16", "BF16"]:
        shape = dict(hidden=256, heads=4, kv_heads=1, ffn=256, layers=1) if kind.endswith("_K") else {}
        made, config, values = gguf_writer.random_llama(kind, 11, **shape)
        copy = bench.convert(made.write(bench.path("p.gguf")), bench.path("p2.gguf"))
        reader = gguf.GGUFReader(copy)
        if reader.fields["general.architecture"].contents() != "llama" or len(reader.tensors) != len(values):
            return f"{kind}: other metadata, or {len(reader.tensors)} tensors for {len(values)}"
        for t in reader.tensors:
            name = next(n for n in values if gguf_writer.gguf_name(n) == t.name)
            dims, x = values[name]
            rows = [x[i * len(x) // dims[0] : (i + 1) * len(x) // dims[0]] for i in range(dims[0])]
            rows = gguf_writer.in_pairs(rows, config["head_dim"]) if "q_proj" in name or "k_proj" in name else rows
            got = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32).ravel()
            if got.tobytes() != struct.pack(f"<{len(x)}f", *[v for row in rows for v in ([row] if isinstance(row, float) else row)]):
                return f"{kind}: {t.name} has other values"
    return None


# ------------------------------------------------------------------ parts


def parts_of(made, n):
    """A model in n parts, the metadata in the first."""
    parts = []
    for i in range(n):
        part = Gguf()
        part.metadata = dict(made.metadata) if i == 0 else {}
        part.metadata.update({"split.no": typed(gguf_writer.U16, i), "split.count": typed(gguf_writer.U16, n)})
        part.metadata["split.tensors.count"] = typed(gguf_writer.I32, len(made.tensors))
        part.tensors = made.tensors[i::n]
        parts.append(part)
    return parts


def check_parts(bench):
    made = gguf_writer.from_folder(os.path.join(harness.TESTS, "data", "hf", "llama-3"))
    whole = made.write(bench.path("whole.gguf"))
    names = [bench.path(f"part-{i + 1:05}-of-00003.gguf") for i in range(3)]
    for name, part in zip(names, parts_of(made, 3)):
        part.write(name)
    bad = bench.differ([whole, names[0], bench.convert(names[0], bench.path("parts"))])
    if bad:
        return bad
    inspect = [bench.pdt, "inspect", names[0]]
    cases = [("not the first", [bench.pdt, "inspect", names[1]], 1, "expected part 0 of 3, found split.no 1")]
    wrong = harness.refusals(cases, "pdt ")
    os.rename(names[2], names[2] + ".away")
    wrong = wrong or harness.refusals([("a part is missing", inspect, 1, "part-00003-of-00003.gguf: cannot open")], "pdt ")
    shutil.copy(names[1], names[2])
    wrong = wrong or harness.refusals([("a part twice", inspect, 1, "expected part 2 of 3, found split.no 1")], "pdt ")
    fewer = parts_of(made, 3)[2]
    fewer.tensors.pop()
    fewer.write(names[2])
    wrong = wrong or harness.refusals([("a tensor is missing", inspect, 1, "split.tensors.count")], "pdt ")
    double = parts_of(made, 3)[2]
    double.tensors[-1] = parts_of(made, 3)[1].tensors[0]
    double.write(names[2])
    return wrong or harness.refusals([("a tensor twice", inspect, 1, "found one in two")], "pdt ")


# ------------------------------------------------------------------ tokenizers


def byte_alphabet():
    """The characters that stand for bytes in byte-level vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(other)}}


def byte_level(pre):
    made = gguf_writer.random_llama("F32", 5, vocab=320)[0]
    a = byte_alphabet()
    merges = ["h e", "l l", "he ll", "hell o", f"{a[32]} w", "1 2", "12 3", "o r"]
    tokens = ["<|end|>", "<|user|>", *a.values(), *[m.replace(" ", "") for m in merges], "<tool>"]
    tokens += [f"[PAD{i}]" for i in range(len(tokens), 320)]
    types = [3, 3, *[1] * 264, 4, *[5] * 53]
    made.metadata.update(
        {
            "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types,
            "tokenizer.ggml.merges": merges, "tokenizer.ggml.eos_token_id": 0, "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.chat_template": "{{ messages }}",
        }
    )
    return made


def sentencepiece(prefix=True):
    made = gguf_writer.random_llama("F32", 6, vocab=320)[0]
    words = ["\u2581", "h", "e", "l", "o", "w", "r", "d", "ll", "he", "\u2581w", "hell", "hello", "\u2581hello", "or", "\u2581wor"]
    tokens = ["<unk>", "<s>", "</s>", *[f"<0x{b:02X}>" for b in range(256)], *words, "<user>"]
    tokens += [f"[PAD{i}]" for i in range(len(tokens), 320)]
    n = len(words)
    made.metadata.update(
        {
            "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default", "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * n, 4, *[5] * (320 - 260 - n)],
            "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(n)] + [0.0] * (61 - n),
            "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
            "tokenizer.ggml.add_space_prefix": prefix,
        }
    )
    return made


TEXTS = ["hello world", " hello", "hello<|end|>123<tool>", "<s>hello</s> wor<user>ld", "\u00e4\u20ac\n\n  x", "", "hell w123or"]


def ids_of(bench, model, *flags):
    lines = "".join(json.dumps(t) + "\n" for t in TEXTS).encode()
    return [json.loads(line) for line in pdt_run(bench.pdt, "tokenize", "--model", model, *flags, stdin=lines).splitlines()]


def package(name):
    """A Python package, past the files of this folder that have other packages' names; None without."""
    kept = list(sys.path)
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != harness.TESTS]
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"skipped: no Python package {name} here (pip install {name})")
        return None
    finally:
        sys.path[:] = kept


def hugging_face(folder, ids):
    """Does Hugging Face's library read the directory's tokenizer, and give these ids?"""
    tokenizers = package("tokenizers")
    if not tokenizers:
        return None
    t = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    wrong = [text for text, want in zip(TEXTS, ids) if t.encode(text).ids != want]
    return f"tokenizers has other ids of {wrong[0]!r}" if wrong else None


def check_tokenizer(bench, made, some):
    """Ids by hand for the first text; the same from a directory, and from GGUF of that; text comes back."""
    model = made.write(bench.path("t.gguf"))
    folder = bench.convert(model, bench.path("t"))
    again = bench.convert(folder, bench.path("t2.gguf"))
    ids = ids_of(bench, model)
    if ids[0] != some:
        return f"'{TEXTS[0]}': ids {ids[0]} for {some}"
    for other in (folder, again):
        if ids_of(bench, other) != ids:
            return f"{os.path.basename(other)}: other ids"
    lines = "".join(json.dumps(x) + "\n" for x in ids).encode()
    texts = [json.loads(x) for x in pdt_run(bench.pdt, "tokenize", "--decode", "--model", model, stdin=lines).splitlines()]
    if texts[0] != TEXTS[0] or texts[4] != TEXTS[4]:
        return f"texts come back as {texts[0]!r} and {texts[4]!r}"
    with open(os.path.join(folder, "tokenizer_config.json")) as f:
        kept = json.load(f).get("chat_template")
    if kept != made.metadata.get("tokenizer.chat_template"):
        return f"chat template: {kept!r}"
    bad = hugging_face(folder, ids)
    shutil.rmtree(folder)
    return bad


def check_splitters(bench):
    """Every way of splitting texts that is known by name, back and forth."""
    for pre in sorted(SPLITTERS):
        model = byte_level(pre).write(bench.path("s.gguf"))
        folder = bench.convert(model, bench.path("s"))
        again = bench.convert(folder, bench.path("s2.gguf"))
        if not ids_of(bench, model) == ids_of(bench, folder) == ids_of(bench, again):
            return f"{pre}: other ids after a conversion"
    return None


def check_odd_merges(bench):
    """Merges that no scores give: the tokenizer goes into GGUF as its file, with the same ids."""
    folder = bench.convert(sentencepiece().write(bench.path("m.gguf")), bench.path("m"))
    path = os.path.join(folder, "tokenizer.json")
    with open(path) as f:
        t = json.load(f)
    t["model"]["merges"].pop(0)  # which scores would give back
    with open(path, "w") as f:
        json.dump(t, f)
    again = bench.convert(folder, bench.path("m2.gguf"))
    report = json.loads(pdt_run(bench.pdt, "inspect", "--json", again))["metadata"]
    if "tokenizer.huggingface.json" not in report or ids_of(bench, again) != ids_of(bench, folder):
        return f"{sorted(report)}"
    shutil.rmtree(folder)
    return None


def check_vocabularies(bench):
    folder = os.environ.get("PDT_GGUF_VOCABS")
    if not folder:
        print("skipped: PDT_GGUF_VOCABS is not set (a folder with llama.cpp's ggml-vocab-*.gguf, .inp and .out)")
        return None
    compared = 0
    for path in sorted(glob.glob(os.path.join(folder, "ggml-vocab-*.gguf"))):
        name = os.path.basename(path)[11:-5]
        if not os.path.exists(path + ".out") or name not in {*SPLITTERS, "llama-spm"}:
            continue
        with open(path + ".inp", newline="", encoding="utf-8") as f:
            texts = f.read().split("\n__ggml_vocab_test__\n")
        with open(path + ".out") as f:
            want = [[int(x) for x in line.split()] for line in f.read().split("\n")]
        lines = "".join(json.dumps(t) + "\n" for t in texts).encode()
        got = [json.loads(x) for x in pdt_run(bench.pdt, "tokenize", "--no-special", "--model", path, stdin=lines).splitlines()]
        if got != want[: len(got)] or len(got) != len(texts):
            return f"{name}: {next(t for t, g, w in zip(texts, got, want) if g != w)!r}"
        compared += 1
    print(f"{compared} vocabularies of {folder}")
    return None if compared else f"{folder}: no vocabulary there"


# ------------------------------------------------------------------ commands


def check_commands(bench):
    """What else takes a model gets the same from its directory, from GGUF, and from a directory of that."""
    source = os.path.join(harness.ROOT, "launch", "model")
    sidecar = os.path.join(source, "sidecar.safetensors")
    model = bench.convert(source, bench.path("default.gguf"))
    models = [source, model, bench.convert(model, bench.path("default"))]
    prompt = ["--prompt", "Describe Velmora. Sections: history; trade.", "--section", "\nHistory:", "--section", "\nTrade:"]
    data, journal = bench.path("atlas.jsonl"), bench.path("run.journal")
    plan = ["--plan-vocab", "1024", "--plan-salt", "atlas-5"]
    pdt_run(bench.pdt, "data", "atlas", "--count", "4", "--split", "test", "--max-sections", "4", "--model", model, "--out", data, *plan)
    seen = {}
    for i, m in enumerate(models):
        out = bench.path(f"trained{i}")
        train = ["train", "--stage", "1", "--model", m, "--sidecar", sidecar, "--data", data, "--out", out, "--steps", "2", "--batch", "2"]
        pdt_run(bench.pdt, *train)
        row = json.loads(pdt_run(bench.pdt, "eval", "--model", m, "--sidecar", sidecar, "--data", data, "--arms", "system", "--json"))
        got = {
            "decode": pdt_run(bench.pdt, "decode", "--quiet", "--model", m, "--sidecar", sidecar, "--max-tokens", "32", *prompt, "--journal", journal),
            "train": File(os.path.join(out, "sidecar.safetensors")).data,
            "eval": (row["judged"], row["run"]["tokens_committed"]),
            "data check": "texts_read_back                    true" in pdt_run(bench.pdt, "data", "check", "--model", m, data),
        }
        pdt_run(bench.pdt, "inspect", "--verify", "--model", m, "--sidecar", sidecar, journal)
        os.remove(journal)
        seen = seen or got
        bad = [name for name in got if got[name] != seen[name]]
        if bad:
            return f"{os.path.basename(m)}: another {', '.join(bad)}"
    pdt_run(bench.pdt, "plan", "--model", model, "--ranks", "2")
    if "nothing is wrong" not in pdt_run(bench.pdt, "doctor", "--model", model):
        return "pdt doctor"
    trunk = [bench.pdt, "train", "--stage", "trunk", "--model", model, "--data", data, "--out", bench.path("n")]
    return harness.refusals([("a trunk", trunk, 2, "pdt model convert makes a directory of it")], "pdt ")


# ------------------------------------------------------------------ files


def check_overwrite(bench):
    source = os.path.join(harness.TESTS, "data", "hf", "llama-2")
    target, folder = bench.path("o.gguf"), bench.path("o")
    pdt_run(bench.pdt, "model", "convert", source, target)
    pdt_run(bench.pdt, "model", "convert", target, folder)
    before = {p: os.stat(p).st_mtime_ns for p in (target, os.path.join(folder, "config.json"))}
    convert = [bench.pdt, "model", "convert"]
    wrong = harness.refusals(
        [
            ("a file", [*convert, source, target], 2, "is there already"),
            ("a directory", [*convert, target, folder], 2, "has a config.json already"),
            ("itself", [*convert, "--overwrite", target, target], 2, "is the file"),
            ("quantized in a directory", [*convert, "--quantize", "q8_0", target, bench.path("new")], 2, "expected a GGUF file as DST"),
            ("no GGUF at all", [*convert, source, bench.path("new")], 2, "expected a GGUF file as SRC or DST"),
            ("an unknown type", [*convert, "--quantize", "q3", source, bench.path("new.gguf")], 2, "expected q8_0 or q4_0, found 'q3'"),
            ("answers over a model", [bench.pdt, "decode", "--model", target, "--sidecar", bench.sidecar(target), "--prompt", "x", "--out", target], 2, "is the file"),
        ],
        "pdt ",
    )
    if any(os.stat(p).st_mtime_ns != t for p, t in before.items()) or os.path.exists(bench.path("new")):
        return "a refused conversion wrote something"
    return wrong


def check_layouts(bench):
    """Quantized rows and columns are shared among ranks as others are."""
    if not shutil.which("mpirun"):
        print("skipped: no mpirun here")
        return None
    model = gguf_writer.random_llama("Q8_0", 7, ffn=128)[0].write(bench.path("l.gguf"))
    sidecar = bench.sidecar(model)
    want = bench.trace(model, sidecar)
    differing = (f"{x}: {harness.difference(bench.trace(model, sidecar, x), want, 0.0)}" for x in ("2x2", "2x1", "4x4"))
    return next((x for x in differing if not x.endswith(": None")), None)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(os.path.abspath(sys.argv[1]), scratch)
        checks = [(f"{name} in GGUF", lambda name=name: check_family(bench, name)) for name in FAMILIES]
        checks += [(f"weights of {kind}", lambda kind=kind: check_type(bench, kind)) for kind in gguf_writer.QUANTIZED + ["F16", "BF16"]]
        checks += [(f"quantized to {kind}", lambda kind=kind: check_quantize(bench, kind)) for kind in ("Q8_0", "Q4_0")]
        checks += [
            ("linear rope", lambda: check_rope(bench, dict(rope_type="linear", factor=4.0))),
            ("llama3 rope", lambda: check_rope(bench, dict(gguf_writer.LLAMA3, rope_theta=5e8))),
            ("yarn rope", lambda: check_rope(bench, dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32))),
            ("windows that GGUF cannot say", lambda: check_window(bench)),
            ("parts", lambda: check_parts(bench)),
            ("byte-level tokenizer", lambda: check_tokenizer(bench, byte_level("gpt-2"), [261, 262, 265, 77, 69])),
            ("SentencePiece tokenizer", lambda: check_tokenizer(bench, sentencepiece(), [1, 272, 274, 262, 266])),
            ("the same without a space in front", lambda: check_tokenizer(bench, sentencepiece(False), [1, 271, 274, 262, 266])),
            ("merges that no scores give", lambda: check_odd_merges(bench)),
            ("ways of splitting texts", lambda: check_splitters(bench)),
            ("recorded ids of real vocabularies", lambda: check_vocabularies(bench)),
            ("other commands", lambda: check_commands(bench)),
            ("what is there stays there", lambda: check_overwrite(bench)),
            ("layouts", lambda: check_layouts(bench)),
            ("the package gguf", lambda: check_package(bench)),
        ]
        harness.run_checks(checks)


main()
