// The bar of a row: what its time went to.

import { barWidth, duration, parts } from "./format.js";
import { html } from "./vendor/htm-preact-standalone.module.js";

const NAMES = { wait: "waited", token: "token", proxy: "slproxy", upstream: "SalesLoft", stream: "streamed" };

function inWords(row) {
  return parts(row)
    .map(([name, ms]) => `${NAMES[name]} ${duration(ms)}`)
    .join(", ");
}

export function Bar({ row }) {
  const words = inWords(row);
  return html`<span class="bar" role="img" aria-label=${words || "no time measured"} title=${words}>
    <span class="bar-filled" style=${{ width: `${barWidth(row.ms ?? 0)}%` }}>
      ${parts(row).map(([name, ms]) => html`<i class=${`part ${name}`} style=${{ flexGrow: ms }} />`)}
    </span>
  </span>`;
}

/** The parts with their figures, which are the legend of the bars as well. */
export function Parts({ row }) {
  return html`<ul class="parts" aria-label="What the time went to">
    ${parts(row).map(([name, ms]) => html`<li><i class=${`part ${name}`} />${NAMES[name]} ${duration(ms)}</li>`)}
  </ul>`;
}
