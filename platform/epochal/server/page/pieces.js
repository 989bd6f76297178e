// What the list and a job's page have in common: a state, a progress bar, the buttons, the time left.

import { jobPath, request } from "./api.js";
import { byId, el, setAttribute, setText } from "./dom.js";
import { duration, figure, whole, words } from "./format.js";

const PHASES = { setup: "setting up", validate: "validating", checkpoint: "saving", export: "saving the model" };
export const ACTIVE = ["STARTING", "RUNNING", "STOPPING"];
export const hasWorkers = (state) => ACTIVE.includes(state);
const isTerminal = (state) => ["SUCCEEDED", "FAILED", "STOPPED"].includes(state);

/** Who looks at the page; filled in by the first answer. */
export const viewer = { name: "", role: "" };

export function pill() {
  const node = el("span", { class: "pill" });
  return {
    node,
    update(state) {
      setText(node, words(state));
      setAttribute(node, "data-state", state);
    },
  };
}

/** A bar with one line of text below it. */
export function progressBar() {
  const fill = el("span", { class: "fill" });
  const bar = el("div", { class: "bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 }, fill);
  const text = el("div", { class: "meta" });
  const update = (job, progress) => {
    const share = shareDone(progress);
    fill.style.width = `${share * 100}%`;
    setAttribute(bar, "aria-valuenow", Math.floor(share * 100));
    setAttribute(bar, "aria-label", `Progress of ${job.name}`);
    setAttribute(bar, "data-state", job.state);
    setText(text, describe(job, progress));
  };
  return { node: el("div", { class: "progress" }, bar, text), update };
}

function shareDone(progress) {
  if (progress?.trials) return Math.min(1, (progress.done ?? 0) / progress.trials);
  const share = progress?.total_steps ? progress.step / progress.total_steps : 0;
  return Math.min(1, Math.max(0, share));
}

function describe(job, progress) {
  if (job.state === "STARTING") return "starting its workers";
  if (progress?.trials) return describeTrials(progress);
  if (!progress?.total_steps) return words(job.state);
  const percent = `${Math.floor(shareDone(progress) * 100)} %`;
  const steps = `step ${progress.step.toLocaleString("en")} of ${progress.total_steps.toLocaleString("en")}`;
  const epochs = progress.epochs ? `epoch ${progress.epoch} of ${Number(progress.epochs.toFixed(2))}` : "";
  const doing = job.state === "STOPPING" ? "stopping" : hasWorkers(job.state) ? PHASES[progress.phase] : "";  // at its end it stays the last
  return [percent, steps, epochs, doing].filter(Boolean).join(" · ");
}

function describeTrials(progress) {
  const others = ["running", "failed"].map((name) => (progress[name] ? `${whole(progress[name])} ${name}` : ""));
  const best = progress.best ? `best ${figure(progress.best.value)} (trial ${progress.best.trial})` : "";
  return [`${whole(progress.done ?? 0)} of ${whole(progress.trials)} trials`, ...others, best].filter(Boolean).join(" · ");
}

export const rate = (progress) => progress?.samples_per_second;
export const loss = (progress) => progress?.metrics?.["train/loss"];
export const timeLeft = (job) => duration(job.state === "RUNNING" ? job.progress?.eta_seconds : null);

const EVERYWHERE = [
  { name: "pause", label: "Pause", allows: (state) => ["QUEUED", "STARTING", "RUNNING"].includes(state) },
  { name: "resume", label: "Resume", allows: (state) => state === "PAUSED" },
  {
    name: "stop", label: "Stop", allows: (state) => !isTerminal(state) && state !== "STOPPING", yes: "Stop it",
    text: ({ state }) => `ends for good${hasWorkers(state) ? "; its workers have 30 seconds to save their state" : ""}. Pause keeps its place: it can go on from its newest checkpoint.`,
  },
  { name: "retry", label: "Retry", allows: isTerminal },
];
const STOP_NOW = {
  name: "stop", label: "Stop now", allows: hasWorkers, yes: "Kill its workers", body: { grace: 0 },
  text: () => "ends for good, at once: its workers are killed, and what they did since the newest checkpoint is lost.",
};

/** The actions where there is room for all of them. */
export const ON_ONE = [...EVERYWHERE.slice(0, 3), STOP_NOW, ...EVERYWHERE.slice(3)];

/** The buttons for what the viewer may do to a job now. `done(job)` is called with the server's answer. */
export function actions(done, among = EVERYWHERE) {
  const node = el("div", { class: "actions" });
  let job = null;
  const buttons = among.map((action) => {
    const button = el("button", { type: "button", hidden: true, onclick: () => act(action, job, button, done) }, action.label);
    return { action, button };
  });
  node.append(...buttons.map(({ button }) => button));
  const update = (newest) => {
    job = newest;
    for (const { action, button } of buttons) {
      button.hidden = !mayChange(job) || !action.allows(job.state);
      setAttribute(button, "aria-label", `${action.label} ${job.name} (${job.id})`);
    }
  };
  return { node, update };
}

function mayChange(job) {
  return viewer.role === "admin" || (viewer.role === "user" && job.submitted_by === viewer.name);
}

async function act(action, job, button, done) {
  if (action.yes && !(await confirmed(action, job))) return;
  button.disabled = true;
  try {
    const changed = await request(jobPath(job.id, action.name), { method: "POST", body: action.body ?? {} });
    tell(action.name === "retry" ? `${changed.id} is queued` : `${changed.name} is ${words(changed.state)}`);
    done(changed);
  } catch (problem) {
    tell(problem.text ?? String(problem), true);
  } finally {
    button.disabled = false;
  }
}

function confirmed({ label, text, yes }, job) {
  const dialog = byId("confirm");
  setText(byId("confirm-title"), `${label.replace("Stop", `Stop ${job.name}`)}?`);
  setText(byId("confirm-text"), `${job.id} ${text(job)}`);
  setText(byId("confirm-yes"), yes);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

let toastTimer;

/** Says something for a few seconds, to screen readers too. */
export function tell(text, isProblem = false) {
  const toast = byId("toast");
  setText(toast, text);
  toast.toggleAttribute("data-problem", isProblem);
  toast.toggleAttribute("data-shown", true);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => toast.removeAttribute("data-shown"), isProblem ? 9000 : 5000);
}
