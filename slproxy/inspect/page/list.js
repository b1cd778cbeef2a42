// The list: of all its rows, only those in sight are in the page.

import { Bar } from "./bar.js";
import { bytes, clock, duration, hue, oneLine, plural, statusClass, writes } from "./format.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact-standalone.module.js";

const narrow = matchMedia("(max-width: 700px)");
const AROUND = 8;

function rowHeight() {
  return narrow.matches ? 52 : 28;
}

const COLUMNS = ["Time", "Client", "Method", "Path", "Status", "Attempts", "Cost", "Duration"];

export function List({ model, onOpen }) {
  const scroller = useRef(null);
  const [top, setTop] = useState(0);
  const [view, setView] = useState({ height: 600, row: rowHeight() });
  const rows = model.shown;
  const anchor = useRef(null);

  useLayoutEffect(() => {
    const measure = () => setView({ height: scroller.current.clientHeight, row: rowHeight() });
    const observer = new ResizeObserver(measure);
    observer.observe(scroller.current);
    narrow.addEventListener("change", measure);
    return () => observer.disconnect();
  }, []);

  // Whoever has scrolled down reads: new rows above must not move what is read.
  useLayoutEffect(() => {
    const box = scroller.current;
    const held = anchor.current;
    if (held && box.scrollTop > view.row) {
      const at = rows.findIndex((row) => row.n === held.n);
      if (at >= 0 && at !== held.at) box.scrollTop += (at - held.at) * view.row;
    }
    const first = Math.floor(box.scrollTop / view.row);
    anchor.current = rows[first] ? { n: rows[first].n, at: first } : null;
  }, [rows, top]);

  const chosen = rows.findIndex((row) => row.n === model.selected);
  useEffect(() => {
    const box = scroller.current;
    if (chosen < 0) return;
    const [from, to] = [chosen * view.row, (chosen + 1) * view.row];
    const head = box.querySelector(".head").offsetHeight;
    if (from < box.scrollTop) box.scrollTop = from;
    else if (to > box.scrollTop + box.clientHeight - head) box.scrollTop = to - box.clientHeight + head;
  }, [model.selected, view.height]);

  const first = Math.max(0, Math.floor(top / view.row) - AROUND);
  const last = Math.min(rows.length, first + Math.ceil(view.height / view.row) + 2 * AROUND);
  const active = chosen >= first && chosen < last ? `row-${model.selected}` : undefined;
  return html`<div
    class="list"
    id="list"
    role="grid"
    tabindex="0"
    aria-label="Requests, newest first"
    aria-rowcount=${rows.length + 1}
    aria-colcount=${COLUMNS.length}
    aria-activedescendant=${active}
    ref=${scroller}
    onScroll=${(event) => setTop(event.currentTarget.scrollTop)}
  >
    <div class="row head" role="row" aria-rowindex="1">
      ${COLUMNS.map((name) => html`<span role="columnheader" class=${name.toLowerCase()}>${name}</span>`)}
    </div>
    <div class="rows" role="rowgroup" style=${{ height: `${rows.length * view.row}px` }}>
      ${rows.slice(first, last).map(
        (row, at) => html`<${Row}
          key=${row.n}
          row=${row}
          index=${first + at}
          top=${(first + at) * view.row}
          chosen=${row.n === model.selected}
          onOpen=${onOpen}
        />`,
      )}
    </div>
  </div>`;
}

function Row({ row, index, top, chosen, onOpen }) {
  const own = row.kind !== "request";
  const kind = own ? `own ${row.kind}` : "";
  const classes = `row ${kind} ${chosen ? "chosen" : ""} ${row.state === "open" ? "open" : ""}`;
  const [time, ms] = clock(row.at);
  return html`<div
    class=${classes}
    id=${`row-${row.n}`}
    role="row"
    aria-rowindex=${index + 2}
    aria-selected=${chosen}
    style=${{ top: `${top}px` }}
    onClick=${() => onOpen(row)}
  >
    <span role="gridcell" class="time">
      ${time}<small>${ms}</small>${row.pinned && html`<b class="pin" role="img" aria-label="pinned" title="pinned" />`}
    </span>
    ${own ? html`<${Event} row=${row} />` : html`<${Request} row=${row} />`}
  </div>`;
}

function Event({ row }) {
  const text =
    row.kind === "dropped" ? `${plural(row.count, "row was", "rows were")} dropped: more came than is shown` : row.note;
  return html`<span role="gridcell" class="event" aria-colspan="6">
      <b>${row.kind}</b><bdi title=${text}>${oneLine(text ?? "")}</bdi>
    </span>
    <span role="gridcell" class="duration">
      ${row.ms > 0 ? html`<${Bar} row=${row} /><span class="figure">${duration(row.ms)}</span>` : ""}
    </span>`;
}

function Request({ row }) {
  const client = oneLine(row.client ?? "");
  const path = oneLine(row.path);
  const why = row.error || row.ended || row.note || (row.waiting ? `waits: ${row.waiting}` : "");
  const open = row.state === "open";
  const status = row.status || (open ? "…" : "none");
  const attempts = row.attempts > 1 ? `${row.attempts}×` : row.attempts || "";
  return html`<span role="gridcell" class="client" title=${client}>
      <i class=${`dot h${hue(row.client ?? "")}`} /><bdi>${client}</bdi>
    </span>
    <span role="gridcell" class=${`method ${writes(row.method) ? "writes" : ""}`}>${row.method}</span>
    <span role="gridcell" class="path" title=${path}>
      <bdi>${path}</bdi>${row.query && html`<small title="has a query: see the details">?…</small>`}
      ${row.resent && html`<em>resent</em>`}${why && html`<em class="why" title=${why}>${oneLine(why)}</em>`}
    </span>
    <span role="gridcell" class=${`status s${statusClass(row)}`} aria-label=${open ? "under way" : undefined}>
      ${status}
    </span>
    <span role="gridcell" class=${`attempts ${row.attempts > 1 ? "many" : ""}`}>${attempts}</span>
    <span role="gridcell" class="cost">${row.cost ?? ""}</span>
    <span role="gridcell" class="duration" title=${`${bytes(row.in ?? 0)} in, ${bytes(row.out ?? 0)} out`}>
      <${Bar} row=${row} /><span class="figure">${open && !row.ms ? "" : duration(row.ms ?? 0)}</span>
    </span>`;
}
