// One job: how it stands, its attempts, what happened to it, and its logs.

import { jobPath, now, request } from "./api.js";
import { chart } from "./curve.js";
import { forgetData, showData } from "./data.js";
import { byId, clear, el, keep, setLink, setText } from "./dom.js";
import { clock, clockOnly, duration, figure, seconds, whole, words } from "./format.js";
import { LogReader } from "./logs.js";
import { ON_ONE, actions, hasWorkers, loss, pill, progressBar, rate, timeLeft } from "./pieces.js";
import { forgetSweep, updateSweep } from "./sweep.js";

const EVENTS_AT_ONCE = 500;
const LONGEST = 300;
const PENDING = new Set(["QUEUED", "STARTING"]);
let open = null;

/** Shows the job with this id; again with the same id it goes on. */
export function openJob(id, refresh) {
  if (open?.id === id) return;
  closeJob();
  open = { id, lastEvent: 0, logs: null, parts: furnish(refresh) };
  byId("job-title").focus({ preventScroll: true });
}

export function closeJob() {
  open?.logs?.close();
  open = null;
}

/** Reads what is new about the job and shows it. */
export async function updateJob(signal) {
  const { id } = open;
  const [job, { attempts }, events] = await Promise.all([
    request(jobPath(id), { signal }),
    request(jobPath(id, "attempts"), { signal }),
    request(`${jobPath(id, "events")}?after=${open.lastEvent}&limit=${EVENTS_AT_ONCE}`, { signal }),
  ]);
  if (job.run_id && open?.runId !== job.run_id) {
    const pages = await request(`pages?job=${encodeURIComponent(job.id)}`, { signal });
    if (open?.id === id) Object.assign(open, { pages, runId: job.run_id });
  }
  const why = job.state === "QUEUED" ? await request(jobPath(id, "why"), { signal }) : null;
  if (open?.id !== id) return;
  open.logs ??= new LogReader(id, byId("logs-rank").value);
  showEvents(events.events);
  show(job, why);
  showAttempts(attempts);
  await updateSweep(job, open.pages?.run, signal);
}

function furnish(refresh) {
  for (const id of ["job-state", "job-actions", "job-live", "job-details", "job-events", "job-attempts", "logs"]) clear(byId(id));
  for (const id of ["job-title", "job-message", "job-spec"]) setText(byId(id), "");
  forgetData();
  forgetSweep();
  byId("job-parts").hidden = true;
  byId("logs-rank").replaceChildren(el("option", { value: "" }, "all"));
  const parts = { state: pill(), buttons: actions(refresh, ON_ONE), bar: progressBar(), chart: chart(), figures: el("dl", { class: "figures" }) };
  byId("job-state").append(parts.state.node);
  byId("job-actions").append(parts.buttons.node);
  byId("job-live").append(parts.bar.node, parts.figures, parts.chart.node);
  byId("logs-rank").onchange = () => {
    open.logs?.close();
    open.logs = new LogReader(open.id, byId("logs-rank").value);
  };
  return parts;
}

function show(job, why) {
  const { state, buttons, bar, chart: curve, figures } = open.parts;
  byId("job-parts").hidden = false;
  setText(byId("job-title"), job.name);
  state.update(job.state);
  buttons.update(job);
  setText(byId("job-message"), why ? waiting(why) : [words(job.reason), job.message].filter(Boolean).join(": "));
  byId("job-live").hidden = !job.progress;
  if (job.progress) {
    bar.update(job, job.progress);
    curve.update(job.progress);
    pairs(figures, live(job));
  }
  pairs(byId("job-details"), details(job));
  setText(byId("job-spec"), JSON.stringify(job.spec, null, 2));
  showData(job.data);
}

function waiting(why) {
  return why.change ? `${why.message}. To start it: ${why.change}` : why.message;
}

function live(job) {
  const progress = job.progress;
  if (progress.trials) return {};
  const validation = Object.entries(progress.metrics ?? {}).filter(([name]) => name.startsWith("val/"));
  return {
    "Time left": job.state === "RUNNING" ? timeLeft(job) : null,
    "Samples/s": whole(rate(progress)),
    Loss: figure(loss(progress)),
    ...Object.fromEntries(validation.map(([name, value]) => [name, figure(value)])),
    "More metrics": progress.more_metrics ? `${whole(progress.more_metrics)}, in MLflow` : null,
  };
}

function details(job) {
  const here = now() - seconds(job.entered_at);
  return {
    Id: job.id,
    "Submitted by": job.submitted_by || "–",
    Submitted: clock(job.submitted_at),
    Queue: `${job.queue ?? "default"}, priority ${job.priority}`,
    Workers: workers(job.spec),
    "In this state": duration(here),
    Waited: duration(job.waited_seconds + (PENDING.has(job.state) ? here : 0)),
    Ran: duration(job.ran_seconds + (job.started_at && hasWorkers(job.state) ? here : 0)),
    Ended: job.ended_at ? clock(job.ended_at) : null,
    Agent: job.owner,
    Run: job.run_id ? { text: job.run_id.slice(0, 8), address: open.pages?.run } : null,
    MLflow: open.tracking,
    Experiment: open.pages?.runs ? { text: "all its runs", address: open.pages.runs } : null,
    File: job.origin?.file,
    Code: job.origin?.code ? String(job.origin.code).slice(0, 12) : null,
    Tags: Object.entries(job.origin?.tags ?? {}).map(([name, value]) => `${name}=${value}`).join(", ") || null,
  };
}

function workers(spec) {
  const asked = spec?.resources?.workers ?? 1;
  return typeof asked === "object" ? `${asked.min} to ${asked.max}` : String(asked);
}

/** Names and values; a value that is null is left out, one with an address is a link. */
function pairs(list, entries) {
  const shown = Object.entries(entries).filter(([, value]) => value !== null && value !== undefined);
  keep(list, shown, ([name]) => name, () => {
    const [term, plain, link] = [el("dt"), el("span"), el("a", { target: "_blank", rel: "noopener noreferrer" })];
    return {
      node: el("div", {}, term, el("dd", {}, plain, link)),
      update([name, value]) {
        setText(term, name);
        setText(link, value.text ?? "");
        setLink(link, value.address);
        setText(plain, link.hidden ? (value.text ?? value) : "");
      },
    };
  });
}

function showAttempts(attempts) {
  byId("job-attempts-empty").hidden = attempts.length > 0;
  keep(byId("job-attempts"), attempts.toReversed(), (attempt) => String(attempt.epoch), () => {
    const [number, outcome, meta, message] = [el("b"), pill(), el("span", { class: "meta" }), el("div", { class: "meta" })];
    return {
      node: el("li", {}, number, " ", outcome.node, " ", meta, message),
      update(attempt) {
        const end = seconds(attempt.ended_at) ?? now();
        const size = attempt.world_size ? `${attempt.world_size} worker${attempt.world_size === 1 ? "" : "s"}` : "";
        const lasted = duration(end - seconds(attempt.leased_at));
        setText(number, `#${attempt.epoch}`);
        outcome.update(attempt.outcome ?? "RUNNING");
        const saved = attempt.checkpoint_step === null ? "" : `checkpoint at step ${attempt.checkpoint_step}`;
        setText(meta, [size, lasted, saved, `on ${attempt.agent}`].filter(Boolean).join(" · "));
        setText(message, [words(attempt.reason), attempt.message].filter(Boolean).join(": "));
      },
    };
  });
  offerRanks(Math.max(0, ...attempts.map((attempt) => attempt.world_size ?? 0)));
}

function offerRanks(size) {
  const select = byId("logs-rank");
  for (let rank = select.options.length - 1; rank < size; rank += 1) select.append(el("option", { value: rank }, String(rank)));
}

/** Newest first. */
function showEvents(events) {
  const list = byId("job-events");
  if (!list.childElementCount && events.length) {
    byId("job-events-more").hidden = events[0].previous === null;
    setText(byId("job-events-more"), "What happened before is not kept: the server deletes old events (--retain).");
  }
  for (const event of events) {
    open.lastEvent = event.id;
    if (event.kind === "tracking") open.tracking = event.message;
    const change = event.previous && event.previous !== event.state ? `${words(event.previous)} → ${words(event.state)}` : "";
    const said = [change, words(event.reason), event.message, short(event.detail)].filter(Boolean).join(" · ");
    list.prepend(el("li", {},
      el("time", { datetime: event.at, title: clock(event.at) }, clockOnly(event.at)),
      el("span", { class: "event-kind" }, words(event.kind)),
      el("span", { class: "event-text" }, said)));
  }
}

function short(detail) {
  const text = Object.entries(detail ?? {}).map(([name, value]) => `${name}=${typeof value === "object" ? JSON.stringify(value) : value}`);
  const said = text.join(" ");
  return said.length > LONGEST ? `${said.slice(0, LONGEST)}… of ${whole(said.length)} characters; the rest: epochal events ${open.id} -o json` : said;
}
