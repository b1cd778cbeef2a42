// What stands over the list: who this is, the budget, the filter, and how the connection is.

import { has, toggle } from "./filter.js";
import { count, countdown, duration, hue, oneLine, plural } from "./format.js";
import { html } from "./vendor/htm-preact-standalone.module.js";

const STATES = { connecting: "Connecting …", live: "Live", lost: "Disconnected" };

export function Head({ model }) {
  const { about, connection } = model;
  const facts = [about?.profile !== "default" && about?.profile, about?.grant?.replace("_", " ")].filter(Boolean);
  const help = () => model.ask({ name: "help" });
  return html`<header class="top">
    <h1>slproxy<span class="unseen"> inspector</span></h1>
    <span class=${`connection ${connection.state}`} role="status"><i />${STATES[connection.state]}</span>
    <span class="about">
      ${facts.map((fact) => html`<span>${oneLine(fact)}</span>`)}
      ${about?.sandbox && html`<span class="badge">sandbox</span>`}
      ${about?.read_only && html`<span class="badge">read-only</span>`}
    </span>
    <div class="actions">
      <button onClick=${() => model.pause()} aria-pressed=${Boolean(model.paused)} title="Pause the list (Space)">
        ${model.paused ? `Resume${model.fresh ? ` · ${count(model.fresh)} new` : ""}` : "Pause"}
      </button>
      <${Record} model=${model} />
      <button onClick=${() => model.ask({ name: "har" })} title="Save as HAR (h)">HAR…</button>
      <button onClick=${() => model.clear()} title="Clear all but what is pinned (Shift+x)">Clear</button>
      <button onClick=${help} aria-label="Keys and filters" title="Keys and filters (?)">?</button>
    </div>
  </header>`;
}

function Record({ model }) {
  const { on, until } = model.bodies;
  const left = until ? countdown(until - Date.now() / 1000) : "";
  const rest = left ? html`<span class="long"> · </span>${left}` : html`<span class="short">Recording</span>`;
  const shown = on
    ? html`<i /><span class="long">Recording bodies</span>${rest}`
    : html`Record bodies<span class="long"> for 10 minutes</span>`;
  return html`<button
    onClick=${() => model.recordBodies()}
    aria-pressed=${on}
    aria-label=${on ? "Recording bodies: stop" : "Record bodies for 10 minutes"}
    class=${on ? "recording" : ""}
    title="Bodies are kept in memory only (b)"
  >
    ${shown}
  </button>`;
}

/** Who waits, by client: [[client, how many, longest]…]. */
function queues(waiting) {
  const found = new Map();
  for (const each of waiting) {
    const [many, longest] = found.get(each.client) ?? [0, 0];
    found.set(each.client, [many + 1, Math.max(longest, each.for)]);
  }
  return [...found].map(([client, [many, longest]]) => [client, many, longest]).sort((one, other) => other[1] - one[1]);
}

export function Budget({ model }) {
  const { budget, about } = model;
  if (!budget) {
    // With pacing it comes together with the first that is heard.
    const text = about ? "Pacing is off: nothing waits for the budget." : "";
    return html`<section class="budget muted" aria-label="Budget">${text}</section>`;
  }
  const share = budget.limit > 0 ? Math.max(0, Math.min(1, budget.remaining / budget.limit)) : 0;
  const level = share > 0.25 ? "" : share > 0.08 ? "low" : "spent";
  return html`<section class="budget" aria-label="Budget of this minute">
    <span
      class=${`meter ${level}`}
      role="meter"
      aria-label="Budget left"
      aria-valuemin="0"
      aria-valuemax=${budget.limit}
      aria-valuenow=${budget.remaining}
    >
      <i style=${{ width: `${100 * share}%` }} />
    </span>
    <span><b>${count(budget.remaining)}</b> of ${count(budget.limit)} left</span>
    <span class="muted">resets in ${Math.ceil(model.resetsIn())} s</span>
    <${Waiting} budget=${budget} />
  </section>`;
}

function Waiting({ budget }) {
  const many = budget.waiting.length + (budget.more_waiting ?? 0);
  if (many === 0) return html`<span class="muted">nobody waits</span>`;
  const clients = queues(budget.waiting);
  return html`<span class="waiting">
    <b>${plural(many, "request waits", "requests wait")}</b>
    ${clients.slice(0, 4).map(
      ([client, own, longest]) => html`<span class="queue">
        <i class=${`dot h${hue(client)}`} /><bdi>${oneLine(client)}</bdi>
        ${own > 1 ? `${own}×, ` : ""}${duration(1000 * longest)}
      </span>`,
    )}
    ${clients.length > 4 && html`<span class="muted">and ${plural(clients.length - 4, "client")} more</span>`}
  </span>`;
}

const CHIPS = ["failed", "waited", "retried", "writes", "pinned"];

export function FilterBox({ model }) {
  const { problem } = model.filter;
  const total = model.paused?.all.length ?? model.rows.size;
  const shown = model.text.trim() ? `${count(model.shown.length)} of ${count(total)}` : plural(total, "row");
  return html`<div class="filter" role="search">
    <input
      id="filter"
      type="search"
      aria-label="Filter"
      aria-describedby="filtered"
      aria-invalid=${problem !== ""}
      placeholder="Filter: status:5xx method:post client:report cost:>1 waited text"
      spellcheck="false"
      autocomplete="off"
      value=${model.text}
      onInput=${(event) => model.write(event.target.value)}
    />
    <kbd aria-hidden="true">/</kbd>
    <div class="chips" role="group" aria-label="Filters at hand">
      ${CHIPS.map((word) => {
        const press = () => model.write(toggle(model.text, word));
        return html`<button class="chip" aria-pressed=${has(model.text, word)} onClick=${press}>${word}</button>`;
      })}
    </div>
    <span id="filtered" class="filtered">
      ${problem ? html`<span class="problem" role="alert">${problem}</span>` : shown}
      ${model.rows.dropped > 0 && ` · ${plural(model.rows.dropped, "row was", "rows were")} dropped`}
    </span>
  </div>`;
}

export function Notices({ model }) {
  const { connection, notice, restarted } = model;
  const why = (connection.why || "the proxy does not answer").replace(/\.$/, "");
  const told = `Disconnected: ${why}. The page connects again by itself; what is shown stays.`;
  const hush = html`<button class="link" onClick=${() => model.hush()}>Dismiss</button>`;
  return html`<div class="notices">
    ${connection.state === "lost" && html`<p class="notice bad" role="alert">${told}</p>`}
    ${restarted && html`<p class="notice" role="status">${restarted} ${hush}</p>`}
    <div class="toast" role="status">${notice && html`<p class=${notice.bad ? "bad" : ""}>${notice.text}</p>`}</div>
  </div>`;
}

export function Empty({ model, onCopy }) {
  if (model.shown.length > 0) return null;
  if (model.text.trim() && model.rows.size > 0) {
    return html`<div class="empty">
      <p>No row matches the filter.</p>
      <button onClick=${() => model.write("")}>Show all</button>
    </div>`;
  }
  if (!model.about) return html`<div class="empty"><p>${STATES[model.connection.state]}</p></div>`;
  const command = `curl ${location.origin}/v2/me.json`;
  return html`<div class="empty">
    <p><b>Nothing has come through yet.</b></p>
    <p>Send something through the proxy, and it is here at once:</p>
    <p class="try"><code>${command}</code><button onClick=${() => onCopy(command)}>Copy</button></p>
  </div>`;
}
