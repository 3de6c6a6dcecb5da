#!/usr/bin/env python3
"""decode --quantize and --compute: the same bits in every layout, and those of a model whose floats are
what the blocks mean.

usage: quantized.py PDT [--ranks 0]

The model is the one that comes with pdt. --ranks 0 leaves out what needs more than one process.
"""
import array
import json
import os
import shutil
import struct
import tempfile

import harness
import safetensors_edit

MODEL = os.path.join(harness.ROOT, "launch", "model")
SIDECAR = os.path.join(MODEL, "sidecar.safetensors")
LAYOUTS = "1x1,1x1x2,2x1,2x2,4x1,4x4,3x3"
PIECE = 32
ROUNDED = ("--compute", "bf16")
SETTINGS = dict(
    streams=4, block_tokens=6, reveal_delay=1, window=8, horizon=8, gamma=0.0, policy="selective",
    max_attempts=2, max_tokens=30, max_rounds=40, temperature=0.0,
)


def half(x):
    """x rounded to half precision."""
    return struct.unpack("<e", struct.pack("<e", x))[0]


def single(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def block_of(x, name):
    """What a block of Q8_0 or Q4_0 makes of 32 floats, by ggml's reference."""
    if name == "q8_0":
        d = single(max(abs(v) for v in x) / 127)
        inverse = single(1 / d) if d else 0
        codes = [int(abs(single(v * inverse)) + 0.5) * (1 if v > 0 else -1) for v in x]
    else:
        d = single(max(x, key=abs) / -8)
        inverse = single(1 / d) if d else 0
        codes = [min(15, int(single(single(v * inverse) + 8.5))) - 8 for v in x]
    return [half(d) * c for c in codes]


def floats_of(tensor, data):
    begin, end = tensor["data_offsets"]
    raw = bytes(data[begin:end])
    if tensor["dtype"] == "F32":
        return array.array("f", raw)
    if tensor["dtype"] == "F16":
        return array.array("f", (v for (v,) in struct.iter_unpack("<e", raw)))
    return array.array("f", b"".join(b"\0\0" + raw[i : i + 2] for i in range(0, len(raw), 2)))


def write_rounded(folder, name):
    """A model in F32 whose matrices have the values of their blocks; the embedding's are Q8_0's."""
    file = safetensors_edit.File(os.path.join(MODEL, "model.safetensors"))
    data = bytearray()
    for key, tensor in file.header.items():
        if key == "__metadata__":
            continue
        values = floats_of(tensor, file.data)
        if len(tensor["shape"]) == 2:
            kind = "q8_0" if "embed" in key or "lm_head" in key else name
            for at in range(0, len(values), PIECE):
                values[at : at + PIECE] = array.array("f", block_of(values[at : at + PIECE], kind))
        tensor.update(dtype="F32", data_offsets=[len(data), len(data) + 4 * len(values)])
        data += values.tobytes()
    file.data = data
    os.makedirs(folder)
    file.write(os.path.join(folder, "model.safetensors"))
    for other in ("config.json", "tokenizer.json"):
        shutil.copy(os.path.join(MODEL, other), folder)


class Quantized:
    def __init__(self, pdt, layouts, scratch):
        self.pdt, self.layouts, self.scratch = pdt, layouts, scratch
        self.request = os.path.join(scratch, "request.json")
        prompt = [3 + 37 * i % 1300 for i in range(150)]
        with open(self.request, "w", encoding="utf-8") as f:
            json.dump(dict(prompt_ids=prompt, settings=SETTINGS), f)

    def trace(self, layout, *flags, model=MODEL):
        """The trace of a run, and its bytes."""
        path = os.path.join(self.scratch, "trace.json")
        got = harness.decode(self.pdt, model, SIDECAR, self.request, path, layout, flags)
        with open(path, "rb") as f:
            return got, f.read()

    def in_layouts(self, *flags):
        """Powers of two: the same bytes. Others: the same tokens and decisions, vectors within rounding."""
        first, first_bytes = self.trace(self.layouts[0], *flags)
        for layout in self.layouts[1:]:
            got, text = self.trace(layout, *flags)
            if layout.power_of_two() and text != first_bytes:
                return f"{layout.name}: not bit-identical to {self.layouts[0].name}"
            # Sums in another order change activations by rounding, and now and then that makes a code
            # of 8 bits another one, which is 1 / 254 of the largest of its 32; or a number of bf16.
            wrong = harness.difference(got, first, harness.TOLERANCE if "f32" in flags else 5e-2)
            if wrong:
                return f"{layout.name}: {wrong}"
        return None

    def as_rounded_model(self, name):
        """With whole activations: the bits of a model whose floats are the blocks' values."""
        folder = os.path.join(self.scratch, name)
        if not os.path.exists(folder):
            write_rounded(folder, name)
        layout = self.layouts[0]
        want = self.trace(layout, model=folder)[1]
        if self.trace(layout, "--quantize", name, "--compute", "f32")[1] != want:
            return "not the bits of the model in F32 with the same weights"
        if self.trace(layout, "--quantize", name, "--compute", "f32", model=folder)[1] != want:
            return "blocks of what blocks mean are not the same blocks"
        if self.trace(layout, "--quantize", name)[1] == want:
            return "activations are whole without --compute f32"
        return None if self.trace(layout)[1] != want else "the weights are not rounded"

    def sets_agree(self, *flags):
        """AVX2 and AVX-512 give the same bits, as they do with float weights."""
        traces = {}
        for kernels in ("avx2", "avx512"):
            try:
                traces[kernels] = self.trace(self.layouts[0], *flags, "--kernels", kernels)[1]
            except harness.Failed as e:
                if "does not have" not in str(e):
                    return str(e)
        return None if len(set(traces.values())) <= 1 else "the traces differ"

    def rounded(self):
        """Activations are, and the run says so."""
        if self.trace(self.layouts[0], *ROUNDED)[1] == self.trace(self.layouts[0])[1]:
            return "activations are whole"
        told = harness.run(
            [self.pdt, "decode", "--model", MODEL, "--sidecar", SIDECAR, "--request", self.request, "--kernels", "portable", *ROUNDED]
        )
        return None if "kernels portable bf16" in told.err else f"not told: {told.err.strip()}"

    def verified(self, *flags):
        """A journal's notes come out again with the same flags, and not without."""
        journal = os.path.join(self.scratch, "run.journal")
        model = ["--model", MODEL, "--sidecar", SIDECAR]
        made = harness.run(
            [self.pdt, "decode", *model, "--request", self.request, "--journal", journal, "--overwrite", *flags]
        )
        if made.status != 0:
            return made.err.strip()
        verify = [self.pdt, "inspect", "--verify", *model, journal]
        again = harness.run([*verify, *flags])
        if again.status != 0:
            return f"verify: {again.err.strip()}"
        return None if harness.run(verify).status == 1 else "verified with other numbers"

    def floats(self):
        """The folder of a model in F32."""
        folder = os.path.join(self.scratch, "q8_0")
        if not os.path.exists(folder):
            write_rounded(folder, "q8_0")
        return folder

    def refused(self):
        decode = [self.pdt, "decode", "--model", MODEL, "--sidecar", SIDECAR, "--request", self.request]
        cases = [
            ("a type that is not made", [*decode, "--quantize", "q4_k"], 2, "expected q8_0 or q4_0, found 'q4_k'"),
            ("inspect", [self.pdt, "inspect", MODEL, "--quantize", "q4_0"], 2, "belong to --verify"),
            ("rounding for blocks", [*decode, *ROUNDED, "--quantize", "q4_0"], 2, "expected weights of BF16, which it rounds activations for, found Q8_0 in the head"),
            ("rounding for floats", [*decode, *ROUNDED, "--model", self.floats()], 2, "found F32 in the head"),
        ]
        return harness.refusals(cases, "pdt")


def main():
    pdt, ranks = harness.arguments("4")
    layouts = [x for x in map(harness.Layout, LAYOUTS.split(",")) if x.ranks == 1 or ranks]
    with tempfile.TemporaryDirectory() as scratch:
        q = Quantized(pdt, layouts, scratch)
        harness.run_checks(
            [
                ("q8_0 in layouts", lambda: q.in_layouts("--quantize", "q8_0")),
                ("q4_0 in layouts", lambda: q.in_layouts("--quantize", "q4_0")),
                ("q4_0 in layouts, activations whole", lambda: q.in_layouts("--quantize", "q4_0", "--compute", "f32")),
                ("q8_0 as the rounded model", lambda: q.as_rounded_model("q8_0")),
                ("q4_0 as the rounded model", lambda: q.as_rounded_model("q4_0")),
                ("bf16 activations in layouts", lambda: q.in_layouts(*ROUNDED)),
                ("bf16 activations are rounded", q.rounded),
                ("instruction sets agree on q4_0", lambda: q.sets_agree("--quantize", "q4_0")),
                ("instruction sets agree on bf16 activations", lambda: q.sets_agree(*ROUNDED)),
                ("journals of q4_0", lambda: q.verified("--quantize", "q4_0")),
                ("journals of bf16 activations", lambda: q.verified(*ROUNDED)),
                ("refusals", q.refused),
            ]
        )


if __name__ == "__main__":
    main()
