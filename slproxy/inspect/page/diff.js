// What two lists have in common. Pure.

import { MASK } from "./copy.js";

// Past this, what differs is told as one block: the work grows with its square.
const MOST_CHANGES = 400;

/** Compare two lists of strings: [["same" | "gone" | "new", item], …], as Myers' algorithm finds them (1986). */
export function compare(before, after) {
  let start = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start += 1;
  let end = 0;
  while (
    end < before.length - start &&
    end < after.length - start &&
    before[before.length - 1 - end] === after[after.length - 1 - end]
  ) {
    end += 1;
  }
  const old = before.slice(start, before.length - end);
  const now = after.slice(start, after.length - end);
  const same = (items) => items.map((item) => ["same", item]);
  return [...same(before.slice(0, start)), ...middle(old, now), ...same(before.slice(before.length - end))];
}

function middle(old, now) {
  const most = Math.min(old.length + now.length, MOST_CHANGES);
  const trail = [];
  let furthest = new Map([[1, 0]]);
  for (let changes = 0; changes <= most; changes += 1) {
    trail.push(new Map(furthest));
    for (let k = -changes; k <= changes; k += 2) {
      const down = k === -changes || (k !== changes && furthest.get(k - 1) < furthest.get(k + 1));
      let x = down ? furthest.get(k + 1) : furthest.get(k - 1) + 1;
      while (x < old.length && x - k < now.length && old[x] === now[x - k]) x += 1;
      furthest.set(k, x);
      if (x >= old.length && x - k >= now.length) return back(trail, old, now);
    }
  }
  return [...old.map((item) => ["gone", item]), ...now.map((item) => ["new", item])];
}

function back(trail, old, now) {
  const found = [];
  let [x, y] = [old.length, now.length];
  for (let changes = trail.length - 1; changes >= 0; changes -= 1) {
    const furthest = trail[changes];
    const k = x - y;
    const down = k === -changes || (k !== changes && furthest.get(k - 1) < furthest.get(k + 1));
    const fromK = down ? k + 1 : k - 1;
    const fromX = changes === 0 ? 0 : furthest.get(fromK);
    const fromY = changes === 0 ? 0 : fromX - fromK;
    while (x > fromX && y > fromY) {
      x -= 1;
      y -= 1;
      found.push(["same", old[x]]);
    }
    if (changes > 0) {
      if (down) found.push(["new", now[--y]]);
      else found.push(["gone", old[--x]]);
    }
  }
  return found.reverse();
}

/** Keep `context` lines around each change; what is left out between them is one ["skipped", count]. */
export function shorten(lines, context = 2) {
  const near = lines.map(() => false);
  lines.forEach(([kind], at) => {
    if (kind === "same") return;
    for (let each = Math.max(0, at - context); each <= Math.min(lines.length - 1, at + context); each += 1)
      near[each] = true;
  });
  const short = [];
  lines.forEach((line, at) => {
    if (near[at]) short.push(line);
    else if (short.at(-1)?.[0] === "skipped") short.at(-1)[1] += 1;
    else short.push(["skipped", 1]);
  });
  return short;
}

export function differs(lines) {
  return lines.some(([kind]) => kind === "new" || kind === "gone");
}

/**
 * What became of the headers on their way: [["same" | "gone" | "new", name, value], …].
 *
 * Names of any case are equal, and two credentials never are, though both are shown masked.
 */
export function headerChanges(came, went) {
  const key = ([name, value]) => `${name.toLowerCase()}: ${value}`;
  const secret = (header) => header[1].includes(MASK);
  const left = went.filter((header) => !secret(header)).map(key);
  const added = new Set(went.filter(secret));
  const changes = came.map((header) => {
    const at = secret(header) ? -1 : left.indexOf(key(header));
    if (at >= 0) left.splice(at, 1);
    return [at >= 0 ? "same" : "gone", ...header];
  });
  // What took the place of another stands behind it.
  for (const header of went) {
    const at = secret(header) ? -1 : left.indexOf(key(header));
    if (at < 0 && !added.has(header)) continue;
    if (at >= 0) left.splice(at, 1);
    const place = changes.findLastIndex(
      ([kind, name]) => kind === "gone" && name.toLowerCase() === header[0].toLowerCase(),
    );
    changes.splice(place < 0 ? changes.length : place + 1, 0, ["new", ...header]);
  }
  return changes;
}
