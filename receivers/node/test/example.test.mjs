// Runs the example of docs/receiving.md.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { createHandler } from "../dist/index.js";

const table = JSON.parse(readFileSync(new URL("../../../api/receiver/testdata/vectors.json", import.meta.url), "utf8"));
const good = table.answers.find((v) => v.name === "an event");
const reminded = [];
const remind = (data) => reminded.push(data.resourceId);
process.env.WEBHOOK_SECRET = good.secrets[0];

export const POST = createHandler({
  secret: process.env.WEBHOOK_SECRET,
  on: { "appointment.*": async (event) => remind(event.data) },
});

test("the example of docs/receiving.md", async (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: good.now * 1000 });
  const response = await POST(new Request("http://x/", { method: "POST", headers: good.headers, body: good.body }));
  assert.deepEqual([response.status, reminded], [200, ["appt_1"]]);
});
