/** `ambit enroll`: puts a workload of this node into the mesh, or lists what is in it. */
import {
  ConfigDefinition,
  type ConfigOf,
  defineConfig,
  duration,
  list,
  oneOf,
  optional,
  text,
  toggle,
} from "../base/config.ts";
import { MeshError } from "../base/errors.ts";
import {
  type EnrolmentStatus,
  type NodeStatus,
  parseEnrolRequest,
  parseEnrolTarget,
  TARGET_FORMS,
} from "../mesh/enrolment.ts";
import { writeOut } from "../base/standard_output.ts";
import { oneTarget } from "./arguments.ts";
import { askNodeAgent, ENROL_SOCKET } from "./enrol_client.ts";
import { formatNodeStatus } from "./node_status.ts";
import { unitDropIn } from "./unit_drop_in.ts";

export const ENROL_OUTPUTS = ["text", "json"] as const;

const name = (flag: string, help: string) =>
  ({ kind: optional(text("NAME")), flag, default: undefined, defaultText: "required to enrol", help }) as const;

/** What every command has that asks the node agent. */
export const AGENT_SETTINGS = {
  enrolSocket: {
    kind: text("PATH"),
    flag: "enrol-socket",
    env: "AMBIT_ENROL_SOCKET",
    default: ENROL_SOCKET,
    help: "the node agent's enrolment socket",
  },
  output: { kind: oneOf(...ENROL_OUTPUTS), flag: "output", short: "o", default: "text", help: "form of the answer" },
} as const;

export const ENROLL_CONFIG = defineConfig("ambit enroll", {
  namespace: name("namespace", "namespace of the workload; part of its identity"),
  serviceAccount: name("service-account", "service account of the workload; part of its identity"),
  name: name("name", "the workload's pod name, as in the mesh configuration"),
  dns: {
    kind: optional(toggle()),
    flag: "dns",
    default: undefined,
    defaultText: "as the node agent is set",
    help: "send its DNS queries to ztunnel, or with --dns=false do not",
  },
  ports: {
    kind: list("PORT"),
    flag: "ports",
    default: Object.freeze([]) as readonly string[],
    help: "of a unit or control group: the ports that it serves; nothing else of the host is redirected to it",
  },
  address: {
    kind: optional(text("ADDRESS")),
    flag: "address",
    default: undefined,
    defaultText: "every one",
    help: "of a unit or control group: the address of the host that it serves at",
  },
  ingress: {
    kind: toggle(),
    flag: "ingress",
    default: false,
    help: "it takes connections from outside of the mesh itself: inbound is not captured",
  },
  excludeOutboundPorts: {
    kind: list("PORT"),
    flag: "exclude-outbound-ports",
    default: Object.freeze([]) as readonly string[],
    help: "ports that it connects to past the mesh",
  },
  excludeOutboundCidrs: {
    kind: list("RANGE"),
    flag: "exclude-outbound-cidrs",
    default: Object.freeze([]) as readonly string[],
    help: "addresses that it connects to past the mesh",
  },
  excludeInboundPorts: {
    kind: list("PORT"),
    flag: "exclude-inbound-ports",
    default: Object.freeze([]) as readonly string[],
    help: "ports on which it is reached past the mesh",
  },
  waitMs: {
    kind: duration(0, 600_000),
    flag: "wait",
    default: 0,
    help: "how long to try again while the node agent or ztunnel is not there yet",
  },
  dropIn: {
    kind: toggle(),
    flag: "drop-in",
    default: false,
    help: "of a unit: enrol nothing, print the systemd drop-in by which it enrols itself as it starts",
  },
  list: { kind: toggle(), flag: "list", default: false, help: "enrol nothing: list what is enrolled" },
  ...AGENT_SETTINGS,
}, {
  operands: "TARGET",
  examples: [
    "ambit enroll netns/web-1 --namespace shop --service-account web --name web-1",
    "ambit enroll unit/db.service --namespace shop --service-account db --name db-0 --ports 5432",
    "ambit enroll --list",
  ],
});

/** @returns 0 when the workload is enrolled. Throws MeshError otherwise. */
export async function runEnroll(args: string[]): Promise<number> {
  if (ConfigDefinition.wantsHelp(args)) {
    const summary = `Puts a workload of this node into the mesh. TARGET is ${TARGET_FORMS}.`;
    writeOut(ENROLL_CONFIG.help(summary));
    return 0;
  }
  const { config, operands } = ENROLL_CONFIG.parse(args, (variable) => Deno.env.get(variable));
  if (config.list) return await showStatus(config.enrolSocket, config.output);
  const target = oneTarget(ENROLL_CONFIG.command, operands);
  const { namespace, serviceAccount, name, dns: dnsCapture } = config;
  if (parseEnrolTarget(target) === undefined) {
    throw new MeshError("AMB7500", `${target} is no target`, { remedy: `Name it as ${TARGET_FORMS}.` });
  }
  const missing = ["namespace", "service-account", "name"].filter((_, at) =>
    [namespace, serviceAccount, name][at] === undefined
  );
  if (missing.length > 0) {
    throw new MeshError("AMB7500", `enrolling ${target} needs ${missing.map((flag) => `--${flag}`).join(", ")}`, {
      remedy: `For example: ambit enroll ${target} --namespace shop --service-account web --name web-0`,
    });
  }
  if (config.dropIn) {
    writeOut(unitDropIn(target, args.toSpliced(args.indexOf(target), 1)));
    return 0;
  }
  const body = { target, namespace, serviceAccount, name, dnsCapture, ...captureOf(config) }; // JSON leaves out what is undefined.
  const parsed = parseEnrolRequest(JSON.parse(JSON.stringify(body)));
  if ("wrong" in parsed) {
    throw new MeshError("AMB7500", `enrolling ${target}: ${parsed.wrong}`, {
      remedy: "Correct it; see ambit enroll --help.",
    });
  }
  const request = { method: "POST", path: "/enrol", body } as const;
  const status = await askPatiently(config.enrolSocket, request, config.waitMs) as EnrolmentStatus;
  writeOut(
    config.output === "json"
      ? JSON.stringify(status, null, 2) + "\n"
      : `${status.target} is enrolled as pod ${status.namespace}/${status.name}, service account ${status.serviceAccount}\n`,
  );
  return 0;
}

/** What may only be late: the agent's socket, and ztunnel behind it (AMB7210). */
const LATE = /^AMB(7501|7210|7211)$/, AGAIN_MS = 200;

async function askPatiently(socket: string, request: Parameters<typeof askNodeAgent>[1], waitMs: number) {
  const deadlineMs = performance.now() + waitMs;
  while (true) {
    try {
      return await askNodeAgent(socket, request);
    } catch (error) {
      const late = error instanceof MeshError && LATE.test(error.code);
      if (!late || performance.now() + AGAIN_MS > deadlineMs) throw error;
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }
}

/** What was said of capture; what was not is left to the node agent. */
function captureOf(config: ConfigOf<typeof ENROLL_CONFIG.table>) {
  const { ports, address, ingress, excludeOutboundPorts, excludeOutboundCidrs, excludeInboundPorts } = config;
  const said = excludeOutboundPorts.length + excludeOutboundCidrs.length + excludeInboundPorts.length > 0;
  const exclude = {
    outboundPorts: excludeOutboundPorts.map(Number),
    outboundCidrs: excludeOutboundCidrs,
    inboundPorts: excludeInboundPorts.map(Number),
  };
  return {
    inboundPorts: ports.length > 0 ? ports.map(Number) : undefined,
    address,
    ingress: ingress || undefined,
    exclude: said ? exclude : undefined,
  };
}

/** What is enrolled, and what is wrong. @returns 0. */
export async function showStatus(socket: string, output: (typeof ENROL_OUTPUTS)[number]): Promise<number> {
  const status = await askNodeAgent(socket, { method: "GET", path: "/status" }) as NodeStatus;
  writeOut(output === "json" ? JSON.stringify(status, null, 2) + "\n" : formatNodeStatus(status));
  return 0;
}
