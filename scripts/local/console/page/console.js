// The console page. What it shows comes from /events as text and goes into the page as text, never as markup.
"use strict";

const TEXTS = JSON.parse(document.getElementById("texts").textContent);
const HISTORY = 60; // seconds of requests per second
const RECENT = 4; // seconds for which a finished attempt still shows as traffic
const CHANGES = 30; // lines kept
const DOUBT = 1500; // ms without a picture and without a connection after which the console counts as gone
const SILENCE = 5000; // ms without a picture after which it does in any case, and a new connection is tried

let language = "en";
let picture = null; // the last one
let rates = []; // requests per second of all edges, newest last
let drawn = new Map(); // what each part of the page was last drawn from
let states = null; // state of every edge and backend, to tell what changed
let stream = null;
let heardAt = performance.now();
let asking = null; // the AbortController of the question under way

// -- small helpers ---------------------------------------------------------------------------------------------------

const byId = (id) => document.getElementById(id);

/** An element with properties and children; strings become text. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") element.className = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

function shape(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** The text of `key` in the page's language; {names} are filled in. */
function say(key, values = {}) {
  return TEXTS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

/** A word that the console may or may not know: others' own words are shown as they are. */
const translated = (word) => (Object.hasOwn(TEXTS[language], word) ? say(word) : word);

const number = (value, digits = 0) =>
  new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
const milliseconds = (value) => (value == null ? "–" : say("ms", { ms: number(value, value < 10 ? 1 : 0) }));
const dollars = (value) => `$${number(value, value && value < 1 ? 6 : 2)}`;
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString(language, { hourCycle: "h23" });
const sum = (values) => values.reduce((total, value) => total + value, 0);

/** Draw a part of the page only when what it shows has changed, so that a selection in it stays. */
function draw(id, facts, build) {
  const now = JSON.stringify([language, facts]);
  if (drawn.get(id) === now) return;
  drawn.set(id, now);
  byId(id).replaceChildren(...build(facts));
}

const sign = (state) => make("span", { class: "sign", "data-state": state });
const stateOf = (state, word = state) => make("span", { class: "state", "data-state": state }, sign(state), say(word));
const row = (head, cells) => make("tr", {}, make("th", { scope: "row" }, ...[head].flat()), cells);
const heads = (titles) =>
  make("thead", {}, make("tr", {}, titles.map(([title, kind]) => make("th", { scope: "col", class: kind ?? "" }, title))));
const cell = (content, kind = "") => make("td", { class: kind }, ...[content].flat());
const why = (...reasons) => {
  const said = reasons.filter(Boolean).join("; ");
  return said ? make("span", { class: "why" }, said) : null;
};

// -- the parts of the page -------------------------------------------------------------------------------------------

function drawSummary({ edges, backends }) {
  const alive = edges.filter((edge) => edge.state === "healthy").length;
  const fit = backends.filter((backend) => ["healthy", "trial"].includes(backend.standing)).length;
  const well = alive === edges.length && fit === backends.length && fit > 0;
  setText("verdict", say(well ? "allWell" : "degraded"));
  byId("verdict").dataset.well = well ? "yes" : "no";
  const counts = { edges: alive, allEdges: edges.length, pools: fit, allPools: backends.length };
  setText("counts", say("summary", counts));
}

/** Only when it differs: a status region is read out at each change. */
function setText(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

/** Every pair of an edge and a backend that it sees, with its traffic. */
function links({ at, edges, backends, attempts }) {
  const recent = attempts.filter((one) => at - one.started_at - one.total_ms / 1000 < RECENT);
  const busy = new Set(recent.map((one) => `${one.edge} ${one.backend}`));
  return edges.flatMap((edge) =>
    backends.filter(({ name }) => edge.sees[name]).map((backend) => {
      const view = edge.sees[backend.name];
      const state = backend.failure ? "unreachable" : view.standing;
      return { edge, backend, view, state, busy: view.in_flight > 0 || busy.has(`${edge.name} ${backend.name}`) };
    }),
  );
}

function drawMap(now) {
  const all = links(now);
  const far = all.filter(({ edge, backend }) => edge.place && backend.place && apart(edge.place, backend.place));
  const lines = far.map(({ edge, backend, state, busy, view }) => ({
    from: edge.place, to: backend.place, state, busy, rtt: milliseconds(view.rtt_ms),
  }));
  draw("links", lines, () => lines.map(line));
  const edges = now.edges.filter((edge) => edge.place).map(({ name, place, state }) => ({
    name, place, state, busy: all.some((link) => link.edge.name === name && link.busy),
  }));
  const pools = now.backends.filter((backend) => backend.place).map(({ name, place, standing, in_flight }) => ({ name, place, standing, in_flight }));
  draw("marks", { lines, edges, pools }, () => [...lines.map(trip), ...edges.map(ring), ...pools.map(disc), ...captions(edges, pools)]);
}

const apart = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) > 1;

/** The bend of a link: to its left, so that the two directions between two places do not lie on one another. */
function bend([x1, y1], [x2, y2]) {
  return [(x1 + x2) / 2 + (y2 - y1) * 0.12, (y1 + y2) / 2 - (x2 - x1) * 0.32];
}

function line({ from, to, state, busy }) {
  const d = `M${to.join(" ")}Q${bend(from, to).join(" ")} ${from.join(" ")}`; // answers flow from backend to edge
  return shape("path", { d, "data-state": state, class: busy ? "busy" : "" });
}

function at(element, [x, y]) {
  element.style.left = `${x}%`;
  element.style.top = `${y}%`;
  return element;
}

function trip({ from, to, rtt }) {
  const [x, y] = bend(from, to); // a quadratic curve passes half way between its chord and its bend
  return at(make("span", { class: "trip" }, rtt), [(from[0] + to[0] + 2 * x) / 4, (from[1] + to[1] + 2 * y) / 4]);
}

const ring = ({ place, state, busy }) => at(make("span", { class: busy ? "ring busy" : "ring", "data-state": state }), place);
const disc = ({ place, standing }) => at(sign(standing), place);

/** One caption for all that stands in one place. */
function captions(edges, pools) {
  const places = [];
  const found = (place) => places.find((one) => !apart(one.place, place));
  for (const one of [...edges, ...pools]) {
    if (!found(one.place)) places.push({ place: one.place, lines: [] });
    found(one.place).lines.push(one.state ? make("b", {}, one.name) : null, one.state === "unreachable" ? make("div", { class: "word" }, stateOf(one.state)) : null);
    if (one.standing) found(one.place).lines.push(poolLine(one));
  }
  return places.map(({ place, lines }) => at(make("div", { class: "caption" }, lines), place));
}

const poolLine = ({ name, standing, in_flight: inFlight }) =>
  make("div", { class: "state", "data-state": standing }, name,
    make("span", { class: "word" }, standing === "healthy" ? "" : say(standing), inFlight ? say("underWay", { count: number(inFlight) }) : ""));

function drawTiles({ edges, backends, totals }) {
  const cache = total(edges.map((edge) => edge.cache));
  const known = sum(["hit", "semantic", "curated", "coalesced"].map((kind) => cache[kind] ?? 0));
  const parts = [known, cache.miss ?? 0, cache.bypass ?? 0];
  const waiting = sum(backends.map((backend) => backend.waiting));
  draw("tiles", [rates, parts, waiting, backends.map((one) => one.in_flight), totals], () => [
    tile("requests", number(rates.at(-1) ?? 0, 1), [curve(rates)]),
    tile("inFlight", number(sum(backends.map((one) => one.in_flight))), [say("waitingCount", { count: number(waiting) })]),
    tile("cacheShare", sum(parts) ? `${number((100 * known) / sum(parts))} %` : "–", share(parts)),
    tile("tokens", number(totals.input_tokens + totals.output_tokens), [
      say("tokenParts", { input: number(totals.input_tokens), output: number(totals.output_tokens) }),
    ]),
    tile("cost", dollars(totals.cost), [
      totals.since ? say("costParts", { attempts: number(totals.attempts), since: clock(totals.since) }) : say("noneYet"),
    ]),
  ]);
}

const tile = (key, figure, notes) => make("div", {}, make("dt", {}, say(key)), make("dd", {}, figure, make("small", {}, notes)));

function share(parts) {
  if (!sum(parts)) return [say("noneYet")];
  const bar = make("span", { class: "bar" }, parts.map((part) => {
    const piece = make("i");
    piece.style.flexGrow = part;
    return piece;
  }));
  const [hit, miss, bypass] = parts.map((part) => number(part));
  return [bar, say("cacheParts", { hit, miss, bypass })];
}

/** The last minute as a line. */
function curve(values) {
  const top = Math.max(1, ...values);
  const points = values.map((value, index) => `${HISTORY - values.length + index},${20 - (18 * value) / top}`);
  const svg = shape("svg", { viewBox: `0 0 ${HISTORY - 1} 22`, preserveAspectRatio: "none", role: "img", "aria-label": say("lastMinute") });
  svg.append(shape("polyline", { points: points.join(" ") }));
  return svg;
}

/** Counters of several edges, added up by name. */
function total(families) {
  const added = {};
  for (const family of families) for (const [name, count] of Object.entries(family)) added[name] = (added[name] ?? 0) + count;
  return added;
}

function drawHealth({ edges, backends }) {
  const facts = {
    names: backends.map(({ name, place }) => [name, place]),
    load: backends.map((one) => [one.in_flight, one.waiting]),
    direct: backends.map((one) => [one.answers, one.failure]),
    rows: edges.map((edge) => [edge.name, edge.failure, backends.map(({ name }) => edge.sees[name] ?? null)]),
  };
  draw("health", facts, () => [
    heads([[say("ofEdge")], ...backends.map(({ name, place }) => [place ? name : `${name} (${say("noPlace")})`])]),
    make("tbody", {},
      edges.map((edge) => row([edge.name, why(edge.failure && say(edge.failure))], backends.map(({ name }) => viewCell(edge.sees[name])))),
      row(say("ownRow"), backends.map((one) => cell(directly(one)))),
      row(say("loadRow"), backends.map((one) => cell(say("loadParts", { inFlight: number(one.in_flight), waiting: number(one.waiting) }))))),
  ]);
}

function viewCell(view) {
  if (!view) return cell(stateOf("unknown"));
  return cell([
    stateOf(view.standing),
    make("span", { class: "rtt" }, `${milliseconds(view.rtt_ms)} ${translated(view.rtt_from)}`),
    why(view.why),
  ]);
}

function directly({ answers, failure }) {
  if (failure) return [stateOf("unreachable"), why(say(failure))];
  return answers ? [stateOf("healthy", "answers")] : ["–"];
}

function drawEdges({ edges }) {
  const facts = edges.map(({ name, url, state, failure, per_second, answered, cache }) => ({ name, url, state, failure, per_second, answered, cache }));
  draw("edges", facts, () => [
    heads([[say("ofEdge")], [say("state")], [say("rate"), "number"], [say("replies")], [say("cache")]]),
    make("tbody", {}, facts.map((edge) =>
      row([edge.name, make("span", { class: "why" }, edge.url)], [
        cell([stateOf(edge.state), why(edge.failure && say(edge.failure))]),
        cell(edge.per_second == null ? "–" : number(edge.per_second, 1), "number"),
        cell(counts(edge.answered), "text"),
        cell(counts(edge.cache), "text"),
      ]))),
  ]);
}

const counts = (family) =>
  Object.entries(family).map(([name, count]) => `${name}: ${number(count)}`).join(" · ") || say("none");

function drawAttempts({ attempts }) {
  draw("attempts", attempts, () => [
    heads([[say("time")], [say("ofEdge")], [say("backend")], [say("model")], [say("attempt"), "number"], [say("outcome")],
      [say("tokensInOut"), "number"], [say("firstToken"), "number"], [say("total"), "number"]]),
    make("tbody", {}, attempts.length ? attempts.map(attemptRow) : make("tr", {}, make("td", { colspan: 9 }, say("noneYet")))),
  ]);
}

function attemptRow(one) {
  const tokens = `${one.input_tokens ?? "–"} / ${one.output_tokens ?? "–"}`;
  return make("tr", {},
    cell(clock(one.started_at), "text"), cell(one.edge, "text"), cell(one.backend, "text"), cell(one.model, "text"),
    cell(number(one.attempt), "number"),
    cell([make("span", { class: ["ok", "cancelled"].includes(one.outcome) ? "" : "bad" }, one.outcome), why(one.detail)]),
    cell(tokens, "number"), cell(milliseconds(one.first_token_ms), "number"), cell(milliseconds(one.total_ms), "number"));
}

/** A line for every edge or backend whose state is another than a moment ago. */
function tellChanges({ at: when, edges, backends }) {
  const now = new Map([
    ...edges.map(({ name, state, failure }) => [name, { state, reason: failure && say(failure) }]),
    ...backends.map(({ name, standing, failure, seen_by: edges }) => [
      name, { state: standing, reason: failure ? say(failure) : edges.length && say("seenBy", { edges: edges.join(", ") }) },
    ]),
  ]);
  for (const [name, { state, reason }] of states ? now : []) {
    if ((states.get(name)?.state ?? state) !== state) addChange(when, name, state, reason);
  }
  states = now;
}

function addChange(when, name, state, reason) {
  const list = byId("changes");
  list.querySelector("[data-text]")?.remove();
  const text = say(reason ? "changeWhy" : "change", { name, state: say(state), why: reason });
  list.prepend(make("li", {}, make("time", {}, clock(when)), sign(state), ` ${text}`));
  while (list.children.length > CHANGES) list.lastChild.remove();
}

/** Keep what was chosen while the choices come and go. */
function offer(id, names) {
  draw(id, names, () => {
    const chosen = byId(id).value;
    return names.map((name) => {
      const option = make("option", { value: name }, name);
      option.selected = name === chosen;
      return option;
    });
  });
}

function drawAll() {
  if (!picture) return;
  for (const part of [drawSummary, drawMap, drawTiles, drawHealth, drawEdges, drawAttempts]) part(picture);
  offer("edge", picture.edges.map((edge) => edge.name));
  offer("model", picture.models);
}

// -- pictures --------------------------------------------------------------------------------------------------------

function show(next) {
  heardAt = performance.now();
  byId("lost").hidden = true;
  picture = next;
  rates = [...rates, sum(next.edges.map((edge) => edge.per_second ?? 0))].slice(-HISTORY);
  tellChanges(next);
  drawAll();
}

/** Listen while somebody looks: a hidden page asks nothing of the edges. */
function listen() {
  stream?.close();
  stream = null;
  if (document.hidden) return;
  heardAt = performance.now();
  stream = new EventSource("events");
  stream.onmessage = (event) => show(JSON.parse(event.data));
}

/** The browser reconnects by itself in most cases; this covers the rest, and says so meanwhile. */
function checkSilence() {
  const quiet = performance.now() - heardAt;
  const silent = quiet > SILENCE;
  const broken = quiet > DOUBT && stream.readyState !== EventSource.OPEN;
  if (document.hidden || !(silent || broken)) return;
  byId("lost").hidden = false;
  if (silent || stream.readyState === EventSource.CLOSED) listen();
}

// -- try it ----------------------------------------------------------------------------------------------------------

async function ask(event) {
  event.preventDefault();
  asking?.abort();
  const own = (asking = new AbortController());
  const begun = performance.now();
  byId("answer").replaceChildren();
  byId("headers").replaceChildren();
  byId("stop").disabled = false;
  setText("progress", say("asking"));
  try {
    setText("progress", await converse(own.signal, begun));
  } catch (error) {
    if (own === asking) setText("progress", own.signal.aborted ? say("stopped") : say("failed", { why: error.message }));
  }
  if (own === asking) byId("stop").disabled = true;
}

/** Ask, show the answer as it comes, and give the line that says how it went. Throws when there is no whole answer. */
async function converse(signal, begun) {
  const wish = Object.fromEntries(["edge", "model", "prompt", "place"].map((id) => [id, byId(id).value]));
  const response = await fetch("ask", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...wish, fresh: byId("fresh").checked }),
    signal,
  });
  showHeaders(response.headers);
  if (!response.ok) throw new Error(complaint(await response.json()));
  setText("progress", say("streaming"));
  let first = null;
  for await (const text of pieces(response.body)) {
    first ??= performance.now();
    byId("answer").append(text);
  }
  return say("complete", { first: milliseconds((first ?? performance.now()) - begun), total: milliseconds(performance.now() - begun) });
}

const complaint = ({ error }) => translated(error.message);

function showHeaders(headers) {
  const shown = [...headers].filter(([name]) => name === "x-request-id" || name.startsWith("x-isochrone-"));
  byId("headers").replaceChildren(...shown.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

/** The text of a stream of events, piece by piece; ends well only with [DONE]. */
async function* pieces(body) {
  for await (const data of events(body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(complaint(chunk));
    const delta = chunk.choices?.[0]?.delta ?? {};
    const text = (delta.reasoning_content ?? "") + (delta.content ?? "");
    if (text) yield text;
  }
  throw new Error(say("incomplete"));
}

async function* events(body) {
  let rest = "";
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const blocks = (rest + part.value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) if (block.startsWith("data:")) yield block.slice(5).trim();
    }
  } finally {
    reader.cancel().catch(() => {}); // it may have broken already
  }
}

// -- language --------------------------------------------------------------------------------------------------------

function speak(chosen) {
  const previous = TEXTS[language].examplePrompt;
  language = chosen;
  document.documentElement.lang = chosen === "zh" ? "zh-Hans" : "en";
  document.title = say("title");
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = say(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", say(element.dataset.label));
  for (const button of byId("languages").children) button.setAttribute("aria-pressed", String(button.value === chosen));
  if (["", previous].includes(byId("prompt").value)) byId("prompt").value = say("examplePrompt");
  drawAll();
}

/** The browser's storage may be switched off. */
function remembered() {
  try {
    return localStorage.getItem("language");
  } catch {
    return null;
  }
}

function remember(chosen) {
  try {
    localStorage.setItem("language", chosen);
  } catch {
    // then it is chosen anew next time
  }
}

byId("languages").addEventListener("click", ({ target }) => {
  if (!(target.value in TEXTS)) return;
  remember(target.value);
  speak(target.value);
});
byId("asking").addEventListener("submit", ask);
byId("stop").addEventListener("click", () => asking?.abort());
byId("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("asking").requestSubmit();
});
document.addEventListener("visibilitychange", listen);
speak(remembered() ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
listen();
setInterval(checkSilence, 1000);
