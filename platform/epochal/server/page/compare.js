// Picking jobs whose runs MLflow shows beside each other, with one click.

import { request } from "./api.js";
import { byId, el, setAttribute, setLink, setText } from "./dom.js";
import { plural } from "./format.js";
import { tell } from "./pieces.js";

const picked = new Set();

export function startCompare() {
  byId("compare-none").addEventListener("click", pickNone);
}

export function pickNone() {
  picked.clear();
  for (const box of document.querySelectorAll(".pick")) box.checked = false;
  show();
}

/** A box to pick a job with, once it has a run in an experiment. */
export function pickBox() {
  let id = "";
  const node = el("input", { type: "checkbox", class: "pick" });
  node.addEventListener("change", () => {
    if (node.checked) picked.add(id);
    else picked.delete(id);
    show();
  });
  const update = (job) => {
    id = job.id;
    node.hidden = !job.runs_url;
    node.checked = picked.has(id);
    setAttribute(node, "aria-label", `Compare the run of ${job.name}`);
  };
  return { node, update };
}

/** The link is asked for when the picks change, so that following it is one click. */
async function show() {
  const ids = [...picked];
  byId("compare").hidden = ids.length === 0;
  setText(byId("compare-count"), ids.length === 1 ? "1 run picked: pick others to compare it with" : `${plural(ids.length, "run")} picked`);
  setLink(byId("compare-link"), null);
  if (ids.length < 2) return;
  try {
    const { comparison } = await request(`pages?${ids.map((id) => `job=${encodeURIComponent(id)}`).join("&")}`);
    if (ids.join() !== [...picked].join()) return;
    setLink(byId("compare-link"), comparison);
    if (!comparison) setText(byId("compare-count"), "these runs are not on one tracking server");
  } catch (problem) {
    tell(problem.text ?? String(problem), true);
  }
}
