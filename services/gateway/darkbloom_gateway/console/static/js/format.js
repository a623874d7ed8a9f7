// Numbers, money and times as people read them. Money stays a whole number of micro-dollars.

const MICRO = 1_000_000;

/** "$1.50", with as many decimals as there are, two at least. */
export function dollars(micros) {
  const size = Math.abs(micros);
  const cents = String(size % MICRO).padStart(6, "0").replace(/0{1,4}$/, "");
  return `${micros < 0 ? "−" : ""}$${Math.trunc(size / MICRO).toLocaleString("en")}.${cents}`;
}

/** Reads dollars as typed into whole micro-dollars; null for anything else. */
export function micros(text) {
  const found = /^\s*(\d{1,9})(?:\.(\d{1,6}))?\s*$/.exec(text);
  return found ? Number(found[1]) * MICRO + Number((found[2] ?? "").padEnd(6, "0")) : null;
}

export const count = (number) => (number ?? 0).toLocaleString("en");

/** 12.3k, 4.5M: for labels that have little room. */
export const brief = (number) => new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(number);

/** Gigabytes as machines say them, without the digits that nobody reads. */
export const gigabytes = (number) => (number ? `${Math.round(number * 10) / 10} GB` : "");

export function moment(text) {
  return text ? new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : "never";
}

/** "3 minutes ago". */
export function ago(text, now = Date.now()) {
  if (!text) return "never";
  const seconds = Math.round((now - Date.parse(text)) / 1000);
  const steps = [["second", 60], ["minute", 60], ["hour", 24], ["day", Infinity]];
  let size = Math.max(seconds, 0);
  for (const [unit, most] of steps) {
    if (size < most) return size < 5 && unit === "second" ? "just now" : `${Math.floor(size)} ${unit}${Math.floor(size) === 1 ? "" : "s"} ago`;
    size /= most;
  }
}

/** A day such as 2026-01-31, in UTC like the books. */
export const day = (date) => date.toISOString().slice(0, 10);

/** The last days, oldest first. */
export function lastDays(size, now = Date.now()) {
  return Array.from({ length: size }, (_, at) => day(new Date(now - (size - 1 - at) * 86_400_000)));
}

export const short = (text, size = 12) => (text.length > size ? `${text.slice(0, size)}…` : text);
