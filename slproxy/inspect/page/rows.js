// The rows that the page has: one owner, no display. Pure.

export const MOST = 2000;

export class Rows {
  constructor(most = MOST) {
    this.most = most;
    this.dropped = 0;
    this.all = []; // ascending by n
    this.byNumber = new Map();
  }

  get size() {
    return this.all.length;
  }

  get(n) {
    return this.byNumber.get(n);
  }

  /** Take a batch: a row that is there already is replaced, what is over the limit goes, the oldest first. */
  take(batch) {
    const { all, byNumber } = this;
    for (const row of batch) {
      if (byNumber.has(row.n)) {
        all[this.#place(row.n)] = row;
      } else if (all.length === 0 || all.at(-1).n < row.n) {
        all.push(row);
      } else {
        all.splice(this.#place(row.n), 0, row);
      }
      byNumber.set(row.n, row);
    }
    let over = all.length - this.most;
    if (over <= 0) return;
    this.all = all.filter((row) => {
      if (over <= 0 || row.pinned) return true;
      over -= 1;
      byNumber.delete(row.n);
      return false;
    });
  }

  /** Say where it happened that rows did not come. */
  drop(count, at) {
    this.dropped += count;
    this.take([{ n: (this.all.at(-1)?.n ?? 0) + 0.5, kind: "dropped", at, state: "done", count }]);
  }

  /** Forget all but what is pinned. */
  clear() {
    this.dropped = 0;
    this.all = this.all.filter((row) => row.pinned);
    this.byNumber = new Map(this.all.map((row) => [row.n, row]));
  }

  /** Forget all: the numbers begin anew. */
  reset() {
    this.all = [];
    this.byNumber.clear();
    this.dropped = 0;
  }

  /** The rows that pass, newest first. */
  newestFirst(test) {
    const passed = [];
    for (let at = this.all.length - 1; at >= 0; at -= 1) if (test(this.all[at])) passed.push(this.all[at]);
    return passed;
  }

  #place(n) {
    let [low, high] = [0, this.all.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.all[middle].n < n) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
