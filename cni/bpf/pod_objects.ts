/** The eBPF objects of one pod: its listeners' map, the lookup hook in its namespace, and the guard at its interfaces. */
import { BpfLink } from "../../os/bpf/links.ts";
import { BpfMap } from "../../os/bpf/maps.ts";
import { openPinned, pin, unpin } from "../../os/bpf/pins.ts";
import { BpfProgram, programById } from "../../os/bpf/programs.ts";
import { LISTENERS_SHAPE, podPinFolder } from "../../os/bpf/shared_maps.ts";
import { type Netns, readSysctl, withinNetns, writeSysctl } from "../../os/netns.ts";
import { guardProgram } from "./guard.ts";
import { type NodeObjects, programName } from "./node_objects.ts";
import { ensureLink, ensureMap, pinNames, removePodPins } from "./pinned.ts";
import type { PodFacts } from "./pod_facts.ts";
import { inboundProgram } from "./sk_lookup.ts";

const FWMARK_ACCEPT = "net/ipv4/tcp_fwmark_accept"; // It holds for both families.
const MARKER = "fwmark_was_on", LOOKUP = "sk_lookup", GUARD = "guard_";

export interface PodOptions {
  readonly dns: boolean;
  /** Inbound is not captured. */
  readonly ingress: boolean;
  /** What arrives there counts as outbound, and is redirected by rules (CNI-210). */
  readonly virtualInterfaces: readonly string[];
}

export class PodObjects {
  readonly #node: NodeObjects;
  readonly #netns: Netns;
  readonly #cookie: bigint;
  readonly #folder: string;

  constructor(node: NodeObjects, netns: Netns, cookie: bigint) {
    this.#node = node;
    this.#netns = netns;
    this.#cookie = cookie;
    this.#folder = podPinFolder(node.places.pins, cookie);
  }

  /** First what refuses, then what captures: while this runs nothing passes. Throws AMB7150, AMB7151, AMB7001. */
  apply(facts: PodFacts, options: PodOptions): void {
    const first = this.#names().length === 0;
    Deno.mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    using listeners = ensureMap(`${this.#folder}/${LISTENERS_SHAPE.name}`, LISTENERS_SHAPE);
    if (readSysctl(this.#netns, FWMARK_ACCEPT) !== "1") writeSysctl(this.#netns, FWMARK_ACCEPT, "1");
    else if (first) pin(listeners.fd, `${this.#folder}/${MARKER}`); // Somebody else's wish: it stays on when we go.
    this.#guard(facts, options);
    if (options.ingress) return unpin(`${this.#folder}/${LOOKUP}`);
    using program = this.#loadInbound(listeners.fd, facts, options);
    using _lookup = ensureLink(
      `${this.#folder}/${LOOKUP}`,
      program,
      this.#netns.inode,
      () => BpfLink.attach(program, this.#netns.fd),
    );
  }

  /** Inbound and outbound pass; what ztunnel has keeps its way. */
  release(): void {
    for (const name of this.#names()) if (name === LOOKUP || name.startsWith(GUARD)) unpin(`${this.#folder}/${name}`);
  }

  remove(): void {
    const names = this.#names();
    if (names.length > 0 && !names.includes(MARKER)) writeSysctl(this.#netns, FWMARK_ACCEPT, "0");
    removePodPins(this.#folder);
  }

  /** What is missing or different, in words. */
  check(facts: PodFacts, options: PodOptions): string[] {
    const differences: string[] = [];
    const fd = openPinned(`${this.#folder}/${LISTENERS_SHAPE.name}`);
    using listeners = fd === undefined ? undefined : BpfMap.adopt(fd, LISTENERS_SHAPE);
    if (listeners === undefined) return ["the map of ztunnel's listeners is missing"];
    if (readSysctl(this.#netns, FWMARK_ACCEPT) !== "1") differences.push(`${FWMARK_ACCEPT} is off`);
    if (options.ingress) {
      if (this.#has(LOOKUP)) differences.push("inbound traffic is captured");
    } else {
      using program = this.#loadInbound(listeners.fd, facts, options);
      differences.push(...this.#compare(LOOKUP, "inbound capture", program, this.#netns.inode));
    }
    using guard = this.#loadGuard(options);
    for (const { index, name } of guarded(facts, options)) {
      differences.push(...this.#compare(`${GUARD}${index}`, `the guard of ${name}`, guard, index));
    }
    return differences;
  }

  #guard(facts: PodFacts, options: PodOptions): void {
    using program = this.#loadGuard(options);
    const wanted = new Set<string>();
    for (const { index } of guarded(facts, options)) {
      wanted.add(`${GUARD}${index}`);
      withinNetns(this.#netns, () => {
        using _link = ensureLink(
          `${this.#folder}/${GUARD}${index}`,
          program,
          index,
          () => BpfLink.attachToInterface(program, index),
        );
      });
    }
    for (const name of this.#names()) {
      if (name.startsWith(GUARD) && !wanted.has(name)) unpin(`${this.#folder}/${name}`);
    }
  }

  #loadGuard({ dns }: PodOptions): BpfProgram {
    return BpfProgram.load("tcxEgress", "am_guard", guardProgram(this.#node.fds, { cookie: this.#cookie, dns }));
  }

  #loadInbound(listeners: number, facts: PodFacts, options: PodOptions): BpfProgram {
    const { virtualInterfaces } = options;
    const passing = facts.interfaces.filter(({ name }) => virtualInterfaces.includes(name)).map(({ index }) => index);
    const own = [...facts.ipv4, ...facts.ipv6];
    const instructions = inboundProgram(this.#node.fds, listeners, { own, excludedPorts: [], passing });
    return BpfProgram.load("skLookup", programName("skLookup"), instructions);
  }

  #compare(pinned: string, what: string, program: BpfProgram, target: number): string[] {
    const fd = openPinned(`${this.#folder}/${pinned}`);
    if (fd === undefined) return [`${what} is missing`];
    using link = new BpfLink(fd);
    const info = link.info();
    if (info.target !== target) return [`${what} is detached`];
    return programById(info.programId)?.tag === program.info().tag ? [] : [`${what} is another than it should be`];
  }

  #has(name: string): boolean {
    return this.#names().includes(name);
  }

  #names(): string[] {
    return pinNames(this.#folder);
  }
}

function guarded(facts: PodFacts, { virtualInterfaces }: PodOptions): PodFacts["interfaces"] {
  return facts.interfaces.filter(({ name }) => !virtualInterfaces.includes(name));
}
