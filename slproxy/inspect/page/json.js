// JSON as a tree that can be looked through. Pure.
//
// A reader of its own: numbers stay as they were written, a name that comes twice is seen twice, and of a body that was
// cut there is a tree as far as it goes.

const DEEPEST = 200;
const SCALAR = /(?:-?\d[\d.eE+-]*|true|false|null)/y;
const SPACE = /[ \t\n\r]*/y;
const STRING = /"(?:[^"\\\u0000-\u001f]|\\.)*"/y;

class NotJson extends Error {}

/**
 * Read a text: a node, or null if it is not JSON. With `cut`, the text may end anywhere.
 *
 * A node is {kind: "object" | "array" | "string" | "number" | "word", entries: [[name, node]…], text, cut}. In an array
 * the names are the places; `cut` says that the text ended within it.
 */
export function parse(text, cut = false) {
  let at = 0;
  const space = () => {
    SPACE.lastIndex = at;
    SPACE.test(text);
    at = SPACE.lastIndex;
  };
  const take = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found) at = pattern.lastIndex;
    return found?.[0];
  };
  const ended = () => {
    if (at < text.length || !cut) throw new NotJson();
    return true;
  };

  function string() {
    const whole = take(STRING);
    if (whole !== undefined) return { kind: "string", text: JSON.parse(whole) };
    // The end of the text is within it, perhaps within an escape.
    const rest = text.slice(at).replace(/\\(u[0-9a-fA-F]{0,3})?$/, "");
    at = text.length;
    ended();
    try {
      return { kind: "string", text: JSON.parse(`${rest}"`), cut: true };
    } catch {
      throw new NotJson();
    }
  }

  function inside(kind, close, depth) {
    const node = { kind, entries: [] };
    at += 1;
    space();
    if (text[at] === close) {
      at += 1;
      return node;
    }
    for (;;) {
      space();
      let name = node.entries.length;
      if (at >= text.length) return { ...node, cut: ended() };
      if (kind === "object") {
        if (text[at] !== '"') throw new NotJson();
        const read = string();
        name = read.text;
        space();
        if (read.cut || at >= text.length) return { ...node, cut: ended() };
        if (text[at] !== ":") throw new NotJson();
        at += 1;
        space();
        if (at >= text.length) return { ...node, cut: ended() };
      }
      const inner = value(depth + 1);
      node.entries.push([name, inner]);
      space();
      if (inner.cut || at >= text.length) return { ...node, cut: ended() };
      if (text[at] === close) {
        at += 1;
        return node;
      }
      if (text[at] !== ",") throw new NotJson();
      at += 1;
    }
  }

  function value(depth) {
    if (depth > DEEPEST) throw new NotJson();
    if (text[at] === "{") return inside("object", "}", depth);
    if (text[at] === "[") return inside("array", "]", depth);
    if (text[at] === '"') return string();
    const scalar = take(SCALAR);
    if (scalar !== undefined) return { kind: /^[tfn]/.test(scalar) ? "word" : "number", text: scalar };
    if (cut && /^(t(r(ue?)?)?|f(a(l(se?)?)?)?|n(u(ll?)?)?|-)$/.test(text.slice(at))) {
      const rest = text.slice(at);
      at = text.length;
      return { kind: "word", text: rest, cut: true };
    }
    throw new NotJson();
  }

  try {
    space();
    if (at >= text.length) return null;
    const node = value(0);
    space();
    return at < text.length ? null : node;
  } catch (error) {
    if (error instanceof NotJson) return null;
    throw error;
  }
}

/** What a search finds, in order: [{node, around}…], where `around` are the nodes that it stands in. */
export function search(root, needle) {
  const wanted = needle.toLowerCase();
  const matches = [];
  function look(name, node, around) {
    const own = `${typeof name === "string" ? name : ""}`.toLowerCase().includes(wanted);
    if (own || (node.text ?? "").toLowerCase().includes(wanted)) {
      matches.push({ node, around });
    }
    const deeper = [...around, node];
    for (const [inner, value] of node.entries ?? []) look(inner, value, deeper);
  }
  if (wanted !== "") look("", root, []);
  return matches;
}

/** The lines of a node as JSON that is indented, for comparing. */
export function lines(node, indent = "", name = "", comma = "") {
  const head = name === "" ? indent : `${indent}${name}: `;
  if (!node.entries) {
    const text = node.kind === "string" ? JSON.stringify(node.text) : node.text;
    return [`${head}${text}${comma}`];
  }
  const [open, close] = node.kind === "object" ? "{}" : "[]";
  if (node.entries.length === 0) return [`${head}${open}${close}${comma}`];
  const last = node.entries.length - 1;
  const inner = node.entries.flatMap(([key, value], at) =>
    lines(value, `${indent}  `, node.kind === "object" ? JSON.stringify(key) : "", at < last ? "," : ""),
  );
  return [`${head}${open}`, ...inner, `${indent}${close}${comma}`];
}

/** Split a text where the needle is: [[text, found]…]. */
export function marked(text, needle) {
  const wanted = needle.toLowerCase();
  if (wanted === "") return [[text, false]];
  const lower = text.toLowerCase();
  // Lower case may be longer, as of "İ": then places in one are none in the other.
  if (lower.length !== text.length) return [[text, lower.includes(wanted)]];
  const pieces = [];
  let at = 0;
  for (let found = lower.indexOf(wanted); found >= 0; found = lower.indexOf(wanted, at)) {
    if (found > at) pieces.push([text.slice(at, found), false]);
    pieces.push([text.slice(found, found + wanted.length), true]);
    at = found + wanted.length;
  }
  if (at < text.length) pieces.push([text.slice(at), false]);
  return pieces;
}
