/** Settings of what istiod writes, and of who of several may: rows of istiod's table, with Istio's names in the environment. */
import { duration, text, toggle } from "../../base/config.ts";

export const STATUS_SETTINGS = {
  leaderElection: {
    kind: toggle(),
    flag: "leader-election",
    env: "ENABLE_LEADER_ELECTION",
    default: true,
    help: "let one of several istiods do what is done once; false where there is never more than one",
  },
  leaderLeaseMs: {
    kind: duration(1_000, 600_000),
    flag: "leader-lease",
    default: 30_000,
    help: "how long a leader that died is waited for; all istiods of a cluster must have the same",
  },
  ambientStatus: {
    kind: toggle(),
    flag: "ambient-status",
    env: "AMBIENT_ENABLE_STATUS",
    default: true,
    help: "write to Services, ServiceEntries, WorkloadEntries and policies what became of them",
  },
  gatewayStatus: {
    kind: toggle(),
    flag: "gateway-status",
    env: "PILOT_ENABLE_GATEWAY_API_STATUS",
    default: true,
    help: "write to Gateways and their classes what became of them",
  },
  gatewayClasses: {
    kind: toggle(),
    flag: "gateway-classes",
    env: "PILOT_ENABLE_GATEWAY_API_GATEWAYCLASS_CONTROLLER",
    default: true,
    help: "make the GatewayClasses istio-waypoint and istio-remote where they are missing",
  },
  addressAllocation: {
    kind: toggle(),
    flag: "address-allocation",
    env: "PILOT_ENABLE_IP_AUTOALLOCATE",
    default: true,
    help: "give the hosts of ServiceEntries that have no address one of their own; never with a folder of files",
  },
  ipv4Pool: {
    kind: text("PREFIX"),
    flag: "ipv4-pool",
    env: "PILOT_IP_AUTOALLOCATE_IPV4_PREFIX",
    default: "240.240.0.0/16",
    help: "where those addresses are taken from; nothing else in the network may use it",
  },
  ipv6Pool: {
    kind: text("PREFIX"),
    flag: "ipv6-pool",
    env: "PILOT_IP_AUTOALLOCATE_IPV6_PREFIX",
    default: "2001:2::/48",
    help: "as --ipv4-pool, for IPv6",
  },
  nodeUntaint: {
    kind: toggle(),
    flag: "node-untaint",
    env: "PILOT_ENABLE_NODE_UNTAINT_CONTROLLERS",
    default: false,
    help: "take a taint off each node once the node agent is ready there",
  },
  nodeTaint: {
    kind: text("KEY"),
    flag: "node-taint",
    env: "PILOT_NODE_UNTAINT_CONTROLLERS_TAINT_NAME",
    default: "cni.istio.io/not-ready",
    help: "which taint that is",
  },
  cniNamespace: {
    kind: text("NAME"),
    flag: "cni-namespace",
    env: "CNI_NAMESPACE",
    default: "",
    defaultText: "the system namespace",
    help: "where the node agents run",
  },
} as const;
