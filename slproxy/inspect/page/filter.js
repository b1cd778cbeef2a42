// The filter box: what its text means. Pure.
//
// Terms are separated by spaces, and a row is shown if all of them hold; `-` before a term turns it round, and quotes
// keep spaces together. A term is FIELD:VALUE, a word that stands for a condition, or text to look for.

import { failed, writes } from "./format.js";

const contains = (wanted) => (text) => (text ?? "").toLowerCase().includes(wanted);

const anyOf = (value, one) => {
  const tests = value.toLowerCase().split(",").filter(Boolean).map(one);
  return (got) => tests.some((test) => test(got));
};

const UNITS = {
  ms: 1,
  s: 1000,
  min: 60_000,
  b: 1,
  k: 1024,
  kb: 1024,
  kib: 1024,
  m: 1048576,
  mb: 1048576,
  mib: 1048576,
};

/** A comparison: "3", ">1", "<=10", "2-5", with a unit where the field has one. */
function compare(units) {
  return (value) => {
    const range = /^([\d.]+)([a-z]*)-([\d.]+)([a-z]*)$/.exec(value);
    const single = /^(>=|<=|>|<|=)?([\d.]+)([a-z]*)$/.exec(value);
    const size = (digits, unit) => (unit === "" || units.includes(unit) ? Number(digits) * (UNITS[unit] ?? 1) : NaN);
    if (range) {
      const [low, high] = [size(range[1], range[2] || range[4]), size(range[3], range[4])];
      return Number.isNaN(low + high) ? null : (got) => got !== null && got >= low && got <= high;
    }
    const limit = single ? size(single[2], single[3]) : NaN;
    if (Number.isNaN(limit)) return null;
    const tests = {
      ">": (got) => got > limit,
      ">=": (got) => got >= limit,
      "<": (got) => got < limit,
      "<=": (got) => got <= limit,
      "=": (got) => got === limit,
    };
    const test = tests[single[1] ?? "="];
    return (got) => got !== null && got !== undefined && test(got);
  };
}

function status(value) {
  const wanted = /^([1-5])(xx?)?$/i.exec(value);
  if (wanted) return (got) => Math.floor(got / 100) === Number(wanted[1]);
  if (value === "none") return (got) => !got;
  const test = compare([])(value);
  return test && ((got) => got > 0 && test(got));
}

const TIMES = ["ms", "s", "min"];
const SIZES = ["b", "k", "kb", "kib", "m", "mb", "mib"];
const EXACT = (value) => (got) => (got ?? "").toLowerCase() === value;

// What a field is compared with: how its value is read, and what of a row it is held to.
const FIELDS = {
  status: [status, (row) => row.status ?? 0],
  method: [EXACT, (row) => row.method],
  client: [contains, (row) => row.client],
  path: [contains, (row) => row.path],
  operation: [contains, (row) => row.operation],
  id: [contains, (row) => row.id],
  error: [contains, (row) => `${row.error ?? ""} ${row.ended ?? ""}`],
  kind: [EXACT, (row) => row.kind],
  cost: [compare([]), (row) => row.cost ?? null],
  attempts: [compare([]), (row) => row.attempts ?? null],
  time: [compare(TIMES), (row) => row.ms ?? null],
  wait: [compare(TIMES), (row) => row.wait_ms ?? null],
  in: [compare(SIZES), (row) => row.in ?? null],
  out: [compare(SIZES), (row) => row.out ?? null],
};

const WORDS = {
  failed,
  waited: (row) => row.wait_ms > 0,
  retried: (row) => row.attempts > 1,
  renewed: (row) => row.token_renewals > 0,
  resent: (row) => Boolean(row.resent),
  writes: (row) => row.kind === "request" && writes(row.method),
  pinned: (row) => Boolean(row.pinned),
  open: (row) => row.state === "open",
};

/** What can be written, for the help. */
export const GRAMMAR = [
  ["status:5xx", "or 404, 400-499, >=400, none"],
  ["method:post", "or several: put,delete"],
  ["client:report", "part of it; path: operation: id: error: alike"],
  ["cost:>1", "attempts: alike; in: and out: as >64k"],
  ["time:>1s", "wait: alike"],
  ["kind:renewal", "request, refusal, login, logout"],
  ["failed", "waited, retried, renewed, writes, resent, pinned, open"],
  ["people", "text in path, client, id, error, note"],
  ["-status:2xx", "all but these"],
  ['"failed"', "the text itself"],
];

/** Split into terms: [{minus, quoted, text}]. A quote that is not closed ends with the text. */
export function terms(text) {
  const found = text.matchAll(/(-?)(?:"([^"]*)"?|((?:[^\s":]+:)?"[^"]*"?|[^\s]+))/g);
  return [...found]
    .map(([, minus, quoted, plain]) => ({
      minus: minus === "-",
      quoted: quoted !== undefined,
      text: quoted ?? plain.replace(/"/g, ""),
    }))
    .filter((term) => term.text !== "" && (term.quoted || term.text !== "-"));
}

function understand({ quoted, text }) {
  const colon = text.indexOf(":");
  const name = text.slice(0, colon).toLowerCase();
  if (!quoted && colon > 0 && Object.hasOwn(FIELDS, name)) {
    const [read, get] = FIELDS[name];
    const value = text.slice(colon + 1).toLowerCase();
    if (value === "") return { test: () => true };
    let wrong = false;
    const test = anyOf(value, (one) => {
      const made = read(one);
      if (made === null) wrong = true;
      return made ?? (() => true);
    });
    if (wrong) return { test: () => true, problem: `${name}: cannot read “${value}”` };
    return { test: (row) => test(get(row)) };
  }
  if (!quoted && Object.hasOwn(WORDS, text.toLowerCase())) return { test: WORDS[text.toLowerCase()] };
  const wanted = contains(text.toLowerCase());
  return {
    test: (row) =>
      wanted(row.path) ||
      wanted(row.client) ||
      wanted(row.id) ||
      wanted(row.error) ||
      wanted(row.note) ||
      wanted(row.ended),
  };
}

/** Read the text of the box: {test(row), problem}, where `problem` says what was not understood, or "". */
export function compile(text) {
  const read = terms(text).map((term) => ({ minus: term.minus, ...understand(term) }));
  const tests = read.map(({ minus, test }) => (minus ? (row) => !test(row) : test));
  return {
    test: (row) => tests.every((test) => test(row)),
    problem: read.map((term) => term.problem ?? "").filter(Boolean)[0] ?? "",
  };
}

/** Add a term to the text, or take it away where it is there. */
export function toggle(text, term) {
  const words = text.split(/\s+/).filter(Boolean);
  return (words.includes(term) ? words.filter((word) => word !== term) : [...words, term]).join(" ");
}

export function has(text, term) {
  return text.split(/\s+/).includes(term);
}
