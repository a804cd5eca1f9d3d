/** Something that carries TCP from the client pod to the server pod. */
import { MeshError } from "../../../base/errors.ts";
import type { Cleanup } from "../cleanup.ts";
import type { Topology } from "../topology.ts";

export interface PeerProcess {
  /** `out` and `in` carry the traffic; others (control plane) are not measured. */
  readonly name: "out" | "in";
  readonly pid: number;
}

/** Where an inbound listener takes mutual TLS, and as whom we may come. */
export interface TlsEntrance {
  readonly port: number;
  readonly chain: string;
  readonly privateKey: string;
  readonly roots: string;
}

/** A peer that was set up in one topology. */
export interface RunningPeer {
  /** The processes whose CPU time and memory are the peer's. */
  readonly processes: readonly PeerProcess[];
  /** Undefined for a peer without TLS. */
  readonly tls: TlsEntrance | undefined;
  /** Changes every workload of other nodes; resolves when both proxies work with the change. */
  readonly changeWorkloads?: () => Promise<void>;
  /** Turns of the workers of both proxies that took more than 5 ms, since their start. */
  readonly countSlowTurns?: () => Promise<number>;
}

export interface Peer {
  readonly name: string;
  /** What it is, with its version if it tells: goes into the report. */
  describe(): Promise<string>;
  /** Whether worker counts mean anything to it. */
  readonly hasWorkers: boolean;
  /** Sockets that one of its processes holds for a connection, at most: 10,000 of them have to fit the limit. */
  readonly descriptorsPerConnection: number;
  /** Starts it; afterwards connections from the client pod to the server pod's ports go through it. */
  setup(topology: Topology, workers: number, cleanup: Cleanup): Promise<RunningPeer>;
}

/** The first line of what a program says about itself. Throws AMB9011 when it is not installed. */
export async function versionLine(command: string, args: readonly string[]): Promise<string> {
  try {
    const output = await new Deno.Command(command, { args: [...args], stdout: "piped", stderr: "null" }).output();
    return new TextDecoder().decode(output.stdout).split("\n").find((line) => line.trim() !== "")?.trim() ?? command;
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotFound)) throw cause;
    throw new MeshError("AMB9011", `there is no program ${command} here`, { remedy: `Install ${command}.`, cause });
  }
}
