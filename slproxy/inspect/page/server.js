// All that is said to the proxy and heard of it.

const AT = new URL("inspector/", location.href.replace(/[?#].*$/, ""));
export const ORIGIN = location.origin;

/** The proxy's answer to what could not be done, or why there was none. */
export class Refused extends Error {
  constructor(status, message, hint = "") {
    super(message);
    this.status = status;
    this.hint = hint;
  }
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(new URL(path, AT), { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The proxy does not answer.", "Is slproxy still running?");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Refused(response.status, problem.detail ?? `The proxy answered ${response.status}.`, problem.hint ?? "");
}

const say = async (name, document) => {
  const response = await ask(name, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Slproxy-Inspector": "1" },
    body: JSON.stringify(document),
  });
  const text = await response.text();
  return text === "" ? {} : JSON.parse(text);
};

export const exchange = async (n, signal) => (await ask(`exchanges/${n}`, { signal })).json();
export const resend = (n, edit) => say("resend", edit ? { n, edit } : { n });
export const recordBodies = (on, minutes) => say("bodies", on ? { on, minutes } : { on });
export const clear = () => say("clear", {});
export const pin = (n, pinned) => say("pin", { n, pinned });

/** The HAR of these exchanges, as a file. */
export async function har(numbers, mask) {
  return (await ask(`har?n=${numbers.join(",")}${mask ? "&mask=1" : ""}`)).blob();
}

/** Why the events are refused, where the proxy says; "" where it does not. */
export async function whyNoEvents() {
  const stop = new AbortController();
  try {
    await ask("events", { signal: stop.signal });
    return "";
  } catch (error) {
    return error.status ? error.message : "";
  } finally {
    stop.abort();
  }
}

export const eventSource = () => new EventSource(new URL("events", AT));
