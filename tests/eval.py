#!/usr/bin/env python3
"""pdt eval as a whole: every arm on a few entries by a tiny model, the same on one rank and on several, and refusals.

usage: eval.py PDT [--ranks 2]   (0: one process only)

The trunk is trained for seconds, until it writes sentences of the Atlas, and they contradict each other; the sidecar is random, so gates
fail. So there is something to judge, every path is taken, and the figures of every number of ranks must be equal.
"""
import itertools
import json
import math
import os
import shutil
import tempfile

import harness

ARMS = ["sequential", "blind", "plan-only", "notes", "system", "no-snc", "text-bus", "parser-gate", "agree-gate"]
MODES = ["zero", "sign", "permute", "rotate", "swap", "one"]
BORROWED = ("swap", "one")
TRAINED = ("notes", "system", "parser-gate", "agree-gate")
CAUSES = ["unseen", "withdrawn", "crowded", "split", "second", "name", "other"]
ENTRIES = 4
TIMES = ("seconds", "tokens_per_s", "read_per_s")


class Evaluator:
    """A trunk with the Atlas's tokenizer that has learned little, a random sidecar, and held-out entries."""

    def __init__(self, pdt, scratch):
        self.pdt, self.scratch = pdt, scratch
        self.run("data", "tokenizer", "--out", self.path("tok"))
        with open(self.path("tok/tokenizer.json")) as f:
            tokenizer = json.load(f)
        special = {x["content"]: x["id"] for x in tokenizer["added_tokens"]}
        ids = list(tokenizer["model"]["vocab"].values()) + list(special.values())
        config = dict(
            architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=max(ids) + 1, hidden_size=64,
            intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=400, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=True,
            hidden_act="silu", bos_token_id=special["<|bos|>"],
            eos_token_id=[special["<|end|>"], special["<|eos|>"]],
        )
        with open(self.path("config.json"), "w") as f:
            json.dump(config, f)
        self.run("data", "atlas", "--count", "3000", "--sequential", "--out", self.path("text.jsonl"))
        self.run("train", "--stage", "trunk", "--data", self.path("text.jsonl"), "--config", self.path("config.json"),
                 "--out", self.path("m"), "--steps", "300", "--batch", "8", "--rate", "0.01", "--warmup", "20")
        shutil.copy(self.path("tok/tokenizer.json"), self.path("m/tokenizer.json"))
        self.sidecar("s.safetensors", "--random", "--gate", "-3")
        self.data("test.jsonl", "--max-sections", "4")
        self.data("lent.jsonl", "--max-sections", "4", count=16)

    def path(self, name):
        return os.path.join(self.scratch, name)

    def run(self, *command):
        result = harness.run([self.pdt, *command], timeout=200)
        if result.status != 0:
            raise harness.Failed(f"{command[:2]}: {result.err.strip()}")

    def sidecar(self, name, *more):
        self.run("sidecar", "init", "--model", self.path("m"), "--streams", "4", "--layers", "1", "--notes-dim", "16",
                 "--plan-vocab", "101", "--plan-dim", "8", "--block-tokens", "6", "--out", self.path(name), *more)

    def data(self, name, *more, vocabulary="101", count=ENTRIES):
        self.run("data", "atlas", "--count", count, "--split", "test", "--seed", "3", "--overwrite", "--plan-vocab", vocabulary,
                 "--out", self.path(name), *more)

    def command(self, *more, data="test.jsonl", model="m", sidecar="s.safetensors"):
        return [self.pdt, "eval", "--model", self.path(model), "--sidecar", self.path(sidecar), "--data", self.path(data),
                "--temperature", "0.3", "--threads", "1", *more]

    def rows(self, *more, ranks=0, **files):
        result = harness.run(self.command("--json", *more, **files), ranks=ranks, timeout=120)
        if result.status != 0:
            raise harness.Failed(f"{more}, {ranks} ranks: status {result.status}: {result.err.strip()}")
        return [json.loads(line) for line in result.out.splitlines()]


def timeless(rows):
    for row in rows:
        for key in TIMES:
            del row["run"][key]
    return rows


def shape_of(row):
    """What is wrong with a row; None when nothing is."""
    judged, run, settings = row["judged"], row["run"], row["settings"]
    trained = row["arm"] in TRAINED
    checks = {
        "entries": row["entries"] == ENTRIES,
        "causes": list(judged["causes"]) == CAUSES,
        "causes add up": sum(judged["causes"].values()) == judged["contradictions"],
        "names": judged["causes"]["name"] <= judged["mistaken"],
        "mistaken": judged["mistaken"] <= judged["contradictions"],
        "flawed": 0 <= judged["flawed_entries"] <= ENTRIES and judged["flawed_entries"] >= (judged["contradictions"] > 0),
        "share": judged["contradiction"] is None or 0 <= judged["contradiction"] <= 1,
        "uses": judged["contradictions"] <= judged["uses"],
        "facts": judged["missing"] <= judged["facts"] == 2 * judged["sections"],
        "teacher": (row["teacher_forced"] is not None) == trained,
        "teacher's entries": not trained or row["teacher_forced"]["entries"] == ENTRIES,
        "gate": (settings["gamma"] == 0) == (row["arm"] not in ("system", "no-snc", "parser-gate", "agree-gate")),
        "tokens": 0 < run["tokens_committed"] <= run["tokens_emitted"],
        "actions": abs(run["commit"] + run["rollback"] + run["hold"] + run["forced"] - 1) < 1e-6,
        "no gate": settings["gamma"] > 0 or run["commit"] == 1,
        "plan": (row["slots"] is None) == (row["arm"] in ("sequential", "blind", "text-bus")),
        "reads again": row["arm"] != "text-bus" or run["tokens_read"] > 2 * run["tokens_emitted"],
        "labels": (row["readiness"]["blocks"] == 0) == (row["arm"] == "sequential"),
    }
    wrong = [name for name, good in checks.items() if not good]
    return f"{row['row']}: {', '.join(wrong)}: {row}" if wrong else None


def all_arms(e):
    rows = e.rows("--arms", "all")
    if [row["row"] for row in rows] != ARMS:
        return f"rows {[row['row'] for row in rows]}"
    wrong = [x for x in map(shape_of, rows) if x]
    if wrong:
        return "\n".join(wrong)
    judged = [row["judged"] for row in rows]
    if not all(sum(x[key] for x in judged) > 0 for key in ("uses", "contradictions", "missing", "duplicates")):
        return f"there was nothing to judge: {judged}"
    blind, system = rows[ARMS.index("blind")], rows[ARMS.index("system")]["run"]
    if not 0 < blind["readiness"]["ready"] < blind["readiness"]["blocks"]:
        return f"labels are all alike: {blind}"
    if not system["rollback"] > 0:
        return f"the random gate never failed: {system}"
    if timeless(rows) != timeless(e.rows("--arms", "all")):
        return "two runs differ"
    if rows[0]["difference"] is not None or any(row["difference"] is None for row in rows[1:] if row["judged"]["uses"]):
        return f"differences: {[row['difference'] for row in rows]}"
    few = timeless(e.rows("--arms", "all", "--max-sessions", "1"))
    return None if few == rows else "entries in flight change the figures"


def sampling(e):
    """The filters of decode hold in every arm, and are told with the figures."""
    def without_settings(rows, key, value):
        if any(row["settings"][key] != value for row in rows):
            raise harness.Failed(f"{key}: told as {[row['settings'][key] for row in rows]}, asked for {value}")
        return [{k: v for k, v in row.items() if k != "settings"} for row in timeless(rows)]

    few = ("--arms", "all", "--count", "2", "--no-teacher")
    usual = without_settings(e.rows(*few), "top_p", 1.0)
    greedy = without_settings(e.rows(*few, "--temperature", "0"), "temperature", 0.0)
    if any(a == b for a, b in zip(usual, greedy)):
        return "an arm does not sample"
    for flag, key, value, same in (("--top-p", "top_p", 1e-9, greedy), ("--top-k", "top_k", 1, greedy), ("--top-p", "top_p", 1, usual),
                                   ("--top-k", "top_k", 0, usual), ("--max-rounds", "max_rounds", 100000, usual)):
        for a, b in zip(same, without_settings(e.rows(*few, flag, value), key, value)):
            if a != b:
                return f"{flag} {value}: {a}\n{b}"
    if without_settings(e.rows(*few, "--top-k", "2"), "top_k", 2) in (usual, greedy):
        return "--top-k 2 is not heard"
    ended = e.rows("--arms", "blind", "--count", "2", "--max-rounds", "1")[0]
    return None if ended["run"]["rounds_per_entry"] == 1 else "--max-rounds 1 is not heard"


def ranks_agree(e, ranks):
    for data, what in (("lent", ("--bus", "all")), ("test", ("--arms", "all")), ("test", ("--arms", "text-bus,sequential"))):
        one, many = (timeless(e.rows(*what, ranks=n, data=f"{data}.jsonl")) for n in (0, ranks))
        for a, b in zip(one, many):
            if a != b:
                return f"{a}\n{b}"
    return None if len(one) == len(many) == 2 else f"{len(many)} rows"


def altered_notes(e):
    """--bus: other notes are read, and by nobody where nothing is read of notes."""
    rows = e.rows("--bus", "all", data="lent.jsonl")
    if [row["row"] for row in rows] != ["notes"] + [f"notes bus={x}" for x in MODES]:
        return f"rows {[row['row'] for row in rows]}"
    if rows[0]["bus"] is not None or [row["bus"]["mode"] for row in rows[1:]] != MODES:
        return f"modes {[row['bus'] for row in rows]}"
    for row in rows[1:]:
        bus, change = row["bus"], row["bus"]["change"]
        if row["judged"] == rows[0]["judged"]:
            return f"{row['row']}: nothing changes: {row}"
        if not change["siblings"]["tokens"] > 0 or not change["others"]["tokens"] > 0:
            return f"{row['row']}: no tokens: {change}"
        if bus["mode"] in BORROWED and not 0 < bus["lent_uses"] <= row["judged"]["uses"]:
            return f"{row['row']}: nobody uses what was lent: {bus}"
        if bus["mode"] not in BORROWED and bus["lent_uses"] != 0:
            return f"{row['row']}: lends: {bus}"
        if bus["own"] + bus["followed"] > bus["lent_uses"]:
            return f"{row['row']}: {bus}"
        if not any(abs(change[x]["nats"]) > 1e-4 for x in ("siblings", "others")):
            return f"{row['row']}: reading changes nothing: {change}"
        if any(not change[x]["under"] - change[x]["nats"] > 0 for x in ("siblings", "others")):
            return f"{row['row']}: what it was before is no cross-entropy: {change}"
    before = {round(row["bus"]["change"]["siblings"]["under"] - row["bus"]["change"]["siblings"]["nats"], 4)
              for row in rows[1:] if row["bus"]["mode"] not in BORROWED}
    if len(before) != 1:
        return f"the same notes, as they are, foretell {before}"
    rows = timeless(rows)
    if rows != timeless(e.rows("--bus", "all", data="lent.jsonl")):
        return "two runs differ"
    if rows != timeless(e.rows("--bus", "all", "--max-sessions", "1", data="lent.jsonl")):
        return "entries in flight change the figures"
    # Where SNC's gates are shut nobody reads notes. Cross-entropies are sums of float32 products, of one entry or of two in a batch.
    e.sidecar("shut.safetensors", "--random", "--no-snc")
    shut = e.rows("--bus", "all", data="lent.jsonl", sidecar="shut.safetensors")
    for row in shut[1:]:
        change = row["bus"]["change"]
        if row["judged"] != shut[0]["judged"] or any(abs(change[x]["nats"]) > 1e-5 for x in ("siblings", "others")):
            return f"{row['row']}: changes what nobody reads: {row}"
    one = e.rows("--bus", "zero,one", "--arms", "blind,system", "--count", "2", "--no-teacher")
    if [row["row"] for row in one] != ["blind", "system", "system bus=zero", "system bus=one"] or one[2]["bus"]["change"] is not None:
        return f"rows {[(row['row'], row['bus']) for row in one]}"
    return None


def interval(parts):
    """A ratio of sums of (contradictions, uses) by entry, and half its 95% interval, as eval/ratio.h defines them."""
    n, y, x = len(parts), sum(p[0] for p in parts), sum(p[1] for p in parts)
    squares = sum((p[0] - y / x * p[1]) ** 2 for p in parts)
    return y / x, 1.959964 * math.sqrt(n / (n - 1) * squares) / x


def seeds(e):
    """--seeds and --texts: the runs of single seeds together, an entry's seeds as one; the texts are those of the data's sections."""
    both = e.rows("--arms", "sequential,text-bus,system", "--seeds", "2", "--no-teacher", "--texts", e.path("texts.jsonl"))
    first = e.rows("--arms", "sequential,text-bus,system", "--no-teacher")
    second = e.rows("--arms", "sequential,text-bus,system", "--no-teacher", "--seed", str(2 ** 32))
    with open(e.path("texts.jsonl")) as f:
        texts = [json.loads(line) for line in f]
    with open(e.path("test.jsonl")) as f:
        names = {x["id"]: [s["name"] for s in x["sections"]] for x in map(json.loads, list(f)[1:])}
    parts = {}
    for a, b, c in zip(both, first, second):
        for key in ("uses", "contradictions", "facts", "missing", "sentences", "malformed"):
            if a["judged"][key] != b["judged"][key] + c["judged"][key]:
                return f"{a['row']}: {key}: {a['judged'][key]} of {b['judged'][key]} and {c['judged'][key]}"
        if a["run"]["tokens_committed"] != b["run"]["tokens_committed"] + c["run"]["tokens_committed"]:
            return f"{a['row']}: tokens: {a['run']}"
        if b["judged"] == c["judged"]:
            return f"{a['row']}: both seeds write the same"
        mine = [t for t in texts if t["row"] == a["row"]]
        if sorted((t["entry"], t["seed"]) for t in mine) != sorted((i, s) for i in names for s in (0, 2 ** 32)):
            return f"{a['row']}: texts of {[(t['entry'], t['seed']) for t in mine]}"
        if any([s["name"] for s in t["sections"]] != names[t["entry"]] for t in mine):
            return f"{a['row']}: texts of other sections"
        unfinished = sum(not s["finished"] for t in mine for s in t["sections"])
        if unfinished != a["judged"]["unfinished"] or not any(s["text"] for t in mine for s in t["sections"]):
            return f"{a['row']}: {unfinished} unfinished texts, judged {a['judged']['unfinished']}"
        parts[a["row"]] = [tuple(sum(t[key] for t in mine if t["entry"] == i) for key in ("contradictions", "uses")) for i in names]
        share, half = interval(parts[a["row"]])
        if abs(share - a["judged"]["contradiction"]) > 1e-8 or abs(half - a["judged"]["half_95"]) > 1e-8:
            return f"{a['row']}: {share} +- {half}, found {a['judged']}"
    shares = {row: interval(p)[0] for row, p in parts.items()}
    for row in both[1:]:
        if abs(row["difference"]["share"] - (shares[row["row"]] - shares["sequential"])) > 1e-8:
            return f"{row['row']}: {row['difference']}, expected that of {shares}"
    return None


def curves(e):
    """--curves beside what is counted elsewhere: coverage at one half, the gate at the gamma of the run, and labels where they are the gate."""
    rows = e.rows("--arms", "blind,system,parser-gate,agree-gate", "--curves", "--gamma", "0.5", "--no-teacher")
    if "coverage_curve" in e.rows("--arms", "blind", "--no-teacher")[0] or rows[0]["coverage_curve"] is not None:
        return "there are curves that nobody asked for"
    for row in rows[1:]:
        curve, gate, run = row["coverage_curve"], row["gate_curve"], row["run"]
        at, cover = next(p for p in curve["points"] if p["threshold"] == 0.5), row["coverage"]["blocks"]
        if at["precision"] != cover["precision"]:  # the random planner has no slot right: there is no recall
            return f"{row['row']}: {at}, counted {cover}"
        falling = [[p["missing"] for p in curve["points"]]]
        rising = [[p["twice"] for p in curve["points"]], [p["caught"] for p in gate], [p["rejected"] for p in gate]]
        if any(x != sorted(x) for x in rising) or any(x != sorted(x, reverse=True) for x in falling):
            return f"{row['row']}: not monotonic: {curve}, {gate}"
        if any(p["good"] + p["bad"] != row["readiness"]["blocks"] for p in gate):
            return f"{row['row']}: {gate}, of {row['readiness']}"
        half = next(p for p in gate if p["gamma"] == 0.5)
        weak = {"system": half["caught"] + half["rejected"], "parser-gate": row["readiness"]["blocks"] - row["readiness"]["ready"],
                "agree-gate": half["bad"]}[row["row"]]
        if round((run["rollback"] + run["forced"]) * run["blocks"]) != weak:
            return f"{row['row']}: {weak} weak blocks, {run}"
    parser, agree = rows[2], rows[3]
    return None if agree["run"] != parser["run"] and agree["gate_curve"][0]["bad"] > 0 else "no block misreads what is visible"


def told_bytes(e):
    """bytes_per_entry: a note of 16 floats a block, a token's id, and keys and values of 2 layers of 2 heads of 16."""
    for row in e.rows("--arms", "blind,system", "--no-teacher"):
        run, told = row["run"], row["bytes_per_entry"]
        tokens = run["tokens_committed"] / row["entries"]
        wanted = {"notes": None if row["arm"] == "blind" else 64 * run["blocks"] / row["entries"], "tokens": 4 * tokens,
                  "keys_values": 4 * 2 * 2 * 2 * 16 * tokens}
        if told != wanted:
            return f"{row['row']}: {told}, expected {wanted}"
    return None


def sweeps(e):
    rows = e.rows("--sweep", "gamma=0,0.5,1")
    if [(row["row"], row["settings"]["gamma"]) for row in rows] != [(f"system gamma={x}", float(x)) for x in ("0", "0.5", "1")]:
        return f"gamma: {[row['row'] for row in rows]}"
    if rows[0]["run"]["commit"] != 1 or rows[2]["run"]["commit"] != 0:
        return "gamma: the gate does not do what it is told"
    rows = e.rows("--sweep", "tau=4,8", "--arms", "blind,text-bus")
    if [(row["arm"], row["settings"]["block_tokens"]) for row in rows] != [("blind", 4), ("blind", 8), ("text-bus", 4), ("text-bus", 8)]:
        return f"tau: {[row['row'] for row in rows]}"
    for key, setting, values in (("horizon", "horizon", [6, 24]), ("attempts", "max_attempts", [1, 3]), ("temperature", "temperature", [0.0, 1.0]),
                                 ("top-p", "top_p", [0.5, 1.0]), ("policy", "policy", ["selective", "global"]),
                                 ("retry-temperature", "retry_temperature", [0.0, 2.0])):
        rows = e.rows("--sweep", f"{key}={values[0]},{values[1]}", "--no-teacher", "--count", "2")
        if [row["settings"][setting] for row in rows] != values or timeless(rows)[0]["run"] == rows[1]["run"]:
            return f"{key}: {rows}"
    with open(e.path("test.jsonl")) as f:
        sections = [len(json.loads(line)["sections"]) for line in list(f)[1:]]
    for k in sorted(set(sections)):
        rows = e.rows("--sweep", f"streams={k}", "--arms", "blind", "--count", ENTRIES)
        if rows[0]["entries"] != sections.count(k) or rows[0]["judged"]["sections"] != k * sections.count(k):
            return f"streams={k}: {rows[0]['entries']} entries"
    return None


def outputs(e):
    """Tables where they are asked for, and files that appear whole."""
    table = harness.run(e.command("--arms", "blind,system", "--no-teacher", "--count", "2", "--out", e.path("out.txt")))
    with open(e.path("out.txt")) as f:
        if f.read() != table.out:
            return "--out has other tables than standard output"
    lines = table.out.splitlines()
    heads = [line for line in lines if line.startswith("#arm")]
    if len(heads) != 4 or [line.split()[0] for line in lines if line[:1] != "#"] != ["blind", "system", "system"] + 2 * ["blind", "system"]:
        return f"tables: {table.out}"
    if any(len(a) != len(b) for a, b in zip(lines[1:3], lines[2:4])):
        return f"not aligned: {table.out}"
    both = harness.run(e.command("--arms", "blind", "--json", "--out", e.path("out.jsonl")))
    with open(e.path("out.jsonl")) as f:
        if json.loads(f.read())["row"] != "blind" or not both.out.startswith("# "):
            return f"--json --out: {both.out}"
    if any(name.startswith("out.") and name not in ("out.txt", "out.jsonl") for name in os.listdir(e.scratch)):
        return f"left behind: {os.listdir(e.scratch)}"
    help_text = harness.run([e.pdt, "eval", "--help"])
    missing = [arm for arm in ARMS if arm not in help_text.out]
    if missing:
        return f"--help says nothing of {missing}"
    curves = harness.run(e.command("--arms", "system", "--no-teacher", "--count", "2", "--curves")).out.splitlines()
    lengths = [len([*itertools.takewhile(lambda line: line[:1] != "#", curves[i + 1:])]) for i, line in enumerate(curves)
               if line.startswith(("#threshold", "#gamma"))]
    return None if lengths == [14, 14] else f"curves of {lengths} lines"


def refusals(e):
    """(name, command, exit status, part of the message)."""
    e.data("plan.jsonl", vocabulary="202")
    e.data("wide.jsonl", "--min-sections", "6", "--max-sections", "6")
    with open(e.path("test.jsonl")) as f:
        lines = f.readlines()
    edits = {
        "other.jsonl": lambda h, x: h.pop("world"),
        "cut.jsonl": lambda h, x: h.update(tokenizer="0" * 16),
        "twice.jsonl": lambda h, x: x["sections"][1].update(name=x["sections"][0]["name"]),
    }
    for name, edit in edits.items():
        header, entry = json.loads(lines[0]), json.loads(lines[1])
        edit(header, entry)
        with open(e.path(name), "w") as f:
            f.write(json.dumps(header) + "\n" + json.dumps(entry) + "\n")
    with open(e.path("empty.jsonl"), "w") as f:
        f.write(lines[0])
    bare = [e.pdt, "eval"]
    return [
        ("no model", bare, 2, "--model is missing"),
        ("no sidecar", [*bare, "--model", e.path("m")], 2, "--sidecar is missing"),
        ("no data", [*bare, "--model", e.path("m"), "--sidecar", e.path("s.safetensors")], 2, "--data is missing"),
        ("unknown arm", e.command("--arms", "system,magic"), 2, "found 'magic'"),
        ("no arm", e.command("--arms", ","), 2, "--arms: expected at least one"),
        ("unknown sweep", e.command("--sweep", "seed=3"), 2, "--sweep: expected gamma, delay"),
        ("sweep of an unknown name", e.command("--sweep", "policy=3"), 2, "policy: expected"),
        ("sweep of nothing", e.command("--sweep", "gamma="), 2, "--sweep: expected gamma, delay"),
        ("sweep without values", e.command("--sweep", "gamma"), 2, "--sweep: expected gamma, delay"),
        ("sweep out of range", e.command("--sweep", "gamma=0.5,3"), 2, "--sweep gamma: expected a number from 0 to 1, found '3'"),
        ("sweep of no number", e.command("--sweep", "tau=x"), 2, "--sweep tau"),
        ("unknown mode", e.command("--bus", "zero,magic"), 2, "--bus: expected all, or some of zero, sign, permute, rotate, swap, one, found 'magic'"),
        ("plain mode", e.command("--bus", "plain"), 2, "found 'plain'"),
        ("bus and sweep", e.command("--bus", "zero", "--sweep", "tau=4"), 2, "one of them at a time"),
        ("too many rows", e.command("--sweep", "tau=" + ",".join(map(str, range(1, 300)))), 2, "at most 256 rows"),
        ("no entries of so many", e.command("--sweep", "streams=9"), 2, "no entry has 9 sections"),
        ("gamma out of range", e.command("--gamma", "2"), 2, "--gamma"),
        ("top-p of nothing", e.command("--top-p", "0"), 2, "--top-p"),
        ("top-p out of range", e.command("--top-p", "1.5"), 2, "--top-p"),
        ("top-k below none", e.command("--top-k=-1"), 2, "--top-k"),
        ("horizon below a block", e.command("--horizon", "3"), 2, "horizon"),
        ("no seeds", e.command("--seeds", "0"), 2, "--seeds"),
        ("one file for two", e.command("--out", e.path("same"), "--texts", e.path("same")), 2, "--texts"),
        ("no such file", e.command(data="absent.jsonl"), 1, "absent.jsonl"),
        ("no such model", e.command(model="absent"), 1, "absent"),
        ("a sidecar that is none", e.command(sidecar="m/model.safetensors"), 1, "model.safetensors"),
        ("no data file", e.command(data="config.json"), 1, "config.json"),
        ("no entries", e.command(data="empty.jsonl"), 1, "expected entries, found none"),
        ("other world", e.command(data="other.jsonl"), 1, "world: expected 'atlas-2'"),
        ("other tokenizer", e.command(data="cut.jsonl"), 1, "tokenizer 0000000000000000"),
        ("other plan", e.command(data="plan.jsonl"), 1, "vocabulary 202"),
        ("a section twice", e.command(data="twice.jsonl"), 1, "line 2"),
        ("too many sections", e.command("--no-teacher", "--arms", "blind", data="wide.jsonl"), 2, "at most 4"),
        ("no room", e.command("--arms", "blind", "--max-tokens", "500"), 1, "max_position_embeddings"),
        ("no place for --out", e.command("--arms", "blind", "--count", "1", "--out", e.path("no/x")), 1, "no/x"),
    ]


def refuses(e, ranks):
    return harness.refusals(refusals(e), "pdt eval: ", ranks)


def main():
    pdt, ranks = harness.arguments("2")
    with tempfile.TemporaryDirectory() as scratch:
        e = Evaluator(pdt, scratch)
        checks = [("all arms", lambda: all_arms(e)), ("sampling", lambda: sampling(e)), ("sweeps", lambda: sweeps(e)),
                  ("seeds", lambda: seeds(e)), ("curves", lambda: curves(e)), ("altered notes", lambda: altered_notes(e)), ("bytes", lambda: told_bytes(e)), ("outputs", lambda: outputs(e))]
        checks += [(f"{n} ranks", lambda n=n: ranks_agree(e, n)) for n in ranks]
        checks += [("refuses", lambda: refuses(e, 0))]
        checks += [(f"refuses on {n} ranks", lambda n=n: refuses(e, n)) for n in ranks]
        harness.run_checks(checks)


if __name__ == "__main__":
    main()
