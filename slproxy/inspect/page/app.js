// The inspector: one page, drawn anew from the model whenever that has changed.

import { Details } from "./details.js";
import { Dialogs, toClipboard } from "./dialogs.js";
import { listen as listenToKeys } from "./keys.js";
import { List } from "./list.js";
import { Model } from "./model.js";
import { Split } from "./split.js";
import { listen } from "./stream.js";
import { Budget, Empty, FilterBox, Head, Notices } from "./top.js";
import { html, render } from "./vendor/htm-preact-standalone.module.js";

let waits = false;
const model = new Model(() => {
  if (waits) return;
  waits = true;
  // However much comes, the page is drawn once a frame, and not at all while it is hidden.
  requestAnimationFrame(() => {
    waits = false;
    draw();
  });
});

function App() {
  const open = model.open && model.selected !== null;
  const copy = async (text) => model.tell((await toClipboard(text)) ? "Copied." : "Select the line, and copy it.");
  return html`
    <${Head} model=${model} />
    <${Budget} model=${model} />
    <${FilterBox} model=${model} />
    <${Notices} model=${model} />
    <main class=${open ? "opened" : ""}>
      <div class="over">
        <${List} model=${model} onOpen=${(row) => model.select(row.n, true)} />
        <${Empty} model=${model} onCopy=${copy} />
      </div>
      ${open && html`<${Split} /><${Details} model=${model} />`}
    </main>
    <${Dialogs} model=${model} />
  `;
}

const root = document.getElementById("app");
const draw = () => render(html`<${App} />`, root);

draw();
listenToKeys(model);
listen({
  heard: (name, data) => model.heard(name, data),
  state: (state, why) => model.connected(state, why),
  known: () => model.known(),
});
// What runs down or grows older by itself.
setInterval(() => document.hidden || model.changed(), 1000);
