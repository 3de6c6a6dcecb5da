"""One decode step of a Llama shape in PyTorch, to compare with: bf16, random weights, K sequences as
one batch, a static cache, the whole step one CUDA graph. Prints one JSON object a line.

usage: torch_decode.py [--out FILE] [--shapes 1b,8b] [--streams 1,8,64] [--device cuda|cpu] [--tiny]"""
import argparse
import json
import time

import torch
import torch.nn.functional as F

SHAPES = {
    "8b": dict(d=4096, layers=32, heads=32, kv=8, hd=128, ffn=14336, vocab=128256, tied=False),
    "1b": dict(d=2048, layers=16, heads=32, kv=8, hd=64, ffn=8192, vocab=128256, tied=True),
    "tiny": dict(d=64, layers=2, heads=4, kv=2, hd=16, ffn=128, vocab=97, tied=True),
}
PROMPT, OWN = 2048, 128


def make_weights(s, device):
    def matrix(out, width):
        return torch.empty(out, width, dtype=torch.bfloat16, device=device).normal_(0, 0.02)

    def norm():
        return torch.ones(s["d"], dtype=torch.bfloat16, device=device)

    layers = [dict(qkv=matrix((s["heads"] + 2 * s["kv"]) * s["hd"], s["d"]),
                   out=matrix(s["d"], s["heads"] * s["hd"]), gate_up=matrix(2 * s["ffn"], s["d"]),
                   down=matrix(s["d"], s["ffn"]), norm1=norm(), norm2=norm())
              for _ in range(s["layers"])]
    embedding = matrix(s["vocab"], s["d"])
    head = embedding if s["tied"] else matrix(s["vocab"], s["d"])
    return dict(layers=layers, embedding=embedding, head=head, norm=norm())


def rotate(x, cosine, sine):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), dim=-1)


def step(s, w, cache, ids, position, length, cosine, sine):
    K = ids.shape[0]
    h = F.embedding(ids, w["embedding"])
    for layer, (keys, values) in zip(w["layers"], cache):
        x = F.rms_norm(h, (s["d"],), layer["norm1"], 1e-5)
        qkv = F.linear(x, layer["qkv"]).view(K, s["heads"] + 2 * s["kv"], 1, s["hd"])
        q, k, v = qkv.split((s["heads"], s["kv"], s["kv"]), dim=1)
        q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        keys.index_copy_(2, position, k)
        values.index_copy_(2, position, v)
        a = F.scaled_dot_product_attention(q, keys[:, :, :length], values[:, :, :length],
                                           enable_gqa=True)
        h = h + F.linear(a.reshape(K, -1), layer["out"])
        x = F.rms_norm(h, (s["d"],), layer["norm2"], 1e-5)
        gate, up = F.linear(x, layer["gate_up"]).chunk(2, dim=-1)
        h = h + F.linear(F.silu(gate) * up, layer["down"])
    x = F.rms_norm(h, (s["d"],), w["norm"], 1e-5)
    return F.linear(x, w["head"]).argmax(dim=-1)


def median_seconds(run, wait, n):
    times = []
    for _ in range(n):
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return sorted(times)[n // 2]


def measure(name, s, w, K, device):
    length = PROMPT + OWN // 2
    cache = [tuple(torch.empty(K, s["kv"], PROMPT + OWN, s["hd"], dtype=torch.bfloat16,
                               device=device).normal_(0, 1) for _ in range(2))
             for _ in range(s["layers"])]
    ids = torch.arange(K, device=device) % s["vocab"]
    position = torch.tensor([length - 1], device=device)
    angle = torch.randn(s["hd"] // 2, device=device)
    args = (s, w, cache, ids, position, length, angle.cos().bfloat16(), angle.sin().bfloat16())
    if device == "cpu":
        seconds = median_seconds(lambda: step(*args), lambda: None, 3)
    else:
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(2):
                step(*args)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            ids.copy_(step(*args))
        graph.replay()
        torch.cuda.synchronize()
        seconds = median_seconds(graph.replay, torch.cuda.synchronize, 15)
    return dict(part="torch", model=name, streams=K, prompt=PROMPT, own=OWN // 2, ms=seconds * 1e3,
                tokens_per_second=K / seconds, torch=torch.__version__)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--out")
    p.add_argument("--shapes", default="8b,1b")
    p.add_argument("--streams", default="1,8,64")
    p.add_argument("--device", default="cuda")
    a = p.parse_args()
    with torch.no_grad():
        for name in a.shapes.split(","):
            w = make_weights(SHAPES[name], a.device)
            for K in map(int, a.streams.split(",")):
                result = measure(name, SHAPES[name], w, K, a.device)
                print("torch %-5s K %3d %9.3f ms a step %10.1f tokens/s"
                      % (name, K, result["ms"], result["tokens_per_second"]), flush=True)
                if a.out:
                    with open(a.out, "a", encoding="utf-8") as f:
                        f.write(json.dumps(result) + "\n")
            del w
            if a.device == "cuda":
                torch.cuda.empty_cache()


main()
