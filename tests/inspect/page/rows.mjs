import assert from "node:assert/strict";
import { test } from "node:test";

import { Rows } from "../../../slproxy/inspect/page/rows.js";

const row = (n, more = {}) => ({ n, state: "done", ...more });
const numbers = (rows) => rows.newestFirst(() => true).map(({ n }) => n);

test("rows are newest first, in whatever order they come", () => {
  const rows = new Rows();
  rows.take([row(1), row(3)]);
  rows.take([row(2), row(5), row(4)]);
  assert.deepEqual(numbers(rows), [5, 4, 3, 2, 1]);
});

test("a row that comes again takes the place of the first", () => {
  const rows = new Rows();
  rows.take([row(1, { state: "open" }), row(2)]);
  rows.take([row(1)]);
  assert.deepEqual(numbers(rows), [2, 1]);
  assert.equal(rows.get(1).state, "done");
});

test("past the limit the oldest go, but what is pinned", () => {
  const rows = new Rows(3);
  rows.take([row(1, { pinned: true }), row(2), row(3), row(4), row(5)]);
  assert.deepEqual(numbers(rows), [5, 4, 1]);
  assert.equal(rows.get(2), undefined);
});

test("cleared, only what is pinned stays", () => {
  const rows = new Rows();
  rows.take([row(1), row(2, { pinned: true })]);
  rows.clear();
  assert.deepEqual(numbers(rows), [2]);
  assert.equal(rows.get(1), undefined);
});

test("rows that did not come stand where they are missing", () => {
  const rows = new Rows();
  rows.take([row(1)]);
  rows.drop(12, 0);
  rows.take([row(14)]);
  assert.deepEqual(rows.newestFirst(() => true).map(({ kind, count }) => [kind, count]), [[undefined, undefined], ["dropped", 12], [undefined, undefined]]);
  assert.equal(rows.dropped, 12);
});
