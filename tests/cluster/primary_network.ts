/** How pods of a node are plugged in before the mesh comes: the ways that real networks have, each the primary CNI plugin of a node. */
import { MeshError } from "../../base/errors.ts";
import type { NodeLayout } from "./layout.ts";

export const NETWORKS = ["bridge", "ptp", "routed"] as const;
export type Network = typeof NETWORKS[number];

/** A plugin of ours, beside the standard ones. */
export const ROUTED_PLUGIN = new URL("parts/routed.sh", import.meta.url).pathname;

/** What each node has, unless `--cni` says otherwise: who knows both sides of a tunnel plugged in by other ways knows more. */
export const USUAL = "bridge,routed";

/** One for all nodes, or one for each, by commas. @throws MeshError AMB7250 for a name that is none. */
export function networksOf(text: string | undefined, nodes: number): readonly Network[] {
  const names = (text ?? USUAL).split(",");
  return Array.from({ length: nodes }, (_, node) => {
    const name = names[node % names.length];
    const network = NETWORKS.find((it) => it === name);
    if (network !== undefined) return network;
    throw new MeshError("AMB7250", `there is no primary network ${name}`, {
      remedy: `--cni takes ${NETWORKS.join(", ")}, or one for each node, by commas`,
    });
  });
}

/** The configuration list of a node. */
export function conflist(network: Network, { podRange }: NodeLayout): object {
  const ipam = { type: "host-local", ranges: [[{ subnet: podRange }]], routes: [{ dst: "0.0.0.0/0" }] };
  const plugins = {
    bridge: { type: "bridge", bridge: "cni0", isGateway: true, hairpinMode: true, ipMasq: false, ipam },
    // A pair for each pod; its end on the node has the gateway's address, with /32 (kind).
    ptp: { type: "ptp", ipMasq: false, ipam },
    // A pair whose end on the node has no address: the node speaks to the pod from its own (Calico, and Cilium's routing).
    routed: { type: "routed", ipam },
  };
  const ports = { type: "portmap", capabilities: { portMappings: true }, snat: true };
  return { cniVersion: "1.0.0", name: "pods", plugins: [plugins[network], ports] };
}
