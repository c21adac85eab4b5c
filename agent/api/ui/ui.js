// The pages of /ui/: what the API of this agent says, for people. Plain DOM; whatever an agent answers becomes text, never markup.
"use strict";

const page = document.getElementById("page");
const problemBox = document.getElementById("problem");
const namespaceBox = document.getElementById("namespace");
const FIRES_SHOWN = 25, LIVE_LINES = 500, REFRESH_MS = 5000, EMPTY_PAGES = 20;

let turn = 0;          // of the page: what was asked for by one that was left is dropped
let refresh = null;    // timer
let leave = null;      // AbortController of what the page keeps open

// --- asking the agent ---------------------------------------------------------------------------------------------------

class Refused extends Error {
  constructor(status, problem) {
    const errors = (problem.errors || []).map((e) => `\n${e.pointer} ${e.detail}`).join("");
    super(`${status} ${problem.code || ""}: ${problem.detail || problem.title || "refused"}${errors}`);
    this.status = status;
  }
}

const namespace = () => sessionStorage.getItem("namespace") || "default";

function headers(more) {
  const token = sessionStorage.getItem("token");
  return { "Carillon-Client": "ui", ...(token ? { Authorization: `Bearer ${token}` } : {}), ...more };
}

function address(path, query) {
  const all = new URLSearchParams();
  for (const [name, value] of Object.entries(query || {})) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== undefined && one !== "") all.append(name, one);
  }
  return all.size ? `${path}?${all}` : path;
}

async function send(method, path, query, body, signal) {
  const options = { method, signal, headers: headers(body === undefined ? {} : { "Content-Type": "application/json" }) };
  if (body !== undefined) options.body = JSON.stringify(body);
  const answer = await fetch(address(path, query), options);
  if (answer.status === 401 && await askToken()) return send(method, path, query, body, signal);
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

async function ask(method, path, query, body) {
  const text = await (await send(method, path, query, body)).text();
  return text ? JSON.parse(text) : null;
}

const here = (path, query) => ask("GET", path, { ns: namespace(), ...query });

let asking = null;

// One dialog, however many requests were refused at once.
function askToken() {
  const dialog = document.getElementById("token-dialog"), box = document.getElementById("token");
  asking = asking || new Promise((resolve) => {
    box.value = "";
    dialog.addEventListener("close", () => {
      asking = null;
      if (box.value) sessionStorage.setItem("token", box.value);
      resolve(box.value !== "");
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

// --- making elements ----------------------------------------------------------------------------------------------------

function el(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((c) => c !== null && c !== undefined).map((c) => c instanceof Node ? c : String(c)));
  return element;
}

const link = (hash, text, attributes) => el("a", { href: `#${hash}`, ...attributes }, text);
const jobLink = (id) => link(`/jobs/${encodeURIComponent(id)}`, id);
const fireLink = (id) => link(`/fires/${encodeURIComponent(id)}`, el("code", {}, id));
const json = (value) => el("pre", {}, JSON.stringify(value, null, 2));

const SPANS = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];

function span(ms) {
  const s = Math.abs(ms) / 1000;
  if (s < 1) return `${Math.round(Math.abs(ms))}ms`;
  const at = SPANS.findIndex(([unit]) => s >= unit), [unit, letter] = SPANS[at], next = SPANS[at + 1];
  const rest = next ? Math.floor((s % unit) / next[0]) : 0;
  return `${Math.floor(s / unit)}${letter}${rest ? ` ${rest}${next[1]}` : ""}`;
}

function when(instant) {
  if (!instant) return "–";
  const ms = Date.parse(instant) - Date.now();
  return el("time", { datetime: instant, title: instant }, `${instant.replace("T", " ").replace(/\.000Z$|Z$/, "")} `,
            el("span", { class: "faint" }, ms > 0 ? `in ${span(ms)}` : `${span(ms)} ago`));
}

const COLOURS = { succeeded: "good", active: "good", passing: "good", dead: "bad", pending: "wait", paused: "wait", suspect: "bad" };
const coloured = (word) => word ? el("span", { class: COLOURS[word] || "faint" }, word) : "–";
const outcome = (fire) => [coloured(fire.outcome), fire.reason ? ` ${fire.reason}` : ""];
const scheduleText = (s) => (Array.isArray(s) ? s.join("  |  ") : s);

function target(callback) {
  const to = callback.http || callback.grpc || {};
  return to.service || to.url || to.address || "the application";
}

const tableRow = (cells) => el("tr", {}, cells.map((c) => el("td", {}, c)));

function table(heads, rows, none) {
  if (!rows.length) return el("p", { class: "faint" }, none || "none");
  return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, heads.map((h) => el("th", {}, h)))),
    el("tbody", {}, rows.map(tableRow))));
}

function card(name, value, colour) {
  return el("div", { class: "card" }, el("b", { class: colour }, value), el("span", {}, name));
}

function button(text, act, attributes) {
  const it = el("button", { type: "button", ...attributes, onclick: async () => {
    it.disabled = true;
    try {
      await act();
      showProblem(null);
    } catch (error) {
      showProblem(error);
    }
    it.disabled = false;
  } }, text);
  return it;
}

function showProblem(error) {
  problemBox.hidden = !error;
  problemBox.textContent = error ? error.message : "";
}

// A form whose fields are the query of the page's own address.
function filter(path, fields, query) {
  const inputs = fields.map(({ name, options, size, title }) => el("label", {}, name.replace("_", " "), options
    ? el("select", { name }, ["", ...options].map((o) => el("option", { value: o, selected: query[name] === o }, o || "any")))
    : el("input", { name, size: size || 18, value: query[name] || "", placeholder: title, spellcheck: "false", autocomplete: "off" })));
  return el("form", { class: "filter", onsubmit: (event) => {
    event.preventDefault();
    go(address(path, Object.fromEntries(new FormData(event.target))));
  } }, inputs, el("button", {}, "Filter"));
}

// Rows that come page after page: ROWS_OF(answer) gives rows, a button below asks for more. A page may be empty though others follow it,
// for the agent looks at a bounded number of rows for each.
async function paged(path, query, heads, rowsOf, none) {
  const box = el("div", {}), mine = turn;
  const load = async (cursor) => {
    let answer = await here(path, { ...query, cursor });
    for (let n = 0; !rowsOf(answer).length && answer.next_cursor && mine === turn && n < EMPTY_PAGES; n += 1) {
      answer = await here(path, { ...query, cursor: answer.next_cursor });
    }
    if (mine !== turn) return;
    const rows = rowsOf(answer), body = box.querySelector("tbody"), more = box.querySelector("button.more");
    if (more) more.remove();
    if (body) body.append(...rows.map(tableRow));
    else box.replaceChildren(table(heads, rows, answer.next_cursor ? "none so far" : none));
    if (answer.next_cursor) box.append(button("More", () => load(answer.next_cursor), { class: "more" }));
  };
  await load();
  return box;
}

// --- pages --------------------------------------------------------------------------------------------------------------

const FIRE_HEADS = ["Due", "Job", "Fire", "Outcome", "Late", "Attempts", "Last error"];

function lastError(fire) {
  const last = fire.attempts[fire.attempts.length - 1];
  return fire.last_error || (last && fire.outcome !== "succeeded" && (last.error || (last.status ? `status ${last.status}` : ""))) || "–";
}

function fireRow(fire) {
  const late = fire.lateness_ms === null || fire.lateness_ms === undefined ? "–" : span(fire.lateness_ms);
  return [when(fire.due), jobLink(fire.job), fireLink(fire.fire), outcome(fire), late, fire.attempts.length || "–", lastError(fire)];
}

function bars(forecast) {
  const most = Math.max(1, ...forecast.steps), from = Date.parse(forecast.from);
  return el("div", { class: "bars", role: "img", "aria-label": `at most ${most} fires a minute` }, forecast.steps.map((fires, i) => {
    const bar = el("i", { title: `${new Date(from + i * 60000).toISOString()}: ${fires}` });
    bar.style.height = `${(100 * fires) / most}%`;
    return bar;
  }));
}

let known = { ns: null, at: 0, forecast: null };

// It reads every job: not each time that the page is refreshed.
async function forecastOfMinutes() {
  if (known.ns !== namespace() || Date.now() - known.at > 60000) {
    known = { ns: namespace(), at: Date.now(), forecast: await here("/v1/forecast", { window: "1h", step: "1m" }).catch(() => null) };
  }
  return known.forecast;
}

async function overview() {
  const [cluster, health, letters, forecast] = await Promise.all([
    ask("GET", "/v1/cluster"), ask("GET", "/v1/health"), here("/v1/deadletters", { limit: 5 }),
    forecastOfMinutes()]);
  const members = cluster.members.map((m) => [m.id === cluster.self ? el("b", {}, m.name) : m.name, el("code", {}, m.address || "–"),
    coloured(m.state), m.slots, m.zone || "–", m.version, when(m.started_at)]);
  return el("div", {},
    el("h1", {}, `Cluster ${cluster.cluster}`),
    el("div", { class: "cards" },
      card("health", health.ok ? "ok" : "not ok", health.ok ? "good" : "bad"),
      card(cluster.mode === "standalone" ? "agent" : "members", cluster.members.length || 1),
      card("slots owned here", `${cluster.slots.owned_here} of ${cluster.slots.total}`),
      card("slots unowned", cluster.slots.unowned, cluster.slots.unowned ? "bad" : undefined),
      card(`store ${cluster.store.driver}`, cluster.store.ok ? "ok" : "away", cluster.store.ok ? "good" : "bad")),
    el("h2", {}, "Members"),
    table(["Name", "Address", "State", "Slots", "Zone", "Version", "Started"], members),
    el("h2", {}, "Dependencies"),
    table(["Check", "State", "Since", "Detail"], health.checks.map((c) => [c.name, c.ok ? coloured("passing") : el("span", { class: "bad" }, "failing"),
      when(c.since), c.detail || "–"])),
    forecast ? [el("h2", {}, `Fires to come in the next hour, by minute: ${forecast.total}${forecast.truncated ? " and more" : ""}`), bars(forecast)] : null,
    el("h2", {}, "Newest dead letters"),
    table(FIRE_HEADS, letters.deadletters.map(fireRow), `none in the namespace ${namespace()}`));
}

async function jobs(_, query) {
  return el("div", {}, el("h1", {}, "Jobs"),
    filter("/jobs", [{ name: "prefix" }, { name: "label", title: "team=pay" }, { name: "state", options: ["active", "paused", "done"] },
      { name: "last_outcome", options: ["succeeded", "dead", "skipped", "coalesced", "cancelled"] }], query),
    await paged("/v1/jobs", query, ["Id", "State", "Schedule", "Zone", "Calls", "Next due", "Last fire", "Counts"], (answer) => answer.jobs.map((j) =>
      [jobLink(j.id), coloured(j.status.state), el("code", {}, scheduleText(j.schedule)), j.timezone, target(j.callback),
        j.status.state === "active" ? when(j.status.next_due) : "–", j.status.last_fire ? coloured(j.status.last_fire.outcome) : "–",
        countsText(j.status.counts)]),
    "no job that matches"));
}

function countsText(counts) {
  const words = ["succeeded", "pending", "dead", "skipped", "coalesced", "cancelled"].filter((w) => counts[w]);
  return words.length ? words.map((w, i) => [i ? ", " : "", el("span", { class: COLOURS[w] || "faint" }, `${counts[w]} ${w}`)]) : "–";
}

async function job([id]) {
  const path = `/v1/jobs/${encodeURIComponent(id)}`, ns = { ns: namespace() };
  const [it, next, fires, explain, revisions] = await Promise.all([here(path), here(`${path}/next`, { count: 10 }),
    here(`${path}/fires`, { limit: FIRES_SHOWN }), here(`${path}/explain`).catch(() => null), here(`${path}/revisions`, { limit: 10 }).catch(() => null)]);
  const { status, ...definition } = it;
  const act = (method, suffix, body) => async () => {
    await ask(method, path + suffix, ns, body);
    await show();
  };
  return el("div", {}, el("h1", {}, id),
    el("p", {}, coloured(status.state), " · ", el("code", {}, scheduleText(it.schedule)), ` ${it.timezone} · calls ${target(it.callback)} · owner ${status.owner || "none"}`),
    it.description ? el("p", {}, it.description) : null,
    el("div", { class: "actions" }, button("Run now", act("POST", "/run", {})),
      status.state === "paused" ? button("Resume", act("POST", "/resume", {})) : button("Pause", act("POST", "/pause", {}), { disabled: status.state === "done" }),
      button("Delete", async () => {
        if (!confirm(`Delete ${id}? Its pending fires are cancelled.`)) return;
        const from = location.hash;
        await ask("DELETE", path, ns);
        if (location.hash === from) go("/jobs"); // who has gone elsewhere meanwhile stays there
      }, { class: "danger" })),
    el("div", { class: "cards" }, card("next due", status.state === "active" ? when(status.next_due) : "–"),
      ...["succeeded", "pending", "dead", "skipped", "coalesced", "cancelled"].filter((w) => status.counts[w] || w === "succeeded")
        .map((w) => card(w, status.counts[w] || 0, COLOURS[w]))),
    el("h2", {}, "Fires"), table(FIRE_HEADS, fires.fires.map(fireRow), "none yet"),
    el("h2", {}, "Next dues"), table(["Due (UTC)", "Local", "Note"], next.next.map((n) => [when(n.due), n.local, n.note || "–"]), "none"),
    explain ? [el("h2", {}, "Why"), table(["Due", "Outcome", "Why"], explain.occurrences.map((o) => [when(o.due), coloured(o.outcome), o.text]), "nothing to explain")] : null,
    revisions ? [el("h2", {}, "Changes"), table(["At", "Change", "By", "Version"], revisions.revisions.map((r) => [when(r.at), r.op, r.actor || "–", r.version]))] : null,
    el("h2", {}, "Definition"), json(definition));
}

const FIRE_FIELDS = [{ name: "job" }, { name: "prefix" }, { name: "service" }, { name: "label", title: "team=pay" },
  { name: "from", title: "2027-01-01T00:00:00Z" }, { name: "to" }];

async function fires(_, query) {
  return el("div", {}, el("h1", {}, "Fires"),
    filter("/fires", [{ name: "outcome", options: ["pending", "succeeded", "dead", "skipped", "coalesced", "cancelled"] }, ...FIRE_FIELDS], query),
    await paged("/v1/fires", { ...query, limit: 50 }, FIRE_HEADS, (answer) => answer.fires.map(fireRow), "no fire that matches"));
}

async function fire([id]) {
  const path = `/v1/fires/${encodeURIComponent(id)}`, it = await ask("GET", path);
  const act = (suffix) => async () => {
    await ask("POST", path + suffix, undefined, {});
    await show();
  };
  const open = it.outcome === "pending";
  return el("div", {}, el("h1", {}, "Fire ", el("code", {}, id)),
    el("p", {}, outcome(it), " · job ", jobLink(it.job), ` in ${it.namespace} · seq ${it.seq} · due `, when(it.due)),
    el("div", { class: "actions" }, button("Try again now", act("/retry"), { disabled: !open && it.outcome !== "dead" }),
      button("Give up", act("/cancel"), { class: "danger", disabled: !open })),
    el("div", { class: "cards" }, card("late", it.lateness_ms === null || it.lateness_ms === undefined ? "–" : span(it.lateness_ms)),
      card("started", when(it.started_at)), card("finished", when(it.finished_at)), it.next_attempt_at ? card("next attempt", when(it.next_attempt_at)) : null),
    el("h2", {}, "Attempts"),
    table(["#", "At", "Endpoint", "Status", "Took", "Error", "Reply"], it.attempts.map((a) => [a.attempt, when(a.at), el("code", {}, a.endpoint || "–"),
      a.status ?? "–", a.duration_ms === null || a.duration_ms === undefined ? "–" : span(a.duration_ms), a.error || "–", a.excerpt || "–"]), "none yet"),
    it.endpoints ? [el("h2", {}, "Endpoints"), json(it.endpoints)] : null);
}

async function deadletters(_, query) {
  const some = Object.values(query).some((v) => v !== "");
  const change = (method, path, question, more) => async () => {
    const filters = { ns: namespace(), ...query, ...(some ? {} : { all: "true" }), ...more };
    const { matched } = await ask(method, path, { ...filters, dry_run: "true" });
    if (!matched || !confirm(question(matched))) return;
    await ask(method, path, filters);
    await show();
  };
  return el("div", {}, el("h1", {}, "Dead letters"), filter("/deadletters", FIRE_FIELDS, query),
    el("div", { class: "actions" },
      button(some ? "Send those that match once more" : "Send all once more", change("POST", "/v1/deadletters/redrive", (n) => `Send ${n} once more?`)),
      button(some ? "Discard those that match" : "Discard all", change("DELETE", "/v1/deadletters", (n) => `Discard ${n}? They count as cancelled.`), { class: "danger" })),
    await paged("/v1/deadletters", query, FIRE_HEADS, (answer) => answer.deadletters.map(fireRow), "none"));
}

async function services(_, query) {
  const name = query.name || "";
  const box = el("div", {}, el("h1", {}, "Services"), filter("/services", [{ name: "name", size: 30 }], query));
  if (!name) return box;
  const it = await ask("GET", `/v1/services/${encodeURIComponent(name)}`);
  box.append(el("p", {}, `${it.service}: policy ${it.policy}`), table(["Endpoint", "Health", "Weight", "In flight", "Latency", "Failures", "Ejected until"],
    it.endpoints.map((e) => [el("code", {}, e.address), coloured(e.health), e.weight, e.in_flight, e.latency_ms === null ? "–" : `${e.latency_ms} ms`, e.failures,
      e.ejected_until ? when(e.ejected_until) : "–"]), "no endpoint"));
  return box;
}

// --- live ---------------------------------------------------------------------------------------------------------------

function eventLine(kind, data) {
  const { at, ...rest } = data;
  const words = Object.entries(rest).filter(([, v]) => v !== null && v !== "").map(([k, v]) => `${k}=${typeof v === "object" ? JSON.stringify(v) : v}`);
  return el("div", { class: "mono" }, el("span", { class: "faint" }, at || ""), " ", el("span", { class: COLOURS[data.outcome] || "" }, kind), ` ${words.join(" ")}`);
}

async function readEvents(answer, box) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "", kind = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (text + value).split("\n");
    text = lines.pop();
    for (const line of lines) {
      if (line.startsWith("event: ")) kind = line.slice(7);
      if (!line.startsWith("data: ")) continue;
      const below = box.scrollTop + box.clientHeight >= box.scrollHeight - 4;
      box.append(eventLine(kind, JSON.parse(line.slice(6))));
      if (box.childElementCount > LIVE_LINES) box.firstElementChild.remove();
      if (below) box.scrollTop = box.scrollHeight;
    }
  }
}

async function live() {
  const box = el("div", { id: "live", tabindex: "0" }), abort = new AbortController();
  const follow = async () => {
    while (!abort.signal.aborted) {
      try {
        await readEvents(await send("GET", "/v1/events", { ns: namespace(), all: "true" }, undefined, abort.signal), box);
        showProblem(null);
      } catch (error) {
        if (abort.signal.aborted) return;
        showProblem(error);
      }
      await new Promise((resolve) => { setTimeout(resolve, 1000); });
    }
  };
  leave = abort;
  follow();
  return el("div", {}, el("h1", {}, "Live"), el("p", { class: "faint" }, "Fires, changes of jobs and news of the cluster, as they happen at any agent."), box);
}

// --- which page ---------------------------------------------------------------------------------------------------------

const PAGES = [
  [/^\/$/, overview, true], [/^\/jobs$/, jobs], [/^\/jobs\/(.+)$/, job], [/^\/fires$/, fires], [/^\/fires\/(.+)$/, fire],
  [/^\/deadletters$/, deadletters], [/^\/services$/, services, true], [/^\/live$/, live],
];

function go(hash) {
  if (location.hash === `#${hash}`) show();
  else location.hash = hash;
}

async function show() {
  const [path, search] = (location.hash.slice(1) || "/").split("?");
  const query = Object.fromEntries(new URLSearchParams(search || "")), mine = ++turn;
  const found = PAGES.map(([pattern, make, again]) => ({ match: path.match(pattern), make, again })).find((p) => p.match);
  clearTimeout(refresh);
  if (leave) leave.abort();
  leave = null;
  for (const a of document.querySelectorAll("header nav a")) a.classList.toggle("here", path.startsWith(a.hash.slice(1)));
  try {
    const content = found ? await found.make(found.match.slice(1).map(decodeURIComponent), query) : el("p", {}, "There is no such page.");
    if (mine !== turn) return;
    page.replaceChildren(content);
    showProblem(null);
  } catch (error) {
    if (mine !== turn) return;
    showProblem(error);
  }
  if (found && found.again) refresh = setTimeout(show, REFRESH_MS);
}

namespaceBox.value = namespace();
document.getElementById("namespace-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("namespace", namespaceBox.value.trim() || "default");
  show();
});
window.addEventListener("hashchange", show);
show();
