// Numbers and times as people read them. No DOM here.

/** Seconds since 1970 of an ISO text or a number; null for nothing. */
export function seconds(time) {
  if (time === null || time === undefined || time === "") return null;
  const value = typeof time === "number" ? time : Date.parse(time) / 1000;
  return Number.isFinite(value) ? value : null;
}

/** 7 s, 4m 05s, 2h 11m, 3d 4h. */
export function duration(total) {
  if (total === null || total === undefined || !Number.isFinite(total)) return "–";
  const whole = Math.max(0, Math.round(total));
  const [days, hours, minutes, rest] = [
    Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60, whole % 60,
  ];
  const two = (number) => String(number).padStart(2, "0");
  if (days) return `${days}d ${hours}h`;
  if (hours) return `${hours}h ${two(minutes)}m`;
  return minutes ? `${minutes}m ${two(rest)}s` : `${rest} s`;
}

export function ago(time, now) {
  const then = seconds(time);
  if (then === null) return "–";
  return now - then < 2 ? "just now" : `${duration(now - then)} ago`;
}

export function clock(time) {
  const then = seconds(time);
  return then === null ? "–" : new Date(then * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

export function clockOnly(time) {
  const then = seconds(time);
  return then === null ? "" : new Date(then * 1000).toLocaleTimeString(undefined, { hourCycle: "h23" });
}

/** Four figures: 0.01234, 12.34, 1.2e-7. */
export function figure(value) {
  if (typeof value !== "number") return "–";
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  return size && (size < 1e-4 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

export function whole(value) {
  return typeof value === "number" && Number.isFinite(value) ? Math.round(value).toLocaleString("en") : "–";
}

/** CPUs and GPUs may be parts of one. */
export function amount(value) {
  return String(Number(Number(value ?? 0).toFixed(1)));
}

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = Number(value ?? 0);
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size < 10 && unit ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

export const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

/** REASON_LIKE_THIS as words. */
export const words = (text) => String(text ?? "").toLowerCase().replaceAll("_", " ");
