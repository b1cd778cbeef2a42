// What a resent request has another of than the first.

import { isWhole } from "./copy.js";
import { compare, differs, shorten } from "./diff.js";
import { useExchange } from "./exchange.js";
import { duration, oneLine, plural, visible } from "./format.js";
import { lines, parse } from "./json.js";
import { html } from "./vendor/htm-preact-standalone.module.js";

const SIGNS = { same: " ", gone: "−", new: "+" };
// What is another each time says nothing.
const ALWAYS_DIFFERENT =
  /^(date|server-timing|x-request-id|x-runtime|cf-ray|age|etag|ratelimit|x-ratelimit-.*|set-cookie|report-to|nel)$/i;

function bodyLines(body) {
  if (body.kind !== "text") return null;
  const tree = parse(body.text, !isWhole(body));
  return tree ? lines(tree) : body.text.split("\n");
}

const headerLines = (headers) =>
  headers.filter(([name]) => !ALWAYS_DIFFERENT.test(name)).map(([name, value]) => `${name.toLowerCase()}: ${value}`);

export function Difference({ first, exchange }) {
  const [before, problem] = useExchange(first, "done");
  return html`<section class="difference" aria-label="Difference to the first">
    <h3>Compared with the first</h3>
    ${problem && html`<p class="nothing">The first is no longer kept: there is nothing to compare with.</p>`}
    ${before && html`<${Compared} before=${before} after=${exchange} />`}
  </section>`;
}

function Compared({ before, after }) {
  const facts = [
    ["Target", `${before.row.method} ${before.target}`, `${after.row.method} ${after.target}`],
    ["Status", before.row.status || "none", after.row.status || (after.row.state === "open" ? "under way" : "none")],
    ["Took", duration(before.row.ms ?? 0), duration(after.row.ms ?? 0)],
    ["Attempts", before.row.attempts, after.row.attempts],
    ["Cost", before.row.cost ?? "unknown", after.row.cost ?? "unknown"],
  ].filter(([name, old, now]) => ["Status", "Took"].includes(name) || old !== now);
  const texts = [
    ["Request headers", headerLines(before.request.headers), headerLines(after.request.headers)],
    ["Request body", bodyLines(before.request.body), bodyLines(after.request.body)],
    ["Response headers", headerLines(before.response.sent_headers), headerLines(after.response.sent_headers)],
    ["Response body", bodyLines(before.response.body), bodyLines(after.response.body)],
  ];
  const equal = texts
    .filter(([, old, now]) => old && now && !differs(compare(old, now)))
    .map(([name]) => name.toLowerCase());
  return html`<table class="compared">
      <thead>
        <tr>
          <th scope="col"><span class="unseen">What</span></th>
          <th scope="col">First</th>
          <th scope="col">This one</th>
        </tr>
      </thead>
      <tbody>
        ${facts.map(
          ([name, old, now]) => html`<tr class=${String(old) === String(now) ? "same" : "changed"}>
            <th scope="row">${name}</th>
            <td><bdi>${oneLine(String(old))}</bdi></td>
            <td><bdi>${oneLine(String(now))}</bdi></td>
          </tr>`,
        )}
      </tbody>
    </table>
    ${texts.map(([name, old, now]) => html`<${Text} name=${name} old=${old} now=${now} />`)}
    ${equal.length > 0 && html`<p class="equal">Equal: ${equal.join(", ")}</p>`}`;
}

function Text({ name, old, now }) {
  if (old === null && now === null) return null;
  if (old === null || now === null) {
    const one = old === null ? "this one" : "the first";
    return html`<p class="nothing">${name}: only ${one} has a text that was recorded.</p>`;
  }
  const compared = compare(old, now);
  if (!differs(compared)) return null;
  const changes = compared.filter(([kind]) => kind !== "same").length;
  return html`<details open>
    <summary>${name}: ${plural(changes, "line")} differ${changes === 1 ? "s" : ""}</summary>
    <pre class="diff" tabindex="0" aria-label=${`${name}, differences`}>
      ${shorten(compared).map(([kind, text]) =>
        kind === "skipped"
          ? html`<span class="skipped">${`  ⋯ ${plural(text, "equal line")}\n`}</span>`
          : html`<span class=${kind}>${`${SIGNS[kind]} ${visible(text)}\n`}</span>`,
      )}
    </pre>
  </details>`;
}
