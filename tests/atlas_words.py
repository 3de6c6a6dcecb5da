#!/usr/bin/env python3
"""The Atlas in common words, by its commands: data, what is held out of training, evaluation, a real tokenizer.

usage: atlas_words.py PDT [--ranks 2]   (0: one process only)

The trunk learns some entries by heart, and the sidecar is random: there is something to judge. What the
tokenizer of SmolLM2-135M-Instruct has is looked at where its directory is: ~/.cache/pdt/smollm2, or
PDT_SMOLLM2; else that part says that it is skipped.
"""
import json
import os
import re
import shutil
import tempfile

import harness

TYPES = ["founder", "origin", "good", "emblem", "river", "tower", "festival", "patron", "dish", "drink", "house", "rival"]
PLAN = ("--plan-vocab", "101")
ENTRIES = ("--split", "test", "--names", "all", "--max-sections", "2", "--max-tokens", "60")


class World:
    """A folder, and what is run in it."""

    def __init__(self, pdt, ranks, scratch):
        self.pdt, self.ranks, self.scratch = pdt, ranks, scratch

    def path(self, name):
        return os.path.join(self.scratch, name)

    def run(self, *command, timeout=200):
        result = harness.run([self.pdt, *command], timeout=timeout)
        if result.status != 0:
            raise harness.Failed(f"{command[:2]}: {result.err.strip()}")
        return result

    def data(self, *more, name="w.jsonl", count=300):
        """The header and entries of such data; what the command said."""
        result = self.run("data", "atlas", "--world", "words", "--count", count, "--overwrite", *more, "--out", self.path(name))
        with open(self.path(name)) as f:
            lines = [json.loads(line) for line in f]
        return lines[0], lines[1:], result.out

    def sound(self, *more, name="w.jsonl"):
        """What is wrong with a file, or None."""
        report = json.loads(self.run("data", "check", self.path(name), "--json", *more).out)
        return None if report["blocks_cut_again"] and report["texts_read_back"] else f"{name}: {report}"


def names_of(entries):
    names = {t: set() for t in TYPES}
    for e in entries:
        for fact in e["facts"]:
            names[fact["type"]].add(fact["value"])
    return names


def kinds(w):
    """Every kind is sound, says what it is, and has names of its kind; half of the hard ones are."""
    for hard in (False, True):
        header, entries, _ = w.data(*["--hard"] * hard, "--seed", "5")
        problem = w.sound()
        if problem:
            return problem
        if header["world"] != "words-1" or header.get("hard", False) != hard or not entries[0]["id"].startswith("words-1"):
            return f"header {header}, id {entries[0]['id']}"
        values = [fact["value"] for e in entries for fact in e["facts"]]
        pairs = sum(" " in v for v in values) / len(values)
        if not (0.2 < pairs < 0.3 if hard else pairs == 0):
            return f"hard {hard}: {pairs} of the names have two words"
        if any(v.split()[0].lower() != v.split()[0] for e in entries for f in e["facts"] for v in [f["value"]] if f["type"] == "good"):
            return "a good with a capital"
    again = w.data("--hard", "--seed", "5", name="again.jsonl")[1]
    return None if again == entries else "the same command made other entries"


def held_out(w):
    """Names that training has are not among those that are held out of it, and the other way round; a tenth is."""
    seen = names_of(w.data(count=4000)[1])
    out = names_of(w.data("--split", "test", "--names", "held-out", count=1000)[1])
    for t in TYPES:
        share = len(out[t]) / (len(out[t]) + len(seen[t]))
        if seen[t] & out[t] or not 0.09 < share < 0.11:
            return f"{t}: {seen[t] & out[t]}, {share}"
    if sum(len(seen[t]) >= 180 for t in TYPES) < 8:
        return f"few names: { {t: len(seen[t]) for t in TYPES} }"
    problem = w.sound()
    if problem:
        return problem
    with open(w.path("w.jsonl")) as f:
        text = f.read()
    with open(w.path("claimed.jsonl"), "w") as f:
        f.write(text.replace('"split":"test"', '"split":"train"', 1))
    result = harness.run([w.pdt, "data", "check", w.path("claimed.jsonl")])
    return None if result.status == 1 and "held out of training" in result.err else f"claimed to be training: {result.err}"


def wordings(w):
    """Prompts of training and those that are held out of it have no wording in common."""
    blank = lambda e: re.sub(r"\b(history|trade|landmarks|customs|food|government)\b", "#", re.sub(r"\w+(mora|holm)\b", "@", e["prompt"]))
    shapes = {}
    for part in ("seen", "held-out", "all"):
        entries = w.data("--split", "valid", "--wordings", part, "--max-sections", "2", count=300)[1]
        problem = w.sound()
        if problem:
            return problem
        shapes[part] = {blank(e) for e in entries}
    seen, out = shapes["seen"], shapes["held-out"]
    if len(seen) != 9 or len(out) != 3 or seen & out or seen | out != shapes["all"]:
        return f"{shapes}"
    with open(w.path("w.jsonl")) as f:
        lines = f.readlines()
    lines[1] = json.dumps(json.loads(lines[1]) | dict(prompt="Describe nobody's town.")) + "\n"
    with open(w.path("wrong.jsonl"), "w") as f:
        f.writelines(lines)
    result = harness.run([w.pdt, "data", "check", w.path("wrong.jsonl")])
    return None if result.status == 1 and "'prompt'" in result.err else f"a prompt of no wording: {result.err}"


def told_again(w):
    """With --again 1 a section tells both of its facts twice: by the same name, in other words, siblings' or its own."""
    for world, more in (("words", ["--hard"]), ("words", []), ("atlas", [])):
        _, entries, _ = w.data("--world", world, "--again", "1", *more, count=100)
        problem = w.sound()
        if problem:
            return problem
        kinds = set()
        for e in entries:
            for k, section in enumerate(e["sections"]):
                own = [m for m in section["mentions"] if e["facts"][m["fact"]]["stream"] == k]
                for fact in {m["fact"] for m in own}:
                    told = [m for m in own if m["fact"] == fact]
                    kinds.add(tuple(m["kind"] for m in told))
                    if len(told) != 2:
                        return f"told {len(told)} times: {section}"
                sentences = re.findall(r"[^.]+\.", section["text"])
                if len(set(sentences)) != len(sentences):
                    return f"the same sentence twice: {section['text']}"
        if kinds != {("states", "states"), ("states", "uses")}:
            return f"{world}: {kinds}"
    return None


def untitled(w):
    """Entries without headings are those with headings, which their texts begin with; the rest of them is the same."""
    for world in ("words", "atlas"):
        entries = [w.data("--world", world, "--untitled", x, "--seed", "8", count=200)[1] for x in ("0.5", "0")]
        problem = w.sound()
        if problem:
            return problem
        bare = [e for e in entries[0] if not e["sections"][0]["prefix"]]
        if not 70 < len(bare) < 130 or any(s["prefix"] for e in bare for s in e["sections"]):
            return f"{world}: {len(bare)} of 200 entries have no headings"
        titled = {e["prompt"] + str(e["facts"]): e for e in entries[1]}
        same = 0
        for e in bare:
            other = titled.get(e["prompt"] + str(e["facts"]))  # none where longer texts made other draws
            for a, b in zip(e["sections"], other["sections"] if other else []):
                if a["text"] != b["prefix"] + b["text"] or a["name"] != b["name"] or e["plan"] != other["plan"]:
                    return f"{world}: {a} for {b}"
                same += 1
        if same < 50:
            return f"{world}: {same} sections are there with headings, too"
    path = w.path("w.jsonl")
    with open(path) as f:
        lines = f.readlines()
    entry = json.loads(lines[1])
    entry["sections"][0]["text"] = entry["sections"][0]["prefix"] + entry["sections"][0]["text"]
    lines[1] = json.dumps(entry) + "\n"
    with open(w.path("wrong.jsonl"), "w") as f:
        f.writelines(lines)
    result = harness.run([w.pdt, "data", "check", w.path("wrong.jsonl")])
    return None if result.status == 1 and "heading" in result.err else f"a heading behind a heading: {result.err}"


def any_names(w):
    """With --any-names 1 names are any words, files say so and are read back by that; no word of other splits is training's."""
    words = {}
    for split, count in (("train", 600), ("valid", 150), ("test", 150)):
        _, entries, _ = w.data("--split", split, "--any-names", "1", "--again", "0.5", count=count)
        problem = w.sound()
        if problem:
            return problem
        facts = [f for e in entries for f in e["facts"]]
        if not all(f.get("any") for f in facts):
            return f"a name of its type with --any-names 1: {[f for f in facts if not f.get('any')][:3]}"
        words[split] = {f["value"] for f in facts}
        capitals = {(f["type"], f["value"][0].isupper()) for f in facts}
        if len(capitals) != len(TYPES):
            return f"names of a type with and without a capital letter: {capitals}"
    if words["train"] & (words["valid"] | words["test"]) or len(words["train"]) < 1500:
        return f"{len(words['train'])} words of training, of which others have {words['train'] & (words['valid'] | words['test'])}"
    _, some, _ = w.data("--any-names", "0.4", count=600)
    facts = [f for e in some for f in e["facts"]]
    share = sum(f.get("any", False) for f in facts) / len(facts)
    if not 0.35 < share < 0.45:
        return f"{share} of the names are any words, of 0.4"
    held_out = names_of(w.data("--split", "test", "--names", "held-out", count=3000)[1])
    wrong = [f for f in facts if any(f["value"] in names for names in held_out.values())]
    return f"names that are held out of training: {wrong[:3]}" if wrong else wrong_any_names(w)


def misreads(w):
    """With --misreads some uses have another fact's name, or another one of its type; files say so, and none says otherwise."""
    for world, more in (("words", ["--any-names", "0.4", "--again", "0.3"]), ("words", ["--hard"]), ("atlas", []), ("atlas", ["--hard"])):
        header, entries, report = w.data("--world", world, "--misreads", "0.3", *more, count=200)
        problem = w.sound()
        if problem:
            return problem
        uses = wrong = siblings = 0
        for e in entries:
            for section in e["sections"]:
                text = section["text"].encode()
                for m in section["mentions"]:
                    name, fact = text[slice(*m["bytes"])].decode(), e["facts"][m["fact"]]
                    if (name == fact["value"]) == (m["kind"] == "misreads"):
                        return f"{m['kind']} {fact} as {name}"
                    uses += m["kind"] != "states"
                    wrong += m["kind"] == "misreads"
                    siblings += m["kind"] == "misreads" and any(f["value"] == name for f in e["facts"])
                if any(b["ready"] for b in section["blocks"] if b.get("misread")):
                    return f"a block is ready that misreads: {section}"
        if not 0.25 < wrong / uses < 0.35 or not 0.35 < siblings / wrong < 0.6:
            return f"{world}: {wrong} of {uses} uses are misread, {siblings} as facts of the entry"
    entry = next(e for e in entries if any(m["kind"] == "misreads" for m in e["sections"][0]["mentions"]))
    for change in ("uses", "states", "reads"):
        lies = json.loads(json.dumps(entry))
        next(m for m in lies["sections"][0]["mentions"] if m["kind"] == "misreads")["kind"] = change
        with open(w.path("wrong.jsonl"), "w") as f:
            f.writelines(json.dumps(x) + "\n" for x in (header, lies))
        result = harness.run([w.pdt, "data", "check", w.path("wrong.jsonl")])
        if result.status != 1 or "mentions[" not in result.err:
            return f"misread called {change}: {result.status}, {result.err}"
    return None


def wrong_any_names(w):
    """A file whose any word is none, or is not said to be one, is refused."""
    header, entries, _ = w.data("--any-names", "1", count=3)
    for change, part in ((dict(value="two words"), "expected a word"), (dict(value="Ab"), "expected a word"), (dict(any=False), "is no "), (dict(any="yes"), "any")):
        entry = json.loads(json.dumps(entries[0]))
        entry["facts"][0].update(change)
        with open(w.path("wrong.jsonl"), "w") as f:
            f.writelines(json.dumps(x) + "\n" for x in (header, entry))
        result = harness.run([w.pdt, "data", "check", w.path("wrong.jsonl")])
        if result.status != 1 or part not in result.err:
            return f"{change}: {result.status}, {result.err}"
    return None


def refuses(w):
    atlas = [w.pdt, "data", "atlas", "--out", w.path("none.jsonl"), "--count", "2"]
    words = [*atlas, "--world", "words"]
    gpt2 = os.path.join(harness.TESTS, "data", "tokenizers", "gpt2")
    return harness.refusals([
        ("another world", [*atlas, "--world", "letters"], 2, "--world: expected atlas or words"),
        ("another part", [*words, "--names", "some"], 2, "--names: expected seen, held-out or all"),
        ("names held out in training", [*words, "--names", "held-out"], 2, "split train"),
        ("wordings held out in training", [*words, "--wordings", "all"], 2, "split train"),
        ("names held out of the other world", [*atlas, "--split", "test", "--names", "held-out"], 2, "--world words"),
        ("any names of another world", [*atlas, "--any-names", "0.5"], 2, "--world words"),
        ("a chance above 1", [*words, "--again", "1.5"], 2, "--again"),
        ("facts told again in shared sentences", [*atlas, "--hard", "--again", "0.5"], 2, "and 0 where statements share sentences"),
        ("a share above 1", [*words, "--untitled", "2"], 2, "--untitled"),
        ("a chance below 0", [*words, "--misreads", "-1"], 2, "--misreads"),
        ("a tokenizer of few words", [*words, "--model", gpt2], 1, "too few"),
        ("another world's tokenizer", [w.pdt, "data", "tokenizer", "--world", "letters", "--out", w.path("t")], 2, "--world"),
    ], "pdt data ") or ("a file was left behind" if os.path.exists(w.path("none.jsonl")) else None)


def train(w):
    """A trunk that has learned some entries by heart, and a random sidecar."""
    w.run("data", "tokenizer", "--world", "words", "--out", w.path("tok"))
    with open(w.path("tok/tokenizer.json")) as f:
        vocabulary = json.load(f)["model"]["vocab"]
    config = dict(
        architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=max(vocabulary.values()) + 1, hidden_size=64,
        intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=400, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=True,
        hidden_act="silu", bos_token_id=0, eos_token_id=[1, 2],
    )
    with open(w.path("config.json"), "w") as f:
        json.dump(config, f)
    w.data(*ENTRIES, "--sequential", name="text.jsonl", count=24)
    w.run("train", "--stage", "trunk", "--data", w.path("text.jsonl"), "--config", w.path("config.json"), "--out", w.path("m"),
          "--steps", "250", "--batch", "6", "--rate", "0.01", "--warmup", "20")
    shutil.copy(w.path("tok/tokenizer.json"), w.path("m/tokenizer.json"))
    w.run("sidecar", "init", "--model", w.path("m"), "--streams", "4", "--layers", "1", "--notes-dim", "16", *PLAN, "--plan-dim", "8",
          "--block-tokens", "6", "--random", "--gate", "-3", "--out", w.path("s"))


def evaluation(w):
    """Entries of this world are judged by it, alike on any number of ranks; uses are told apart by what their owner states."""
    train(w)
    w.data(*ENTRIES, *PLAN, name="test.jsonl", count=8)
    command = [w.pdt, "eval", "--model", w.path("m"), "--sidecar", w.path("s"), "--data", w.path("test.jsonl"), "--threads", "1",
               "--arms", "sequential,blind,notes", "--temperature", "0.3", "--json", "--out", w.path("rows.jsonl")]
    result = harness.run(command, timeout=120)
    if result.status != 0:
        return f"status {result.status}: {result.err.strip()}"
    if not re.search(r"^#arm +seen +% +held-out +% +unlisted +%$", result.out, re.M):
        return f"no table of names: {result.out}"
    if not re.search(r"^# the file's own names, .* of \d+ uses [\d.]+% begin right$", result.out, re.M):
        return f"no figure of the file's own names: {result.out}"
    with open(w.path("rows.jsonl")) as f:
        judged = [json.loads(line)["judged"] for line in f]
    for n in w.ranks:
        again = harness.run(command[:-2], ranks=n, timeout=120)
        if again.status != 0 or [json.loads(line)["judged"] for line in again.out.splitlines()] != judged:
            return f"{n} ranks: status {again.status}: {again.out}{again.err}"
    for x in judged:
        for key in ("uses", "contradictions"):
            if sum(names[key] for names in x["names"].values()) != x[key]:
                return f"{key} do not add up: {x}"
    if not all(sum(x["names"][key]["uses"] for x in judged) > 0 for key in ("seen", "held_out")):
        return f"there was nothing to judge: {judged}"
    w.run("train", "--stage", "rollouts", "--data", w.path("test.jsonl"), "--model", w.path("m"), "--sidecar", w.path("s"),
          "--out", w.path("rolled"), "--steps", "2", "--batch", "4", "--count", "2", "--max-attempts", "2")
    return None


def any_name_weighs_nothing(w):
    """A stream that states any word does not learn to choose it, whatever --stated says; names of its type it does."""
    header, entries, _ = w.data(*PLAN, "--max-sections", "2", "--max-tokens", "60", "--any-names", "1", count=60)
    for name, keys in (("any.jsonl", {"stream", "type", "value", "any"}), ("own.jsonl", {"stream", "type", "value"})):
        with open(w.path(name), "w") as f:
            f.write(json.dumps(header) + "\n")
            f.writelines(json.dumps(e | dict(facts=[{k: x[k] for k in keys} for x in e["facts"]])) + "\n" for e in entries)

    def loss(name, stated):
        out = w.path(f"weights-{name}-{stated}")
        w.run("train", "--stage", "1", "--data", w.path(name), "--model", w.path("m"), "--sidecar", w.path("s"), "--out", out,
              "--steps", "1", "--batch", "4", "--stated", stated)
        with open(os.path.join(out, "log.jsonl")) as f:
            return next(x["tokens"] for x in map(json.loads, f) if "step" in x)

    anything, own = ([loss(name, stated) for stated in ("0", "5")] for name in ("any.jsonl", "own.jsonl"))
    return None if anything[0] == anything[1] == own[0] != own[1] else f"{anything}, {own}"


def one_stream(w):
    """An entry that one stream writes is its sections one after another; a sidecar for it trains, and is judged."""
    _, apart, _ = w.data(*ENTRIES, *PLAN, name="apart.jsonl", count=8)
    header, joined, _ = w.data(*ENTRIES, *PLAN, "--one-stream", name="joined.jsonl", count=8)
    if "world" in header:
        return f"a text of several sections is of no world: {header}"
    report = json.loads(w.run("data", "check", w.path("joined.jsonl"), "--model", w.path("m"), "--json").out)
    if not report["blocks_cut_again"] or report["sections"] != 8:
        return f"joined.jsonl: {report}"
    for e, one in zip(apart, joined):
        section = one["sections"][0]
        if section["prefix"] or section["text"] != "".join(s["prefix"] + s["text"] for s in e["sections"]) or one["plan"]:
            return f"not the sections of {e}: {one}"
        told = [(m["fact"], m["kind"], s["text"].encode()[slice(*m["bytes"])]) for s in e["sections"] for m in s["mentions"]]
        if told != [(m["fact"], m["kind"], section["text"].encode()[slice(*m["bytes"])]) for m in section["mentions"]]:
            return f"other mentions than {e}: {one}"
    w.run("sidecar", "init", "--model", w.path("m"), "--streams", "1", "--layers", "1", "--notes-dim", "16", *PLAN, "--plan-dim", "8",
          "--block-tokens", "6", "--out", w.path("one"))
    w.run("train", "--stage", "1", "--data", w.path("joined.jsonl"), "--model", w.path("m"), "--sidecar", w.path("one"), "--out",
          w.path("trained"), "--steps", "4", "--batch", "4", "--weight", "plan=0", "--weight", "notes=0")
    result = w.run("eval", "--model", w.path("m"), "--sidecar", w.path("trained/sidecar.safetensors"), "--data", w.path("apart.jsonl"),
                   "--arms", "one-stream", "--no-teacher", "--temperature", "0.3", "--json")
    row = json.loads(result.out)
    if row["arm"] != "one-stream" or row["judged"]["uses"] == 0:
        return f"there was nothing to judge: {row}"
    refused = harness.run([w.pdt, "data", "atlas", "--one-stream", "--sequential", "--out", w.path("both.jsonl")])
    if refused.status == 0 or "--one-stream" not in refused.err:
        return f"--one-stream with --sequential: status {refused.status}: {refused.err}"
    return None


def real(w):
    """With a real tokenizer every name of one token is one, and no hard name has more than three."""
    model = os.environ.get("PDT_SMOLLM2") or os.path.expanduser("~/.cache/pdt/smollm2")
    if not os.path.exists(os.path.join(model, "tokenizer.json")):
        print(f"skipped a real tokenizer: no {model}/tokenizer.json (PDT_SMOLLM2 names the directory)")
        return None
    for hard in (False, True):
        header, entries, said = w.data("--model", model, "--block-tokens", "8", *["--hard"] * hard)
        problem = w.sound("--model", model)
        if problem:
            return problem
        if "left out" in said:
            return said
        names = sorted({fact["value"] for e in entries for fact in e["facts"]})
        lines = "".join(json.dumps(f" {name}") + "\n" for name in names)
        ids = harness.run([w.pdt, "tokenize", "--model", model, "--no-special"], stdin=lines.encode())
        counts = {len(json.loads(line)) for line in ids.out.splitlines()}
        if counts != ({1, 2, 3} if hard else {1}):
            return f"hard {hard}: names of {counts} tokens"
    return None


def main():
    pdt, ranks = harness.arguments("2")
    with tempfile.TemporaryDirectory() as scratch:
        w = World(pdt, ranks, scratch)
        harness.run_checks([(check.__name__, lambda check=check: check(w)) for check in (kinds, held_out, wordings, told_again, untitled, any_names, misreads, refuses, evaluation, any_name_weighs_nothing, one_stream, real)])


if __name__ == "__main__":
    main()
