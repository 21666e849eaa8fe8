"use strict";

// Asks the daemon once a second what is new, and shows it. Everything is shown as text, never as markup: what
// stands in an event (a flow, a failure) may come from outside.

const EVERY = 1000; // milliseconds between two questions
const HIDDEN = 10000; // the same, while nobody looks
const SPAN = 300; // seconds that the plots show
const ROWS = 100; // events in the table
const SVG = "http://www.w3.org/2000/svg";

const WORDS = {
  payload: "Both guests sent this part of the stream, or this datagram, with different bytes.",
  fin: "One guest ended its stream where the other went on.",
  rst: "The secondary reset a connection on which the primary said more.",
  handshake: "The guests opened the connection with different options: segment size, window scale, SACK or timestamps.",
  unrewritable: "The connection is signed (TCP-MD5, TCP-AO) or multipath: its sequence numbers cannot be translated.",
  unknown_flow: "The proxy met this connection in the middle, and does not know how the two guests' numbers differ.",
  timeout: "The primary said something, and the secondary did not say it in time.",
  table_full: "There is no room for another flow.",
};

const seen = { started: 0, events: 0, samples: 0 }; // numbers of what the daemon has given already
let events = []; // oldest first
let samples = [];
let state = null;
let holdWindow = "minute";

const byId = (id) => document.getElementById(id);

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

function drawn(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Words for numbers

function short(number, unit = "") {
  const prefixes = ["", "k", "M", "G", "T"];
  let step = 0;
  while (Math.abs(number) >= 1000 && step < prefixes.length - 1) { number /= 1000; step += 1; }
  const digits = number === 0 || number >= 100 || (step === 0 && Number.isInteger(number)) ? 0 : 1;
  const prefix = prefixes[step];
  return `${number.toFixed(digits)}${prefix || unit ? "\u202f" : ""}${prefix}${unit}`;
}

function span(seconds) {
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)}\u202fµs`;
  if (seconds < 1) return `${(seconds * 1e3).toFixed(seconds < 0.01 ? 1 : 0)}\u202fms`;
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 ? 1 : 0)}\u202fs`;
  if (seconds < 5400) return `${Math.round(seconds / 60)}\u202fmin`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)}\u202fh` : `${Math.round(seconds / 86400)}\u202fdays`;
}

function clock(unix) {
  return new Date(unix * 1000).toLocaleTimeString([], { hour12: false });
}

function pairs(counts) {
  return Object.entries(counts).filter(([, count]) => count);
}

// The verdict and the facts

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text; // a screen reader is told of each change
}

function showVerdict() {
  const verdict = byId("verdict");
  verdict.className = state.protected ? "good" : "bad";
  setText(byId("verdict-mark"), state.protected ? "✓" : "✕");
  setText(verdict.querySelector("strong"), state.protected ? "PROTECTED" : "UNPROTECTED");
  let why = state.protected ? "If the primary dies now, the secondary takes over." : state.why;
  if (state.promoted) why += ` The secondary has taken over: ${state.promoted}.`;
  if (state.stopping) why += " The daemon is stopping.";
  setText(byId("verdict-why"), why[0].toUpperCase() + why.slice(1));
  document.title = `${state.protected ? "✓ protected" : "✕ unprotected"} – colo-compare`;
}

function showFacts() {
  const held = state.held;
  const flows = pairs(state.flows).map(([kind, count]) => `${short(count)} ${kind.replaceAll("_", " ")}`);
  const backend = state.checkpointer;
  const ready = backend.ended ? `ended: ${backend.ended}` : backend.ready ? "ready" : "not ready";
  const facts = {
    mode: state.mode,
    epoch: `${state.epoch}, ${state.checkpoint.state}`,
    "last checkpoint": state.last_commit === null ? "none yet" : `${span(Math.max(0, state.time - state.last_commit))} ago`,
    "held now": held.frames ? `${frames(held.frames)}, ${short(held.bytes, "B")}, up to ${span(held.oldest)}` : "nothing",
    flows: flows.join(", ") || "none",
    checkpointer: `${backend.backend}, ${ready}`,
    up: `${span(state.uptime)}, version ${state.version}`,
  };
  byId("facts").replaceChildren(...definitions(facts, true));
}

function definitions(facts, boxed) {
  const rows = Object.entries(facts).map(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]);
  return boxed ? rows.map((row) => element("div", {}, ...row)) : rows.flat();
}

// The sides: what passed each port, from the differences between samples

function rates(name, from, to) {
  // [frames from this side, bytes from it, frames to it, bytes to it] each second between two samples.
  const seconds = to.time - from.time;
  if (!(seconds > 0) || !from.ports[name] || !to.ports[name]) return [0, 0, 0, 0];
  return to.ports[name].map((count, index) => Math.max(0, count - from.ports[name][index]) / seconds);
}

function recent(seconds) {
  const end = samples.length ? samples[samples.length - 1].time : 0;
  return samples.filter((sample) => sample.time >= end - seconds);
}

function showSides() {
  const last = recent(3);
  const cards = Object.entries(state.ports).map(([name, port]) => {
    const now = last.length > 1 ? rates(name, last[0], last[last.length - 1]) : [0, 0, 0, 0];
    const wrong = !port.connected;
    let words = port.failure ? `✕ lost: ${port.failure}` : wrong ? "✕ not connected" : "✓ connected";
    if (port.held_back) words += ", held back";
    for (const key of ["backlog", "dropped", "dropped_receive", "dropped_send"]) {
      if (port[key]) words += `, ${key.replace("_", " on ")} ${short(port[key])}`;
    }
    const heading = element("h3", {}, name, " ");
    if (port.role !== name) heading.append(element("span", { textContent: `as ${port.role}` }));
    return element("article", { id: `side-${name}` },
      heading,
      element("p", { className: "url", textContent: port.url }),
      element("p", { className: wrong ? "state wrong" : "state", textContent: words }),
      rate("from", now[0], now[1]), rate("to", now[2], now[3]),
      sparkline(name));
  });
  byId("sides").replaceChildren(...cards);
}

function rate(word, frames, bytes) {
  return element("div", { className: "rate" },
    element("span", { textContent: word }),
    element("span", { textContent: `${short(Math.round(frames))} frames/s` }),
    element("span", { textContent: short(Math.round(bytes * 8), "bit/s") }));
}

function sparkline(name) {
  const width = 300, height = 64;
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const points = samples.slice(1).map((sample, index) => [sample.time, rates(name, samples[index], sample)]);
  const highest = Math.max(1, ...points.map(([, now]) => Math.max(now[1], now[3])));
  const line = (index) => points.map(([time, now]) => {
    const x = width * (1 - (state.time - time) / SPAN);
    return `${x.toFixed(1)},${(height - 3 - (height - 6) * now[index] / highest).toFixed(1)}`;
  }).join(" ");
  svg.append(
    drawn("line", { x1: 0, x2: width, y1: height - 1, y2: height - 1, class: "axis" }),
    drawn("polyline", { points: line(1), class: "in-line" }),
    drawn("polyline", { points: line(3), class: "out-line" }));
  return element("div", { className: "spark" }, svg, quiet(`the highest: ${short(Math.round(highest * 8), "bit/s")}`));
}

// The histogram of hold times

function showHold() {
  let counts = state.hold.counts;
  if (holdWindow === "minute") {
    const before = recent(61)[0];
    counts = before ? counts.map((count, index) => count - before.hold[index]) : counts;
  }
  const bounds = state.hold.bounds;
  const total = counts.reduce((sum, count) => sum + count, 0);
  const words = total === 0 ? "No frame had to wait." :
    `${short(total)} frames had to wait: half of them up to ${below(counts, total, 0.5)}, 99 % up to ${below(counts, total, 0.99)}.`;
  setText(byId("hold-words"), words);

  const width = Math.max(280, byId("hold").clientWidth), height = 170, foot = 20, head = 16;
  const bar = width / counts.length;
  const highest = Math.max(1, ...counts);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Hold times. ${words}` });
  svg.append(drawn("line", { x1: 0, x2: width, y1: height - foot, y2: height - foot, class: "axis" }));
  counts.forEach((count, index) => {
    const tall = count ? Math.max(2, (height - foot - head) * count / highest) : 0;
    const top = height - foot - tall;
    const piece = drawn("rect", { x: index * bar + 1, y: top, width: bar - 2, height: tall, class: "bar" });
    piece.append(drawn("title", {}, `${range(index)}: ${count}`));
    svg.append(piece);
    if (count && bar > 28) svg.append(drawn("text", { x: (index + 0.5) * bar, y: top - 3, "text-anchor": "middle" }, short(count)));
    if (index % (width < 500 ? 5 : 3) === 1 && index < bounds.length) {
      svg.append(drawn("text", { x: (index + 1) * bar, y: height - 5, "text-anchor": "middle" }, span(bounds[index])));
    }
  });
  byId("hold").replaceChildren(svg);
}

function below(counts, total, share) {
  let sum = 0;
  const index = counts.findIndex((count) => (sum += count) >= share * total);
  const bounds = state.hold.bounds;
  return index < bounds.length ? span(bounds[index]) : `more than ${span(bounds[bounds.length - 1])}`;
}

function range(index) {
  const bounds = state.hold.bounds;
  if (index === bounds.length) return `more than ${span(bounds[index - 1])}`;
  return `${index ? span(bounds[index - 1]) : 0} to ${span(bounds[index])}`;
}

// The timeline and the table of events

function showTimeline() {
  const width = Math.max(280, byId("timeline").clientWidth), height = 92, left = 84;
  const rows = { divergences: 20, checkpoints: 46, other: 70 };
  const x = (time) => left + (width - left) * (1 - (state.time - time) / SPAN);
  const shown = events.filter((event) => state.time - event.time <= SPAN);
  const count = (kind) => shown.filter((event) => event.event === kind).length;
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  svg.setAttribute("aria-label",
    `The last five minutes: ${count("Divergence")} divergences, ${count("CheckpointCommitted")} checkpoints. The table has each of them.`);
  for (const [name, y] of Object.entries(rows)) {
    svg.append(drawn("text", { x: 0, y }, name), drawn("line", { x1: left, x2: width, y1: y + 6, y2: y + 6, class: "axis" }));
  }
  for (let minute = 0; minute <= 5; minute += 1) {
    const anchor = minute === 0 ? "end" : minute === 5 ? "start" : "middle";
    if (width < 500 && minute % 2 === 1 && minute < 5) continue;
    svg.append(drawn("text", { x: x(state.time - 60 * minute), y: height - 3, "text-anchor": anchor }, minute ? `−${minute} min` : "now"));
  }
  const first = events[0];
  if (first && first.number > 1 && first.time > state.time - SPAN) {
    svg.append(drawn("line", { x1: x(first.time), x2: x(first.time), y1: 4, y2: 76, class: "axis" }),
      drawn("text", { x: x(first.time) - 6, y: 58, "text-anchor": "end" }, "older ones are not kept"));
  }
  for (const event of shown) svg.append(...marker(event, x, rows));
  byId("timeline").replaceChildren(svg);
}

function marker(event, x, rows) {
  const at = x(event.time);
  const sign = (y, kind, text) => {
    const made = drawn("text", { x: at, y, class: kind, "text-anchor": "middle" }, text);
    made.append(drawn("title", {}, `${clock(event.time)} ${describe(event)}`));
    return made;
  };
  if (event.event === "Divergence") {
    const made = sign(rows.divergences + 4, "divergence", "◆");
    made.addEventListener("click", () => explain(event));
    return [made];
  }
  if (event.event === "CheckpointCommitted") {
    const from = Math.max(x(event.time - event.request_to_commit), x(state.time - SPAN));
    const made = drawn("rect", { x: from, y: rows.checkpoints - 7, width: Math.max(3, at - from), height: 10, class: "checkpoint" });
    made.append(drawn("title", {}, `${clock(event.time)} ${describe(event)}`));
    return [made];
  }
  if (event.event === "CheckpointAborted") return [sign(rows.checkpoints + 2, "aborted", "✕")];
  if (event.event === "SideLost") return [sign(rows.other + 2, "aborted", "✕")];
  return event.event === "CheckpointRequested" ? [] : [sign(rows.other + 2, "change", "▲")];
}

function describe(event) {
  switch (event.event) {
    case "Divergence": return `${event.reason}, ${event.flow}, offset ${event.offset}`;
    case "CheckpointCommitted":
      return `epoch ${event.epoch} after ${span(event.request_to_commit)}, for ${event.reasons.join(", ")}; released ${frames(event.released)}`;
    case "CheckpointAborted": return `epoch ${event.epoch}: ${event.detail}`;
    case "ModeChanged": return `${event.old} → ${event.new}: ${event.why}`;
    case "SideLost": return `the ${event.side}: ${frames(event.released)} released, ${event.discarded} discarded`;
    case "SecondaryJoined": return `${event.url}, not yet equal to the guest that runs`;
    case "Promoted": return `the secondary took over: ${event.flows} flows live on, ${event.flushed} frames went out at once`;
    default:
      return Object.entries(event).filter(([key]) => !["event", "number", "time"].includes(key)).map(([key, value]) => `${key} ${value}`).join(", ");
  }
}

function frames(count) {
  return count === 1 ? "1 frame" : `${short(count)} frames`;
}

const KINDS = {
  Divergence: "◆ divergence", CheckpointCommitted: "▬ checkpoint", CheckpointAborted: "✕ checkpoint aborted",
  ModeChanged: "▲ mode changed", SideLost: "✕ side lost", Promoted: "▲ promoted",
  SecondaryJoined: "▲ new secondary",
};

function addRows(fresh) {
  // Rows are added and never made anew: whoever stands on one with the keyboard stays there.
  const body = byId("events");
  for (const event of fresh) {
    if (event.event === "CheckpointRequested") continue; // its result tells the same
    const what = element("td");
    if (event.event === "Divergence") {
      const button = element("button", { type: "button", textContent: describe(event), title: "Explain" });
      button.addEventListener("click", () => explain(event));
      what.append(button);
    } else {
      what.textContent = describe(event);
    }
    body.prepend(element("tr", {}, element("td", { textContent: clock(event.time) }),
      element("td", { textContent: KINDS[event.event] || event.event }), what));
  }
  while (body.rows.length > ROWS) body.lastElementChild.remove();
  byId("no-events").hidden = body.rows.length > 0;
}

function showCounts() {
  const counters = state.counters;
  const tables = {
    "frames released": counters.released,
    divergences: counters.divergences,
    "checkpoints requested for": counters.requests,
    checkpoints: counters.checkpoints,
    "frames discarded": counters.discarded,
  };
  byId("counts").replaceChildren(...Object.entries(tables).map(([caption, counts]) => {
    const rows = pairs(counts).map(([name, count]) =>
      element("tr", {}, element("td", { textContent: name.replaceAll("_", " ") }), element("td", { textContent: count.toLocaleString("en") })));
    if (!rows.length) rows.push(element("tr", {}, element("td", { textContent: "none" }), element("td", { textContent: "0" })));
    return element("table", {}, element("caption", { textContent: caption }), element("tbody", {}, ...rows));
  }));
}

// The explanation of a divergence

async function explain(event) {
  setText(byId("explanation-title"), `Divergence ${event.id}: ${event.reason}`);
  setText(byId("explanation-words"), WORDS[event.reason] || "");
  const time = `${new Date(event.time * 1000).toLocaleString([], { hour12: false })}, in epoch ${event.epoch}`;
  const facts = { flow: event.flow, where: `${event.offset} bytes from the start of what the guest said`, when: time };
  byId("explanation-facts").replaceChildren(...definitions(facts, false));
  const bytes = byId("explanation-bytes");
  bytes.replaceChildren();
  byId("explanation").showModal();
  const answer = await fetch(`page/divergence?id=${event.id}`).catch(() => null);
  if (!answer || !answer.ok) {
    bytes.append(quiet("The daemon keeps nothing more about it."));
    return;
  }
  const told = await answer.json();
  Object.assign(facts, { cause: cause(told), timing: timing(told), checkpoint: followed(told.checkpoint) });
  facts["as often"] = told.count === 1 ? "the only one like this" : `${told.count} like this from ${told.service}`;
  byId("explanation-facts").replaceChildren(...definitions(facts, false));
  bytes.append(told.primary.bytes === undefined
    ? quiet("What the guests said is not shown here: [http] payload is false.") : bytesTable(told));
}

function quiet(words) {
  return element("p", { className: "quiet", textContent: words });
}

function cause(told) {
  const where = told.field ? ` in ${told.field}` : "";
  return `${told.cause.replaceAll("_", " ")}${where}: ${told.why}`;
}

function timing(told) {
  const [ours, theirs] = [told.primary.time, told.secondary.time];
  if (ours === null && theirs === null) return "not known";
  if (theirs === null) return `the primary's frame had come ${span(told.time - ours)} before, the secondary's had not`;
  if (ours === null) return `the secondary's frame had come ${span(told.time - theirs)} before, the primary's had not`;
  const [first, second] = ours <= theirs ? ["primary", "secondary"] : ["secondary", "primary"];
  return `the ${first}'s frame came ${span(Math.abs(ours - theirs))} before the ${second}'s`;
}

function followed(checkpoint) {
  if (!checkpoint) return "none has followed";
  if (checkpoint.outcome === "aborted") return `the one for epoch ${checkpoint.epoch} was aborted: ${checkpoint.detail}`;
  return `epoch ${checkpoint.epoch} was committed ${span(checkpoint.after)} later`;
}

function octets(hex) {
  return (hex.match(/../g) || []).map((pair) => parseInt(pair, 16));
}

function bytesTable(told) {
  // Both sides' bytes by their distance from the first one that differs, eight in a row.
  const sides = ["primary", "secondary"].map((name) => ({ name, bytes: octets(told[name].bytes), before: told[name].before }));
  const first = -8 * Math.min(2, Math.ceil(Math.max(...sides.map((side) => side.before)) / 8));
  const end = Math.min(64, Math.max(...sides.map((side) => side.bytes.length - side.before)));
  const body = element("tbody");
  for (let row = first; row < end; row += 8) {
    sides.forEach((side, index) => {
      const other = sides[1 - index];
      const hex = element("td"), text = element("td");
      for (let at = row; at < row + 8; at += 1) {
        const octet = side.bytes[at + side.before];
        const differs = at >= 0 && octet !== other.bytes[at + other.before];
        const digits = octet === undefined ? "  " : octet.toString(16).padStart(2, "0");
        const letter = octet === undefined ? " " : octet > 32 && octet < 127 ? String.fromCharCode(octet) : "·";
        hex.append(differs ? element("mark", { textContent: digits }) : digits, " ");
        text.append(differs ? element("mark", { textContent: letter }) : letter);
      }
      body.append(element("tr", { className: index ? "second" : "" },
        element("th", { scope: "row", textContent: index ? "" : String(told.offset + row) }),
        element("td", { textContent: side.name }), hex, text));
    });
  }
  const caption = element("caption", { textContent: "What each side said there. What differs is underlined." });
  return element("table", { className: "bytes" }, caption, body);
}

// Asking

function forget() {
  seen.events = seen.samples = 0;
  events = [];
  samples = [];
  byId("events").replaceChildren();
}

function take(answer) {
  if (answer.started !== seen.started) {
    // Another daemon: its numbers begin anew, so what came with this answer may not be all.
    const first = seen.started === 0;
    forget();
    seen.started = answer.started;
    if (!first) return;
  }
  state = answer;
  events = events.concat(answer.events).slice(-1000);
  samples = samples.concat(answer.samples).slice(-SPAN);
  if (answer.events.length) seen.events = answer.events[answer.events.length - 1].number;
  if (answer.samples.length) seen.samples = answer.samples[answer.samples.length - 1].number;
  showVerdict();
  showFacts();
  showSides();
  showHold();
  showTimeline();
  addRows(answer.events);
  showCounts();
}

function showLink(words, stale) {
  const link = byId("link");
  link.className = stale ? "stale" : "quiet";
  setText(link, words);
}

async function ask() {
  try {
    const answer = await fetch(`page/state?events=${seen.events}&samples=${seen.samples}`, { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(`it answers ${answer.status}`);
    take(await answer.json());
    showLink("live", false);
  } catch (error) {
    showLink(state ? `no answer since ${clock(state.time)}: what is shown is old` : "no answer", true);
  }
  setTimeout(ask, document.hidden ? HIDDEN : EVERY);
}

function chooseHold(which) {
  holdWindow = which;
  for (const name of ["minute", "ever"]) byId(`hold-${name}`).setAttribute("aria-pressed", String(name === which));
  if (state) showHold();
}

byId("hold-minute").addEventListener("click", () => chooseHold("minute"));
byId("hold-ever").addEventListener("click", () => chooseHold("ever"));
window.addEventListener("resize", () => { if (state) { showHold(); showTimeline(); } });
byId("explanation-close").addEventListener("click", () => byId("explanation").close());
ask();
