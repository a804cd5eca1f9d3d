/** The shop of `examples/shop` in a lab: its pods, its unmodified programs, and what its customer reports. */
import { parseAll } from "@std/yaml";
import { assert } from "../base/assert.ts";
import { Mesh, type Pod, type PodSpec } from "./lab/mesh.ts";
import { NODE_NAMES, type NodeName, WIRE } from "./lab/network.ts";
import { Probe } from "./lab/probe.ts";
import { denoProgram } from "./lab/program.ts";
import { Wiretap } from "./lab/wiretap.ts";

const FOLDER = new URL("../examples/shop/", import.meta.url);

export const SHOP_PORT = { http: 8080, store: 9000 } as const;
/** Addresses of the services, as their files have them. */
export const SERVICE = { frontend: "10.96.0.11", catalogue: "10.96.0.12", store: "10.96.0.13" } as const;
export const POD_NAMES = ["shopper", "frontend", "catalogue", "store", "courier", "passer-by"] as const;
export type PodName = (typeof POD_NAMES)[number];

/** What the customer found at one of its targets within a report's interval. */
export interface TargetReport {
  readonly target: string;
  readonly succeeded: number;
  readonly failed: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly error: string;
}

export interface ShopperReport {
  readonly intervalMs: number;
  readonly targets: readonly TargetReport[];
}

export class Shop implements AsyncDisposable {
  readonly mesh: Mesh;
  readonly pods: Readonly<Record<PodName, Pod>>;
  /** What every request and response holds, and nobody on the wire may read. */
  readonly banner: string;
  readonly wiretap: Wiretap;
  /** A probe outside of all nodes and of the mesh. */
  readonly world: Probe;
  readonly #reports: ShopperReport[] = [];
  #reportCount = 0;

  private constructor(mesh: Mesh, parts: { pods: Record<PodName, Pod>; banner: string }) {
    this.mesh = mesh;
    this.pods = parts.pods;
    this.banner = parts.banner;
    this.wiretap = mesh.defer(() => new Wiretap(mesh.network.nodes["node-a"].netns, WIRE, parts.banner));
    this.world = mesh.defer(() => new Probe("the outside world", mesh.network.control));
  }

  /** Builds the mesh and the shop in it, and opens the shop. Throws MeshError, with nothing left behind. */
  static async open(options: { key: string; onLine: (role: string, line: string) => void }): Promise<Shop> {
    await using building = new AsyncDisposableStack();
    const mesh = building.use(await Mesh.start({ ...options, configuration: FOLDER.pathname }));
    const pods: Partial<Record<string, Pod>> = {};
    await Promise.all(podSpecs().map(async (spec) => pods[spec.name] = await mesh.addPod(spec)));
    for (const name of POD_NAMES) assert(pods[name] !== undefined, `the shop has a pod ${name}`);
    const banner = `Welcome-to-the-shop-${crypto.randomUUID().slice(0, 8)}`;
    const shop = new Shop(mesh, { pods: pods as Record<PodName, Pod>, banner });
    shop.#startPrograms();
    building.move();
    return shop;
  }

  /** The customer's reports so far, the newest last; only the last minutes are kept. */
  get reports(): readonly ShopperReport[] {
    return this.#reports;
  }

  /** How many reports there were altogether. */
  get reportCount(): number {
    return this.#reportCount;
  }

  /** All processes, by what they are. */
  get processIds(): number[] {
    const { istiod, nodes } = this.mesh;
    return [istiod.pid, ...NODE_NAMES.flatMap((name) => [nodes[name].ztunnel.pid, nodes[name].cni.pid])];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.mesh[Symbol.asyncDispose]();
  }

  #startPrograms(): void {
    const storeAddress = `${SERVICE.store}:${SHOP_PORT.store}`;
    const run = (name: PodName, environment: Record<string, string>, onLine?: (line: string) => void) =>
      this.pods[name].run(name, {
        ...denoProgram(new URL(`apps/${name}.ts`, FOLDER)),
        environment: { SHOP_BANNER: this.banner, ...environment },
        onLine,
      });
    run("store", { PORT: `${SHOP_PORT.store}` });
    run("catalogue", { PORT: `${SHOP_PORT.http}` });
    run("frontend", {
      PORT: `${SHOP_PORT.http}`,
      CATALOGUE_URL: `http://${SERVICE.catalogue}/`,
      STORE_ADDRESS: storeAddress,
    });
    const shopper = { FRONTEND_URL: `http://${SERVICE.frontend}/`, STORE_ADDRESS: storeAddress };
    run("shopper", shopper, (line) => this.#report(line));
  }

  #report(line: string): void {
    if (!line.startsWith("{")) return; // A warning of the runtime.
    this.#reports.push(JSON.parse(line));
    this.#reportCount++;
    if (this.#reports.length > 240) this.#reports.shift();
  }
}

interface PodDocument {
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec: { readonly nodeName: NodeName; readonly serviceAccountName: string };
  readonly status: { readonly podIPs: readonly { readonly ip: string }[] };
}

/** The pods that the shop's files describe: what the files say is what the lab builds. */
function podSpecs(): PodSpec[] {
  const specs: PodSpec[] = [];
  for (const { name } of Deno.readDirSync(FOLDER)) {
    if (!name.endsWith(".yaml")) continue;
    for (const document of parseAll(Deno.readTextFileSync(new URL(name, FOLDER))) as PodDocument[]) {
      if (document.kind !== "Pod") continue;
      const { metadata, spec, status } = document;
      specs.push({
        name: metadata.name,
        namespace: metadata.namespace,
        serviceAccount: spec.serviceAccountName,
        node: spec.nodeName,
        addresses: { ipv4: status.podIPs[0]!.ip, ipv6: status.podIPs[1]!.ip },
        enrolled: metadata.annotations?.["ambient.istio.io/redirection"] === "enabled",
        described: true,
      });
    }
  }
  return specs;
}
