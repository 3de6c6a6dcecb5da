#!/usr/bin/env python3
"""A journal comes out again: pdt inspect --verify computes everything anew from the recorded tokens and
compares every plan and every hash of the notes.

usage: verify.py PDT CASES_DIR [--ranks N,...]

Journals of every committed case, and of many requests at once (tests/sessions.py makes them), written
in one layout and verified in others; one that is cut anywhere is verified up to its last whole
boundary; another model or sidecar, a damaged byte and impossible flags are refused.
"""
import json
import os
import sys
import tempfile

import harness
import sessions

LAYOUTS = ["1x1", "1x1x2", "2x1", "2x2", "4x2", "3x3"]


class Verify:
    def __init__(self, pdt, cases, folder, ranks):
        self.pdt, self.cases, self.folder, self.ranks = pdt, cases, folder, ranks
        self.names = sorted(os.listdir(cases))

    def files(self, name):
        case = os.path.join(self.cases, name)
        return ["--model", os.path.join(case, "model"), "--sidecar", os.path.join(case, "sidecar.safetensors")]

    def journal(self, name, ranks=0, requests=None, extra=()):
        """Decodes a case, or requests by its model, and returns the journal's path."""
        path = os.path.join(self.folder, f"{name}.journal")
        source = ["--requests", requests] if requests else ["--request", os.path.join(self.cases, name, "request.json")]
        command = [self.pdt, "decode", *self.files(name), *source, "--journal", path, "--overwrite", "--quiet", "--json"]
        result = harness.run([*command, "--out", os.devnull, *extra], ranks=ranks, timeout=120)
        if result.status != 0:
            raise harness.Failed(f"{name}: decode: {result.err.strip()}")
        return path

    def verify(self, name, journal, layout="1x1"):
        shape = harness.Layout(layout)
        command = [self.pdt, "inspect", "--verify", "--json", *self.files(name), "--tp", shape.tp, "--threads", shape.threads, journal]
        return harness.run(command, ranks=shape.ranks if shape.ranks > 1 else 0, timeout=120)

    def totals(self, journal):
        result = harness.run([self.pdt, "inspect", "--json", journal])
        if result.status != 0:
            raise harness.Failed(f"inspect: {result.err.strip()}")
        return json.loads(result.out.splitlines()[-1])

    def expect_whole(self, name, journal, layout):
        result = self.verify(name, journal, layout)
        if result.status != 0:
            return f"{name} {layout}: {result.err.strip()}"
        said, totals = json.loads(result.out), self.totals(journal)
        same = said["boundaries"] == totals["boundaries"] and said["rounds"] == totals["rounds"] and said["tokens"] == totals["tokens"]
        return None if same and said["boundaries"] > 0 else f"{name} {layout}: {said} for {totals}"

    def layouts(self):
        return [x for x in LAYOUTS if harness.Layout(x).ranks == 1 or (self.ranks and harness.Layout(x).power_of_two())]

    def every_case(self):
        for i, name in enumerate(self.names):
            journal = self.journal(name)
            layout = self.layouts()[i % len(self.layouts())]
            wrong = self.expect_whole(name, journal, "1x1") or self.expect_whole(name, journal, layout)
            if wrong:
                return wrong
        return None

    def many_at_once(self):
        name = sessions.CASE
        requests = os.path.join(self.folder, "many.jsonl")
        sessions.write_lines(requests, sessions.make_requests(os.path.join(self.cases, name)))
        journal = self.journal(name, self.ranks[0] if self.ranks else 0, requests, ["--max-sessions", "3", "--tp", "1"])
        if self.totals(journal)["complete"] != 12:
            return "the run did not complete 12 sessions"
        for layout in self.layouts():
            wrong = self.expect_whole(name, journal, layout)
            if wrong:
                return wrong
        return None

    def another_split(self):
        """A T that is no power of two adds up in another order: the same, or told with where and why."""
        if not self.ranks:
            return None
        name = "odd-heads"
        result = self.verify(name, self.journal(name), "3x3")
        told = result.status == 1 and result.err.count("boundary") == 1 and "hint" in result.err
        return None if result.status == 0 or told else f"status {result.status}: {result.err.strip()}"

    def cut_anywhere(self):
        name = "selective-rollback"
        with open(self.journal(name), "rb") as f:
            data = f.read()
        cut = os.path.join(self.folder, "cut.journal")
        seen = set()
        for end in range(400, len(data), max(1, len(data) // 24)):
            with open(cut, "wb") as f:
                f.write(data[:end])
            totals = self.totals(cut)
            result = self.verify(name, cut)
            if result.status != 0 or json.loads(result.out)["boundaries"] != totals["boundaries"]:
                return f"cut at {end}: status {result.status}: {result.out}{result.err}"
            seen.add(totals["boundaries"])
        return None if len(seen) > 3 else f"only {seen} boundaries were left"

    def damage(self):
        """No flipped byte is passed over: the reader, the replay or the verification says so; a length that now
        points past the end is a torn end."""
        name = "selective-rollback"
        with open(self.journal(name), "rb") as f:
            data = bytearray(f.read())
        bad = os.path.join(self.folder, "bad.journal")
        for at in range(20, len(data) - 40, len(data) // 12):
            with open(bad, "wb") as f:
                f.write(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
            result = self.verify(name, bad)
            torn = result.status == 0 and json.loads(result.out)["torn_bytes"] > 0
            if not torn and (result.status != 1 or "journal" not in result.err):
                return f"byte {at}: status {result.status}: {result.out}{result.err}"
        return None

    def refuses(self):
        name, other = "selective-rollback", "stall-policy"
        journal = self.journal(name)
        model, sidecar = self.files(name)[1::2]
        other_model, other_sidecar = self.files(other)[1::2]
        inspect = [self.pdt, "inspect", "--verify"]
        cases = [
            ("other model", [*inspect, "--model", other_model, "--sidecar", other_sidecar, journal], 1, "expected the model that it was written with"),
            ("no sidecar", [*inspect, "--model", model, journal], 2, "--verify: expected --sidecar"),
            ("no model", [*inspect, "--sidecar", sidecar, journal], 2, "--verify: expected --model"),
            ("with answers", [*inspect, "--answers", "--model", model, "--sidecar", sidecar, journal], 2, "--answers or --verify"),
            ("flags of it", [self.pdt, "inspect", "--tp", "1", journal], 2, "belong to --verify"),
            ("no journal", [*inspect, "--model", model, "--sidecar", sidecar, sidecar], 1, "sidecar.safetensors"),
            ("not there", [*inspect, "--model", model, "--sidecar", sidecar, os.path.join(self.folder, "nothing")], 1, "nothing"),
        ]
        return harness.refusals(cases, "pdt inspect: ")

    def refuses_on_ranks(self):
        name = "selective-rollback"
        journal = self.journal(name)
        model, sidecar = self.files(name)[1::2]
        cases = [
            ("without it", [self.pdt, "inspect", journal], 2, "runs in one process, but for --verify"),
            ("not there", [self.pdt, "inspect", "--verify", "--model", model, "--sidecar", sidecar, os.path.join(self.folder, "nothing")], 1, "nothing"),
        ]
        return harness.refusals(cases, "pdt inspect: ", ranks=self.ranks[-1]) if self.ranks else None


def main():
    cases = sys.argv.pop(2)
    pdt, ranks = harness.arguments("3,4")
    with tempfile.TemporaryDirectory() as folder:
        v = Verify(pdt, os.path.abspath(cases), folder, ranks)
        harness.run_checks(
            [
                ("every case", v.every_case),
                ("many at once", v.many_at_once),
                ("another split", v.another_split),
                ("cut anywhere", v.cut_anywhere),
                ("damage", v.damage),
                ("refuses", v.refuses),
                ("refuses on ranks", v.refuses_on_ranks),
            ]
        )


if __name__ == "__main__":
    main()
