// A request as a command that sends it again, through the proxy: what is copied holds nothing secret. Pure.

/** What stands in the place of a credential, in the headers that the proxy tells. */
export const MASK = "•••";

export const KEY_VARIABLE = "SLPROXY_KEY";

// What belongs to a connection, to the first client's program or to one page of a browser. `Accept-Encoding` goes since
// each program says for itself what it can unpack.
const LEFT_OUT = new Set(
  `host connection keep-alive proxy-connection te trailer transfer-encoding upgrade expect content-length
  accept-encoding user-agent authorization cookie x-slproxy-key proxy-authorization x-request-id traceparent tracestate
  via origin referer forwarded x-real-ip priority dnt upgrade-insecure-requests`.split(/\s+/),
);
const LEFT_OUT_PREFIX = /^(sec-|x-forwarded-)/;

/** Whether nothing is missing of what was kept of a body. */
export function isWhole(body) {
  return body.kind !== "unrecorded" && body.kept >= body.size && !body.cut;
}

/** A target less the parameters of its query that hold a credential. */
export function withoutCredentials(target) {
  if (!target.includes(MASK)) return target;
  const [path, ...query] = target.split("?");
  const kept = query.join("?").split("&").filter((pair) => !pair.includes(MASK));
  return kept.length > 0 ? `${path}?${kept.join("&")}` : path;
}

/** The parts of a command, from an exchange as the proxy tells it and the proxy's own origin. */
export function parts(exchange, origin) {
  const { method } = exchange.row;
  const { headers, body } = exchange.request;
  const text = body.kind === "text" ? body.text : null;
  const whole = isWhole(body);
  const kept = headers.filter(([name]) => {
    const lower = name.toLowerCase();
    // A body is told as its text, unpacked.
    if (lower === "content-encoding") return text === null;
    return !LEFT_OUT.has(lower) && !LEFT_OUT_PREFIX.test(lower);
  });
  return {
    method,
    url: origin + withoutCredentials(exchange.target),
    headers: kept.filter(([, value]) => !value.includes(MASK)),
    text: whole ? text : null,
    base64: whole && body.kind === "binary" ? body.base64 : null,
    missing: !whole,
    needsKey: headers.some(([name, value]) => value.includes(MASK) && !/^(proxy-authorization|cookie)$/i.test(name)),
  };
}

const MISSING = "the body was not recorded: put it into body.dat";

/** A word for a POSIX shell; with control characters in it for bash and zsh. */
export function shellWord(text) {
  if (/^[\w@%+=:,./-]+$/.test(text)) return text;
  if (/[\u0000-\u0008\u000b-\u001f\u007f]/.test(text)) {
    const escaped = text.replace(/[\u0000-\u001f\u007f\\']/g, (each) => {
      if (each === "\\" || each === "'") return `\\${each}`;
      return `\\${each.charCodeAt(0).toString(8).padStart(3, "0")}`;
    });
    return `$'${escaped}'`;
  }
  return `'${text.replace(/'/g, "'\\''")}'`;
}

const hasContentType = (headers) => headers.some(([name]) => name.toLowerCase() === "content-type");
const joined = (pieces) => pieces.join(" \\\n  ");
// No argument of a program can hold a NUL.
const packed = (part) => (part.text?.includes("\0") ? base64Of(part.text) : part.base64);
const hasBody = (part) => part.missing || Boolean(part.text) || Boolean(part.base64);

function base64Of(text) {
  return btoa(Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join(""));
}

function fromPipe(part, command) {
  return packed(part) ? `printf %s ${packed(part)} | base64 -d |\n${command}` : command;
}

export function curl(part) {
  const body = hasBody(part);
  const first = ["curl", "--compressed"];
  if (part.method === "HEAD") first.push("--head");
  else if (part.method !== (body ? "POST" : "GET")) first.push(`-X ${part.method}`);
  // Brackets would stand for several URLs, and dots would be resolved.
  if (/[[\]{}]/.test(part.url)) first.push("--globoff");
  if (/\/\./.test(part.url)) first.push("--path-as-is");
  const pieces = [[...first, shellWord(part.url)].join(" ")];
  for (const [name, value] of part.headers)
    pieces.push(`-H ${shellWord(value === "" ? `${name};` : `${name}: ${value}`)}`);
  if (part.needsKey) pieces.push(`-H "X-Slproxy-Key: $${KEY_VARIABLE}"`);
  if (body && !hasContentType(part.headers)) pieces.push("-H 'Content-Type:'");
  if (part.missing) pieces.push("--data-binary @body.dat");
  else if (packed(part)) pieces.push("--data-binary @-");
  else if (body) pieces.push(`--data-raw ${shellWord(part.text)}`);
  const command = fromPipe(part, joined(pieces));
  return part.missing ? `# ${MISSING}\n${command}` : command;
}

export function httpie(part) {
  const first = ["http", ...(packed(part) || part.missing ? [] : ["--ignore-stdin"])];
  if (/\/\./.test(part.url)) first.push("--path-as-is");
  const pieces = [[...first, part.method, shellWord(part.url)].join(" ")];
  // Behind the name, `=` and `@` would begin another kind of item.
  for (const [name, value] of part.headers) {
    pieces.push(shellWord(value === "" ? `${name};` : `${name}:${value.replace(/^[=@]/, "\\$&")}`));
  }
  if (part.needsKey) pieces.push(`"X-Slproxy-Key:$${KEY_VARIABLE}"`);
  if (hasBody(part) && !hasContentType(part.headers)) pieces.push("Content-Type:");
  if (part.text && !packed(part)) pieces.push(`--raw ${shellWord(part.text)}`);
  const command = fromPipe(part, joined(pieces));
  return part.missing ? `# ${MISSING}\n${command} < body.dat` : command;
}

/** A string literal of Python and of JavaScript alike, in printable ASCII. */
function literal(text) {
  return JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** The same for Python, which knows no surrogates. */
function pythonLiteral(text) {
  return literal(text).replace(/\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})/g, (_, high, low) => {
    const code = String.fromCharCode(parseInt(high, 16), parseInt(low, 16)).codePointAt(0);
    return `\\U${code.toString(16).padStart(8, "0")}`;
  });
}

/** One value a name, as a dict has it: several of one name are a list in HTTP, too. */
function merged(headers) {
  const found = new Map();
  for (const [name, value] of headers) {
    const known = [...found.keys()].find((key) => key.toLowerCase() === name.toLowerCase()) ?? name;
    found.set(known, found.has(known) ? `${found.get(known)}, ${value}` : value);
  }
  return [...found];
}

export function requests(part) {
  const lines = merged(part.headers).map(([name, value]) => `        ${pythonLiteral(name)}: ${pythonLiteral(value)},`);
  if (part.needsKey) lines.push(`        "X-Slproxy-Key": os.environ.get("${KEY_VARIABLE}", ""),`);
  const imports = ["requests"];
  if (part.needsKey) imports.unshift("os");
  if (part.base64) imports.unshift("base64");
  let data = "";
  if (part.missing) data = `    data=open("body.dat", "rb"),  # ${MISSING}\n`;
  else if (part.base64) data = `    data=base64.b64decode("${part.base64}"),\n`;
  else if (part.text) data = `    data=${pythonLiteral(part.text)}.encode(),\n`;
  const headers = lines.length ? `    headers={\n${lines.join("\n")}\n    },\n` : "";
  return [
    imports.map((name) => `import ${name}`).join("\n"),
    "",
    `response = requests.request(\n    "${part.method}",\n    ${pythonLiteral(part.url)},\n${headers}${data})`,
    "print(response.status_code, response.text)",
  ].join("\n");
}

export function fetchCall(part) {
  const lines = part.headers.map(([name, value]) => `    [${literal(name)}, ${literal(value)}],`);
  if (part.needsKey) lines.push(`    ["X-Slproxy-Key", globalThis.process?.env.${KEY_VARIABLE} ?? ""],`);
  const options = [];
  if (part.method !== "GET") options.push(`  method: "${part.method}",`);
  if (lines.length) options.push(`  headers: [\n${lines.join("\n")}\n  ],`);
  if (part.missing) options.push(`  body: "",  // ${MISSING}`);
  else if (part.base64) options.push(`  body: Uint8Array.from(atob("${part.base64}"), (each) => each.charCodeAt(0)),`);
  else if (part.text) {
    // Of a text, fetch would say what type it is.
    const body = hasContentType(part.headers) ? literal(part.text) : `new TextEncoder().encode(${literal(part.text)})`;
    options.push(`  body: ${body},`);
  }
  const more = options.length ? `, {\n${options.join("\n")}\n}` : "";
  return [
    `const response = await fetch(${literal(part.url)}${more});`,
    "console.log(response.status, await response.text());",
  ].join("\n");
}

export const FORMATS = [
  ["curl", "curl", curl],
  ["httpie", "HTTPie", httpie],
  ["requests", "Python requests", requests],
  ["fetch", "JavaScript fetch", fetchCall],
];
