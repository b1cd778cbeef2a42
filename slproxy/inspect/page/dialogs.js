// What is asked and told in a box of its own: copy, edit, sure, HAR, help.

import { FORMATS, isWhole, MASK, parts, withoutCredentials } from "./copy.js";
import { GRAMMAR } from "./filter.js";
import { clock, oneLine, plural, writes } from "./format.js";
import { KEYS } from "./keys.js";
import * as server from "./server.js";
import { html, useLayoutEffect, useMemo, useRef, useState } from "./vendor/htm-preact-standalone.module.js";

const DIALOGS = { copy: Copy, edit: Edit, sure: Sure, har: Har, help: Help };

export function Dialogs({ model }) {
  const Chosen = model.dialog && DIALOGS[model.dialog.name];
  return Chosen ? html`<${Chosen} key=${model.dialog.name} model=${model} ...${model.dialog} />` : null;
}

/** A box over the page, which holds the focus until it is closed. */
function Box({ model, title, wide, children, onSubmit }) {
  const box = useRef(null);
  useLayoutEffect(() => {
    const dialog = box.current;
    dialog.showModal();
    const closed = () => model.ask(null);
    dialog.addEventListener("close", closed);
    return () => {
      dialog.removeEventListener("close", closed);
      dialog.close(); // gives the focus back to where it was
    };
  }, []);
  return html`<dialog
    ref=${box}
    class=${wide ? "wide" : ""}
    aria-labelledby="dialog-title"
    onCancel=${(event) => (event.preventDefault(), model.ask(null))}
    onClick=${(event) => event.target === box.current && model.ask(null)}
  >
    <form method="dialog" onSubmit=${(event) => (event.preventDefault(), onSubmit?.())}>
      <h2 id="dialog-title">${title}</h2>
      ${children}
    </form>
  </dialog>`;
}

function Buttons({ model, action }) {
  return html`<footer>
    <button type="button" onClick=${() => model.ask(null)}>${action ? "Cancel" : "Close"}</button>
    ${action && html`<button type="submit" class="primary">${action}</button>`}
  </footer>`;
}

/** Put a text on the clipboard; where a page is given none (http at another name), as a person selects and copies. */
export async function toClipboard(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Not allowed: the old way may be.
    }
  }
  const area = document.createElement("textarea");
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

function Copy({ model, exchange }) {
  const [chosen, setChosen] = useState(localStorage.getItem("slproxy-copy") ?? "curl");
  const [, label, make] = FORMATS.find(([name]) => name === chosen) ?? FORMATS[0];
  const part = useMemo(() => parts(exchange, server.ORIGIN), [exchange]);
  const text = make(part);
  const copy = async () => {
    localStorage.setItem("slproxy-copy", chosen);
    const done = await toClipboard(text);
    model.ask(null);
    model.tell(done ? `Copied as ${label}.` : "The browser lets this page copy nothing: select the text.", !done);
  };
  return html`<${Box} model=${model} title="Copy as" wide onSubmit=${copy}>
    <fieldset class="choice">
      <legend class="unseen">Form</legend>
      ${FORMATS.map(
        ([name, text]) => html`<label>
          <input
            type="radio"
            name="format"
            value=${name}
            checked=${name === chosen}
            onChange=${() => setChosen(name)}
          />
          ${text}
        </label>`,
      )}
    </fieldset>
    <pre class="command" tabindex="0" aria-label="What is copied">${text}</pre>
    <p class="note">
      It asks this proxy, which adds the credentials: nothing secret is in it.
      ${part.needsKey && html` Set <code>SLPROXY_KEY</code> to the local key.`}
      ${exchange.target.includes(MASK) && " A credential in the query was left out."}
      ${part.missing && " The body was not recorded as a whole: record bodies, and send the request again."}
    </p>
    <${Buttons} model=${model} action="Copy" />
  </${Box}>`;
}

const METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"];
// What the proxy makes anew.
const OWN = /^(host|content-length|connection|transfer-encoding)$/i;

function Edit({ model, exchange }) {
  const { request, row } = exchange;
  const [method, setMethod] = useState(row.method);
  const [target, setTarget] = useState(withoutCredentials(exchange.target));
  const [headers, setHeaders] = useState(
    request.headers
      .filter(([name, value]) => !value.includes(MASK) && !OWN.test(name))
      .map(([name, value]) => `${name}: ${value}`)
      .join("\n"),
  );
  const [body, setBody] = useState(request.body.text ?? "");
  const [problem, setProblem] = useState("");
  const partial = request.body.kind === "binary" || !isWhole(request.body);
  const send = () => {
    const lines = headers.split("\n").filter((line) => line.trim() !== "");
    const wrong = lines.find((line) => !/^[!#$%&'*+.^`|~\w-]+:/.test(line));
    if (wrong !== undefined) {
      setProblem(`This is no header: “${wrong}”. Write Name: value.`);
      return;
    }
    const pairs = lines.map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]);
    model.resend(row, { method, target, headers: pairs, body });
  };
  return html`<${Box} model=${model} title="Edit and resend" wide onSubmit=${send}>
    <div class="line">
      <label>Method
        <select value=${method} onChange=${(event) => setMethod(event.target.value)}>
          ${METHODS.map((name) => html`<option value=${name}>${name}</option>`)}
        </select>
      </label>
      <label class="grows">Path and query
        <input
          required
          value=${target}
          spellcheck="false"
          autocomplete="off"
          onInput=${(event) => setTarget(event.target.value)}
        />
      </label>
    </div>
    <label>Headers, one a line; the proxy adds the credentials
      <textarea
        rows=${Math.min(10, Math.max(3, headers.split("\n").length + 1))}
        spellcheck="false"
        value=${headers}
        onInput=${(event) => setHeaders(event.target.value)}
      />
    </label>
    <label>Body
      <textarea rows="7" spellcheck="false" value=${body} onInput=${(event) => setBody(event.target.value)} />
    </label>
    ${partial && html`<p class="note">The first body was not recorded as a whole, or is no text: this one is sent.</p>`}
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    <${Buttons} model=${model} action=${writes(method) ? `Send ${method} …` : `Send ${method}`} />
  </${Box}>`;
}

function Sure({ model, row, edit }) {
  const method = edit?.method ?? row.method;
  const target = edit?.target ?? row.path;
  const what = row.status
    ? `The first was answered with ${row.status} at ${clock(row.at)[0]}.`
    : "The first had no answer; SalesLoft may have done it all the same.";
  const send = () => model.resend(row, edit, true);
  return html`<${Box} model=${model} title=${`Send this ${method}${edit ? "" : " again"}?`} onSubmit=${send}>
    <p class="asked"><span class="method">${method}</span> <bdi>${oneLine(target)}</bdi></p>
    <p>${what} A ${method} changes data: sent again, it may change them twice.</p>
    <${Buttons} model=${model} action=${`Send ${method}`} />
  </${Box}>`;
}

function Har({ model }) {
  const [mask, setMask] = useState(true);
  const [only, setOnly] = useState(false);
  const all = model.shown.filter((row) => row.kind === "request" && row.state === "done");
  const chosen = model.row?.kind === "request" ? [model.row] : [];
  const rows = only ? chosen : all;
  const save = async () => {
    const numbers = rows.map((row) => row.n);
    const file = await model.attempt(() => server.har(numbers, mask));
    if (!file) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = `slproxy-${new Date().toISOString().slice(0, 19).replace(/[:T]/g, "-")}.har`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    model.ask(null);
    model.tell(`${plural(rows.length, "request")} saved.`);
  };
  return html`<${Box} model=${model} title="Save as HAR" onSubmit=${save}>
    <fieldset class="choice">
      <legend class="unseen">Which</legend>
      <label>
        <input type="radio" name="which" checked=${!only} onChange=${() => setOnly(false)} />
        ${plural(all.length, "request")} shown
      </label>
      ${
        chosen.length > 0 &&
        html`<label>
          <input type="radio" name="which" checked=${only} onChange=${() => setOnly(true)} />the chosen one
        </label>`
      }
    </fieldset>
    <label class="check">
      <input type="checkbox" checked=${mask} onChange=${() => setMask(!mask)} />
      Mask names, addresses and phone numbers of people
    </label>
    <p class="note">Credentials are never in it. Bodies are, where they were recorded.</p>
    <${Buttons} model=${model} action=${rows.length > 0 && "Save"} />
  </${Box}>`;
}

function Help({ model }) {
  return html`<${Box} model=${model} title="Keys and filters" wide>
    <div class="help">
      <section aria-label="Keys">
        <dl>
          ${KEYS.filter((key) => key.does).map(
            ({ shown, does }) => html`<div>
              <dt>${shown.map((key) => html`<kbd>${key}</kbd>`)}</dt>
              <dd>${does}</dd>
            </div>`,
          )}
        </dl>
        <label class="check">
          <input type="checkbox" checked=${model.shortcuts} onChange=${() => model.setShortcuts(!model.shortcuts)} />
          Single keys count
        </label>
      </section>
      <section aria-label="Filters">
        <dl class="grammar">
          ${GRAMMAR.map(([term, means]) => html`<div><dt><code>${term}</code></dt><dd>${means}</dd></div>`)}
        </dl>
      </section>
    </div>
    <${Buttons} model=${model} />
  </${Box}>`;
}
