// The keys: what each does is also what the help says of it.

const focus = (selector) => document.querySelector(selector)?.focus();

/** What works on the details once they are there; without them it opens them. */
function withDetails(model, does) {
  if (model.selected === null) model.move(0);
  if (model.selected !== null) does();
}

export const KEYS = [
  { keys: ["/"], shown: ["/"], does: "filter", run: () => focus("#filter") },
  { keys: ["j", "ArrowDown"], shown: ["j", "↓"], does: "next row", run: (model) => model.move(1) },
  { keys: ["k", "ArrowUp"], shown: ["k", "↑"], does: "row before", run: (model) => model.move(-1) },
  { keys: ["PageDown"], shown: ["PgDn", "PgUp"], does: "a page of rows", run: (model) => model.move(15) },
  { keys: ["PageUp"], run: (model) => model.move(-15) },
  { keys: ["Home"], shown: ["Home", "End"], does: "first and last row", run: (model) => model.move(-Infinity) },
  { keys: ["End"], run: (model) => model.move(Infinity) },
  {
    keys: ["Enter"],
    shown: ["Enter"],
    does: "details",
    run: (model) => withDetails(model, () => model.select(model.selected, true)),
  },
  {
    keys: ["Escape"],
    shown: ["Esc"],
    does: "close, back to the list",
    run: (model) => (model.close(), focus("#list")),
  },
  { keys: ["r"], shown: ["r"], does: "resend", run: (model) => withDetails(model, () => model.resend()) },
  {
    keys: ["e"],
    shown: ["e"],
    does: "edit and resend",
    run: (model) => withDetails(model, () => model.askWith("edit")),
  },
  {
    keys: ["c"],
    shown: ["c"],
    does: "copy as curl, HTTPie, Python, fetch",
    run: (model) => withDetails(model, () => model.askWith("copy")),
  },
  { keys: ["p"], shown: ["p"], does: "pin", run: (model) => withDetails(model, () => model.pin()) },
  { keys: [" "], shown: ["Space"], does: "pause and go on", run: (model) => model.pause() },
  { keys: ["b"], shown: ["b"], does: "record bodies for 10 minutes, or stop", run: (model) => model.recordBodies() },
  { keys: ["h"], shown: ["h"], does: "save as HAR", run: (model) => model.ask({ name: "har" }) },
  { keys: ["X"], shown: ["Shift", "x"], does: "clear all but what is pinned", run: (model) => model.clear() },
  { keys: ["?"], shown: ["?"], does: "this help", run: (model) => model.ask({ name: "help" }) },
];

const NATIVE = { Enter: "a, button, summary", " ": "a, button, summary, [role=region], pre" };
const SCROLLED = new Set(["ArrowDown", "ArrowUp", "PageDown", "PageUp", "Home", "End"]);

/** Let the keys of the page do what they do, where nothing else wants them. */
export function listen(model) {
  addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || model.dialog) return;
    if (target.matches("input, textarea, select")) {
      if (key !== "Escape" && !(key === "Enter" && target.id === "filter")) return;
      event.preventDefault();
      focus(target.id === "filter" ? "#list" : "#details");
      return;
    }
    if (target.matches(NATIVE[key] ?? ":not(*)") || target.matches("[role=separator]")) return;
    // In the details these scroll.
    if (SCROLLED.has(key) && target.closest("#details")) return;
    if (key.length === 1 && !model.shortcuts) return;
    const found = KEYS.find(({ keys }) => keys.includes(key));
    if (!found) return;
    event.preventDefault();
    if (document.activeElement === document.body) focus("#list");
    found.run(model);
  });
}
