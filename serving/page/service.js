// The server: its routes, its key, and waiting while it is busy.

const KEY = "qm9flow-key";
const WAIT_SECONDS = 2;
const WAIT_MOST_SECONDS = 30;

/** A request that the server refused as a whole. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export class Service {
  /** `askForKey(again)` gives a promise of a key; `again` says that the last one was refused. */
  constructor(askForKey) {
    this.askForKey = askForKey;
    this.waiting = null;
  }

  model(signal) {
    return this.call("model", undefined, signal);
  }

  predict(records, signal) {
    return this.call("predict", { molecules: records, include: ["positions"] }, signal);
  }

  draw(records, signal) {
    return this.call("draw", { molecules: records }, signal);
  }

  async call(path, body, signal) {
    for (;;) {
      signal?.throwIfAborted();
      const response = await fetch(`./${path}`, { ...request(body), signal });
      if (response.ok) return response.json();
      const error = await refusal(response);
      if (error.status === 401) await this.key(signal);
      else if (mayPass(error)) await pause(response, signal);
      else throw error;
    }
  }

  // Several calls may be refused at once: the user is asked once for all of them.
  async key(signal) {
    this.waiting ??= this.askForKey(sessionStorage.getItem(KEY) !== null)
      .then((key) => sessionStorage.setItem(KEY, key))
      .finally(() => { this.waiting = null; });
    await Promise.race([this.waiting, aborted(signal)]);
  }
}

function request(body) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body === undefined) return { headers };
  headers["Content-Type"] = "application/json";
  return { method: "POST", headers, body: JSON.stringify(body) };
}

async function refusal(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // A proxy's page instead of the server's JSON: the status has to do.
  }
  const message = error.message ?? `the server answered ${response.status} ${response.statusText}`;
  return new Refused(response.status, error.code ?? "", message);
}

function mayPass(error) {
  return error.status === 429 || (error.status === 503 && error.code !== "failed");
}

function pause(response, signal) {
  const asked = Number(response.headers.get("Retry-After")) || WAIT_SECONDS;
  const seconds = Math.min(asked, WAIT_MOST_SECONDS);
  const over = new Promise((done) => { setTimeout(done, seconds * 1000); });
  return Promise.race([over, aborted(signal)]);
}

function aborted(signal) {
  return new Promise((_, fail) => {
    signal?.addEventListener("abort", () => fail(signal.reason), { once: true });
  });
}
