"""Random cases of the protocol's pure parts with the oracle's answers, one JSON object a line.

usage: protocol_cases.py uniform|sample|decide|session|hash COUNT SEED

The unit tests in C read these and must come to the same answers. A session is a whole run of the
oracle's `decode` whose trunk and sidecar give random tokens, notes, coverage and readiness: what is
left is the protocol.
"""
import hashlib
import json
import random
import sys

import numpy as np

import pdt_oracle as pdt

POLICIES = ("selective", "stall", "global", "local")
CLEAR = 1e-9  # a choice whose cumulative probability lies nearer to its bound may go either way


def f32(x):
    return float(np.float32(x))


def uniform_case(rng):
    edge = rng.random() < 0.2
    seed = rng.choice((0, 2**32 - 1, 2**32, 2**64 - 1)) if edge else rng.getrandbits(64)
    position, stream, attempt = rng.getrandbits(rng.randint(1, 32)), rng.getrandbits(16), rng.getrandbits(4)
    session = rng.getrandbits(32)
    return dict(seed=f"{seed:x}", position=position, stream=stream, attempt=attempt, session=session,
                u=pdt.uniform(seed, position, stream, attempt, session))


def is_clear(logits, temperature, top_k, top_p, u):
    """Does no rounding of sums and exponentials change the choice?"""
    if temperature == 0:
        return True
    z = np.sort(logits / temperature)[::-1]
    c = np.cumsum(pdt.softmax(z[:top_k] if top_k else z))
    if top_p < 1:
        if np.min(np.abs(c - top_p)) < CLEAR:
            return False
        c = c[: int(np.searchsorted(c, top_p)) + 1]
    return np.min(np.abs(c - u * c[-1])) > CLEAR


def sample_case(rng):
    while True:
        n = rng.randint(1, 40)
        grid = rng.choice((None, 1, 4))  # a coarse grid makes ties
        logits = [rng.gauss(0, 3) for _ in range(n)]
        logits = [f32(x if grid is None else round(x * grid) / grid) for x in logits]
        if n > 1 and rng.random() < 0.2:
            for i in rng.sample(range(n), rng.randint(1, n - 1)):
                logits[i] = -np.inf
        how = (rng.choice((0.0, 0.05, 0.7, 1.0, 3.0)), rng.choice((0, 0, 1, 2, n, n + 3, rng.randint(1, n))),
               rng.choice((1.0, 1e-9, 0.999, rng.random() or 0.5)), rng.choice((rng.random(), 1e-12, 1 - 1e-12)))
        x = np.array(logits)
        if is_clear(x, *how):
            break
    return dict(logits=[None if v == -np.inf else v for v in logits], temperature=how[0], top_k=how[1], top_p=how[2],
                u=how[3], token=pdt.sample(x, *how))


def decide_case(rng):
    gamma = rng.choice((0.0, 0.1, 0.5, 0.7, 1.0, rng.random()))
    near = (f32(gamma), float(np.nextafter(np.float32(gamma), np.float32(2))), float(np.nextafter(np.float32(gamma), np.float32(-1))))
    n, strong = rng.randint(0, 8), rng.random()
    readiness = {k: rng.choice(near) if rng.random() < 0.2 else f32(gamma + (1 - gamma) * rng.random() if rng.random() < strong else gamma * rng.random())
                 for k in sorted(rng.sample(range(12), n))}
    attempts = {k: rng.randint(0, 4) for k in readiness}
    policy, most = rng.choice(POLICIES), rng.randint(1, 5)
    gate, actions = pdt.decide(readiness, attempts, gamma, policy, most)
    return dict(gamma=gamma, policy=policy, max_attempts=most, gate=gate,
                votes=[[k, attempts[k], readiness[k], actions[k]] for k in readiness])


class FakeTrunk:
    """Random logits; token 0 ends a sequence."""

    def __init__(self, rng, p_end):
        self.rng, self.p_end, self.eos, self.outputs = rng, p_end, {0}, [np.zeros(1)]

    def new_cache(self):
        return []

    def embed(self, token):
        return np.zeros(1)

    def step(self, token, cache, condition=None):
        return np.zeros(1)

    def logits(self, hidden):
        x = np.array([self.rng.random() for _ in range(9)])
        x[0] = 2.0 if self.rng.random() < self.p_end else -1.0
        return x


class FakeSidecar:
    c = dict(instrumented_layers=[])

    def __init__(self, rng, slots, p_strong, gamma):
        self.rng, self.slots, self.p_strong, self.gamma = rng, slots, p_strong, gamma
        self.round = -1

    def plan(self, hidden, inner):
        return np.array([self.rng.choice((0, 1, 2, 3)) for _ in range(self.slots)]), None

    def plan_note(self, ids):
        return self.note(None)

    def pool(self, states, embedded):
        return states[-1]

    def note(self, pooled):
        return np.array([f32(self.rng.gauss(0, 1)) for _ in range(3)])

    def coverage(self, pooled, ids):
        return np.where(ids != 0, [self.rng.randint(-8, 8) / 4 for _ in ids], 0.0)  # a grid makes ties

    def readiness(self, *_):
        strong = self.rng.random() < self.p_strong
        return f32(self.gamma + (1 - self.gamma) * self.rng.random() if strong else self.gamma * self.rng.random())


def session_case(rng):
    tau, gamma = rng.randint(1, 5), f32(rng.uniform(0.1, 0.9))
    cfg = dict(streams=rng.randint(1, 5), block_tokens=tau, reveal_delay=rng.randint(1, 3), window=rng.randint(1, 8),
               horizon=rng.randint(tau, 3 * tau), gamma=gamma, policy=rng.choice(POLICIES), max_attempts=rng.randint(1, 4),
               max_tokens=rng.randint(1, 16), max_rounds=rng.choice((3, 60)), part_slots=rng.choice((0, 0, 1, 2)), temperature=0.0, top_k=0, top_p=1.0, seed=0)
    trunk = FakeTrunk(rng, rng.choice((0, 0.05, 0.3)))
    sidecar = FakeSidecar(rng, rng.randint(1, 5), rng.choice((0.3, 0.7, 0.95)), gamma)
    return dict(settings=cfg, trace=pdt.decode(trunk, sidecar, [1, 2], cfg))


# Letters with and without case, of several lengths in UTF-8, white space of every kind, and what a
# capital sigma looks at to find out whether it ends a word.
ALPHABETS = ("abcXYZ", " \t\n\x0b\x1c\x1f\x85\u00a0\u1680\u2009\u2028\u202f\u3000", "\u00c4\u00df\u00c9\u00e9\u0130\u0131\u1e9e",
             "\u03a3\u03a3\u03a3\u0391\u03c3\u03c2\u0394\u1f88", "'.:\u00ad\u0301\u200b\u2019\u02b0\u0345\u180e\ufeff", "\u0416\u0436\u10a0\u1c90\u13a0\uab70",
             "\u2160\u24b6\u01c4\u01c5\u023a\u212a\u2126\u212b\ua64a", "\U00010400\U0001f989\u65e5\u05d0")


def hash_case(rng):
    """Python's own str and hashlib: no part of the oracle."""
    chosen = rng.sample(ALPHABETS, rng.randint(1, 4))
    text = "".join(rng.choice(rng.choice(chosen)) for _ in range(rng.randint(0, 12)))
    salt, stream, size = rng.choice(("parallel-decoder-v1", "", "salt")), rng.randint(0, 40), rng.choice((2, 97, 65536, 2**24))
    item = text.strip().lower()
    number = int.from_bytes(hashlib.sha256(f"{salt}::stream_{stream}::{item}".encode()).digest(), "big")
    return dict(salt=salt, stream=stream, size=size, text=text, id=(number % size or 1) if item else 0)


def main():
    kind, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    make = dict(uniform=uniform_case, sample=sample_case, decide=decide_case, session=session_case, hash=hash_case)[kind]
    rng = random.Random(seed)
    for _ in range(count):
        print(json.dumps(make(rng), allow_nan=False))


if __name__ == "__main__":
    main()
