// What a job's data was taken for: its parts, the classes with their samples, the split, and what to look at.

import { byId, cell, clear, el, setText } from "./dom.js";
import { whole } from "./format.js";

let shown = "";

export function forgetData() {
  shown = "";
  byId("job-data").hidden = true;
  for (const id of ["data-split", "data-notes", "data-classes", "data-parts"]) clear(byId(id));
}

/** It changes with an attempt at the most, and comes once a second. */
export function showData(data) {
  const told = JSON.stringify(data ?? "");
  byId("job-data").hidden = !data;
  if (!data || told === shown) return;
  forgetData();
  shown = told;
  byId("job-data").hidden = false;
  setText(byId("data-source"), [data.dataset, data.source === data.dataset ? "" : data.source].filter(Boolean).join(" · "));
  byId("data-split").append(...split(data.train_samples, data.validation_samples, data.test_samples ?? 0));
  byId("data-notes").append(...data.notes.map((note) => el("li", {}, note)));
  byId("data-classes-box").hidden = !data.classes.length;
  const most = Math.max(1, ...data.classes.map((one) => one.train + one.validation));
  byId("data-classes").append(...data.classes.map((one) => classRow(one, most)));
  byId("data-parts-box").hidden = !data.understood.length;
  byId("data-parts").append(...data.understood.map(partRow));
  more("notes", data.more_notes);
  more("classes", data.more_classes, data.classes.length);
  more("parts", data.more_understood, data.understood.length);
}

function more(name, count, there = 0) {
  byId(`data-${name}-more`).hidden = !count;
  setText(byId(`data-${name}-more`), `${whole(there)} of ${whole(there + count)} are shown; data.json among the artifacts of the run in MLflow has the rest.`);
}

function split(train, validation, test) {
  const legend = [key("train", `${train ? `${whole(train)} samples` : "a stream of samples"} to train on`), key("validation", `${whole(validation)} to validate on`)];
  if (test) legend.push(el("span", {}, `${whole(test)} to test`));
  return [bars(train, validation, train + validation), el("p", { class: "legend" }, ...legend)];
}

const key = (part, text) => el("span", {}, el("span", { class: `swatch ${part}` }), text);

/** Two amounts on one bar, of what would fill it. What is not nothing can be seen. */
function bars(train, validation, most) {
  const parts = [["train", train], ["validation", validation]].filter(([, count]) => count).map(([name, count]) => {
    const part = el("span", { class: name });
    part.style.width = `${(count / Math.max(1, most)) * 100}%`;
    return part;
  });
  return el("div", { class: "amounts", "aria-hidden": "true" }, ...parts);
}

function classRow({ name, train, validation }, most) {
  const counts = el("span", { class: "number" }, el("span", { class: train ? null : "none" }, whole(train)), ` + ${whole(validation)}`);
  return el("li", {}, el("span", { class: "class-name", title: name }, name), bars(train, validation, most), counts);
}

function partRow({ name, taken_for: kind, missing, note }) {
  return el("tr", { role: "row" }, cell("Name", "part-name", name), cell("Taken for", "", kind),
    cell("Missing", missing ? "number some-missing" : "number", missing ? whole(missing) : ""), cell("Note", "meta", note));
}
