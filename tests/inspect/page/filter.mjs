import assert from "node:assert/strict";
import { test } from "node:test";

import { compile, GRAMMAR, has, terms, toggle } from "../../../slproxy/inspect/page/filter.js";

const ROW = {
  n: 7, kind: "request", state: "done", id: "0af7651916cd43dd", client: "Report 2", method: "POST", path: "/v2/people",
  status: 503, attempts: 2, cost: 3, token_renewals: 0, ms: 1500, wait_ms: 1200, in: 100, out: 70_000,
  error: "", ended: "", note: "", pinned: false, resent: null,
};
const RENEWAL = { n: 8, kind: "renewal", state: "done", note: "renewed (expiry)" };
const passes = (text, row = ROW) => compile(text).test(row);

const HOLD = [
  "", "  ", "status:5xx", "status:5", "status:503", "status:>=500", "status:500-599", "status:404,5xx", "method:post",
  "method:put,post", "METHOD:POST", "client:report", 'client:"report 2"', '"report 2"', "cost:>1", "cost:3", "cost:2-3",
  "attempts:2", "attempts:>=2", "time:>1s", "time:1500", "time:1s-2s", "wait:>1s", "in:<1k", "out:>64k", "waited", "retried",
  "failed", "writes", "people", "PEOPLE", "0af76", "-status:2xx", "-method:get", "kind:request", "path:people", "id:0af",
  "status:5xx method:post client:report cost:>1 waited people",
  // What is still being written does not empty the list.
  "status:", "-", "cost:",
  // No field: text, as of a path with a colon.
  "-foo:bar",
];
for (const text of HOLD) test(`a row that it means passes: ${text}`, () => assert.equal(passes(text), true));

const DO_NOT = [
  "status:2xx", "status:none", "status:404", "method:get", "client:other", "cost:>3", "cost:1", "attempts:>2", "time:<1s",
  "wait:>2s", "renewed", "resent", "pinned", "open", "-waited", '"waited"', "kind:renewal", "foo:bar", "status:5xx nothing",
];
for (const text of DO_NOT) test(`a row that it does not mean is left out: ${text}`, () => assert.equal(passes(text), false));

test("a row without a status has none", () => {
  assert.equal(passes("status:none", { ...ROW, status: 0 }), true);
  assert.equal(passes("status:<500", { ...ROW, status: 0 }), false);
});

test("a cost that is not known is neither large nor small", () => {
  for (const text of ["cost:>0", "cost:<9", "cost:0"]) assert.equal(passes(text, { ...ROW, cost: null }), false);
});

test("rows that are no requests are found by kind and note", () => {
  for (const text of ["kind:renewal", "expiry", "kind:renewal,login"]) assert.equal(passes(text, RENEWAL), true);
  for (const text of ["status:2xx", "method:get", "cost:>0", "writes", "failed"]) assert.equal(passes(text, RENEWAL), false);
});

test("what cannot be read is said, and leaves the other terms as they are", () => {
  const { test: passing, problem } = compile("cost:many method:post");
  assert.match(problem, /cost: cannot read “many”/);
  assert.equal(passing(ROW), true);
  assert.equal(passing({ ...ROW, method: "GET" }), false);
  for (const text of ["status:abc", "time:>5h", "in:5s", "status:>"]) assert.notEqual(compile(text).problem, "", text);
});

test("a quote that is not closed ends with the text", () => {
  assert.deepEqual(terms('a "b c').map((term) => term.text), ["a", "b c"]);
});

test("a term at hand is added, and taken away again", () => {
  assert.equal(toggle("status:5xx", "failed"), "status:5xx failed");
  assert.equal(toggle("status:5xx failed", "failed"), "status:5xx");
  assert.equal(has("status:5xx failed", "failed"), true);
});

test("what the help shows is understood", () => {
  for (const [term] of GRAMMAR) assert.equal(compile(term).problem, "", term);
});

test("no text breaks it", () => {
  const pieces = ['"', "-", ":", "status:", "5xx", " ", "constructor", "__proto__:x", ">", ",", "[", "\\", "é", "toString:1"];
  let seed = 1;
  for (let round = 0; round < 3000; round += 1) {
    let text = "";
    for (let at = 0; at < 6; at += 1) {
      seed = (seed * 48271) % 2147483647;
      text += pieces[seed % pieces.length];
    }
    assert.equal(typeof compile(text).test(ROW), "boolean", text);
  }
});

test("two thousand rows are filtered within a frame", () => {
  const rows = Array.from({ length: 2000 }, (_, n) => ({ ...ROW, n, path: `/v2/people/${n}` }));
  const { test: passing } = compile("status:5xx method:post client:report cost:>1 waited people");
  const took = Array.from({ length: 20 }, () => {
    const began = performance.now();
    assert.equal(rows.filter(passing).length, 2000);
    return performance.now() - began;
  });
  assert.ok(Math.min(...took) < 16, `${took} ms`);
});
