// A sweep on a job's page: its trials by the length they were measured at, the best so far, and the best of them.

import { jobPath, request } from "./api.js";
import { chart } from "./curve.js";
import { byId, cell, clear, el, keep, setAttribute, setLink, setText } from "./dom.js";
import { figure, plural, whole, words } from "./format.js";
import { pill } from "./pieces.js";

const SHOWN = 10;
const EVERY_MS = 3000;
const PAGES = 5;
const STATES = ["RUNNING", "WAITING", "PAUSED", "COMPLETED", "STOPPED", "FAILED"];
let shown = null;

export function forgetSweep() {
  shown = null;
  byId("job-sweep").hidden = true;
  for (const id of ["sweep-legend", "sweep-rungs", "sweep-best", "sweep-curve"]) clear(byId(id));
}

/** Reads the trials where the sweep may have got on, a few seconds apart. */
export async function updateSweep(job, runPage, signal) {
  if (job.kind !== "sweep" || (shown?.id === job.id && (shown.of === job.updated_at || Date.now() - shown.at < EVERY_MS))) return;
  const trials = await everyTrial(job.id, signal);
  if (shown?.id !== job.id) {
    forgetSweep();
    shown = { id: job.id, curve: chart("Best so far, by trial", "the best") };
    byId("sweep-curve").append(shown.curve.node);
    byId("sweep-legend").append(...STATES.map((state) => el("span", {}, el("span", { class: "swatch", "data-state": state }), words(state))));
  }
  Object.assign(shown, { of: job.updated_at, at: Date.now(), runPage, parentRun: job.run_id });
  show(job, trials);
}

async function everyTrial(id, signal) {
  const found = [];
  let after = -1;
  for (let page = 0; page < PAGES && after !== null; page += 1) {
    const answer = await request(`${jobPath(id, "trials")}?after=${after}`, { signal });
    found.push(...answer.trials);
    after = answer.next;
  }
  return found;
}

function show(job, trials) {
  const objective = job.spec?.objective ?? {};
  const sign = objective.mode === "max" ? -1 : 1;
  const ranked = trials.filter((trial) => trial.state !== "FAILED" && typeof trial.value === "number");
  const best = ranked.toSorted((one, other) => (other.state === "COMPLETED") - (one.state === "COMPLETED") || sign * (one.value - other.value) || one.number - other.number);
  byId("job-sweep").hidden = false;
  setText(byId("sweep-count"), plural(trials.length, "trial"));
  setText(byId("sweep-value"), objective.metric ?? "Value");
  setText(byId("sweep-length"), unit(job.spec));
  showRungs(trials);
  let least = Infinity;
  shown.curve.update({ loss_history: ranked.map((trial) => [trial.number, sign * (least = Math.min(least, sign * trial.value))]) });
  keep(byId("sweep-best"), best.slice(0, SHOWN), (trial) => String(trial.number), row);
  byId("sweep-more").hidden = trials.length <= Math.min(SHOWN, best.length);
  setText(byId("sweep-more"), `The best ${whole(Math.min(SHOWN, best.length))} of ${whole(trials.length)} are shown; the rest: epochal sweep status ${job.id} --limit ${trials.length}`);
}

/** How many trials stand at each length, by state. */
function showRungs(trials) {
  const lengths = [...new Set(trials.map((trial) => trial.length))].sort((one, other) => one - other);
  const rungs = lengths.map((length) => ({ length, trials: trials.filter((trial) => trial.length === length) }));
  const most = Math.max(1, ...rungs.map((rung) => rung.trials.length));
  keep(byId("sweep-rungs"), rungs, (rung) => String(rung.length), () => {
    const [length, bar, count] = [el("span"), el("div", { class: "amounts", role: "img" }), el("span", { class: "number" })];
    const parts = STATES.map((state) => el("span", { "data-state": state }));
    bar.append(...parts);
    return {
      node: el("li", {}, length, bar, count),
      update(rung) {
        const counts = STATES.map((state) => rung.trials.filter((trial) => trial.state === state).length);
        parts.forEach((part, index) => {
          part.hidden = !counts[index];
          part.style.width = `${(counts[index] / most) * 100}%`;
        });
        setText(length, rung.length ? figure(rung.length) : "not yet");
        setText(count, whole(rung.trials.length));
        setAttribute(bar, "aria-label", STATES.map((state, index) => (counts[index] ? `${counts[index]} ${words(state)}` : "")).filter(Boolean).join(", "));
      },
    };
  });
}

function row() {
  const state = pill();
  const [number, length, value, point] = ["number", "number", "number", "meta point"].map((name) => cell("", name));
  const link = el("a", { target: "_blank", rel: "noopener noreferrer" });
  ["Trial", "Length", "Value", "Point"].forEach((label, index) => setAttribute([number, length, value, point][index], "data-label", label));
  return {
    node: el("tr", { role: "row" }, number, cell("State", "", state.node), length, value, point, cell("Run", "", link)),
    update(trial) {
      setText(number, trial.number);
      state.update(trial.state);
      setText(length, figure(trial.length));
      setText(value, figure(trial.value));
      setText(point, Object.entries(trial.point).map(([path, found]) => `${path.split(".").at(-1)} ${typeof found === "number" ? figure(found) : JSON.stringify(found)}`).join(" · "));
      setText(link, trial.run_id ? trial.run_id.slice(0, 8) : "");
      setLink(link, trial.run_id && shown.runPage ? shown.runPage.replace(shown.parentRun, encodeURIComponent(trial.run_id)) : null);
    },
  };
}

function unit(spec) {
  return spec?.train?.steps || spec?.sweep?.space?.["train.steps"] ? "Steps" : "Epochs";
}
