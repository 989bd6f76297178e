// The server's REST interface, with the token of this tab.

const KEY = "epochal.token";
const PATIENCE_MS = 10_000;
const CLOCK_IS_OFF = 5;
let ahead = 0;

/** Seconds since 1970 by the server's clock, which its answers tell to a second: by the browser's own where that is right. */
export const now = () => Date.now() / 1000 + ahead;

export class Problem extends Error {
  constructor(status, message, hint = "") {
    super(message);
    this.status = status;
    this.hint = hint;
  }

  get text() {
    return this.hint ? `${this.message} (${this.hint})` : this.message;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
  drop: () => sessionStorage.removeItem(KEY),
};

/** Takes `token=...` out of the address, so that it is neither bookmarked nor shown; other parts of it stay.
 *  Whether there was one. */
export function takeTokenFromAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const given = parts.get("token");
  if (given === null) return false;
  token.set(given);
  parts.delete("token");
  const rest = parts.toString();
  history.replaceState(null, "", location.pathname + location.search + (rest ? `#${rest}` : ""));
  return true;
}

/** JSON of an answer. Throws a Problem: status 0 where no server answered. */
export async function request(path, { method = "GET", body, wait = 0, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const patience = AbortSignal.timeout(PATIENCE_MS + wait * 1000);
  let answer, content;
  try {
    answer = await fetch(`api/v1/${path}`, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store",
      signal: signal ? AbortSignal.any([signal, patience]) : patience,
    });
    const beside = (Date.parse(answer.headers.get("Date")) - Date.now()) / 1000;
    ahead = Math.abs(beside) > CLOCK_IS_OFF ? beside : 0;
    content = await answer.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, "the server does not answer");
  }
  const found = parsed(content);
  if (answer.ok && found !== null) return found;
  const said = found?.error ?? {};
  throw new Problem(answer.status, said.message || `the server answered ${answer.status}`, said.hint);
}

export const jobPath = (id, what = "") => `jobs/${encodeURIComponent(id)}${what ? `/${what}` : ""}`;

function parsed(content) {
  try {
    return JSON.parse(content);
  } catch {
    return null;
  }
}
