/** Two networks: a client on one, a gateway and a server on the other, and what each of their ztunnels is told. */
import type { Program } from "../../demo/lab/program.ts";
import { APP_PORT, type Name, Rig } from "./dedicated_rig.ts";

export const SERVICE = "shop.example", VIP = "10.96.0.1";
const FORWARDER_PORT = 9000, HBONE_PORT = 15008;
export const identityOf = (name: Name) => `spiffe://cluster.local/ns/shop/sa/${name}`;

const NETWORK: Readonly<Record<Name, string>> = { client: "near", gateway: "far", server: "far" };
const NAMES = ["client", "gateway", "server"] as const;

/** Ztunnels of other makes, by the pod that has them. */
export type Makes = Readonly<Partial<Record<Name, string | undefined>>>;

/** The pods, their ztunnels, and an application that answers lines at the server. */
export class Networks implements AsyncDisposable {
  readonly rig: Rig;
  readonly ztunnels: Readonly<Record<Name, Program>>;
  readonly forwarder: Program;
  readonly #cleanup: AsyncDisposableStack;

  private constructor(rig: Rig, ztunnels: Networks["ztunnels"], forwarder: Program, cleanup: AsyncDisposableStack) {
    this.rig = rig;
    this.ztunnels = ztunnels;
    this.forwarder = forwarder;
    this.#cleanup = cleanup;
  }

  /** @param clientAsks whether the client's ztunnel is told by the rig's istiod; else all of them have files. */
  static async start(rig: Rig, makes: Makes = {}, { clientAsks = false } = {}): Promise<Networks> {
    await using cleanup = new AsyncDisposableStack();
    if (clientAsks) Deno.writeTextFileSync(`${rig.folder}/config/networks.yaml`, objectsFor(rig));
    const ztunnel = (name: Name) =>
      cleanup.use(rig.ztunnel(name, {
        ...(!(clientAsks && name === "client") && { XDS_ADDRESS: "", LOCAL_XDS: yamlFor(rig, name) }),
        NETWORK: NETWORK[name],
        ENABLE_RESPONSE_BAGGAGE: "true",
      }, makes[name]));
    const ztunnels = { client: ztunnel("client"), gateway: ztunnel("gateway"), server: ztunnel("server") };
    const forwarder = cleanup.use(await rig.forwarder(FORWARDER_PORT, rig.pods.server.place.ipv4, HBONE_PORT));
    await Promise.all(NAMES.map((name) => rig.ready(name, ztunnels[name])));
    return new Networks(rig, ztunnels, forwarder, cleanup.move());
  }

  /** What the server's application answers to the client's, which asked the service. */
  async say(text: string): Promise<string> {
    return (await this.rig.pods.client.probe.do("line", { host: VIP, port: 80, text })).reply;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cleanup.disposeAsync();
  }
}

export function networksRig(): Rig {
  return new Rig(NAMES);
}

/** Each side knows its own network; the client's knows of the other what its istiod would tell it. */
function yamlFor(rig: Rig, name: Name): string {
  const { gateway } = rig.pods;
  const workload = (of: Name, port: number, more = "") =>
    `- { uid: ${of}, name: ${of}, workloadName: ${of}, workloadType: deployment, namespace: shop, serviceAccount: ${of}, protocol: HBONE,
    trustDomain: cluster.local, network: ${NETWORK[of]}, workloadIps: [${rig.pods[of].place.ipv4}],
    canonicalName: ${of}-app, clusterId: ${NETWORK[of]}-1, services: { ${
      port === 0 ? "" : `"shop/${SERVICE}": { 80: ${port} }`
    } } ${more}}`;
  const service = (vip: string, port: number) =>
    `- { name: shop, namespace: shop, hostname: ${SERVICE}, vips: [${vip}], ports: { 80: ${port} },
    subjectAltNames: ["${identityOf("server")}"] }`;
  const way = `, networkGateway: { destination: far/${gateway.place.ipv4}, hboneMtlsPort: ${HBONE_PORT} }`;
  const files: Readonly<Record<Name, readonly [workloads: readonly string[], service: string]>> = {
    client: [
      [workload("client", 0), workload("gateway", 0), workload("server", APP_PORT, way)],
      service(`near/${VIP}`, APP_PORT),
    ],
    gateway: [[workload("gateway", FORWARDER_PORT)], service("far/10.96.9.1", FORWARDER_PORT)],
    server: [[workload("server", APP_PORT)], service("far/10.96.9.1", APP_PORT)],
  };
  const [workloads, own] = files[name];
  return `workloads:\n${workloads.join("\n")}\nservices:\n${own}\npolicies: []\n`;
}

/** What the client's istiod has: its own network, the way into the other, and a service whose endpoint is there. */
function objectsFor(rig: Rig): string {
  const { gateway, server } = rig.pods;
  return `apiVersion: v1
kind: Namespace
metadata: { name: istio-system, labels: { topology.istio.io/network: ${NETWORK.client} } }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: way
  namespace: shop
  labels: { topology.istio.io/network: ${NETWORK.gateway} }
  annotations: { gateway.istio.io/service-account: gateway }
spec: { gatewayClassName: istio-remote, listeners: [{ name: mesh, port: ${HBONE_PORT}, protocol: HBONE }] }
status: { addresses: [{ type: IPAddress, value: ${gateway.place.ipv4} }] }
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: server, namespace: shop, labels: { networking.istio.io/tunnel: http, app: server-app } }
spec:
  hosts: [${SERVICE}]
  addresses: [${VIP}]
  resolution: STATIC
  ports: [{ name: tcp, number: 80, targetPort: ${APP_PORT}, protocol: TCP }]
  subjectAltNames: ["${identityOf("server")}"]
  endpoints: [{ address: ${server.place.ipv4}, network: ${NETWORK.server}, serviceAccount: server }]
`;
}
