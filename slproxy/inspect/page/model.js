// What the page knows and what is chosen in it: the one owner of that. Every change tells `changed`.

import { compile } from "./filter.js";
import { plural, writes } from "./format.js";
import { Rows } from "./rows.js";
import * as server from "./server.js";

const NOTICE_MS = 6000;

export class Model {
  rows = new Rows();
  about = null; // what `hello` said
  connection = { state: "connecting", why: "" };
  budget = null;
  budgetHeard = 0;
  bodies = { on: false, until: null };
  text = "";
  filter = compile("");
  paused = null;
  selected = null;
  open = false;
  dialog = null;
  notice = null;
  restarted = "";
  shortcuts = localStorage.getItem("slproxy-shortcuts") !== "off";

  constructor(changed) {
    this.changed = changed;
    this.shown = [];
  }

  // What is heard.

  heard(name, data) {
    if (name === "hello") this.#hello(data);
    else if (name === "rows") this.rows.take(data.rows);
    else if (name === "budget") [this.budget, this.budgetHeard] = [data, performance.now()];
    else if (name === "dropped") this.rows.drop(data.count, Date.now() / 1000);
    else if (name === "bodies") this.bodies = data;
    else if (name === "cleared") this.rows.clear();
    else if (name === "bye") this.connection = { state: "lost", why: data.reason };
    if (name === "rows" || name === "dropped" || name === "cleared") this.#show();
    this.changed();
  }

  #hello(data) {
    if (this.about && this.about.boot !== data.boot) {
      const lost = this.rows.size;
      this.rows.reset();
      this.paused = null;
      this.selected = null;
      this.open = false;
      this.restarted = `slproxy was restarted: ${plural(lost, "row")} of before ${lost === 1 ? "is" : "are"} gone.`;
      this.#show();
    }
    this.about = data;
    this.bodies = data.bodies;
  }

  connected(state, why) {
    // A farewell tells more than the broken connection after it.
    if (state === "lost" && !why && this.connection.state === "lost") return;
    this.connection = { state, why };
    this.changed();
  }

  /** The events that tell another tab all of this. */
  *known() {
    if (!this.about) return;
    yield ["hello", { ...this.about, bodies: this.bodies }];
    yield ["rows", { rows: this.rows.all }];
    if (this.budget) yield ["budget", { ...this.budget, resets_in: this.resetsIn() }];
  }

  resetsIn() {
    return Math.max(0, this.budget.resets_in - (performance.now() - this.budgetHeard) / 1000);
  }

  // What is shown.

  #show() {
    const { test } = this.filter;
    this.shown = this.paused ? this.paused.all.filter(test).reverse() : this.rows.newestFirst(test);
  }

  get fresh() {
    const last = this.paused?.all.at(-1)?.n ?? 0;
    return this.paused ? this.rows.all.filter((row) => row.n > last).length : 0;
  }

  write(text) {
    this.text = text;
    this.filter = compile(text);
    this.#show();
    this.changed();
  }

  pause(on = !this.paused) {
    this.paused = on ? { all: [...this.rows.all] } : null;
    this.#show();
    this.changed();
  }

  get row() {
    return this.selected === null ? undefined : this.rows.get(this.selected);
  }

  select(n, open = this.open) {
    this.selected = n;
    this.open = open;
    this.changed();
  }

  /** Choose the row that is so many further down. */
  move(by) {
    if (this.shown.length === 0) return;
    const at = this.shown.findIndex((row) => row.n === this.selected);
    const next = at < 0 ? 0 : Math.min(this.shown.length - 1, Math.max(0, at + by));
    this.select(this.shown[next].n);
  }

  close() {
    this.open = false;
    this.changed();
  }

  ask(dialog) {
    this.dialog = dialog;
    this.changed();
  }

  /** Ask with what is known of the chosen exchange. */
  askWith(name) {
    const n = this.selected;
    if (this.row?.kind !== "request") return;
    this.attempt(async () => {
      const exchange = await server.exchange(n);
      if (this.selected === n) this.ask({ name, exchange });
    });
  }

  tell(text, bad = false) {
    const notice = { text, bad };
    this.notice = notice;
    this.changed();
    setTimeout(() => this.notice === notice && this.hush(), bad ? 2 * NOTICE_MS : NOTICE_MS);
  }

  hush() {
    this.notice = null;
    this.restarted = "";
    this.changed();
  }

  setShortcuts(on) {
    this.shortcuts = on;
    localStorage.setItem("slproxy-shortcuts", on ? "on" : "off");
    this.changed();
  }

  // What is done. What cannot be done is told.

  async attempt(action) {
    try {
      return await action();
    } catch (error) {
      if (!(error instanceof server.Refused)) throw error;
      this.tell(`${error.message} ${error.hint}`.trim(), true);
      return undefined;
    }
  }

  clear() {
    return this.attempt(async () => {
      await server.clear();
      this.paused = null;
      this.rows.clear();
      this.#show();
      if (this.selected !== null && !this.row) [this.selected, this.open] = [null, false];
      this.changed();
    });
  }

  pin(row = this.row) {
    if (!row || row.kind === "dropped") return;
    this.attempt(async () => {
      await server.pin(row.n, !row.pinned);
      this.rows.take([{ ...this.rows.get(row.n), pinned: !row.pinned }]);
      this.#show();
      this.tell(row.pinned ? "Unpinned." : "Pinned: it stays when the list is cleared.");
    });
  }

  recordBodies(on = !this.bodies.on) {
    return this.attempt(async () => {
      await server.recordBodies(on, 10);
      this.tell(on ? "Bodies are recorded for 10 minutes, in memory only." : "Bodies are no longer recorded.");
    });
  }

  /** Send a request again; what writes is asked about first. */
  async resend(row = this.row, edit = null, sure = false) {
    if (!row || row.kind !== "request") return;
    const method = edit?.method ?? row.method;
    if (writes(method) && this.about?.read_only) {
      this.tell(`slproxy runs read-only: it sends no ${method}.`, true);
      return;
    }
    if (writes(method) && !sure) {
      this.ask({ name: "sure", row, edit });
      return;
    }
    this.ask(null);
    const sent = await this.attempt(() => server.resend(row.n, edit));
    if (!sent) return;
    this.select(sent.n, true);
    this.tell(`${method} was sent again.`);
  }
}
