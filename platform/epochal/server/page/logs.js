// The log lines of a job, followed by long polls from where the last answer ended.

import { jobPath, Problem, request } from "./api.js";
import { byId, clear, el, setText } from "./dom.js";
import { bytes, plural } from "./format.js";

const KEPT_LINES = 4000;
const FIRST_LINES = 500;
const WAIT_SECONDS = 20;
const PAUSE_MS = 2000;
// What a terminal does not show, and what moves it within a line: as in terminal.py.
const TOKENS = /([\r\b])|\u001b\[([0-9;?]*)[ -/]*([@-~])|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|([^\r\b\u001b]+|\u001b)/g;

const pane = () => byId("logs");

export class LogReader {
  #id;
  #rank;
  #stop = new AbortController();
  #begun = new Map();
  #attempt = null;
  #unread = 0;
  #dropped = false;

  constructor(id, rank) {
    this.#id = id;
    this.#rank = rank;
    clear(pane());
    setText(byId("logs-state"), "");
    byId("logs-part").hidden = true;
    this.#read();
  }

  close() {
    this.#stop.abort();
  }

  async #read() {
    let cursor = null;
    while (!this.#stop.signal.aborted) {
      try {
        const answer = await request(this.#address(cursor), { wait: WAIT_SECONDS, signal: this.#stop.signal });
        if (cursor === null) this.#unread = before(answer);
        answer.chunks.forEach((chunk) => this.#add(chunk));
        cursor = answer.cursor;
        this.#tellPart(cursor);
        setText(byId("logs-state"), answer.done ? "complete" : "live");
        if (answer.done) return this.#flush();
      } catch (problem) {
        if (this.#stop.signal.aborted) return;
        setText(byId("logs-state"), problem instanceof Problem ? problem.message : String(problem));
        if ([401, 403, 404].includes(problem.status)) return;
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      }
    }
  }

  #address(cursor) {
    const asked = new URLSearchParams(cursor === null ? { tail: FIRST_LINES } : { cursor, wait: WAIT_SECONDS });
    if (this.#rank !== "") asked.set("rank", this.#rank);
    return `${jobPath(this.#id, "logs")}?${asked}`;
  }

  /** A chunk may end in the middle of a line: what there is of it is shown, and drawn anew with the next one. */
  #add({ attempt, rank, text }) {
    const source = `${attempt}/${rank}`;
    const parts = text.split("\n");
    const added = [];
    let begun = this.#begun.get(source) ?? { text: "", line: null };
    parts.forEach((part, index) => {
      if (index) begun = { text: "", line: null };
      begun.text = newest(begun.text + part);
      if (!begun.text && index === parts.length - 1) return;
      if (!begun.line) {
        begun.line = el("span");
        added.push(...this.#line(attempt, rank, begun.line));
      }
      setText(begun.line, shown(begun.text));
    });
    this.#begun.set(source, begun);
    this.#show(added);
  }

  /** What is shown begins with the last lines, of the newest attempt, and of many lines the oldest go. */
  #tellPart(cursor) {
    const [lines, all] = [pane().querySelectorAll(".line").length, [...places(cursor).values()].reduce((sum, end) => sum + end, 0)];
    const rank = this.#rank === "" ? "" : ` --rank ${this.#rank}`;
    byId("logs-part").hidden = !this.#unread && !this.#dropped;
    setText(byId("logs-part"), `The last ${plural(lines, "line")} of ${bytes(all)} are shown; all of it: epochal logs ${this.#id}` + rank);
  }

  #flush() {
    if (!pane().childElementCount) this.#show([el("div", { class: "divider" }, "no output")]);
  }

  #line(attempt, rank, text) {
    const line = el("div", { class: "line" }, el("span", { class: "rank", "data-rank": rank % 8 }, String(rank)), text);
    const divided = attempt !== this.#attempt;
    this.#attempt = attempt;
    return divided ? [el("div", { class: "divider" }, `attempt ${attempt}`), line] : [line];
  }

  #show(lines) {
    const box = pane();
    box.append(...lines);
    while (box.childElementCount > KEPT_LINES) {
      box.firstElementChild.remove();
      this.#dropped = true;
    }
    if (byId("logs-follow").checked) box.scrollTop = box.scrollHeight;
  }
}

/** Where a cursor stands in each log: bytes by attempt and rank. */
function places(cursor) {
  return new Map(cursor.split("_").filter(Boolean).map((part) => {
    const [attempt, rank, end] = part.split(".");
    return [`${attempt}/${rank}`, Number(end)];
  }));
}

/** The bytes that stand before what a first answer tells. */
function before({ chunks, cursor }) {
  const starts = places(cursor);
  for (const { attempt, rank, offset } of chunks) starts.set(`${attempt}/${rank}`, offset);
  return [...starts.values()].reduce((sum, start) => sum + start, 0);
}

/** What is left to see of a line: no colours, and of what was written over the newest state. */
function shown(line) {
  if (!/[\r\b\u001b]/.test(line)) return line;
  const cells = [];
  let at = 0;
  for (const [, moves, parameters, verb, text] of line.matchAll(TOKENS)) {
    if (text) for (const character of text) cells[at++] = character;
    else if (moves) at = moves === "\r" ? 0 : Math.max(0, at - 1);
    else if (verb === "K" && parameters === "2") cells.fill(" ");
    else if (verb === "K" && ["", "0"].includes(parameters)) cells.length = Math.min(cells.length, at);
  }
  return line.includes("\r") ? cells.join("").replace(/ +$/, "") : cells.join("");
}

/** The beginning of a line that goes on, without what was written over. */
function newest(line) {
  const at = line.lastIndexOf("\r");
  return at < 0 ? line : shown(line.slice(0, at)) + line.slice(at);
}
