// Runs the example of docs/pull.md against a dispatcher of its own.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { createServer } from "node:http";
import { test } from "node:test";
import { pull, PullError, Receiver } from "../dist/index.js";

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/** A dispatcher that keeps deliveries until they are acknowledged. */
function dispatcher(pending, answers = []) {
  const pages = new Map();
  const calls = [];
  const server = createServer((request, response) => {
    const query = new URL(request.url, "http://x").searchParams;
    calls.push(request.url);
    const next = answers.shift();
    const send = (status, body, headers = {}) => response.writeHead(status, headers).end(JSON.stringify(body));
    if (next) return send(next.status, { type: `https://e.example/#${next.kind}`, detail: "do so" }, next.headers);
    if (request.headers.authorization !== "Bearer token") return send(404, {});
    if (query.has("after")) {
      const done = pages.get(query.get("after")).slice(0, Number(query.get("handled")));
      pending = pending.filter((id) => !done.includes(id));
    }
    const ids = pending.slice(0, Number(query.get("limit")));
    const cursor = ids.length ? `cursor-${pages.size}` : "";
    pages.set(cursor, ids);
    send(200, { deliveries: ids.map(delivery), cursor });
  });
  return { server, calls, left: () => pending };
}

function delivery(id) {
  const body = JSON.stringify({ id, event: "patient.created", type: "patient.created", timestamp: "2026-01-02T03:04:05.000Z", data: { name: "Prénom" } });
  const at = Math.floor(Date.now() / 1000);
  const key = Buffer.from(secret.slice(6), "base64");
  const mac = createHmac("sha256", key).update(`dlv_${id}.${at}.${body}`).digest("base64");
  return { id, headers: { "Content-Type": "application/json", "webhook-id": `dlv_${id}`, "webhook-timestamp": String(at), "webhook-signature": `v1,${mac}` }, body: Buffer.from(body).toString("base64") };
}

async function run(d, on, change = {}) {
  await new Promise((resolve) => d.server.listen(0, "127.0.0.1", resolve));
  const stop = new AbortController();
  const errors = [];
  const hooks = new Receiver({ secret, on: { "patient.*": (event) => on(event, stop) }, onError: () => {} });
  try {
    await pull(hooks, {
      url: `http://127.0.0.1:${d.server.address().port}`, namespace: "clinic-a", subscription: "billing", token: () => "token",
      limit: 2, signal: stop.signal, onError: (e) => errors.push(e), ...change,
    });
  } finally {
    d.server.closeAllConnections();
    d.server.close();
  }
  return errors;
}

test("deliveries are handled in order and acknowledged", async () => {
  const d = dispatcher(["a", "b", "c"]);
  const handled = [];
  await run(d, (event, stop) => {
    handled.push(event.id);
    assert.equal(event.data.name, "Prénom");
    if (event.id === "c") stop.abort();
  });
  assert.deepEqual([handled, d.left()], [["a", "b", "c"], []]);
  assert.match(d.calls[0], /^\/v1\/namespaces\/clinic-a\/subscriptions\/billing\/deliveries:pull\?wait=30s&limit=2$/);
});

test("a handler that fails is called again, and what came before is acknowledged", async () => {
  const d = dispatcher(["a", "b"]);
  let tries = 0;
  await run(d, (event, stop) => {
    if (event.id !== "b") return;
    if (++tries === 1) throw new Error("not now");
    stop.abort();
  });
  assert.deepEqual([tries, d.left()], [2, []]);
  assert.match(d.calls[1], /after=cursor-0&handled=1/);
});

test("what may pass is tried again, with a cursor that is refused dropped", async () => {
  const d = dispatcher(["a"], [{ status: 410, kind: "cursor-expired" }, { status: 429, kind: "overloaded", headers: { "retry-after": "1" } }]);
  const errors = await run(d, (event, stop) => stop.abort());
  assert.deepEqual([errors.map((e) => e.kind), d.left()], [["cursor-expired", "overloaded"], []]);
});

test("what somebody has to mend is thrown", async () => {
  await assert.rejects(run(dispatcher([], [{ status: 403, kind: "forbidden" }]), () => {}), PullError);
});
