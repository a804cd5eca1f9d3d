/** The eBPF objects of one pod: its listeners' map, what captures inbound connections, and the guard at its interfaces. */
import type { Exclusions } from "../../mesh/enrolment.ts";
import { BpfLink } from "../../os/bpf/links.ts";
import { BpfMap } from "../../os/bpf/maps.ts";
import { openPinned, pin, unpin } from "../../os/bpf/pins.ts";
import { BpfProgram, programById, type ProgramKind } from "../../os/bpf/programs.ts";
import { LISTENERS_SHAPE, podPinFolder } from "../../os/bpf/shared_maps.ts";
import { type Netns, readSysctl, withinNetns, writeSysctl } from "../../os/netns.ts";
import { guardProgram } from "./guard.ts";
import { ingressProgram, loopbackProgram } from "./ingress.ts";
import { type NodeObjects, programName } from "./node_objects.ts";
import { ensureLink, ensureMap, pinNames, removePodPins } from "./pinned.ts";
import type { PodFacts } from "./pod_facts.ts";
import { inboundProgram } from "./sk_lookup.ts";

const FWMARK_ACCEPT = "net/ipv4/tcp_fwmark_accept"; // It holds for both families.
/** Stands beside a pod's links if the setting was somebody else's wish before it was ours. */
export const MARKER = "fwmark_was_on";
const LOOPBACK_INTERFACE = 1;

export interface PodOptions {
  readonly dns: boolean;
  /** Inbound is not captured. */
  readonly ingress: boolean;
  /** What is left out of capture (CNI-099). */
  readonly exclude: Exclusions;
  /** What arrives there counts as outbound, and is redirected by rules (CNI-210). */
  readonly virtualInterfaces: readonly string[];
}

/** A program that should run in the pod's namespace. */
interface Wanted {
  readonly pin: string;
  /** In words. */
  readonly what: string;
  readonly kind: ProgramKind;
  readonly instructions: Uint8Array<ArrayBuffer>;
  /** Of an interface; undefined: of the namespace. */
  readonly interface: number | undefined;
}

/** Sockets that are accepted from now on keep no mark; where somebody else wished it they still do. Throws AMB7001. */
export function stopAcceptingMarks(netns: Netns, folder: string, sysctls: string | undefined): void {
  const names = pinNames(folder);
  if (names.length > 0 && !names.includes(MARKER)) writeSysctl(netns, FWMARK_ACCEPT, "0", sysctls);
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
    const first = pinNames(this.#folder).length === 0;
    Deno.mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    using listeners = ensureMap(`${this.#folder}/${LISTENERS_SHAPE.name}`, LISTENERS_SHAPE);
    if (readSysctl(this.#netns, FWMARK_ACCEPT) !== "1") this.#acceptMarks("1");
    else if (first) pin(listeners.fd, `${this.#folder}/${MARKER}`); // Somebody else's wish: it stays on when we go.
    const wanted = this.#wanted(facts, options, listeners.fd);
    for (const it of wanted) {
      using program = load(it);
      using _link = ensureLink(
        `${this.#folder}/${it.pin}`,
        program,
        this.#targetOf(it),
        () => this.#attach(it, program),
      );
    }
    for (const name of this.#links()) if (wanted.every((it) => it.pin !== name)) unpin(`${this.#folder}/${name}`);
  }

  /** Inbound and outbound pass; what ztunnel has keeps its way. */
  release(): void {
    const way = `loopback_${LOOPBACK_INTERFACE}`;
    for (const name of this.#links()) if (name !== way) unpin(`${this.#folder}/${name}`);
  }

  remove(): void {
    stopAcceptingMarks(this.#netns, this.#folder, this.#node.places.sysctls);
    removePodPins(this.#folder);
  }

  #acceptMarks(value: "0" | "1"): void {
    writeSysctl(this.#netns, FWMARK_ACCEPT, value, this.#node.places.sysctls);
  }

  /** What is missing or different, in words. */
  check(facts: PodFacts, options: PodOptions): string[] {
    const fd = openPinned(`${this.#folder}/${LISTENERS_SHAPE.name}`);
    using listeners = fd === undefined ? undefined : BpfMap.adopt(fd, LISTENERS_SHAPE);
    if (listeners === undefined) return ["the map of ztunnel's listeners is missing"];
    const wanted = this.#wanted(facts, options, listeners.fd);
    return [
      ...readSysctl(this.#netns, FWMARK_ACCEPT) === "1" ? [] : [`${FWMARK_ACCEPT} is off`],
      ...wanted.flatMap((it) => this.#compare(it)),
      ...this.#links().filter((name) => wanted.every((it) => it.pin !== name)).map((name) =>
        `${name} should not be there`
      ),
    ];
  }

  #wanted(facts: PodFacts, options: PodOptions, listeners: number): Wanted[] {
    const { fds, foreignZtunnel } = this.#node, { virtualInterfaces, exclude, ingress, dns } = options;
    const isVirtual = ({ name }: { name: string }) => virtualInterfaces.includes(name);
    const outside = facts.interfaces.filter((it) => !isVirtual(it)), own = [...facts.ipv4, ...facts.ipv6];
    const passing = facts.interfaces.filter(isVirtual).map(({ index }) => index);
    const inbound = { own, excludedPorts: exclude.inboundPorts, passing };
    const at = (
      kind: ProgramKind,
      what: string,
      instructions: Uint8Array<ArrayBuffer>,
      index: number,
      name: string,
    ) => ({
      pin: `${what}_${index}`,
      what: `the ${what} of ${name}`,
      kind,
      instructions,
      interface: index,
    });
    const guard = guardProgram(fds, { cookie: this.#cookie, dns });
    const wanted: Wanted[] = outside.map(({ index, name }) => at("tcxEgress", "guard", guard, index, name));
    if (foreignZtunnel) wanted.push(at("tcxIngress", "loopback", loopbackProgram(own), LOOPBACK_INTERFACE, "lo"));
    if (ingress) return wanted;
    if (foreignZtunnel) {
      const capture = ingressProgram(fds, inbound);
      return [...wanted, ...outside.map(({ index, name }) => at("tcxIngress", "ingress", capture, index, name))];
    }
    const instructions = inboundProgram(fds, listeners, inbound);
    return [...wanted, {
      pin: "sk_lookup",
      what: "inbound capture",
      kind: "skLookup",
      instructions,
      interface: undefined,
    }];
  }

  #targetOf(wanted: Wanted): number {
    return wanted.interface ?? this.#netns.inode;
  }

  #attach(wanted: Wanted, program: BpfProgram): BpfLink {
    const index = wanted.interface;
    if (index === undefined) return BpfLink.attach(program, this.#netns.fd);
    return withinNetns(this.#netns, () => BpfLink.attachToInterface(program, index));
  }

  #compare(wanted: Wanted): string[] {
    const fd = openPinned(`${this.#folder}/${wanted.pin}`);
    if (fd === undefined) return [`${wanted.what} is missing`];
    using link = new BpfLink(fd);
    const info = link.info();
    if (info.target !== this.#targetOf(wanted)) return [`${wanted.what} is detached`];
    using program = load(wanted);
    return programById(info.programId)?.tag === program.info().tag
      ? []
      : [`${wanted.what} is another than it should be`];
  }

  /** Names of what is pinned, maps apart. */
  #links(): string[] {
    return pinNames(this.#folder).filter((name) => name !== LISTENERS_SHAPE.name && name !== MARKER);
  }
}

function load({ kind, instructions }: Wanted): BpfProgram {
  return BpfProgram.load(kind, programName(kind), instructions);
}
