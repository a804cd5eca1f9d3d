import { assert, assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { type KubeApi, KubeError, type KubeObject } from "../../kube/api.ts";
import { POD } from "./node_testing.ts";
import { PodEvents } from "./pod_events.ts";

/** An API that keeps what it was given. */
function events({ failing = false } = {}) {
  const written: KubeObject[] = [], clock = { ms: 0 };
  const create: KubeApi["create"] = (_type, _namespace, object) => {
    if (failing) return Promise.reject(new KubeError(403, "Forbidden", "no"));
    written.push(object as KubeObject);
    return Promise.resolve(object as KubeObject);
  };
  const log = new Logger("events", { sink: () => {} });
  const said = new PodEvents({ api: { create }, nodeName: "n1", log, nowMs: () => clock.ms });
  return {
    said,
    clock,
    lines: () => written.map(({ reason, type, message }) => `${type} ${reason}: ${message}`),
    written,
  };
}

Deno.test("PodEvents says each change once, whatever the retries, and a repair once a minute (CNI-095, CNI-096)", async () => {
  const { said, clock, lines, written } = events(), error = new Error("no ztunnel is connected");
  const failure = { path: "informer", error } as const;
  said.failed(POD, failure);
  said.failed(POD, failure);
  said.enrolled(POD);
  said.enrolled(POD);
  for (const ms of [0, 1_000, 61_000]) {
    clock.ms = ms;
    said.repaired(POD, "rules", "table istio-ambient-nat is missing");
  }
  said.unreadable(POD, "x is neither true nor false");
  said.unreadable(POD, "x is neither true nor false");
  said.unenrolled(POD, { lives: true });
  said.unenrolled(POD, { lives: false });
  await said.written;
  assertEquals(lines(), [
    "Warning AmbientEnrollFailed: no ztunnel is connected; it is tried again, at first after 5 ms, then up to every 5 s",
    "Normal AmbientEnrolled: the pod's traffic is captured and ztunnel carries it",
    "Normal AmbientRepaired: rules made right again: table istio-ambient-nat is missing",
    "Normal AmbientRepaired: rules made right again: table istio-ambient-nat is missing",
    "Warning AmbientAnnotation: an annotation is passed over: x is neither true nor false",
    "Normal AmbientUnenrolled: the pod's traffic is captured no more",
  ]);
  assertEquals(new Set(written.map(({ metadata }) => metadata.name)).size, 6);
  const { metadata, involvedObject } = written[0]!;
  assertEquals([metadata.namespace, (involvedObject as { uid: string }).uid], ["shop", "u1"]);
});

Deno.test("PodEvents says nothing new of a pod known from before, keeps to bounds, and fails nobody (CNI-096)", async () => {
  const { said, lines } = events();
  said.known(POD);
  said.enrolled(POD);
  await said.written;
  assertEquals(lines(), []);
  const many = events();
  for (let at = 0; at < 300; at++) many.said.enrolled({ ...POD, uid: `u${at}`, name: `web-${at}` });
  const error = new Error("x".repeat(5_000));
  await many.said.written;
  assertEquals(many.lines().length, 200, "what comes while so many wait is not said");
  many.said.failed(POD, { path: "plugin", error });
  await many.said.written;
  assert(many.lines().at(-1)!.length < 1_100);
  const refused = events({ failing: true });
  refused.said.enrolled(POD);
  await refused.said.written;
});
