/** The settings of role cni, as one table. */
import { type ConfigOf, defineConfig, duration, text, toggle } from "../base/config.ts";

export const CNI_CONFIG = defineConfig("ambit cni", {
  nodeMode: {
    kind: toggle(),
    flag: "node-mode",
    env: "AMBIT_NODE_MODE",
    default: false,
    help: "serve a node without Kubernetes, on whose enrolment socket network namespaces are enrolled",
  },
  zdsSocket: {
    kind: text("PATH"),
    flag: "zds-socket",
    env: "ZTUNNEL_UDS_ADDRESS",
    default: "/var/run/ztunnel/ztunnel.sock",
    help: "socket on which ztunnel is told of pods",
  },
  enrolSocket: {
    kind: text("PATH"),
    flag: "enrol-socket",
    env: "AMBIT_ENROL_SOCKET",
    default: "/run/ambit/enrol.sock",
    help: "socket on which enrolments are asked for; only its owner can",
  },
  stateDir: {
    kind: text("DIR"),
    flag: "state-dir",
    env: "AMBIT_CNI_STATE_DIR",
    default: "/run/ambit/cni",
    help: "folder of enrolled.json, from which enrolments are restored after a restart",
  },
  dnsCapture: {
    kind: toggle(),
    flag: "dns-capture",
    env: "AMBIENT_DNS_CAPTURE",
    default: false,
    help: "redirect DNS queries of enrolled pods to ztunnel too",
  },
  auditIntervalMs: {
    kind: duration(1_000, 3_600_000),
    flag: "audit-interval",
    default: 30_000,
    help: "how often each enrolled pod's rules are checked, and repaired where they differ",
  },
  release: {
    kind: toggle(),
    flag: "release",
    default: false,
    help: "take all pods out of the mesh when stopping; without it they stay captured, and are refused without ztunnel",
  },
});

export type CniConfig = ConfigOf<typeof CNI_CONFIG.table>;
