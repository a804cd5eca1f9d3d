/** `ambit enroll`: puts a network namespace of this node into the mesh, or lists what is in it. */
import { ConfigDefinition, defineConfig, oneOf, optional, text, toggle } from "../base/config.ts";
import { MeshError } from "../base/errors.ts";
import type { EnrolmentStatus, NodeStatus } from "../mesh/enrolment.ts";
import { oneTarget, splitArguments, writeOut } from "./arguments.ts";
import { askNodeAgent, ENROL_SOCKET } from "./enrol_client.ts";

export const ENROL_OUTPUTS = ["text", "json"] as const;

const name = (flag: string, help: string) =>
  ({ kind: optional(text("NAME")), flag, default: undefined, defaultText: "required to enrol", help }) as const;

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
  list: { kind: toggle(), flag: "list", default: false, help: "enrol nothing: list what is enrolled" },
  enrolSocket: {
    kind: text("PATH"),
    flag: "enrol-socket",
    env: "AMBIT_ENROL_SOCKET",
    default: ENROL_SOCKET,
    help: "the node agent's enrolment socket",
  },
  output: { kind: oneOf(...ENROL_OUTPUTS), flag: "output", default: "text", help: "form of the answer; -o for short" },
});

/** @returns 0 when the workload is enrolled. Throws MeshError otherwise. */
export async function runEnroll(args: string[]): Promise<number> {
  if (ConfigDefinition.wantsHelp(args)) {
    const summary = "Puts netns/NAME, netns-path:/PATH or pid/N into the mesh. The target stands before the flags.";
    writeOut(ENROLL_CONFIG.help(summary));
    return 0;
  }
  const { flags, positionals } = splitArguments(ENROLL_CONFIG, args);
  const { config } = ENROLL_CONFIG.parse(flags, (variable) => Deno.env.get(variable));
  if (config.list) return await list(config.enrolSocket, config.output);
  const target = oneTarget(ENROLL_CONFIG.command, positionals);
  const { namespace, serviceAccount, name, dns: dnsCapture } = config;
  const missing = ["namespace", "service-account", "name"].filter((_, at) =>
    [namespace, serviceAccount, name][at] === undefined
  );
  if (missing.length > 0) {
    throw new MeshError("AMB7500", `enrolling ${target} needs ${missing.map((flag) => `--${flag}`).join(", ")}`, {
      remedy: `For example: ambit enroll ${target} --namespace shop --service-account web --name web-0`,
    });
  }
  const body = { target, namespace, serviceAccount, name, dnsCapture }; // JSON leaves out what is undefined.
  const request = { method: "POST", path: "/enrol", body } as const;
  const status = await askNodeAgent(config.enrolSocket, request) as EnrolmentStatus;
  writeOut(
    config.output === "json"
      ? JSON.stringify(status, null, 2) + "\n"
      : `${status.target} is enrolled as pod ${status.namespace}/${status.name}, service account ${status.serviceAccount}\n`,
  );
  return 0;
}

async function list(socket: string, output: (typeof ENROL_OUTPUTS)[number]): Promise<number> {
  const status = await askNodeAgent(socket, { method: "GET", path: "/status" }) as NodeStatus;
  if (output === "json") {
    writeOut(JSON.stringify(status, null, 2) + "\n");
    return 0;
  }
  const { connections, synchronized } = status.ztunnel;
  writeOut(`ztunnel: ${connections === 0 ? "not connected" : synchronized ? "in sync" : "connected, not in sync"}\n`);
  if (status.pods.length === 0) writeOut("nothing is enrolled\n");
  for (const pod of status.pods) {
    writeOut(`${pod.target}\t${pod.state}\t${pod.namespace}/${pod.name}\t${pod.serviceAccount}\n`);
    for (const problem of pod.problems) writeOut(`  problem: ${problem}\n`);
  }
  return 0;
}
