// The details of one exchange, asked for when they are looked at.

import * as server from "./server.js";
import { useEffect, useState } from "./vendor/htm-preact-standalone.module.js";

// Whoever holds `j` down runs over many rows: only what is rested on is asked for.
const REST_MS = 80;

/** Ask for the details of an exchange: [details, problem], asked again when it has ended. */
export function useExchange(n, state) {
  const [answer, setAnswer] = useState({});
  useEffect(() => {
    const stop = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const exchange = await server.exchange(n, stop.signal);
        setAnswer({ n, exchange });
      } catch (error) {
        if (error.name === "AbortError") return;
        if (!(error instanceof server.Refused)) throw error;
        setAnswer({ n, problem: error });
      }
    }, REST_MS);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [n, state]);
  return answer.n === n ? [answer.exchange, answer.problem] : [];
}
