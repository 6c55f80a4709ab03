// Requests, and the outbox: an answer stays in the browser until the server has said that it is on disk.

const secret = location.hash.slice(1);

export class Refusal extends Error {
  constructor(text, status) { super(text); this.status = status; }
  /** Whether to send again: no connection, or the server could not take it. */
  get passing() { return this.status === 0 || this.status >= 500; }
}

export async function call(name, body = {}) {
  let reply;
  try {
    reply = await fetch(`api/${name}`, {
      method: "POST", cache: "no-store", body: JSON.stringify(body),
      headers: { Authorization: `Bearer ${secret}`, "Content-Type": "application/json" },
    });
  } catch {
    throw new Refusal("No connection to the server.", 0);
  }
  const data = await reply.json().catch(() => null);
  if (!reply.ok || data === null) throw new Refusal(data?.error ?? "The server could not answer.", reply.ok ? 502 : reply.status);
  return data;
}

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Call until there is a reply; tell the reason meanwhile. */
export async function patiently(name, body, tell) {
  for (let wait = 1000; ; wait = Math.min(wait * 1.6, 20000)) {
    try {
      return await call(name, body);
    } catch (error) {
      if (!error.passing) throw error;
      tell(error);
      await pause(wait);
    }
  }
}

/** An id of an answer; crypto.randomUUID needs https, this does not. */
export function freshId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** localStorage, or memory where the browser allows none. */
export const store = {
  spare: new Map(),
  get(key) {
    try { return JSON.parse(localStorage.getItem(key)); } catch { return this.spare.get(key) ?? null; }
  },
  set(key, value) {
    try { localStorage.setItem(key, JSON.stringify(value)); } catch { this.spare.set(key, value); }
  },
  remove(key) {
    try { localStorage.removeItem(key); } catch { /* it is in memory */ }
    this.spare.delete(key);
  },
};

export class Outbox {
  constructor(worker) { this.key = `tldr-label-outbox:${worker}`; }
  get waiting() { return store.get(this.key) ?? []; }
  add(name, body) { store.set(this.key, [...this.waiting, { name, body }]); }
  /** Send all in order. Returns the last reply; a refusal for good is told and given up. */
  async flush(tell) {
    let last = {};
    while (this.waiting.length) {
      const [{ name, body }] = this.waiting;
      try {
        last = await patiently(name, body, (error) => tell(`${error.message} Your answer is kept on this device and will be sent.`));
        tell("");
      } catch (error) {
        last = { refused: error.message };
      }
      // another window may have sent it meanwhile
      store.set(this.key, this.waiting.filter((entry) => entry.body.answer_id !== body.answer_id));
    }
    return last;
  }
}
