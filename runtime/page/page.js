"use strict";
(() => {
  const $ = id => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const LETTERS = {commit: "C", hold: "H", rollback: "R", force: "F"};
  const WORDS = {commit: "committed", hold: "held", rollback: "rolled back", force: "forced"};
  const DRAW_MS = 50; // between two drawings while rounds come in

  // The run that is shown: the same whether it comes by events or with the page.
  let run = null;
  let chosen = 0; // round that is shown, by its place among the run's
  let follows = true; // the last one
  let drawn = 0; // rounds that the timeline has
  let drawing = null;

  // All text of others goes in as text: there is no other way here.
  function node(name, attributes, ...children) {
    const n = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key === "class") n.className = value;
      else n.setAttribute(key, value);
    }
    n.append(...children.map(c => typeof c === "number" ? String(c) : c));
    return n;
  }

  const name_of = k => {
    const section = ((run.sections || [])[k] || "").trim();
    return section ? `${k} ${section}` : `stream ${k}`;
  };

  // ---- what the rounds come to ----

  // The streams after n rounds, by the rule that every rank applies: a rollback drops what was held
  // with the block; what is pending is committed where the gate passes or the block is forced.
  function streams_after(n) {
    const streams = Array.from({length: run.streams}, () => ({parts: [], pending: [], last: null}));
    for (const round of run.rounds.slice(0, n)) {
      for (const b of round.blocks) {
        const s = streams[b.stream], part = {kind: "held", text: b.text, round: round.round};
        s.parts.push(part);
        s.pending.push(part);
        s.last = {...b, round: round.round};
        if (b.action === "rollback") settle(s, "struck");
        if (b.action === "force") settle(s, "forced");
      }
      if (round.gate) streams.forEach(s => settle(s, "committed"));
    }
    return streams;
  }

  function settle(stream, kind) {
    for (const part of stream.pending) part.kind = kind;
    stream.pending = [];
  }

  // In words, from counts as the server has them.
  function came_to(order, c) {
    return (order ? `Order ${order.join(", ")}; ` : "") + `${c.rounds} rounds, the gate passed in ` +
      `${c.gates_passed}; blocks: ${c.commits} committed, ${c.holds} held, ${c.rollbacks} rolled ` +
      `back, ${c.forced} forced.`;
  }

  function counts_of(rounds) {
    const actions = rounds.flatMap(r => r.blocks.map(b => b.action));
    const number = action => actions.filter(a => a === action).length;
    return {rounds: rounds.length, gates_passed: rounds.filter(r => r.gate).length,
      commits: number("commit"), holds: number("hold"), rollbacks: number("rollback"),
      forced: number("force")};
  }

  // ---- drawing ----

  function part_node(part) {
    const said = {held: "held: ", struck: "rolled back: ", forced: "forced: "}[part.kind];
    const n = node(part.kind === "struck" ? "del" : "span", {class: part.kind});
    if (said) n.append(node("span", {class: "unseen"}, said));
    n.append(node("span", {class: "said"}, part.text));
    return n;
  }

  function bar(k, block) {
    const gamma = run.gamma, r = block.readiness;
    const weak = gamma != null && !(r > gamma);
    const n = node("div", {class: weak ? "bar weak" : "bar", role: "meter", "aria-valuemin": 0,
      "aria-valuemax": 1, "aria-valuenow": r, "aria-label": `Readiness of ${name_of(k)}`,
      "aria-valuetext": r.toFixed(3) + (gamma == null ? "" : `, gamma ${gamma}`)});
    const fill = node("i");
    fill.style.width = `${100 * r}%`;
    n.append(fill);
    if (gamma != null) {
      const mark = node("b");
      mark.style.left = `${100 * gamma}%`;
      n.append(mark);
    }
    return n;
  }

  function stream_node(stream, k) {
    const text = node("div", {class: "text"});
    const section = (run.sections || [])[k];
    if (section) text.append(node("span", {class: "section"}, section.replace(/^\n+/, "")));
    text.append(...stream.parts.map(part_node));
    const n = node("section", {class: "stream", "aria-label": name_of(k)},
      node("h3", {}, `Stream ${k}`), text);
    const b = stream.last;
    if (!b) return n;
    n.append(bar(k, b), node("p", {class: "told"}, `readiness ${b.readiness.toFixed(3)}` +
      (run.gamma == null ? "" : ` against ${run.gamma}`) +
      `, round ${b.round}: ${WORDS[b.action]}` + (b.attempt ? `, attempt ${b.attempt + 1}` : "")));
    return n;
  }

  // "1-3, 5" of ascending numbers.
  function ranges(numbers) {
    const out = [];
    for (const n of numbers) {
      const last = out[out.length - 1];
      if (last && last[1] === n - 1) last[1] = n;
      else out.push([n, n]);
    }
    return out.map(([a, b]) => a === b ? `${a}` : `${a}-${b}`).join(", ");
  }

  function draw_window(round) {
    const table = $("window"), writers = Array.from({length: run.streams}, () => []);
    let plan = false;
    for (const [of_round, stream] of round ? round.window : []) {
      if (stream < 0) plan = true;
      else writers[stream].push(of_round);
    }
    const told = writers.map(w => ranges(w.sort((a, b) => a - b)) || "\u2013");
    table.tHead.replaceChildren(node("tr", {}, node("th", {scope: "col"}, "reads"),
      node("th", {scope: "col"}, "the plan"),
      ...writers.map((_, k) => node("th", {scope: "col"}, `notes of ${k}`))));
    table.tBodies[0].replaceChildren(...(round ? round.blocks : []).map(b => node("tr", {},
      node("th", {scope: "row"}, name_of(b.stream)), node("td", {}, plan ? "yes" : "no"),
      ...told.map(t => node("td", {}, t)))));
    $("window-told").textContent = round
      ? `Which notes (by the round they are of) the streams that wrote in round ${round.round} ` +
        `could read: ${round.window.length} in the window`
      : "";
  }

  function cell(tag, attributes, text, place) {
    const n = node(tag, attributes, text);
    n.dataset.place = place;
    return n;
  }

  function start_timeline() {
    const t = $("timeline"), row = name => node("tr", {}, node("th", {scope: "row"}, name));
    t.tHead.replaceChildren(row("round"));
    t.tBodies[0].replaceChildren(row("gate"),
      ...Array.from({length: run.streams}, (_, k) => row(name_of(k))));
    drawn = 0;
  }

  function draw_timeline() {
    const t = $("timeline"), rows = t.tBodies[0].rows;
    for (; drawn < run.rounds.length; drawn++) {
      const round = run.rounds[drawn], actions = new Map(round.blocks.map(b => [b.stream, b.action]));
      t.tHead.rows[0].append(cell("th", {scope: "col"}, round.round, drawn));
      rows[0].append(cell("td", {class: round.gate ? "passed" : "failed"},
        round.gate ? "passed" : "failed", drawn));
      for (let k = 0; k < run.streams; k++) {
        const action = actions.get(k);
        rows[k + 1].append(cell("td", {class: action || "none"}, LETTERS[action] || "\u00b7", drawn));
      }
    }
    for (const old of t.querySelectorAll(".chosen")) old.classList.remove("chosen");
    for (const row of t.rows) {
      const at = row.cells[chosen];
      if (chosen > 0 && at) at.classList.add("chosen");
    }
    const head = t.tHead.rows[0].cells[chosen];
    if (head && chosen > 0) {
      const box = $("timeline-box"), seen = box.clientWidth;
      if (head.offsetLeft + head.offsetWidth > box.scrollLeft + seen)
        box.scrollLeft = head.offsetLeft + head.offsetWidth - seen;
      else if (head.offsetLeft < box.scrollLeft + seen / 4)
        box.scrollLeft = head.offsetLeft - seen / 2;
    }
  }

  function decision_of(round) {
    if (!round) return "";
    const by = {};
    for (const b of round.blocks) (by[b.action] = by[b.action] || []).push(b.stream);
    const what = Object.keys(by).map(a => `${WORDS[a]} ${by[a].join(", ")}`).join("; ");
    return `Round ${round.round}: the gate ${round.gate ? "passed" : "failed"}; ` +
      (what ? `blocks of streams ${what}.` : "no stream wrote.");
  }

  function draw() {
    drawing = null;
    if (!run) return;
    const n = run.rounds.length;
    if (follows) chosen = n;
    const round = run.rounds[chosen - 1];
    $("run").hidden = false;
    $("round").max = n;
    $("round").value = chosen;
    $("round").setAttribute("aria-valuetext", `round ${chosen} of ${n}`);
    $("back").disabled = chosen <= 0;
    $("on").disabled = chosen >= n;
    $("decision").textContent = decision_of(round);
    draw_timeline();
    $("streams").replaceChildren(...streams_after(chosen).map(stream_node));
    draw_window(round);
    $("answer").textContent = run.text || "";
    $("came-to").textContent = run.came_to || "";
  }

  function draw_soon() {
    if (drawing === null) drawing = setTimeout(draw, DRAW_MS);
  }

  function choose(place) {
    chosen = Math.max(0, Math.min(place, run.rounds.length));
    follows = chosen === run.rounds.length;
    draw();
  }

  function show(what) {
    run = what;
    follows = true;
    start_timeline();
    draw();
  }

  // ---- a run that comes by events ----

  const new_run = asked => ({
    streams: asked.sections ? asked.sections.length : 0, sections: asked.sections, gamma: null,
    rounds: [], parts: [], text: "", came_to: "",
  });

  function take_began(began) {
    run.streams = began.settings.streams;
    run.gamma = began.settings.gamma;
    start_timeline();
  }

  function take_end(chunk) {
    const p = chunk.pdt;
    run.text = p.order.map(k => run.parts[k] || "").join("\n");
    run.came_to = came_to(p.order, p);
    $("status").textContent = `Done: ${p.ended_by}, ${p.rounds} rounds.`;
    if (p.rounds > run.rounds.length)
      $("error").textContent = `The server told ${run.rounds.length} of ${p.rounds} rounds.`;
  }

  function take(chunk) {
    if (chunk.error) throw new Error(chunk.error.message);
    const p = chunk.pdt || {};
    if (p.began) take_began(p.began);
    if (p.decided) run.rounds.push(p.decided);
    if (chunk.choices.length && p.stream !== undefined)
      run.parts[p.stream] = (run.parts[p.stream] || "") + chunk.choices[0].text;
    if (chunk.choices.length && p.order) take_end(chunk);
    draw_soon();
  }

  // Calls take for each event of a body. Events end with an empty line, and may come in pieces.
  async function read_events(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return;
      const events = (text + value).split("\n\n");
      text = events.pop();
      for (const e of events)
        if (e.startsWith("data: ") && e !== "data: [DONE]") take(JSON.parse(e.slice(6)));
    }
  }

  async function send(asked, signal) {
    const headers = {"Content-Type": "application/json"}, key = $("key").value;
    if (key) headers.Authorization = `Bearer ${key}`;
    const response = await fetch("v1/completions",
      {method: "POST", headers, body: JSON.stringify(asked), signal});
    if (response.ok) return read_events(response.body);
    const why = await response.json().catch(() => null);
    throw new Error(why && why.error ? why.error.message : `status ${response.status}`);
  }

  function asked_now() {
    const settings = {}, lines = $("sections").value.split("\n").filter(l => l !== "");
    for (const s of data.settings) {
      const value = $(`set-${s.key}`).value;
      if (value !== "") settings[s.key] = s.values ? value : Number(value);
    }
    const asked = {prompt: $("prompt").value, settings, stream: true,
      stream_options: {order: "interleaved", rounds: true}};
    if (lines.length)
      asked.sections = lines.map(l => l.replace(/\\([n\\])/g, (_, c) => c === "n" ? "\n" : "\\"));
    return asked;
  }

  let under_way = null;

  async function decode(event) {
    event.preventDefault();
    if (under_way) return;
    const asked = asked_now();
    under_way = new AbortController();
    $("decode").disabled = true;
    $("stop").disabled = false;
    $("error").textContent = "";
    $("status").textContent = "Decoding.";
    show(new_run(asked));
    try {
      await send(asked, under_way.signal);
    } catch (e) {
      const stopped = e.name === "AbortError";
      $("status").textContent = stopped ? "Stopped." : "";
      if (!stopped) $("error").textContent = e.message;
    }
    under_way = null;
    $("decode").disabled = false;
    $("stop").disabled = true;
    draw();
  }

  // ---- the form ----

  function setting_node(s) {
    const id = `set-${s.key}`, hint = `${id}-hint`;
    const field = s.values
      ? node("select", {id}, node("option", {value: ""}, `default (${s.fallback})`),
        ...s.values.map(v => node("option", {value: v}, v)))
      : node("input", {id, type: "number", min: s.low, max: s.high, step: s.whole ? 1 : "any",
        placeholder: s.fallback});
    field.setAttribute("aria-describedby", hint);
    return node("div", {}, node("label", {for: id}, s.key.replace(/_/g, " ")), field,
      node("span", {id: hint, class: "hint"}, s.help));
  }

  function open_form() {
    $("about").textContent = `${data.model}: parallel streams of one answer, as they are decided.`;
    $("settings").append(...data.settings.map(setting_node));
    $("ask").hidden = false;
    $("ask").addEventListener("submit", decode);
    $("stop").addEventListener("click", () => under_way && under_way.abort());
  }

  // ---- a finished run ----

  function open_file() {
    const pick = $("session"), about = [`From ${data.source}.`];
    if (!data.texts) about.push("Without its model: token ids stand where texts would.");
    $("about").textContent = about.join(" ");
    data.sessions.forEach((s, i) => pick.append(node("option", {value: i}, s.name)));
    const choose_session = () => {
      const s = data.sessions[pick.value];
      $("error").textContent = s.error || "";
      $("status").textContent = (s.prompt ? `Prompt: ${s.prompt}` : "") +
        (s.ended_by === "max_rounds" ? " (ended by max_rounds)" : "");
      s.came_to = came_to(s.order, counts_of(s.rounds));
      show(s);
    };
    pick.addEventListener("change", choose_session);
    $("pick").hidden = data.sessions.length < 2;
    if (data.sessions.length) choose_session();
    else $("status").textContent = "It holds no session.";
  }

  $("round").addEventListener("input", () => choose(Number($("round").value)));
  $("back").addEventListener("click", () => choose(chosen - 1));
  $("on").addEventListener("click", () => choose(chosen + 1));
  $("show").addEventListener("change", () =>
    $("streams").classList.toggle("without", !$("show").checked));
  $("timeline").addEventListener("click", event => {
    const place = event.target.dataset.place;
    if (place !== undefined) choose(Number(place) + 1);
  });

  if (data.sessions) open_file();
  else open_form();
})();
