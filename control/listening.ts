/** Where a listener goes that was given no address. */
import type { ListenAddress } from "../base/config.ts";

/** What decides it. */
export interface Surroundings {
  /** Whether this is a pod: then clients and the kubelet's probes come from other addresses. */
  readonly inPod: boolean;
  /** Whether one socket for `::` takes IPv4, too. */
  readonly dualStack: boolean;
}

/** The address given, else every address of a pod, else loopback: on a bare node nobody else was asked for. */
export function listenOn(given: ListenAddress | undefined, port: number, around: Surroundings): ListenAddress {
  if (given !== undefined) return given;
  return { host: around.inPod ? (around.dualStack ? "::" : "0.0.0.0") : "127.0.0.1", port };
}

/** Looks at this machine. @param inCluster whether the objects come from a cluster. */
export async function lookAround(inCluster: boolean): Promise<Surroundings> {
  // The kubelet sets it in every pod. With a folder as the source a container is like a bare node.
  const inPod = inCluster && (Deno.env.get("KUBERNETES_SERVICE_HOST") ?? "") !== "";
  return { inPod, dualStack: inPod && await hasDualStack() };
}

async function hasDualStack(): Promise<boolean> {
  try {
    const addresses = await Deno.readTextFile("/proc/net/if_inet6"); // proc(5): empty or missing without IPv6
    return addresses !== "" && (await Deno.readTextFile("/proc/sys/net/ipv6/bindv6only")).trim() === "0";
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
