// The log lines of a job, followed by long polls from where the last answer ended.

import { jobPath, Problem, request } from "./api.js";
import { byId, clear, el, setText } from "./dom.js";

const KEPT_LINES = 4000;
const FIRST_LINES = 500;
const WAIT_SECONDS = 20;
const PAUSE_MS = 2000;
// Colours and cursor movements of a terminal.
const ESCAPES = /\u001b\[[0-9;?]*[ -/]*[@-~]|\u001b\][^\u0007]*\u0007/g;

const pane = () => byId("logs");

export class LogReader {
  #id;
  #rank;
  #stop = new AbortController();
  #unfinished = new Map();
  #attempt = null;

  constructor(id, rank) {
    this.#id = id;
    this.#rank = rank;
    clear(pane());
    setText(byId("logs-state"), "");
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
        answer.chunks.forEach((chunk) => this.#add(chunk));
        cursor = answer.cursor;
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

  /** A chunk may end in the middle of a line, whose rest comes with the next one of the same rank. */
  #add({ attempt, rank, text }) {
    const source = `${attempt}/${rank}`;
    const lines = ((this.#unfinished.get(source) ?? "") + text).split("\n");
    this.#unfinished.set(source, lines.pop());
    this.#show(lines.map((line) => this.#line(attempt, rank, line)).flat());
  }

  #flush() {
    for (const [source, line] of this.#unfinished) {
      const [attempt, rank] = source.split("/").map(Number);
      if (line) this.#show(this.#line(attempt, rank, line));
    }
    this.#unfinished.clear();
    if (!pane().childElementCount) this.#show([el("div", { class: "divider" }, "no output")]);
  }

  #line(attempt, rank, text) {
    const shown = text.replace(ESCAPES, "").split("\r").filter(Boolean).at(-1) ?? "";
    const line = el("div", { class: "line" }, el("span", { class: "rank", "data-rank": rank % 8 }, String(rank)), shown);
    const divided = attempt !== this.#attempt;
    this.#attempt = attempt;
    return divided ? [el("div", { class: "divider" }, `attempt ${attempt}`), line] : [line];
  }

  #show(lines) {
    const box = pane();
    box.append(...lines);
    while (box.childElementCount > KEPT_LINES) box.firstElementChild.remove();
    if (byId("logs-follow").checked) box.scrollTop = box.scrollHeight;
  }
}
