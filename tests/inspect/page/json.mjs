import assert from "node:assert/strict";
import { test } from "node:test";

import { lines, marked, parse, search } from "../../../slproxy/inspect/page/json.js";

const value = (node) => {
  if (node.kind === "object") return Object.fromEntries(node.entries.map(([name, each]) => [name, value(each)]));
  if (node.kind === "array") return node.entries.map(([, each]) => value(each));
  return node.kind === "string" ? node.text : JSON.parse(node.text);
};

const VALID = [
  "{}", "[]", '""', "0", "-1.5e+3", "true", "null", ' { "a" : [ 1 , "x\\n\\u00e9\\"" , { } ] , "" : null } \n', '"\\ud83d\\ude00"', '[[],[[]]]',
];
for (const text of VALID) test(`JSON is read as JSON.parse reads it: ${text}`, () => assert.deepEqual(value(parse(text)), JSON.parse(text)));

const BROKEN = ["", " ", "{", "[1,]", "{'a':1}", '{"a" 1}', "[1 2]", "tru", '"a', "<html>", "{}{}", '{"a":}', "nul", "\u00a0{}", '"\n"'];
for (const text of BROKEN) test(`what is no JSON is no tree: ${JSON.stringify(text)}`, () => assert.equal(parse(text), null));

test("numbers stay as they were written, and a name that comes twice is seen twice", () => {
  const node = parse('{"id": 12345678901234567890, "id": 1.0}');
  assert.deepEqual(node.entries.map(([name, each]) => [name, each.text]), [["id", "12345678901234567890"], ["id", "1.0"]]);
});

test("__proto__ is a name like any other", () => {
  assert.deepEqual(parse('{"__proto__": {"a": 1}}').entries[0][0], "__proto__");
  assert.equal({}.a, undefined);
});

test("of a body that was cut anywhere there is a tree as far as it goes", () => {
  const text = '{"data": [{"id": 1, "name": "J\\u00e9\\n"}, {"id": -2.5, "on": true, "no": null}], "m": {}}';
  for (let end = 1; end < text.length; end += 1) {
    const node = parse(text.slice(0, end), true);
    assert.ok(node?.cut, text.slice(0, end));
    assert.equal(parse(text.slice(0, end)), null);
  }
  const first = parse(text.slice(0, 36), true).entries[0][1].entries[0][1];
  assert.deepEqual(first.entries.map(([name, node]) => [name, node.text]), [["id", "1"], ["name", "Jé"]]);
});

test("what is nested too deep is shown as text, without a broken page", () => {
  assert.equal(parse("[".repeat(60_000), true), null);
  assert.equal(parse("[".repeat(5000) + "]".repeat(5000)), null);
});

test("a search finds names and values in their order, and what is around them", () => {
  const root = parse('{"people": [{"email": "jane@x"}, {"email": "joe@x", "n": 41}]}');
  const [{ node, around }, ...more] = search(root, "JOE");
  assert.equal(node.text, "joe@x");
  assert.deepEqual([around.length, around[0] === root, more.length], [3, true, 0]);
  assert.equal(search(root, "email").length, 2);
  assert.equal(search(root, "41").length, 1);
  assert.equal(search(root, "").length, 0);
});

test("what was found is marked, in whatever case", () => {
  assert.deepEqual(marked("Jane jane", "jane"), [["Jane", true], [" ", false], ["jane", true]]);
  assert.deepEqual(marked("İİ jane", "jane"), [["İİ jane", true]]);
  assert.deepEqual(marked("abc", ""), [["abc", false]]);
});

test("a tree is compared line by line", () => {
  assert.deepEqual(lines(parse('{"a":[1,"x"],"b":{},"c":null}')), ["{", '  "a": [', "    1,", '    "x"', "  ],", '  "b": {},', '  "c": null', "}"]);
});
