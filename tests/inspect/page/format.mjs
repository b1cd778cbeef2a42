import assert from "node:assert/strict";
import { test } from "node:test";

import {
  ago, barWidth, bytes, clock, countdown, duration, hue, oneLine, parts, statusClass, visible, writes,
} from "../../../slproxy/inspect/page/format.js";

const table = (name, say, rows) =>
  test(name, () => rows.forEach(([given, said]) => assert.equal(say(given), said, `of ${given}`)));

table("sizes are said in units of 1024", bytes, [
  [0, "0 B"], [812, "812 B"], [1023, "1023 B"], [1024, "1 KiB"], [65536, "64 KiB"], [3250586, "3.1 MiB"], [10 * 2 ** 20, "10 MiB"],
  [2 ** 20 - 1, "1 MiB"], [5 * 2 ** 30, "5 GiB"],
]);
table("times are said to three digits", duration, [
  [0, "0 ms"], [0.4, "<1 ms"], [132.4, "132 ms"], [999.6, "1.00 s"], [1320, "1.32 s"], [12_340, "12.3 s"], [59_960, "1 min 0 s"],
  [125_000, "2 min 5 s"],
]);
table("what is left runs down", countdown, [[581, "9:41"], [0.2, "0:01"], [0, "0:00"], [-3, "0:00"]]);
table("how long ago is said roughly", ago, [
  [1, "just now"], [40, "40 s ago"], [300, "5 min ago"], [7300, "2 h ago"], [90_000, "1 day ago"],
]);
table("what cannot be seen is spelt out", visible, [
  ["a\u202eb", "a\\u202eb"], ["\u0000\u001b[31m", "\\u0000\\u001b[31m"], ["é ✓ \t\n", "é ✓ \t\n"], ["a\u200bb", "a\\u200bb"],
  ["\u2028", "\\u2028"],
]);
table("on one line, tabs and ends of lines are as well", oneLine, [["a\tb\nc\rd", "a\\tb\\nc\\u000dd"]]);
table("the methods that write", writes, [
  ["GET", false], ["HEAD", false], ["OPTIONS", false], ["POST", true], ["PUT", true], ["PATCH", true], ["DELETE", true],
]);

test("a time is local, with milliseconds", () => {
  const at = new Date(2026, 10, 29, 9, 5, 7, 42).getTime() / 1000;
  assert.deepEqual(clock(at), ["09:05:07", ".042"]);
});

test("a bar has the parts that took time, in their order", () => {
  const row = { wait_ms: 5, token_ms: 0, proxy_ms: 1, upstream_ms: 80, stream_ms: 0 };
  assert.deepEqual(parts(row), [["wait", 5], ["proxy", 1], ["upstream", 80]]);
  assert.deepEqual(parts({}), []);
});

test("a bar grows with its time, and never out of its column", () => {
  const widths = [0, 1, 10, 100, 1000, 10_000, 100_000, 1e9].map(barWidth);
  assert.deepEqual([...widths].sort((one, other) => one - other), widths);
  assert.ok(widths[0] > 0 && widths.at(-1) === 100);
});

test("a client has its colour, whatever its name", () => {
  for (const name of ["", "crm-sync", "report", "é✓", "x".repeat(5000)]) {
    assert.equal(hue(name), hue(name));
    assert.ok(hue(name) >= 0 && hue(name) < 8, name);
  }
});

test("a status has its class, and its absence too", () => {
  assert.equal(statusClass({ status: 204 }), "2xx");
  assert.equal(statusClass({ status: 0, state: "open" }), "open");
  assert.equal(statusClass({ status: 0, state: "done" }), "none");
});
