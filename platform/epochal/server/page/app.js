// The page's start: who is looking, what is shown, and asking the server once a second while somebody looks.

import { Problem, request, takeTokenFromAddress, token } from "./api.js";
import { byId, el, keep, setLink, setText } from "./dom.js";
import { duration, words } from "./format.js";
import { pickNone, startCompare } from "./compare.js";
import { closeJob, openJob, updateJob } from "./job.js";
import { showOverview, startOverview } from "./overview.js";
import { viewer } from "./pieces.js";

const EVERY_MS = 1000;
const SLOWEST_MS = 10_000;
const COUNTED = ["RUNNING", "STARTING", "QUEUED", "STOPPING", "PAUSED", "FAILED"];

let timer = 0;
let failures = 0;
let answeredAt = 0;
let asking = null;
let newest = null;
let signedOut = false;

const jobInAddress = () => new URLSearchParams(location.hash.slice(1)).get("job");

/** Asks now, and then every second; what was on its way is dropped. */
function poll() {
  clearTimeout(timer);
  asking?.abort();
  asking = null;
  if (document.hidden || signedOut) return;
  const mine = new AbortController();
  asking = mine;
  ask(mine.signal)
    .then(answered, (problem) => !mine.signal.aborted && failed(problem))
    .finally(() => {
      if (asking !== mine) return;
      asking = null;
      timer = setTimeout(poll, Math.min(SLOWEST_MS, EVERY_MS * 2 ** failures));
    });
}

async function ask(signal) {
  if (!viewer.role) await seeWhoIsLooking(signal);
  const id = jobInAddress();
  if (id === null) {
    newest = await request("overview", { signal });
    render();
    return;
  }
  reveal("job");
  openJob(id, poll);
  await updateJob(signal);
  document.title = `${byId("job-title").textContent} · Epochal`;
}

async function seeWhoIsLooking(signal) {
  const { user, role } = await request("whoami", { signal });
  Object.assign(viewer, { name: user, role });
}

function answered() {
  failures = 0;
  answeredAt = Date.now();
  byId("link").dataset.state = "live";
  setText(byId("link-text"), "live");
  byId("trouble").hidden = true;
  byId("user").hidden = byId("sign-out").hidden = false;
  setText(byId("user"), `${viewer.name} · ${viewer.role}`);
}

function failed(problem) {
  if (problem instanceof Problem && problem.status === 401) return askForToken(problem);
  failures = Math.min(failures + 1, 5);
  const isAnswered = problem instanceof Problem && problem.status > 0 && problem.status < 500;
  byId("link").dataset.state = isAnswered ? "live" : "away";
  setText(byId("link-text"), isAnswered ? "live" : "not connected");
  const since = answeredAt ? ` What is shown is ${duration((Date.now() - answeredAt) / 1000)} old.` : "";
  const text = problem instanceof Problem ? problem.text : `This page failed: ${problem}`;
  setText(byId("trouble"), text.charAt(0).toUpperCase() + text.slice(1) + "." + (problem.status ? "" : since));
  byId("trouble").hidden = false;
  if (!(problem instanceof Problem)) throw problem;
}

/** No token, or one that is not known any more: polling stops until there is another. */
function askForToken(problem) {
  const had = token.get();
  signOut(had ? problem.text : "");
}

function signOut(why) {
  token.drop();
  viewer.name = viewer.role = "";
  signedOut = true;
  clearTimeout(timer);
  asking?.abort();
  asking = newest = null;
  closeJob();
  pickNone();
  byId("user").hidden = byId("sign-out").hidden = byId("mlflow").hidden = true;
  byId("counts").hidden = true;
  byId("link").dataset.state = "waiting";
  setText(byId("link-text"), "signed out");
  setText(byId("sign-in-problem"), why);
  reveal("sign-in");
  byId("token").focus();
}

function reveal(id) {
  for (const part of ["sign-in", "overview", "job"]) byId(part).hidden = part !== id;
  if (id !== "job") closeJob();
}

function render() {
  reveal("overview");
  byId("counts").hidden = false;
  showOverview(newest, byId("filter").value);
  const counts = COUNTED.map((state) => ({ state, count: newest.counts[state] ?? 0 })).filter(({ count }) => count);
  keep(byId("counts"), counts, ({ state }) => state, countChip);
  setLink(byId("mlflow"), newest.mlflow_url);
  const { RUNNING: running = 0, QUEUED: queued = 0 } = newest.counts;
  document.title = `${running} running, ${queued} queued · Epochal`;
}

function countChip() {
  const [number, name] = [el("b"), el("span")];
  const node = el("li", {}, number, " ", name);
  const update = ({ state, count }) => {
    node.dataset.state = state;
    setText(number, count.toLocaleString("en"));
    setText(name, words(state));
  };
  return { node, update };
}

function start() {
  takeTokenFromAddress();
  startOverview(poll);
  startCompare();
  byId("skip").addEventListener("click", () => byId("main").focus());
  byId("sign-in").addEventListener("submit", (event) => {
    event.preventDefault();
    token.set(byId("token").value.trim());
    signedOut = false;
    byId("token").value = "";
    setText(byId("sign-in-problem"), "");
    poll();
  });
  byId("sign-out").addEventListener("click", () => signOut(""));
  byId("filter").addEventListener("input", () => newest && render());
  addEventListener("hashchange", () => {
    if (takeTokenFromAddress()) {
      signedOut = false;
      viewer.name = viewer.role = "";  // it may be another's
    }
    scrollTo(0, 0);
    poll();
  });
  document.addEventListener("visibilitychange", poll);
  document.addEventListener("keydown", shortcut);
  poll();
}

function shortcut(event) {
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "/" && !typing && !byId("overview").hidden) {
    event.preventDefault();
    byId("filter").focus();
  } else if (event.key === "Escape" && event.target === byId("filter")) {
    byId("filter").value = "";
    if (newest) render();
  }
}

start();
