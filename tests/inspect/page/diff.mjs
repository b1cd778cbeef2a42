import assert from "node:assert/strict";
import { test } from "node:test";

import { compare, differs, headerChanges, shorten } from "../../../slproxy/inspect/page/diff.js";

const sides = (lines) => [
  lines.filter(([kind]) => kind !== "new").map(([, text]) => text),
  lines.filter(([kind]) => kind !== "gone").map(([, text]) => text),
];
const changes = (lines) => lines.filter(([kind]) => kind !== "same").length;

test("both sides can be read off a difference, and it is the shortest", () => {
  // The witness: the longest common subsequence by the textbook's table.
  const longest = (one, other) => {
    const table = Array.from({ length: one.length + 1 }, () => new Array(other.length + 1).fill(0));
    for (let i = one.length - 1; i >= 0; i -= 1) {
      for (let j = other.length - 1; j >= 0; j -= 1) {
        table[i][j] = one[i] === other[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
      }
    }
    return table[0][0];
  };
  let seed = 3;
  const random = (below) => (seed = (seed * 48271) % 2147483647) % below;
  for (let round = 0; round < 500; round += 1) {
    const one = Array.from({ length: random(14) }, () => "abc"[random(3)]);
    const other = Array.from({ length: random(14) }, () => "abc"[random(3)]);
    const lines = compare(one, other);
    assert.deepEqual(sides(lines), [one, other]);
    assert.equal(changes(lines), one.length + other.length - 2 * longest(one, other));
  }
});

test("equal lists do not differ", () => {
  assert.equal(differs(compare(["a", "b"], ["a", "b"])), false);
  assert.equal(differs(compare([], [])), false);
  assert.equal(differs(compare(["a"], [])), true);
});

test("texts that have nothing in common are told as one block, quickly", () => {
  const one = Array.from({ length: 5000 }, (_, at) => `a${at}`);
  const other = Array.from({ length: 5000 }, (_, at) => `b${at}`);
  const began = performance.now();
  assert.deepEqual(sides(compare(one, other)), [one, other]);
  assert.ok(performance.now() - began < 1000);
});

test("what is equal between two changes is left out, and counted", () => {
  const lines = compare([..."abcdefghij"], [..."Xbcdefghij"]);
  assert.deepEqual(shorten(lines), [["gone", "a"], ["new", "X"], ["same", "b"], ["same", "c"], ["skipped", 7]]);
});

test("headers are told as they were passed on, left out and added", () => {
  const came = [["Host", "localhost"], ["Accept", "*/*"], ["X-A", "1"], ["X-A", "1"]];
  const went = [["accept", "*/*"], ["X-A", "1"], ["Host", "api.salesloft.com"], ["Via", "1.1 slproxy"]];
  assert.deepEqual(headerChanges(came, went), [
    ["gone", "Host", "localhost"],
    ["new", "Host", "api.salesloft.com"],
    ["same", "Accept", "*/*"],
    ["same", "X-A", "1"],
    ["gone", "X-A", "1"],
    ["new", "Via", "1.1 slproxy"],
  ]);
});

test("a credential is never the one that came, though both are masked", () => {
  const masked = ["Authorization", "Bearer •••"];
  assert.deepEqual(headerChanges([masked], [masked]), [["gone", ...masked], ["new", ...masked]]);
});
