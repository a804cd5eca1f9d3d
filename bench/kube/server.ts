/** An API server with so many pods and nothing else: lists, pages, and a watch in which each pod changes once. Prints its port. */
import { createServer, type ServerResponse } from "node:http";
import { podText } from "./pods.ts";

const count = Number(Deno.args[0]);
const END = { kind: "Pod", metadata: { resourceVersion: "5", annotations: { "k8s.io/initial-events-end": "true" } } };
const EVENTS_A_WRITE = 100;

/** Writes events of all pods, as fast as they are taken. */
async function events(response: ServerResponse, type: string, version: number): Promise<void> {
  for (let row = 0; row < count && !response.destroyed; row += EVENTS_A_WRITE) {
    const rows = Array.from({ length: Math.min(EVENTS_A_WRITE, count - row) }, (_, at) => row + at);
    const text = rows.map((it) => `{"type":"${type}","object":${podText(it, version)}}\n`).join("");
    if (!response.write(text)) await new Promise((resolve) => response.once("drain", resolve));
  }
}

const server = createServer(async (request, response) => {
  const query = new URL(request.url ?? "", "http://x").searchParams;
  response.setHeader("content-type", "application/json");
  if (query.get("watch") === null) {
    const from = Number(query.get("continue") ?? 0), to = Math.min(from + Number(query.get("limit")), count);
    const items = Array.from({ length: to - from }, (_, at) => podText(from + at, 0)).join(",");
    const more = to < count ? String(to) : "";
    return void response.end(
      `{"kind":"PodList","metadata":{"resourceVersion":"5","continue":"${more}"},"items":[${items}]}`,
    );
  }
  if (query.get("resourceVersion") === "nonsense") return void response.writeHead(422).end("{}");
  if (query.get("sendInitialEvents") !== null) {
    await events(response, "ADDED", 0);
    response.write(`{"type":"BOOKMARK","object":${JSON.stringify(END)}}\n`);
  }
  await events(response, "MODIFIED", 1); // And stays open.
});
server.listen(0, "127.0.0.1", () => {
  Deno.stdout.writeSync(new TextEncoder().encode(String((server.address() as { port: number }).port)));
});
