// One exchange: what came, what went, each attempt, and what can be done with it.

import { Bar, Parts } from "./bar.js";
import { Body } from "./body.js";
import { Difference } from "./difference.js";
import { headerChanges } from "./diff.js";
import { useExchange } from "./exchange.js";
import { ago, bytes, clock, duration, oneLine, plural, statusClass } from "./format.js";
import { html, useEffect, useMemo, useRef } from "./vendor/htm-preact-standalone.module.js";

export function Details({ model }) {
  const n = model.selected;
  const [exchange, problem] = useExchange(n, model.row?.state);
  const row = model.row ?? exchange?.row;
  const box = useRef(null);
  useEffect(() => {
    box.current.scrollTop = 0;
    // On a small screen the details take the place of the list.
    if (!document.getElementById("list").offsetParent) document.getElementById("details").focus();
  }, [n]);
  // However often the list is drawn, these are drawn once: a body may be long.
  const recording = model.bodies.on;
  const long = useMemo(
    () => exchange?.request && html`<${Long} exchange=${exchange} model=${model} />`,
    [exchange, recording],
  );
  return html`<section class="details" id="details" tabindex="-1" aria-label="Details of the chosen request">
    <${Head} model=${model} row=${row} exchange=${exchange} />
    <div class="sections" ref=${box} tabindex="0" role="region" aria-label="Details">
      ${row && row.kind !== "request" && html`<${Event} row=${row} />`}
      ${problem && html`<${Missing} problem=${problem} row=${row} />`}
      ${!exchange && !problem && html`<p class="nothing" role="status">Loading …</p>`}
      ${exchange?.request && html`<${Course} row=${row} exchange=${exchange} />`}
      ${long}
    </div>
  </section>`;
}

function Long({ exchange, model }) {
  const first = exchange.row.resent;
  return html`${first && html`<${Difference} first=${first} exchange=${exchange} />`}
    <${Sides} exchange=${exchange} model=${model} />`;
}

function Event({ row }) {
  const when = `${clock(row.at)[0]}, ${ago(Date.now() / 1000 - row.at)}`;
  return html`<p class="nothing">${when}: ${oneLine(row.note || row.kind)}</p>`;
}

const GONE = "The details are no longer kept: only those of the last requests are. Pin what is to stay.";

function Missing({ problem, row }) {
  if (row && row.kind !== "request") return null;
  const text = problem.status === 404 ? GONE : `${problem.message} ${problem.hint}`;
  return html`<p class="nothing" role="status">${text}</p>`;
}

function Head({ model, row, exchange }) {
  const request = row?.kind === "request";
  const unknown = !exchange || !request;
  const edit = () => model.ask({ name: "edit", exchange });
  const copy = () => model.ask({ name: "copy", exchange });
  return html`<header class="details-head">
    <h2>
      ${request ? html`<${Line} row=${row} target=${exchange?.target ?? row.path} />` : (row?.kind ?? "Details")}
    </h2>
    <div class="actions">
      <button onClick=${() => model.resend(row)} disabled=${!request} title="Send it again (r)">Resend</button>
      <button onClick=${edit} disabled=${unknown} title="Change it, then send it (e)">Edit…</button>
      <button onClick=${copy} disabled=${unknown} title="Copy it as a command (c)">Copy as…</button>
      <button
        onClick=${() => model.pin(row)}
        aria-pressed=${Boolean(row?.pinned)}
        disabled=${!row}
        title="Keep it when the list is cleared (p)"
      >
        Pin
      </button>
      <button class="quiet close" onClick=${() => model.close()} aria-label="Close the details" title="Close (Esc)">
        ✕
      </button>
    </div>
  </header>`;
}

function Line({ row, target }) {
  const status = row.status || (row.state === "open" ? "under way" : "no answer");
  return html`<span class="method">${row.method}</span>
    <bdi class="target">${oneLine(target)}</bdi>
    <span class=${`status s${statusClass(row)}`}>${status}</span>`;
}

function Course({ row, exchange }) {
  const began = clock(row.at);
  const facts = [
    [`${began[0]}${began[1]}`, ago(Date.now() / 1000 - row.at)],
    row.client && ["client", oneLine(row.client)],
    row.id && ["id", oneLine(row.id)],
    row.operation && row.operation !== row.path && ["operation", oneLine(row.operation)],
    ["attempts", exchange.attempts.length],
    row.cost !== null && row.cost !== undefined && ["cost", row.cost],
    ["in", bytes(row.in ?? 0)],
    ["out", bytes(row.out ?? 0)],
    row.error && ["error", row.error],
    row.ended && ["ended", row.ended],
  ].filter(Boolean);
  const steps = [
    ...exchange.waits.map((wait) => ({ ...wait, wait: true })),
    ...exchange.attempts.map((attempt, at) => ({ ...attempt, number: at + 1 })),
  ].sort((one, other) => one.began_ms - other.began_ms);
  const total = Math.max(row.ms ?? 0, ...steps.map((step) => step.began_ms + (step.ms ?? 0)), 1);
  const why = exchange.not_retried || row.not_retried;
  return html`<section class="course" aria-label="Course">
    <dl class="facts-line">
      ${facts.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
    </dl>
    <div class="whole">
      <${Bar} row=${row} /> <span class="figure">${duration(row.ms ?? 0)}</span> <${Parts} row=${row} />
    </div>
    ${(steps.length > 1 || steps[0]?.fault) && html`<${Steps} steps=${steps} total=${total} row=${row} />`}
    ${why && html`<p class="why-not"><b>Not repeated:</b> ${oneLine(why)}</p>`}
  </section>`;
}

function Steps({ steps, total, row }) {
  return html`<table>
    <caption class="unseen">Attempts and waits, in their order</caption>
    <thead>
      <tr>
        <th scope="col">Step</th>
        <th scope="col">Outcome</th>
        <th scope="col">Cost</th>
        <th scope="col" class="span">When</th>
        <th scope="col">Took</th>
      </tr>
    </thead>
    <tbody>${steps.map((step) => html`<${Step} step=${step} total=${total} row=${row} />`)}</tbody>
  </table>`;
}

const WAITS = {
  "rate limit": "Waited for the rate limit",
  connection: "Waited for a connection",
  backoff: "Backed off",
};

function Step({ step, total, row }) {
  const left = Math.min((100 * step.began_ms) / total, 99.5);
  const width = Math.max((100 * (step.ms ?? total - step.began_ms)) / total, 0.5);
  const place = { marginLeft: `${left}%`, width: `${width}%` };
  const outcome = step.status || step.fault || (row.state === "open" && !step.ms ? "under way" : "given up");
  const status = `status s${statusClass({ status: step.status, state: "done" })}`;
  return html`<tr>
    <th scope="row">
      ${step.wait ? (WAITS[step.reason] ?? step.reason) : `Attempt ${step.number}`}
      ${step.why && html` <small>after ${oneLine(String(step.why))}</small>`}
    </th>
    <td class=${step.wait ? "" : status}>${step.wait ? "" : outcome}</td>
    <td>${step.cost ?? ""}</td>
    <td class="span">
      <span class="track"><i class=${`part ${step.wait ? "wait" : "upstream"}`} style=${place} /></span>
    </td>
    <td class="figure">${step.ms === null || step.ms === undefined ? "" : duration(step.ms)}</td>
  </tr>`;
}

function Sides({ model, exchange }) {
  const { row, request, response } = exchange;
  const own = Boolean(row.error);
  const status = `${response.status} ${oneLine(response.reason ?? "")}`;
  return html`<div class="sides">
    <section class="side" aria-label="Request">
      <h3>Request</h3>
      <${Headers}
        came=${request.headers}
        went=${request.sent_headers}
        gone="not sent on"
        unsent=${exchange.attempts.length === 0}
      />
      <${Body} key=${`q${row.n}`} body=${request.body} label="request" model=${model} />
    </section>
    <section class="side" aria-label="Response">
      <h3>
        Response
        ${response.status ? html` <span class=${`status s${statusClass(row)}`}>${status}</span>` : ""}
        ${own ? html` <small>by slproxy itself</small>` : ""}
      </h3>
      <${Headers}
        came=${own ? response.sent_headers : response.headers}
        went=${response.sent_headers}
        gone="not passed on"
      />
      <${Body} key=${`a${row.n}`} body=${response.body} label="response" model=${model} />
    </section>
  </div>`;
}

// Folded or not, for all that is looked at.
let folded = false;

function Headers({ came, went, gone, unsent }) {
  const changes = unsent ? came.map((header) => ["same", ...header]) : headerChanges(came, went);
  if (changes.length === 0) return html`<p class="nothing">No headers.</p>`;
  const changed = changes.filter(([kind]) => kind !== "same").length;
  let told = unsent ? "not sent to SalesLoft" : "passed on as they came";
  if (changed > 0) told = `${changed} changed by slproxy`;
  const tag = { gone, new: "added" };
  return html`<details class="headers" open=${!folded} onToggle=${(event) => (folded = !event.target.open)}>
    <summary>${plural(came.length, "header")}, ${told}</summary>
    <table>
      <tbody>
        ${changes.map(
          ([kind, name, value]) => html`<tr class=${kind}>
            <th scope="row">${oneLine(name)}</th>
            <td><bdi>${oneLine(value)}</bdi>${kind !== "same" && html`<span class="tag">${tag[kind]}</span>`}</td>
          </tr>`,
        )}
      </tbody>
    </table>
  </details>`;
}
