// A body: JSON as a tree that can be searched, other text as it is, and how much of it was kept.

import { isWhole } from "./copy.js";
import { bytes, visible } from "./format.js";
import { marked, parse, search } from "./json.js";
import { html, useEffect, useMemo, useRef, useState } from "./vendor/htm-preact-standalone.module.js";

// So many entries at a time. What has no more than so many in all is open at first, and else down to so deep.
const PAGE = 100;
const FEW = 80;
const DEEP = 2;

const count = (node) => (node.entries ?? []).reduce((sum, [, each]) => sum + count(each), 1);

export function Body({ body, label, model }) {
  const [needle, setNeedle] = useState("");
  const [raw, setRaw] = useState(false);
  const [place, setPlace] = useState(0);
  const cut = !isWhole(body);
  const tree = useMemo(() => (body.kind === "text" ? parse(body.text, cut) : null), [body]);
  const deep = useMemo(() => (tree && count(tree) > FEW ? DEEP : Infinity), [tree]);
  const matches = useMemo(() => (tree ? search(tree, needle) : []), [tree, needle]);
  const region = useRef(null);
  const current = matches[place];
  useEffect(() => region.current?.querySelector(".current")?.scrollIntoView({ block: "nearest" }), [current]);

  const told = body.kind !== "none" && body.kind !== "unrecorded";
  const size = cut ? `cut: ${bytes(body.kept)} of ${bytes(body.size)} kept` : bytes(body.size);
  const asTree = tree?.entries && !raw;
  return html`<section class="body" aria-label=${`${label} body`} ref=${region}>
    <header>
      <h4>Body</h4>
      ${told && html`<span class=${`facts ${cut ? "cut" : ""}`}>${body.type && `${body.type} · `}${size}</span>`}
      ${
        asTree &&
        html`<input
          type="search"
          placeholder="Search"
          aria-label=${`Search the ${label} body`}
          value=${needle}
          onInput=${(event) => (setNeedle(event.target.value), setPlace(0))}
          onKeyDown=${(event) => {
            if (event.key !== "Enter" || matches.length === 0) return;
            setPlace((place + (event.shiftKey ? matches.length - 1 : 1)) % matches.length);
          }}
        />`
      }
      ${
        asTree &&
        needle &&
        html`<span class="facts" role="status">
          ${current ? `${place + 1} of ${matches.length}` : "not found"}
        </span>`
      }
      ${tree?.entries && html`<button class="quiet" aria-pressed=${raw} onClick=${() => setRaw(!raw)}>Raw</button>`}
    </header>
    ${
      asTree
        ? html`<div class="tree">
            <${Node} name="" node=${tree} depth=${0} deep=${deep} needle=${needle} current=${current} />
          </div>`
        : html`<${Plain} body=${body} model=${model} />`
    }
  </section>`;
}

function Plain({ body, model }) {
  if (body.kind === "none") return html`<p class="nothing">None.</p>`;
  if (body.kind === "unrecorded") {
    return html`<p class="nothing">
      Not recorded${body.size > 0 ? ` (${bytes(body.size)})` : ""}.
      ${
        !model.bodies.on &&
        html` <button class="link" onClick=${() => model.recordBodies(true)}>Record bodies for 10 minutes</button>`
      }
    </p>`;
  }
  if (body.kind === "binary") return html`<p class="nothing">Binary, not shown.</p>`;
  return html`<pre tabindex="0" aria-label="Body as text">${visible(body.text)}</pre>`;
}

function Marked({ text, needle }) {
  return marked(visible(text), needle).map(([piece, hit]) => (hit ? html`<mark>${piece}</mark>` : piece));
}

function Name({ name, needle }) {
  if (name === "") return "";
  const text = typeof name === "string" ? html`<${Marked} text=${name} needle=${needle} />` : name;
  return html`<span class=${typeof name === "string" ? "name" : "place"}>${text}</span>: `;
}

function Node({ name, node, depth, deep, needle, current }) {
  const [open, setOpen] = useState(depth < deep);
  const [most, setMost] = useState(PAGE);
  const hit = node === current?.node ? "current" : "";
  if (!node.entries) {
    return html`<div class=${`leaf ${hit}`}>
      <${Name} name=${name} needle=${needle} /><${Scalar} node=${node} needle=${needle} />
    </div>`;
  }
  const [left, right] = node.kind === "object" ? "{}" : "[]";
  const many = node.entries.length;
  if (many === 0 && !node.cut) {
    return html`<div class=${`leaf ${hit}`}><${Name} name=${name} needle=${needle} />${left}${right}</div>`;
  }
  // What was found is in sight, wherever it stands.
  const found = current?.around.includes(node);
  const leads = ([, each]) => each === current.node || current.around.includes(each);
  const end = Math.max(most, found ? node.entries.findIndex(leads) + 1 : 0);
  const start = end > most ? end - PAGE : 0;
  const isOpen = open || found;
  return html`<details open=${isOpen} onToggle=${(event) => setOpen(event.target.open)}>
    <summary class=${hit}>
      <${Name} name=${name} needle=${needle} />${left}${!isOpen && html`<span class="more"> … </span>${right}`}
      <span class="size"> ${node.kind === "object" ? "" : many}</span>
    </summary>
    ${
      isOpen &&
      html`<div class="inner">
        ${start > 0 && html`<div class="leaf more">… ${start} before</div>`}
        ${node.entries.slice(start, end).map(([key, each], at) => {
          const shared = { depth: depth + 1, deep, needle, current };
          return html`<${Node} key=${start + at} name=${key} node=${each} ...${shared} />`;
        })}
        ${
          many > end &&
          html`<button class="link" onClick=${() => setMost(end + PAGE)}>
            Show ${Math.min(PAGE, many - end)} more of ${many}
          </button>`
        }
        ${node.cut && html`<div class="leaf cut">… cut here</div>`}
      </div>`
    }
  </details>`;
}

function Scalar({ node, needle }) {
  const text = node.kind === "string" ? JSON.stringify(node.text) : node.text;
  return html`<span class=${node.kind}><${Marked} text=${text} needle=${needle} /></span>${
    node.cut && html`<span class="cut"> … cut here</span>`
  }`;
}
