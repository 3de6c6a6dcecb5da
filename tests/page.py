#!/usr/bin/env python3
"""The page of pdt serve and pdt view in a real browser.

usage: page.py PDT [--only WORD] [--shots FOLDER]

A run of the default model with holds and rollbacks is decoded from the page, and looked at after every
round: what is shown as committed is, byte for byte, what the trace of pdt decode has committed by then.
Then the same run as a file; texts that look like markup; a phone's width; keyboard and labels; what
goes wrong. Nothing of all that may say anything in the browser's console. --shots keeps screenshots.
"""
import argparse
import json
import os
import struct
import tempfile
import zlib

import browser
import harness
import serve

ASKED = {
    "prompt": "Describe Velmora. Sections: history; trade; landmarks; customs.",
    "sections": ["\nHistory:", "\nTrade:", "\nLandmarks:", "\nCustoms:"],
    "settings": {"max_tokens": 96, "temperature": 0.8, "seed": 4, "gamma": 0.9},
}
EVIL = "<img src=x onerror=window.hit=1></script><script>window.hit=2</script><!--\u2028&lt;b&gt;"
# What of the page is compared: every text of a kind in every stream.
TEXTS = """[...document.querySelectorAll("#streams .stream")].map(s =>
  Object.fromEntries(["section", "committed", "forced", "held", "struck"].map(kind =>
    [kind, [...s.querySelectorAll(`.text > .${kind}`)].map(n => (n.querySelector(".said") || n).textContent).join("")])))"""
CONTROLS = "button, input, select, textarea, summary, [tabindex='0']"
SEEN = "n => n.checkVisibility() && !n.disabled"


class Run:
    """What pdt decode makes of the request, with its trace and journal, in a folder."""

    def __init__(self, pdt, folder, asked):
        self.folder, self.asked = folder, asked
        with open(self.path("request.json"), "w") as f:
            json.dump(asked, f)
        self.trace = harness.decode(pdt, serve.MODEL, serve.SIDECAR, self.path("request.json"), self.path("trace"), extra=["--journal", self.path("journal"), "--overwrite"])
        result = harness.run([pdt, "decode", "--model", serve.MODEL, "--sidecar", serve.SIDECAR, "--request", self.path("request.json"), "--quiet", "--threads", 1])
        self.answer = result.out[:-1]
        self.committed = self.committed_texts(pdt)

    def path(self, name):
        return os.path.join(self.folder, name)

    def committed_texts(self, pdt):
        """What every stream has committed after every round: texts of the trace's tokens, by pdt tokenize."""
        tokenize = lambda lines, *words: [json.loads(x) for x in harness.run(
            [pdt, "tokenize", "--model", serve.MODEL, *words], stdin="".join(json.dumps(x) + "\n" for x in lines).encode()).out.splitlines()]
        sections = tokenize([[self.asked["prompt"], s] for s in self.asked["sections"]])
        streams = [s["tokens"] for s in self.trace["streams"]]
        prefixes = tokenize(sections, "--decode")
        K, counts = len(streams), [r["committed"] for r in self.trace["rounds"]]
        whole = tokenize([sections[k] + streams[k][:c[k]] for c in counts for k in range(K)], "--decode")
        return [[whole[i * K + k][len(prefixes[k]):] for k in range(K)] for i in range(len(counts))]


# ---- pictures ----


def colours(png):
    """How many different pixels a PNG of 8 bits a channel has, without the filters' arithmetic: rows are compared as they are stored."""
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        raise harness.Failed("no PNG")
    at, data, header = 8, b"", None
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at:at + 8])
        body = png[at + 8:at + 8 + length]
        header = struct.unpack(">IIBBBBB", body) if kind == b"IHDR" else header
        data += body if kind == b"IDAT" else b""
        at += 12 + length
    raw, width = zlib.decompress(data), {2: 3, 6: 4}[header[3]] * header[0] + 1
    return len({raw[i:i + width] for i in range(0, len(raw), width)})


def shot(b, shots, name):
    """Takes a picture, which must show more than nothing: of a blank page all rows are the same."""
    png = b.screenshot()
    if shots:
        with open(os.path.join(shots, f"{name}.png"), "wb") as f:
            f.write(png)
    return None if colours(png) > 100 else f"{name}: the picture is blank"


# ---- what a person does ----


def fill(b, asked):
    fields = {"prompt": asked["prompt"], "sections": "\n".join(s.replace("\\", "\\\\").replace("\n", "\\n") for s in asked["sections"])}
    fields.update({f"set-{k}": v for k, v in asked["settings"].items()})
    for name, value in fields.items():
        b.value(f"document.getElementById({json.dumps(name)}).value = {json.dumps(value)}")


def decode(b, asked):
    fill(b, asked)
    b.value("document.getElementById('decode').click()")
    b.wait("document.getElementById('status').textContent.startsWith('Done') || document.getElementById('error').textContent", "the answer")
    if said := b.value("document.getElementById('error').textContent"):
        raise harness.Failed(f"the page says {said!r}")
    b.wait("!document.getElementById('decode').disabled", "the end")


def go_to(b, place):
    b.value(f"(r => {{ r.value = {place}; r.dispatchEvent(new Event('input')); }})(document.getElementById('round'))")


def check_rounds(b, run):
    """Every round in turn; what is committed, held and struck there."""
    kinds, rounds = set(), run.trace["rounds"]
    for place, r in enumerate(rounds, 1):
        go_to(b, place)
        shown = b.value(TEXTS)
        committed = [s["committed"] + s["forced"] for s in shown]
        if committed != run.committed[place - 1]:
            return f"round {place}: shown as committed {committed}, committed are {run.committed[place - 1]}"
        for k, action in r["actions"].items():
            s = shown[int(k)]
            kinds.add(action)
            if action == "hold" and not s["held"] or action == "rollback" and (s["held"] or not s["struck"]):
                return f"round {place}, stream {k}: {action}, shown is {s}"
        told = b.value("document.getElementById('decision').textContent")
        if f"Round {place}: the gate {'passed' if r['gate'] else 'failed'}" not in told:
            return f"round {place}: {told!r}"
        rows = b.value("[...document.querySelectorAll('#window tbody tr')].map(r => [...r.cells].map(c => c.textContent))")
        writers = sorted({s for _, s in r["window"] if s >= 0})
        if len(rows) != len(r["streams"]) or any([k for k, cell in enumerate(row[2:]) if cell != "\u2013"] != writers for row in rows):
            return f"round {place}: who reads whom: {rows}, window {r['window']}"
    return None if {"commit", "hold", "rollback"} <= kinds else f"the run has only {kinds}"


def check_timeline(b, run):
    letters = {"commit": "C", "hold": "H", "rollback": "R", "force": "F"}
    rows = b.value("[...document.querySelectorAll('#timeline tbody tr')].map(r => [...r.cells].slice(1).map(c => c.textContent))")
    K = len(run.asked["sections"])
    wanted = [["passed" if r["gate"] else "failed" for r in run.trace["rounds"]]]
    wanted += [[letters.get(r["actions"].get(str(k)), "\u00b7") for r in run.trace["rounds"]] for k in range(K)]
    return None if rows == wanted else f"timeline {rows}, expected {wanted}"


def check_bars(b, run):
    """Readiness of every stream's last block, its mark where gamma is."""
    bars = b.value("""[...document.querySelectorAll('.bar')].map(n =>
      [Number(n.getAttribute('aria-valuenow')), n.querySelector('i').style.width, n.querySelector('b').style.left])""")
    last = {s["stream"]: s["readiness"] for r in run.trace["rounds"] for s in r["streams"]}
    wide = lambda x: float(x.rstrip("%"))
    for k, (now, width, left) in enumerate(bars):
        # the style keeps six digits
        if now != last[k] or abs(wide(width) - 100 * now) > 1e-3 or abs(wide(left) - 100 * run.asked["settings"]["gamma"]) > 1e-3:
            return f"bar {k}: {now}, {width}, {left}: expected {last[k]}"
    return None if len(bars) == len(last) else f"{len(bars)} bars"


def check_run(b, run):
    answer = b.value("document.getElementById('answer').textContent")
    if answer != run.answer:
        return f"answer {answer!r}, expected {run.answer!r}"
    return check_timeline(b, run) or check_rounds(b, run) or check_bars(b, run)


def check_width(b, width=390):
    """No scrolling to the side, at a phone's width."""
    b.size(width, 844, True)
    wide, inner = b.value("[document.documentElement.scrollWidth, innerWidth]")
    outside = b.value(f"[...document.querySelectorAll('main *')].filter(n => n.checkVisibility() && !n.closest('.scroll') && !n.matches('.unseen')"
                      f" && n.getBoundingClientRect().right > {width} + 0.5).map(n => n.outerHTML.slice(0, 80))")
    return None if (wide, inner) == (width, width) and not outside else f"{wide} wide in {inner}; beyond it {outside}"


def check_keyboard(b):
    """Tab goes to every control that is there, and each is seen to have the focus."""
    wanted = b.value(f"[...document.querySelectorAll({json.dumps(CONTROLS)})].filter({SEEN}).map((n, i) => n.dataset.stop = i).length")
    b.value("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached = set()
    for _ in range(wanted + 5):
        b.tab()
        stop, outline = b.value("[document.activeElement.dataset.stop, getComputedStyle(document.activeElement).outlineStyle]")
        if stop is not None and outline == "none":
            return f"control {stop} has the focus, and it is not seen"
        reached.add(stop)
    missed = b.value(f"[...document.querySelectorAll('[data-stop]')].filter(n => !{json.dumps(sorted(x for x in reached if x is not None))}.includes(n.dataset.stop)).map(n => n.outerHTML.slice(0, 80))")
    return None if not missed and wanted > 5 else f"of {wanted} controls Tab misses {missed}"


ROLES = {"button", "textbox", "spinbutton", "combobox", "slider", "checkbox", "meter", "region", "form", "DisclosureTriangle", "table"}


def check_labels(b):
    """As a screen reader is told: every control, bar and table has a name."""
    nodes = b.call("Accessibility.getFullAXTree")["nodes"]
    named = [(n["role"]["value"], n.get("name", {}).get("value", ""), (n.get("description") or {}).get("value", "")) for n in nodes if not n["ignored"]]
    without = [r for r, name, told in named if r in ROLES and not name.strip() and not (r == "table" and told.strip())]
    kinds = {r for r, _, _ in named}
    headings = [name for r, name, _ in named if r == "heading"]
    if without or not {"button", "slider", "checkbox", "meter"} <= kinds:
        return f"without a name: {without}; found {sorted(kinds)}"
    return None if {"Rounds", "Streams", "Window", "Answer"} <= set(headings) else f"headings {headings}"


# ---- the checks ----


def live(run, server, shots):
    """Decode, see commit and rollback, and the answer; twice from one page."""
    with browser.Browser() as b:
        b.open(f"http://127.0.0.1:{server.port}/")
        for _ in range(2):
            decode(b, run.asked)
            if problem := check_run(b, run) or shot(b, shots, "live"):
                return problem
        b.value("document.getElementById('show').click()")
        hidden = b.value("[...document.querySelectorAll('#streams .struck')].map(n => n.checkVisibility())")
        if not hidden or any(hidden):
            return "what was rolled back is shown to those who do not want it"
        return f"its console: {b.troubles}" if b.troubles else None


def as_it_comes(server):
    """Of a long run rounds are shown before it is over, and it can be stopped."""
    with browser.Browser() as b:
        b.open(f"http://127.0.0.1:{server.port}/")
        asked = {"prompt": "Describe Velmora.", "sections": serve.HEADS, "settings": {"max_tokens": 700, "min_tokens": 700, "block_tokens": 2, "horizon": 4}}
        fill(b, asked)
        b.value("document.getElementById('decode').click()")
        b.wait("document.querySelectorAll('#timeline thead th').length > 3", "rounds")
        if b.value("document.getElementById('status').textContent") != "Decoding.":
            return "rounds came with the end"
        b.value("document.getElementById('stop').click()")
        b.wait("document.getElementById('status').textContent === 'Stopped.'", "the stop")
        server.idle()
        if b.value("document.getElementById('answer').textContent") or not b.value("!document.getElementById('decode').disabled"):
            return "a run that was stopped has an answer, or none may follow"
        return f"its console: {b.troubles}" if b.troubles else None


def files(pdt, run, shots):
    """The same run from a journal and from a trace, as a file that asks for nothing."""
    for name, extra in (("journal", []), ("trace", ["--gamma", run.asked["settings"]["gamma"]])):
        page = run.path(f"{name}.html")
        result = harness.run([pdt, "view", run.path(name), "--model", serve.MODEL, "--out", page, *extra])
        if result.status:
            return result.err
        with browser.Browser() as b:
            b.open(f"file://{page}")
            if name == "trace":  # which has no sections
                problem = check_timeline(b, run) or check_rounds(b, run) or check_bars(b, run)
            else:
                problem = check_run(b, run) or shot(b, shots, "file")
            problem = problem or check_keyboard(b) or check_labels(b) or check_width(b) or shot(b, shots, f"{name}-phone")
            asked = b.value("performance.getEntriesByType('resource').map(e => e.name)")
            if problem or asked or b.troubles:
                return f"{name}: {problem}, it asked for {asked}, its console: {b.troubles}"
    return None


def access(run, server, shots):
    """Phone, keyboard and screen reader; before and after a run, with the settings open."""
    with browser.Browser() as b:
        b.open(f"http://127.0.0.1:{server.port}/")
        b.value("document.querySelector('#ask summary').focus()")
        b.key("Enter", "Enter", 13)
        b.call("Input.dispatchKeyEvent", type="char", text="\r")
        b.wait("document.querySelector('#ask details').open", "settings by the keyboard")
        before = check_keyboard(b) or check_width(b)
        if before:
            return f"before a run: {before}"
        decode(b, run.asked)
        problem = check_width(b) or shot(b, shots, "phone")
        b.size(1200, 900)
        problem = problem or check_keyboard(b) or check_labels(b)
        n = len(run.trace["rounds"])
        b.value("document.getElementById('round').focus()")
        b.key("ArrowLeft", "ArrowLeft", 37)
        if b.value("document.getElementById('round').value") != str(n - 1) or f"Round {n - 1}:" not in b.value("document.getElementById('decision').textContent"):
            problem = problem or "an arrow key does not go to the round before"
        return problem or (f"its console: {b.troubles}" if b.troubles else None)


def markup(pdt, server, folder):
    """Whatever looks like markup is text, from the server and in a file."""
    asked = {"prompt": EVIL, "sections": [f"\n{EVIL}", "b"], "settings": {"max_tokens": 12}}
    run = Run(pdt, folder, asked)
    result = harness.run([pdt, "view", run.path("journal"), "--model", serve.MODEL, "--out", run.path("evil.html")])
    if result.status:
        return result.err
    for url in (f"http://127.0.0.1:{server.port}/", f"file://{run.path('evil.html')}"):
        with browser.Browser() as b:
            b.open(url)
            if url.startswith("http"):
                decode(b, asked)
            answer, section, hit, made = b.value(
                "[document.getElementById('answer').textContent, document.querySelector('.section').textContent, String(window.hit),"
                " document.querySelectorAll('main img, main script').length]")
            if answer != run.answer or section != EVIL or hit != "undefined" or made or b.troubles:
                return f"{url}: {answer!r}, {section!r}, hit {hit}, {made} elements, its console: {b.troubles}"
            if url.startswith("file") and EVIL not in b.value("document.getElementById('status').textContent"):
                return "the prompt is not there"
    return None


def refusals(server):
    """What the server refuses is told, and the next run is as if it had not been."""
    with browser.Browser() as b:
        b.open(f"http://127.0.0.1:{server.port}/")
        fill(b, {"prompt": "a", "sections": ["b"] * 9, "settings": {}})
        b.value("document.getElementById('decode').click()")
        b.wait("document.getElementById('error').textContent", "the error")
        said = b.value("document.getElementById('error').textContent")
        if "streams: expected at most" not in said:
            return f"it says {said!r}"
        decode(b, {"prompt": "a", "sections": ["b"], "settings": {"max_tokens": 6}})
        return b.value("document.getElementById('error').textContent") or None


def keyed(pdt, run):
    with serve.Server(pdt, env={"PDT_API_KEY": "secret"}) as server, browser.Browser() as b:
        b.open(f"http://127.0.0.1:{server.port}/")
        b.value("document.getElementById('key').value = 'secret'")
        decode(b, run.asked)
        return check_timeline(b, run)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pdt")
    parser.add_argument("--only", default="")
    parser.add_argument("--shots")
    args = parser.parse_args()
    pdt, shots = os.path.abspath(args.pdt), args.shots
    browser.find()
    if "microhttpd  not built in" in harness.run([pdt, "--version"]).out:
        harness.skip("pdt was built without libmicrohttpd (launch/setup --for demo installs it)")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other, serve.Server(pdt) as server:
        run = Run(pdt, folder, ASKED)
        checks = [
            ("live", lambda: live(run, server, shots)), ("as it comes", lambda: as_it_comes(server)), ("files", lambda: files(pdt, run, shots)),
            ("access", lambda: access(run, server, shots)), ("markup", lambda: markup(pdt, server, other)), ("refusals", lambda: refusals(server)),
            ("key", lambda: keyed(pdt, run)),
        ]
        harness.run_checks([c for c in checks if args.only in c[0]])


if __name__ == "__main__":
    main()
