// All jobs and the cluster: the tables of the first page.

import { pickBox } from "./compare.js";
import { curve } from "./curve.js";
import { byId, cell, el, keep, setAttribute, setLink, setText } from "./dom.js";
import { ago, amount, bytes, duration, figure, plural, seconds, whole, words } from "./format.js";
import { ACTIVE, actions, loss, pill, progressBar, rate, tell, timeLeft } from "./pieces.js";

const OVER = ["SUCCEEDED", "FAILED", "STOPPED", "PAUSED"];
const states = new Map();
let refresh = () => {};

/** `again` is called when something was changed from here. */
export function startOverview(again) {
  refresh = again;
}

export function showOverview(data, query) {
  const now = seconds(data.now);
  const fits = matcher(query);
  announce([...data.running, ...data.recent]);
  // Counted a moment before the lists are read.
  const active = Math.max(data.running.length, countOf(ACTIVE, data.counts));
  const ended = Math.max(data.recent.length, countOf(OVER, data.counts));
  section("running", data.running, fits, (job) => job.id, runningRow, { now, more: active - data.running.length });
  section("queue", data.queue, (entry) => fits(entry.job), (entry) => entry.job.id, queueRow, { now, more: data.queued_more });
  section("recent", data.recent.toSorted(byEnd), fits, (job) => job.id, recentRow, { now, more: ended - data.recent.length });
  for (const [name, states, total, shown] of [
    ["running", ACTIVE, active, data.running.length],
    ["queue", ["QUEUED"], data.queue.length + data.queued_more, data.queue.length],
    ["recent", OVER, ended, data.recent.length],
  ]) {
    const asked = states.map((state) => `--state ${state}`).join(" ");
    byId(`${name}-more`).hidden = total <= shown;
    setText(byId(`${name}-more`), `${plural(total - shown, "more job")} behind these: epochal jobs ${asked} --limit ${total} lists them all.`);
  }
  showAgents(data.agents, now);
}

const countOf = (chosen, counts) => chosen.reduce((sum, state) => sum + (counts[state] ?? 0), 0);
const endOf = (job) => seconds(job.ended_at ?? job.entered_at);
const byEnd = (one, other) => endOf(other) - endOf(one);

/** Whether every word of the query is somewhere in what a job says about itself. */
export function matcher(query) {
  const wanted = query.toLowerCase().split(/\s+/).filter(Boolean);
  return (job) => {
    const said = [job.name, job.id, job.submitted_by, job.queue, job.state, words(job.state), job.reason, words(job.reason)];
    const text = said.join(" ").toLowerCase();
    return wanted.every((word) => text.includes(word));
  };
}

function section(name, all, fits, key, make, { now, more = 0 }) {
  const shown = all.filter(fits);
  keep(byId(name), shown.map((item) => ({ item, now })), ({ item }) => key(item), make);
  const total = all.length + more;
  const count = total.toLocaleString("en");
  setText(byId(`${name}-count`), shown.length === all.length ? count : `${shown.length} of ${count}`);
  byId(`${name}-empty`).hidden = all.length > 0;
  byId(name).parentElement.hidden = all.length === 0;
}

/** A job that came into another state while someone watches is said, not only shown. */
function announce(jobs) {
  for (const job of jobs) {
    const before = states.get(job.id);
    if (before && before !== job.state) tell(`${job.name} ${words(job.state)}`, job.state === "FAILED");
    states.set(job.id, job.state);
  }
}

const pageLink = (text) => el("a", { class: "quiet run-link", target: "_blank", rel: "noopener noreferrer" }, text);

function nameCell() {
  const link = el("a", { class: "job-link" });
  const meta = el("div", { class: "meta" });
  const [pick, run, runs] = [pickBox(), pageLink("MLflow run"), pageLink("all runs")];
  const node = cell("Job", "name", el("div", { class: "name-line" }, pick.node, link, run, runs), meta);
  const update = (job, extra = "") => {
    setText(link, job.name);
    setAttribute(link, "href", `#job=${encodeURIComponent(job.id)}`);
    setLink(run, job.run_url);
    setAttribute(run, "aria-label", `MLflow run of ${job.name}`);
    setLink(runs, job.runs_url);
    setAttribute(runs, "aria-label", `All runs of the experiment of ${job.name}`);
    pick.update(job);
    const queue = job.queue && job.queue !== "default" ? `queue ${job.queue}` : "";
    setText(meta, [job.id, job.submitted_by, queue, extra].filter(Boolean).join(" · "));
  };
  return { node, update };
}

const attemptOf = (job) => (job.epoch > 1 ? `attempt ${job.epoch}` : "");

function runningRow() {
  const [name, bar, line, buttons] = [nameCell(), progressBar(), curve("spark"), actions(refresh)];
  const [left, speed] = [cell("Time left", "number"), cell("Samples/s", "number")];
  const lossNow = el("span", { class: "loss" });
  const node = el("tr", { role: "row" }, name.node, cell("Progress", "wide", bar.node), left, speed,
    cell("Loss", "curve", line.node, lossNow), cell("", "buttons", buttons.node));
  const update = ({ item: job }) => {
    const progress = job.progress;
    name.update(job, attemptOf(job));
    bar.update(job, progress);
    setText(left, timeLeft(job));
    setText(speed, whole(rate(progress)));
    line.update(progress);
    setText(lossNow, figure(loss(progress)));
    buttons.update(job);
  };
  return { node, update };
}

function queueRow() {
  const [name, buttons] = [nameCell(), actions(refresh)];
  const [position, waiting] = [cell("Position", "number position"), cell("Waiting", "number")];
  const kind = el("span", { class: "kind" });
  const [why, change] = [el("span"), el("div", { class: "meta" })];
  const node = el("tr", { role: "row" }, position, name.node, cell("Why it waits", "why", kind, " ", why, change), waiting,
    cell("", "buttons", buttons.node));
  const update = ({ item: { job, position: place, why: reason }, now }) => {
    setText(position, place);
    name.update(job, [`priority ${job.priority}`, attemptOf(job)].filter(Boolean).join(" · "));
    setText(kind, words(reason?.kind));
    setAttribute(kind, "data-kind", reason?.kind);
    setText(why, reason?.message);
    setText(change, reason?.change ? `to start it: ${reason.change}` : "");
    setText(waiting, duration(job.pending_seconds ?? now - seconds(job.submitted_at)));
    buttons.update(job);
  };
  return { node, update };
}

function recentRow() {
  const [state, name, buttons] = [pill(), nameCell(), actions(refresh)];
  const [ran, when] = [cell("Ran", "number"), cell("When", "number")];
  const [reason, message] = [el("span", { class: "reason" }), el("div", { class: "meta message" })];
  const node = el("tr", { role: "row" }, cell("State", "state", state.node), name.node,
    cell("What happened", "happened", reason, message), ran, when, cell("", "buttons", buttons.node));
  const update = ({ item: job, now }) => {
    state.update(job.state);
    name.update(job, job.epoch > 1 ? plural(job.epoch, "attempt") : "");
    setText(reason, words(job.reason));
    setText(message, job.message);
    setAttribute(message, "title", job.message);
    setText(ran, job.running_seconds ? duration(job.running_seconds) : "–");
    setText(when, ago(job.ended_at ?? job.entered_at, now));
    setAttribute(when, "title", job.ended_at);
    buttons.update(job);
  };
  return { node, update };
}

function showAgents(agents, now) {
  byId("agents-empty").hidden = agents.length > 0;
  keep(byId("agents"), agents.map((agent) => ({ agent, now })), ({ agent }) => agent.name, agentRow);
}

function agentRow() {
  const [name, seen] = [el("span", { class: "agent-name" }), el("span", { class: "meta" })];
  const nodes = el("ul", { class: "nodes" });
  const warnings = el("ul", { class: "warnings" });
  const head = el("div", { class: "agent-head" }, el("span", { class: "dot" }), name, seen);
  const node = el("li", { class: "agent" }, head, nodes, warnings);
  const update = ({ agent, now }) => {
    setAttribute(node, "data-state", agent.alive ? "live" : "away");
    setText(name, agent.name);
    setText(seen, agent.alive ? "alive" : `away, seen ${ago(agent.seen_at, now)}`);
    keep(nodes, agent.nodes ?? [], (one) => one.id, nodeRow);
    keep(warnings, agent.alive ? agent.detail?.warnings ?? [] : [], (one) => one.found, warningRow);
  };
  return { node, update };
}

function warningRow() {
  const node = el("li", { class: "meta warning" });
  return { node, update: (told) => setText(node, `${told.found}; ${told.advice}`) };
}

const KINDS = [
  { name: "CPU", label: "CPU", show: amount },
  { name: "GPU", label: "GPU", show: amount },
  { name: "memory", label: "Memory", show: bytes },
];

function nodeRow() {
  const host = el("div", { class: "host" });
  const gauges = KINDS.map((kind) => ({ kind, ...gauge(kind) }));
  const node = el("li", { class: "node" }, host, ...gauges.map((one) => one.node));
  const update = (machine) => {
    setText(host, machine.host);
    for (const { kind, node: row, update: set } of gauges) {
      const total = machine.total?.[kind.name] ?? 0;
      row.hidden = !total;
      if (total) set(machine.available?.[kind.name] ?? 0, total, machine.host);
    }
  };
  return { node, update };
}

function gauge({ label, show }) {
  const fill = el("span", { class: "fill" });
  const bar = el("div", { class: "bar small", role: "meter", "aria-valuemin": 0 }, fill);
  const text = el("span", { class: "meta" });
  const update = (free, total, host) => {
    fill.style.width = `${Math.min(100, (1 - free / total) * 100)}%`;
    setAttribute(bar, "aria-valuemax", total);
    setAttribute(bar, "aria-valuenow", total - free);
    setAttribute(bar, "aria-label", `${label} in use on ${host}`);
    setText(text, `${show(free)} / ${show(total)} free`);
  };
  return { node: el("div", { class: "gauge" }, el("span", { class: "gauge-name" }, label), bar, text), update };
}
