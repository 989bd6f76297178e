// The loss, or another value, as a line: small in a list, larger with its range on a job's page.

import { el, setAttribute, setText, svg } from "./dom.js";
import { figure } from "./format.js";

const WIDTH = 120;
const HEIGHT = 32;
const PAD = 2;

/** Steps and values of a history, without what is no number. */
function real(history) {
  return (history ?? []).filter(([, value]) => Number.isFinite(value));
}

export function curve(className, name = "loss") {
  const area = svg("path", { class: "area" });
  const line = svg("path", { class: "line", "vector-effect": "non-scaling-stroke" });
  const node = svg(
    "svg",
    { class: className, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    area,
    line,
  );
  const update = (progress) => {
    const found = real(progress?.loss_history);
    const points = place(found);
    setAttribute(line, "d", points.length > 1 ? `M${points.join("L")}` : "");
    setAttribute(area, "d", points.length > 1 ? `M0 ${HEIGHT}L${points.join("L")}L${WIDTH} ${HEIGHT}Z` : "");
    setAttribute(node, "aria-label", [describe(found, name), left(progress)].filter(Boolean).join("; "));
    node.toggleAttribute("data-empty", points.length < 2);
  };
  return { node, update };
}

/** The curve with its highest and lowest value written beside it. */
export function chart(title = "Training loss", name = "loss") {
  const drawn = curve("chart", name);
  const [high, low] = [el("span"), el("span")];
  const part = el("span", { class: "meta" });
  const node = el("figure", { class: "chart-box" }, el("figcaption", {}, `${title} `, part),
    el("div", { class: "chart-range", "aria-hidden": "true" }, high, low), drawn.node);
  const update = (progress) => {
    const values = real(progress?.loss_history).map(([, value]) => value);
    drawn.update(progress);
    setText(part, left(progress));
    node.hidden = values.length < 2;
    setText(high, values.length ? figure(Math.max(...values)) : "");
    setText(low, values.length ? figure(Math.min(...values)) : "");
  };
  return { node, update };
}

/** What is said where not every value is drawn. */
function left(progress) {
  const [drawn, all] = [progress?.loss_history?.length ?? 0, progress?.loss_values ?? 0];
  return all > drawn ? `${drawn} of ${all.toLocaleString("en")} values that were told; MLflow has every one` : "";
}

function place(found) {
  const values = found.map(([, value]) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [first, last] = [found[0]?.[0], found.at(-1)?.[0]];
  return found.map(([step, value]) => {
    const x = ((step - first) / (last - first || 1)) * WIDTH;
    const y = PAD + (1 - (value - low) / (high - low || 1)) * (HEIGHT - 2 * PAD);
    return `${x.toFixed(1)} ${y.toFixed(1)}`;
  });
}

function describe(found, name) {
  if (!found.length) return `no ${name} yet`;
  const values = found.map(([, value]) => value);
  return `${name} from ${figure(values[0])} to ${figure(values.at(-1))}, lowest ${figure(Math.min(...values))}`;
}
