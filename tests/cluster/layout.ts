/** Addresses and names of a cluster; all of them exist only inside its own namespaces. */

/** Where the control plane runs, which also is the switch that all nodes are plugged into. */
export const CONTROL_PLANE = "172.31.7.1";
export const BRIDGE = "fabric";
export const API_URL = `https://${CONTROL_PLANE}:6443`;
export const SERVICE_RANGE = "10.96.0.0/16", API_SERVICE = "10.96.0.1", DNS_SERVICE = "10.96.0.10";
export const POD_RANGE = "10.244.0.0/16";
export const PAUSE_IMAGE = "localhost/pod:1";

export interface NodeLayout {
  readonly name: string;
  readonly ip: string;
  readonly podRange: string;
  /** The wire's end at the switch. */
  readonly port: string;
}

/** The node number 1, 2, … */
export function nodeLayout(number: number): NodeLayout {
  return {
    name: `node${number}`,
    ip: `172.31.7.${10 + number}`,
    podRange: `10.244.${number}.0/24`,
    port: `wire${number}`,
  };
}
