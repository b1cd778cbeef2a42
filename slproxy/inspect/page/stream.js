// The stream of events, one for all tabs of a browser.
//
// A browser has six connections to an origin over HTTP/1.1, for all tabs together, and a stream holds one: the seventh
// tab would get nothing, its page included. So one tab, which holds a lock, listens and passes on what it hears; when it
// closes, another gets the lock. Without locks (they want https or a loopback name) each tab listens by itself.

import { eventSource, whyNoEvents } from "./server.js";

const NAME = "slproxy-inspector";
// Until then a connection that was to end is expected again.
const SOON_MS = 3000;
const EVENTS = ["hello", "rows", "budget", "dropped", "bodies", "cleared", "bye"];

/**
 * Listen for ever: `heard(name, data)` for each event, `state("connecting" | "live" | "lost", why)` for the connection,
 * `known()` gives the events that bring a new tab up to date.
 */
export function listen({ heard, state, known }) {
  state("connecting", "");
  if (!navigator.locks) {
    connect(heard, state);
    return;
  }
  const others = new BroadcastChannel(NAME);
  let leads = false;
  let last = ["connecting", ""];
  others.onmessage = ({ data }) => {
    if (data.ask) {
      if (!leads) return;
      others.postMessage({ state: last });
      for (const event of known()) others.postMessage({ event });
    } else if (!leads) {
      if (data.state) state(...data.state);
      else heard(...data.event);
    }
  };
  others.postMessage({ ask: true });
  navigator.locks.request(NAME, () => {
    leads = true;
    connect(
      (...event) => {
        heard(...event);
        others.postMessage({ event });
      },
      (...now) => {
        last = now;
        state(...now);
        others.postMessage({ state: now });
      },
    );
    return new Promise(() => {}); // held until the tab closes
  });
}

/**
 * A connection that broke is made again by the browser, from where it broke off; one that was refused, by us.
 *
 * Where many tabs listen by themselves, the proxy lets some ask again and again (`stream` of `hello` is false): then
 * the end of a connection is nothing to tell, if the next comes soon.
 */
function connect(heard, state) {
  let refused = 0;
  let lasts = true;
  let late;
  const open = () => {
    const source = eventSource();
    for (const name of EVENTS) {
      source.addEventListener(name, (event) => {
        const data = JSON.parse(event.data);
        if (name === "hello") lasts = data.stream !== false;
        heard(name, data);
      });
    }
    source.onopen = () => {
      refused = 0;
      clearTimeout(late);
      state("live", "");
    };
    source.onerror = async () => {
      clearTimeout(late);
      late = setTimeout(state, lasts ? 0 : SOON_MS, "lost", "");
      if (source.readyState !== EventSource.CLOSED) return;
      const why = await whyNoEvents();
      if (why) state("lost", why);
      refused = Math.min(refused + 1, 10);
      setTimeout(open, 500 * refused);
    };
  };
  open();
}
