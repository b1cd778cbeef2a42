import assert from "node:assert/strict";
import { test } from "node:test";

import { curl, fetchCall, FORMATS, httpie, parts, requests, shellWord, withoutCredentials } from "../../../slproxy/inspect/page/copy.js";

const NONE = { kind: "none", size: 0, kept: 0 };
const exchange = (more = {}, request = {}) => ({
  row: { method: "GET", ...more },
  target: "/v2/people?per_page=2",
  request: { headers: [["Host", "localhost:8642"]], body: NONE, ...request },
});
const made = (form, ...given) => form(parts(exchange(...given), "http://localhost:8642"));

test("a plain GET is as short as a person would write it", () => {
  assert.equal(made(curl), "curl --compressed 'http://localhost:8642/v2/people?per_page=2'");
  assert.equal(made(httpie), "http --ignore-stdin GET 'http://localhost:8642/v2/people?per_page=2'");
  assert.equal(
    made(requests),
    'import requests\n\nresponse = requests.request(\n    "GET",\n    "http://localhost:8642/v2/people?per_page=2",\n)\nprint(response.status_code, response.text)',
  );
  assert.equal(
    made(fetchCall),
    'const response = await fetch("http://localhost:8642/v2/people?per_page=2");\nconsole.log(response.status, await response.text());',
  );
});

test("no credential is copied, nor what stands in its place", () => {
  const headers = [
    ["Authorization", "Bearer •••"], ["X-Slproxy-Key", "•••"], ["Cookie", "•••"], ["Proxy-Authorization", "•••"], ["X-Other", "•••"],
    ["X-Kept", "1"],
  ];
  for (const [name, , make] of FORMATS) {
    const text = made(make, {}, { headers });
    assert.doesNotMatch(text, /•|Bearer|Cookie|X-Other/, name);
    assert.match(text, /SLPROXY_KEY/, name);
    assert.match(text, /X-Kept/, name);
  }
});

test("a credential in the query is left out with its name", () => {
  const rows = [
    ["/v2/people?a=1&api_key=•••&b=2", "/v2/people?a=1&b=2"], ["/v2/people?token=•••", "/v2/people"],
    ["/v2/people?&&q=a?b&&", "/v2/people?&&q=a?b&&"], ["/v2/people?", "/v2/people?"], ["/v2/people", "/v2/people"],
  ];
  for (const [target, kept] of rows) {
    assert.equal(withoutCredentials(target), kept);
    assert.equal(parts({ ...exchange(), target }, "http://x").url, `http://x${kept}`);
  }
});

test("without a credential none is asked for", () => {
  for (const [name, , make] of FORMATS) assert.doesNotMatch(made(make), /SLPROXY_KEY/, name);
});

test("what belongs to a connection or to the first client is left out", () => {
  const headers = ["Host", "Connection", "Content-Length", "User-Agent", "Accept-Encoding", "Sec-Fetch-Mode", "X-Forwarded-For", "traceparent"];
  for (const [, , make] of FORMATS) {
    const text = made(make, {}, { headers: headers.map((name) => [name, "leftout"]) });
    assert.doesNotMatch(text, /leftout/);
  }
});

test("a body that was not recorded as a whole is never half copied", () => {
  const cut = { kind: "text", text: '{"half', size: 100, kept: 6 };
  for (const body of [cut, { kind: "unrecorded", size: 10, kept: 0 }]) {
    for (const [name, , make] of FORMATS) {
      const text = made(make, { method: "POST" }, { headers: [], body });
      assert.match(text, /the body was not recorded: put it into body\.dat/, name);
      assert.doesNotMatch(text, /half/, name);
    }
  }
});

test("a body that was unpacked is not called packed", () => {
  const body = { kind: "text", text: "{}", size: 2, kept: 2 };
  for (const [, , make] of FORMATS) {
    const text = made(make, { method: "POST" }, { headers: [["Content-Encoding", "gzip"], ["Content-Type", "application/json"]], body });
    assert.doesNotMatch(text, /gzip/);
  }
});

test("words of a shell are quoted where they must be", () => {
  const rows = [
    ["/v2/people.json", "/v2/people.json"], ["a b", "'a b'"], ["it's", "'it'\\''s'"], ["", "''"], ["$HOME `id` !!", "'$HOME `id` !!'"],
    ["a\nb", "'a\nb'"], ["a\u0001'\\", "$'a\\001\\'\\\\'"], ["~", "'~'"], ["-n", "-n"], ["é", "'é'"],
  ];
  for (const [given, quoted] of rows) assert.equal(shellWord(given), quoted);
});
