/** A node for tests: namespaces, rules, listeners, probes' sets and a ztunnel, all in memory, with knobs for what goes wrong. */
import { assert } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import type { Netns } from "../../os/netns.ts";
import type { NodeProbes, PodRuleOptions, ProbedAddress, Redirection } from "../redirection/redirection.ts";
import type { AnnouncedPod } from "../zds_server.ts";
import type { NodePod } from "./node_pod.ts";
import type { NodeView } from "./node_view.ts";
import type { PodNews } from "./pod_news.ts";
import type { WantedPod } from "./pod_netns.ts";

export const POD: NodePod = {
  uid: "u1",
  name: "web-1",
  namespace: "shop",
  serviceAccount: "web",
  labels: {},
  annotations: {},
  hostNetwork: false,
  ended: false,
  ips: ["10.0.0.2"],
};

/** A namespace that counts its open handles. */
export class FakeNetns {
  open = 0;
  readonly inode: number;
  /** What was written into it; undefined: no rules. */
  rules: PodRuleOptions | undefined;
  /** Whether rules keep what ztunnel carries, and capture nothing new. */
  released = false;
  readonly listeners = new Set<number>();

  constructor(inode: number) {
    this.inode = inode;
  }

  handle(): Netns {
    this.open++;
    let isOpen = true;
    const close = () => {
      assert(isOpen, "a handle is closed once");
      isOpen = false;
      this.open--;
    };
    const { inode } = this;
    const equals = (other: Netns) => other.inode === inode;
    return { inode, fd: 0, duplicate: () => this.handle(), equals, [Symbol.dispose]: close } as unknown as Netns;
  }
}

const PORTS = [15001, 15006, 15008];

/** Everything outlives the agent, as on a real node. */
export class FakeNode implements NodeView {
  /** What was done, in order. */
  readonly steps: string[] = [];
  readonly namespaces = new Map<number, FakeNetns>();
  /** The namespace that a pod's processes are in, by uid. */
  readonly processes = new Map<string, FakeNetns>();
  /** Pods that ztunnel serves, by uid. */
  readonly ztunnel = new Map<string, number>();
  synchronized = true;
  readonly probeSet = new Map<string, string>();
  hostRules = false;
  /** The first word of a step that throws. */
  failing: string | undefined;
  readonly watchers = new Map<number | "host", () => void>();
  readonly annotations = new Map<string, string>();
  /** Enrolments that were begun and not ended. */
  readonly begun = new Set<string>();
  readonly journal = {
    begin: (uid: string) => void this.begun.add(uid),
    end: (uid: string) => void this.begun.delete(uid),
    has: (uid: string) => this.begun.has(uid),
  };

  netns(inode: number): FakeNetns {
    let netns = this.namespaces.get(inode);
    if (netns === undefined) this.namespaces.set(inode, netns = new FakeNetns(inode));
    return netns;
  }

  /** The pod's processes run there from now on. */
  place(uid: string, inode: number): FakeNetns {
    const netns = this.netns(inode);
    this.processes.set(uid, netns);
    return netns;
  }

  get openHandles(): number {
    return [...this.namespaces.values()].reduce((sum, { open }) => sum + open, 0);
  }

  step(name: string): void {
    this.steps.push(name);
    if (this.failing !== undefined && name.startsWith(this.failing)) {
      throw new MeshError("AMB0000", "no", { remedy: "" });
    }
  }

  find(pods: readonly WantedPod[]): Map<string, Netns> {
    return new Map(pods.flatMap(({ uid }) => {
      const netns = this.processes.get(uid);
      return netns === undefined ? [] : [[uid, netns.handle()] as const];
    }));
  }

  holds(netns: Netns, _ips: readonly string[]): boolean {
    return [...this.processes.values()].some(({ inode }) => inode === netns.inode);
  }

  isHost(): boolean {
    return false;
  }

  listening(netns: Netns): ReadonlySet<number> {
    return this.netns(netns.inode).listeners;
  }

  watch(netns: Netns | undefined, onChange: () => void): Disposable {
    const key = netns?.inode ?? "host";
    this.watchers.set(key, onChange);
    return { [Symbol.dispose]: () => void (this.watchers.get(key) === onChange && this.watchers.delete(key)) };
  }

  /** Inode of the namespace in which the host's rules are; undefined: the agent's own. */
  probedIn: number | undefined;

  readonly redirection: Redirection = {
    name: "nft",
    apply: ({ inode }, options) => {
      this.step(`rules${options.dnsCapture ? " dns" : ""}`);
      Object.assign(this.netns(inode), { rules: options, released: false });
    },
    release: ({ inode }) => {
      this.step("release");
      this.netns(inode).released = true;
    },
    remove: ({ inode }) => {
      this.step("unrule");
      Object.assign(this.netns(inode), { rules: undefined, released: false });
    },
    check: ({ inode }, options) => {
      const { rules, released } = this.netns(inode);
      const same = JSON.stringify(rules) === JSON.stringify(options) && !released;
      return same ? [] : [rules === undefined ? "table istio-ambient-nat is missing" : "a rule differs"];
    },
    openNode: (host) => {
      this.probedIn = host?.inode;
      return this.probes();
    },
    [Symbol.dispose]: () => {},
  };

  probes(): NodeProbes {
    return {
      ensure: () => {
        this.step("host rules");
        this.hostRules = true;
      },
      check: () => this.hostRules ? [] : ["table istio-ambient-nat is missing"],
      add: (addresses) => {
        if (addresses.length > 0) this.step("probe");
        for (const { ip, uid } of addresses) this.probeSet.set(ip, uid);
      },
      remove: (addresses) => {
        if (addresses.length > 0) this.step("unprobe");
        const others: ProbedAddress[] = [];
        for (const { ip, uid } of addresses) {
          const owner = this.probeSet.get(ip);
          if (owner === uid) this.probeSet.delete(ip);
          else if (owner !== undefined) others.push({ ip, uid: owner });
        }
        return others;
      },
      sync: (addresses, { complete }) => {
        for (const { ip, uid } of addresses) this.probeSet.set(ip, uid);
        const wanted = new Set(addresses.map(({ ip }) => ip));
        if (complete) { for (const ip of [...this.probeSet.keys()]) if (!wanted.has(ip)) this.probeSet.delete(ip); }
      },
      addresses: () => [...this.probeSet].map(([ip, uid]) => ({ ip, uid })),
      uninstall: () => {
        this.hostRules = false;
        this.probeSet.clear();
      },
      [Symbol.dispose]: () => {},
    };
  }

  /** ztunnel as the pods' agent tells it of them: it listens in what it is told of, and the same again is nothing new (CNI-251). */
  readonly announcer = {
    node: this,
    get synchronized(): boolean {
      return this.node.synchronized;
    },
    addPod: async ({ uid, netns }: AnnouncedPod) => {
      await Promise.resolve(this.step(`zds add ${uid}`));
      if (this.ztunnel.get(uid) === netns!.inode) return;
      this.ztunnel.set(uid, netns!.inode);
      for (const port of PORTS) this.netns(netns!.inode).listeners.add(port);
    },
    deletePod: async (uid: string) => {
      await Promise.resolve(this.step(`zds delete ${uid}`));
      const inode = this.ztunnel.get(uid);
      if (inode !== undefined) this.netns(inode).listeners.clear();
      this.ztunnel.delete(uid);
    },
  };

  readonly annotate = async ({ uid }: NodePod, redirection: string) => {
    await Promise.resolve(this.step(`annotate ${redirection}`));
    if (redirection === "none") this.annotations.delete(uid);
    else this.annotations.set(uid, redirection);
  };
}

/** What was told, a line each. */
export class News implements PodNews {
  readonly lines: string[] = [];

  enrolled({ name }: NodePod, { path }: { path: string }): void {
    this.lines.push(`${name} enrolled by ${path}`);
  }
  failed({ name }: NodePod, { path }: { path: string }): void {
    this.lines.push(`${name} failed by ${path}`);
  }
  unenrolled({ name }: NodePod): void {
    this.lines.push(`${name} unenrolled`);
  }
  repaired({ name }: NodePod, what: string): void {
    this.lines.push(`${name} repaired ${what}`);
  }
  unreadable({ name }: NodePod, problem: string): void {
    this.lines.push(`${name}: ${problem}`);
  }
}
