// How figures, times and texts look. Pure: values in, text out.

/** "812 B", "64 KiB", "3.1 MiB". */
export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let at = 0;
  while (count >= 1023.95 && at < units.length - 1) {
    count /= 1024;
    at += 1;
  }
  return `${at > 0 && count < 9.95 ? Number(count.toFixed(1)) : Math.round(count)} ${units[at]}`;
}

/** Milliseconds as a person says them: "<1 ms", "132 ms", "1.32 s", "12.3 s", "2 min 5 s". */
export function duration(ms) {
  if (ms < 1) return ms > 0 ? "<1 ms" : "0 ms";
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 9.995) return `${seconds.toFixed(2)} s`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** Seconds that are left, as a clock that runs down: "9:41". */
export function countdown(seconds) {
  const whole = Math.max(0, Math.ceil(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** Unix seconds as local time: ["10:31:07", ".123"]. */
export function clock(at) {
  const date = new Date(at * 1000);
  const two = (number) => String(number).padStart(2, "0");
  return [
    `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`,
    `.${String(date.getMilliseconds()).padStart(3, "0")}`,
  ];
}

/** How long ago something was, in seconds: "just now", "40 s ago", "5 min ago", "2 h ago", "3 days ago". */
export function ago(seconds) {
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return plural(Math.floor(seconds / 86400), "day") + " ago";
}

export function count(number) {
  return number.toLocaleString("en-US");
}

export function plural(number, word, words = `${word}s`) {
  return `${count(number)} ${number === 1 ? word : words}`;
}

// Control characters (less tab and newline), bidirectional controls, line and paragraph separators, zero-width
// characters: what would hide or rearrange the text around it.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** Text from outside with what cannot be seen spelt out, such as "\u202e". */
export function visible(text) {
  return text.replace(UNSEEN, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** As `visible`, for what stands on one line. */
export function oneLine(text) {
  return visible(text).replace(/\n/g, "\\n").replace(/\t/g, "\\t");
}

/** What a request's time went to, in the order in which it usually goes. */
export const PARTS = ["wait", "token", "proxy", "upstream", "stream"];

/** The parts of a row that took any time: [["wait", 1200], …]. */
export function parts(row) {
  return PARTS.map((name) => [name, row[`${name}_ms`] ?? 0]).filter(([, ms]) => ms > 0);
}

/** How much of its column a bar takes, in per cent: 1 ms, 1 s and 100 s can be told apart in one list. */
export function barWidth(ms) {
  return Math.min(100, Math.max(2, (100 * Math.log10(1 + ms)) / 5));
}

/** "4xx" and its like for a status; "none" where no answer was given. */
export function statusClass(row) {
  if (row.status) return `${Math.floor(row.status / 100)}xx`;
  return row.state === "open" ? "open" : "none";
}

export function failed(row) {
  return row.status >= 400 || Boolean(row.error) || Boolean(row.ended);
}

const READS = new Set(["GET", "HEAD", "OPTIONS"]);

/** Whether sending this method again may change something. */
export function writes(method) {
  return !READS.has(method);
}

/** One of eight colours for a client, always the same for the same name. */
export function hue(name) {
  let hash = 7;
  for (let at = 0; at < name.length; at += 1) hash = (hash * 31 + name.charCodeAt(at)) >>> 0;
  return ((hash ^ (hash >>> 7)) >>> 0) % 8;
}
