/** Two istiods as processes against a real API server: the one that writes is killed, and the other goes on where it was. */
import { assert, assertEquals } from "@std/assert";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { type ApiServer, startApiServer } from "./api_server.ts";
import { installManifests, Istiod } from "./istiod.ts";
import { namespace, service } from "./objects.ts";

const SPACE = "shop", LEASE = "--leader-lease=15s", WITHIN_MS = 180_000;
const NETWORKING = "networking.istio.io/v1",
  SECURITY = "security.istio.io/v1",
  GATEWAY = "gateway.networking.k8s.io/v1";

interface Condition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
}

async function until(claim: string, holds: () => Promise<boolean>): Promise<void> {
  for (const endMs = performance.now() + WITHIN_MS; !(await holds());) {
    if (performance.now() > endMs) throw new Error(`in time: ${claim}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

/** What kubectl prints of a JSON path. */
async function read(server: ApiServer, path: string, ...what: readonly string[]): Promise<string> {
  return (await server.kubectl(["get", ...what, "-n", SPACE, "-o", `jsonpath={${path}}`])).trim();
}

async function conditions(server: ApiServer, ...what: readonly string[]): Promise<string[]> {
  const text = await read(server, ".status.conditions", ...what);
  const list = text === "" ? [] : JSON.parse(text) as Condition[];
  return list.map(({ type, status, reason }) => `${type} ${status} ${reason}`).sort();
}

function entry(name: string): object {
  const ports = [{ number: 80, name: "http", protocol: "HTTP" }];
  const metadata = { name, namespace: SPACE };
  return {
    apiVersion: NETWORKING,
    kind: "ServiceEntry",
    metadata,
    spec: { hosts: [`${name}.test`], ports, resolution: "DNS" },
  };
}

function policy(name: string): object {
  const spec = { selector: { matchLabels: { app: "cart" } }, rules: [{}] };
  return { apiVersion: SECURITY, kind: "AuthorizationPolicy", metadata: { name, namespace: SPACE }, spec };
}

function waypoint(): object {
  const spec = { gatewayClassName: "istio-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] };
  return { apiVersion: GATEWAY, kind: "Gateway", metadata: { name: "wp", namespace: SPACE }, spec };
}

Deno.test("of two istiods on a real API server one writes, and when it is killed with -9 the other does (CP-650, CP-652, CP-654)", async (t) => {
  await using server = await startApiServer({ definitions: ["istio", "gateway"] });
  await installManifests(server);
  await server.apply(namespace(SPACE));
  await using first = await Istiod.start(server, "istiod-1", [LEASE]);
  await using second = await Istiod.start(server, "istiod-2", [LEASE]);
  const holder = (kind: string, name: string, path: string) =>
    server.kubectl(["get", kind, name, "-n", "istio-system", "-o", `jsonpath={${path}}`]);
  const statusLeader = () => holder("lease", "istio-status-leader", ".spec.holderIdentity");

  await t.step(
    "the leader writes addresses, conditions and Gateways' status (CP-240, CP-275, CP-550, CP-570)",
    async () => {
      for (const object of [entry("early"), policy("early"), waypoint()]) await server.apply(object);
      await until(
        "addresses",
        async () => await read(server, ".status.addresses[*].value", "serviceentry", "early") !== "",
      );
      assertEquals(await read(server, ".status.addresses[*].value", "serviceentry", "early"), "240.240.0.1 2001:2::1");
      await until("a condition", async () => (await conditions(server, "authorizationpolicy", "early")).length > 0);
      assertEquals(await conditions(server, "authorizationpolicy", "early"), ["ZtunnelAccepted True Accepted"]);
      await until(
        "the class",
        async () => (await conditions(server, "gatewayclass", "istio-waypoint")).includes("Accepted True Accepted"),
      );
      await until(
        "the Gateway",
        async () => (await conditions(server, "gateway", "wp")).includes("Programmed False NotDeployed"),
      );
      assertEquals(await statusLeader(), "istiod-1");
    },
  );

  await t.step("a condition of another writer stays, and so does ours (CP-275)", async () => {
    const foreign = { type: "example.com/Seen", status: "True", reason: "Yes", message: "" };
    const patch = [{ op: "add", path: "/status/conditions/-", value: foreign }];
    await server.kubectl([
      "patch",
      "authorizationpolicy",
      "early",
      "-n",
      SPACE,
      "--subresource=status",
      "--type=json",
      "-p",
      JSON.stringify(patch),
    ]);
    await server.kubectl(["label", "authorizationpolicy", "early", "-n", SPACE, "touched=yes"]);
    await server.apply({ ...policy("early"), spec: { selector: { matchLabels: { app: "db" } }, rules: [{}] } });
    await until(
      "the new generation is said",
      async () =>
        await read(
          server,
          ".status.conditions[?(@.type=='ZtunnelAccepted')].observedGeneration",
          "authorizationpolicy",
          "early",
        ) === "2",
    );
    assertEquals(await conditions(server, "authorizationpolicy", "early"), [
      "ZtunnelAccepted True Accepted",
      "example.com/Seen True Yes",
    ]);
  });

  using reader = await second.reader();
  await t.step("the other takes over, and its clients see nothing of it", async () => {
    const before = [...reader.names(ADDRESS_TYPE_URL)];
    await first.process.kill();
    await server.apply(entry("late"));
    await server.apply(service(SPACE, "cart", {}));
    await until(
      "the other writes",
      async () => await read(server, ".status.addresses[*].value", "serviceentry", "late") !== "",
    );
    assertEquals(await read(server, ".status.addresses[*].value", "serviceentry", "late"), "240.240.0.2 2001:2::2");
    await until("it leads in statuses too", async () => await statusLeader() === "istiod-2");
    const after = new Set(reader.names(ADDRESS_TYPE_URL));
    assertEquals(before.filter((name) => !after.has(name)), []);
    assert((await second.page("/debug/leaderz")).text.includes('"leading":true'));
    const refused = (await second.log()).filter((line) => line.includes("forbidden"));
    assertEquals(refused, [], "its manifest's rights are enough");
  });
});
