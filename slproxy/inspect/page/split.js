// The bar between list and details: drawn, or moved by the arrow keys.

import { html, useState } from "./vendor/htm-preact-standalone.module.js";

const [LEAST, MOST] = [15, 85];

export function Split() {
  const [share, setShare] = useState(Number(localStorage.getItem("slproxy-split") ?? 42));
  const put = (wanted) => {
    const now = Math.round(Math.min(MOST, Math.max(LEAST, wanted)));
    localStorage.setItem("slproxy-split", String(now));
    setShare(now);
  };
  const drag = (event) => {
    const main = event.currentTarget.parentElement.getBoundingClientRect();
    if (event.currentTarget.hasPointerCapture(event.pointerId)) put((100 * (event.clientY - main.top)) / main.height);
  };
  const keys = { ArrowUp: -3, ArrowDown: 3, Home: -100, End: 100 };
  return html`<div
    class="split"
    role="separator"
    tabindex="0"
    aria-orientation="horizontal"
    aria-label="Height of the list"
    aria-controls="list"
    aria-valuemin=${LEAST}
    aria-valuemax=${MOST}
    aria-valuenow=${share}
    ref=${(element) => element?.parentElement.style.setProperty("--list", `${share}%`)}
    onPointerDown=${(event) => event.currentTarget.setPointerCapture(event.pointerId)}
    onPointerMove=${drag}
    onKeyDown=${(event) => {
      if (!(event.key in keys)) return;
      event.preventDefault();
      put(share + keys[event.key]);
    }}
  />`;
}
