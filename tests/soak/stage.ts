/** The mesh under soak: veterans that stay and must always be served, a guarded pod, and what is found out about them. */
import { Mesh, type Pod } from "../../demo/lab/mesh.ts";
import type { Target } from "../../demo/lab/probe_operations.ts";
import type { PatternTally } from "../../demo/lab/probe_pattern.ts";
import type { NodeName } from "../../demo/lab/network.ts";
import { serviceYaml } from "../../demo/lab/yaml.ts";
import { pause } from "../../demo/lab/until.ts";
import { Chance } from "../sim/chance.ts";
import type { Findings } from "./findings.ts";

export const NAMESPACE = "soak", PATTERN_PORT = 7000, LINE_PORT = 7001;
const SERVICE = { ipv4: "10.96.7.7", ipv6: "fd80:96::707", port: 80 };

/** Pods that are there from start to end. Whatever else happens, their connections among each other hold. */
export const VETERANS = [["alpha", "node-a"], ["bravo", "node-b"], ["gamma", "node-a"]] as const satisfies readonly (
  readonly [string, NodeName]
)[];

/** How hard the load presses. */
export interface LoadOptions {
  readonly lanes: number;
  readonly pauseMs: number;
  readonly bulkBytesMax: number;
  readonly longMs: number;
}

/** How often each kind of churn came about. */
export type Counts = Record<string, number>;

export class Stage {
  readonly mesh: Mesh;
  readonly chance: Chance;
  readonly findings: Findings;
  readonly counts: Counts = {};
  readonly guard: Pod;
  /** Where the CA's keys are, for new roots. */
  readonly caFolder: string;
  /** How often a ztunnel is replaced, on average; 0: never. */
  readonly takeoverMs: number;
  /** Connections that each node's ztunnel had from the one before it. */
  readonly carried = new Map<NodeName, number>();
  /** Aborted when the time is up: churn comes to its end. */
  readonly over: AbortSignal;
  readonly #veterans: readonly Pod[];
  readonly #load: LoadOptions;
  readonly #guests = new Map<string, Target[]>();

  private constructor(
    parts: {
      mesh: Mesh;
      chance: Chance;
      findings: Findings;
      guard: Pod;
      veterans: Pod[];
      load: LoadOptions;
      caFolder: string;
      takeoverMs: number;
    },
    over: AbortSignal,
  ) {
    this.mesh = parts.mesh;
    this.chance = parts.chance;
    this.findings = parts.findings;
    this.guard = parts.guard;
    this.caFolder = parts.caFolder;
    this.takeoverMs = parts.takeoverMs;
    this.over = over;
    this.#veterans = parts.veterans;
    this.#load = parts.load;
  }

  /** Adds the veterans and the guarded pod to a mesh, with a service over the veterans of both nodes. */
  static async open(
    parts: { mesh: Mesh; chance: Chance; findings: Findings; load: LoadOptions; caFolder: string; takeoverMs: number },
    over: AbortSignal,
  ): Promise<Stage> {
    const { mesh } = parts, place = { namespace: NAMESPACE };
    const veterans = await Promise.all(
      VETERANS.map(([name, node]) => mesh.addPod({ ...place, name, serviceAccount: name, node })),
    );
    const guard = await mesh.addPod({ ...place, name: "guard", serviceAccount: "guard", node: "node-b" });
    mesh.writeConfig(
      "service.yaml",
      serviceYaml({
        name: "alpha",
        namespace: NAMESPACE,
        addresses: [SERVICE.ipv4, SERVICE.ipv6],
        port: SERVICE.port,
        targetPort: PATTERN_PORT,
      }),
    );
    await mesh.seen("the service", ({ services }) => services.some((it) => it.name === "alpha"));
    for (const pod of veterans) await pod.probe.do("listenPattern", { port: PATTERN_PORT });
    await guard.probe.do("listen", { port: LINE_PORT, kind: "line" });
    return new Stage({ ...parts, guard, veterans }, over);
  }

  veteran(name: (typeof VETERANS)[number][0]): Pod {
    return this.mesh.pods.get(name)!;
  }

  /** Counts one deed of the churn. */
  did(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }

  /** A time of calm between two deeds; ends early when the time is up. @returns False then. */
  async calm(minMs: number, maxMs: number): Promise<boolean> {
    const ended = new Promise<void>((resolve) => this.over.addEventListener("abort", () => resolve(), { once: true }));
    if (!this.over.aborted) await Promise.race([pause(this.chance.between(minMs, maxMs)), ended]);
    return !this.over.aborted;
  }

  /** Begins the load of all veterans, or changes its targets. */
  async press(): Promise<void> {
    const guests = [...this.#guests.values()].flat();
    await Promise.all(this.#veterans.map((pod) =>
      pod.probe.do("startPattern", {
        ...this.#load,
        seed: this.chance.bits(),
        targets: [...this.veteranTargets(), ...guests],
      })
    ));
  }

  /** Ends the load of the veterans. Returns once the last connection has ended. */
  async rest(): Promise<void> {
    await Promise.all(this.#veterans.map((pod) => pod.probe.do("stopPattern", {})));
  }

  /** Lets veterans call a guest, or no more. */
  async welcome(guest: Pod, present: boolean): Promise<void> {
    if (present) {
      this.#guests.set(guest.spec.name, [guest.ipv4, guest.ipv6].map((host) => ({ host, port: PATTERN_PORT })));
    } else this.#guests.delete(guest.spec.name);
    if (!this.over.aborted) await this.press();
  }

  veteranTargets(): Target[] {
    const pods = this.#veterans.flatMap(({ ipv4, ipv6 }) => [ipv4, ipv6].map((host) => ({ host, port: PATTERN_PORT })));
    return [...pods, ...[SERVICE.ipv4, SERVICE.ipv6].map((host) => ({ host, port: SERVICE.port }))];
  }

  /** Reads what the veterans' ends have seen, and tells what must not be. @returns Their sums. */
  async look(): Promise<{ connections: number; open: number; bytes: number; failures: number; good: Counts }> {
    const sum = { connections: 0, open: 0, bytes: 0, failures: 0, good: {} as Counts };
    const mustHold = new Set(this.veteranTargets().map((it) => it.host));
    for (const pod of this.#veterans) {
      const { client, server } = await pod.probe.do("patternTallies", {});
      const who = pod.spec.name;
      this.#judge(`${who} calling`, client, mustHold);
      this.#judge(`${who} called`, server, mustHold);
      sum.connections += client.connections;
      sum.open += client.open;
      sum.bytes += client.bytes + server.bytes;
      for (const [kind, count] of Object.entries(client.good)) sum.good[kind] = (sum.good[kind] ?? 0) + count;
      for (const count of Object.values(client.failures)) sum.failures += count;
    }
    return sum;
  }

  #judge(who: string, { wrong, truncated, failures }: PatternTally, mustHold: ReadonlySet<string>): void {
    for (const place of wrong) this.findings.add("wrong bytes", `${who}: ${place}`);
    for (const [host, count] of Object.entries(truncated)) {
      if (mustHold.has(host)) this.findings.add("a stream without its end", `${who}: ${host}`, count);
    }
    for (const [reason, count] of Object.entries(failures)) {
      if (mustHold.has(reason.split(" ")[0]!)) {
        this.findings.add("a connection that must hold failed", `${who}: ${reason}`, count);
      }
    }
  }
}
