import { assertEquals } from "@std/assert";
import { PartialView } from "./partial_view.ts";
import { type MeshState, PlainMeshView } from "./plain_view.ts";
import { resolveInbound } from "./inbound.ts";
import { resolve } from "./resolve.ts";
import { ip, reference, service, serving, workload } from "./testing.ts";

const client = workload("client", "10.0.0.9"), hbone = { tunnelProtocol: 1 } as const;

/** Resolves again and again, as names are asked for and found in `whole`, and tells what was asked and came of it. */
function walk(whole: Required<Pick<MeshState, "workloads" | "services">>, dialled: string, port = 80) {
  const absent = new Set<string>(), asked: string[] = [];
  const known = { workloads: [client], services: [] as (typeof whole.services[number])[] };
  for (let step = 0; step < 10; step++) {
    const view = new PartialView(new PlainMeshView(known), (name) => absent.has(name));
    view.begin();
    const [word0, word1, word2, word3] = ip(dialled);
    const route = resolve(view, client, { network: "", word0, word1, word2, word3, port }, () => 0);
    if (view.missing === "") return { asked, route: route.kind === "refused" ? route.reason : route.kind };
    asked.push(view.missing);
    absent.add(view.missing);
    reveal(known, whole, view.missing);
  }
  throw new Error(`asked without end: ${asked}`);
}

/** What istiod answers to a name: a service comes with its workloads (CP-418). */
function reveal(
  known: { workloads: typeof client[]; services: ReturnType<typeof service>[] },
  whole: Required<Pick<MeshState, "workloads" | "services">>,
  name: string,
): void {
  const at = (network: string, address: readonly number[]) =>
    name === `${network}/${[24, 16, 8, 0].map((bits) => address[3]! >>> bits & 255).join(".")}`;
  known.workloads.push(
    ...whole.workloads.filter((it) =>
      `${it.namespace}/${it.hostname}` === name || it.addresses.some((ip) => at(it.network, ip))
    ),
  );
  for (const it of whole.services) {
    const key = `${it.namespace}/${it.hostname}`;
    if (key !== name && !it.addresses.some(({ network, ip }) => at(network, ip))) continue;
    known.services.push(it);
    known.workloads.push(...whole.workloads.filter(({ services }) => services.has(key)));
  }
}

Deno.test("PartialView names what has to be asked for, one after the other, until the way is known (ZT-127)", () => {
  const pod = workload("pod", "10.0.0.1", hbone), far = workload("far", "10.0.0.2", { ...hbone, network: "other" });
  const waypoint = workload("gate", "10.0.0.3", { ...hbone, services: serving({ "ns1/gate.example": "15008:15008" }) });
  const gate = service("gate", "10.96.0.3", "15008:15008");
  const cases: readonly (readonly [string, Partial<MeshState>, string, string[], string])[] = [
    ["nothing at all", {}, "10.0.0.1", ["/10.0.0.1"], "passthrough"],
    ["a pod", { workloads: [pod] }, "10.0.0.1", ["/10.0.0.1"], "hbone"],
    [
      "a pod behind a waypoint that is named",
      { workloads: [{ ...pod, waypoint: reference("ns1/gate.example") }, waypoint], services: [gate] },
      "10.0.0.1",
      ["/10.0.0.1", "ns1/gate.example"],
      "hbone",
    ],
    [
      "a pod behind a waypoint by address",
      { workloads: [{ ...pod, waypoint: reference("10.0.0.3") }, waypoint], services: [gate] },
      "10.0.0.1",
      ["/10.0.0.1", "/10.0.0.3"],
      "hbone",
    ],
    [
      "a waypoint that nobody knows: never around it",
      { workloads: [{ ...pod, waypoint: reference("ns1/gone.example") }] },
      "10.0.0.1",
      ["/10.0.0.1", "ns1/gone.example"],
      "unknown waypoint: ns1/gone.example",
    ],
    [
      "a service and its endpoint",
      {
        workloads: [{ ...pod, services: serving({ "ns1/web.example": "80:8080" }) }],
        services: [service("web", "10.96.0.1", "80:8080")],
      },
      "10.96.0.1",
      ["/10.96.0.1"],
      "hbone",
    ],
    [
      "a pod on the host's network: asked for once, and passed by (ZT-023)",
      { workloads: [{ ...pod, hostNetwork: true }] },
      "10.0.0.1",
      ["/10.0.0.1"],
      "passthrough",
    ],
    [
      "a service on another network: its gateway is asked for too (ZT-045)",
      {
        workloads: [{
          ...far,
          addresses: [],
          networkGateway: reference("ns1/gate.example"),
          services: serving({ "ns1/web.example": "80:8080" }),
        }, waypoint],
        services: [
          service("web", "10.96.0.1", "80:8080", { subjectAltNames: ["spiffe://cluster.local/ns/ns1/sa/web"] }),
          gate,
        ],
      },
      "10.96.0.1",
      ["/10.96.0.1", "ns1/gate.example"],
      "doubleHbone",
    ],
    ["an address of another network is not ours", { workloads: [far] }, "10.0.0.2", ["/10.0.0.2"], "passthrough"],
  ];
  for (const [what, { workloads = [], services = [] }, dialled, asked, route] of cases) {
    assertEquals(walk({ workloads, services }, dialled), { asked, route }, what);
  }
});

Deno.test("PartialView takes an address inside a known range for unknown, since a workload may own it (ZT-017)", () => {
  const range = service("range", "10.0.0.0/24", "80:80");
  const view = new PartialView(new PlainMeshView({ services: [range] }), () => false);
  view.begin();
  assertEquals(view.serviceAt("", ...ip("10.0.0.7"), "ns1"), range);
  assertEquals(view.missing, "/10.0.0.7");
  const settled = new PartialView(new PlainMeshView({ services: [range] }), () => true);
  settled.begin();
  assertEquals([settled.serviceAt("", ...ip("10.0.0.7"), "ns1"), settled.missing], [range, ""]);
});

Deno.test("PartialView asks for nothing that is known by any way, and for nothing before it is looked up", () => {
  const mine = workload("mine", "10.0.0.1 fd00::1", { hostname: "mine.example", network: "n" });
  const hidden = service("hidden", "10.96.0.1", "80:80", { namespaceOnly: true });
  const view = new PartialView(new PlainMeshView({ workloads: [mine], services: [hidden] }), () => false);
  view.begin();
  view.workloadAt("n", ...ip("10.0.0.1"));
  view.serviceAt("n", ...ip("10.0.0.1"), "ns1"); // It is a workload's.
  view.workloadAt("", ...ip("10.96.0.1"));
  view.serviceAt("", ...ip("10.96.0.1"), "elsewhere"); // It is a service's that others do not see (ZT-141).
  view.serviceNamed("ns1", "mine.example");
  view.workloadNamed("ns1", "hidden.example");
  view.servicesOfHostname("other.example");
  assertEquals(view.missing, "");
  view.serviceAt("n", ...ip("fd00::2"), undefined);
  view.workloadAt("n", ...ip("10.0.0.3"));
  assertEquals(view.missing, "n/fd00::2", "the first of them");
  view.begin();
  assertEquals(view.missing, "");
});

Deno.test("what an inbound authority leads to can be asked for as well (ZT-090)", () => {
  const local = workload("gate", "10.0.0.3"),
    view = new PartialView(new PlainMeshView({ workloads: [local] }), () => false);
  view.begin();
  const authority = { kind: "address", ip: ip("10.96.0.1"), port: 80 } as const;
  const request = { connectedIp: ip("10.0.0.3"), authority, network: "", reservedPorts: [] };
  assertEquals(resolveInbound(view, local, request).ok, false);
  assertEquals(view.missing, "/10.96.0.1");
});
