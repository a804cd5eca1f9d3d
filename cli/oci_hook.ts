/**
 * `ambit oci-hook`: what a container runtime calls when a container's namespaces are made and its program does not run yet
 * (createRuntime of the OCI runtime specification). The container is of the mesh from its first packet, or is not started (CNI-277).
 */
import { ConfigDefinition, defineConfig, duration, text } from "../base/config.ts";
import { MeshError } from "../base/errors.ts";
import { isFields } from "../base/plain.ts";
import { writeOut } from "../base/standard_output.ts";
import { runEnroll } from "./enroll.ts";
import { ENROL_SOCKET } from "./enrol_client.ts";

export const OCI_HOOK_CONFIG = defineConfig("ambit oci-hook", {
  enrolSocket: {
    kind: text("PATH"),
    flag: "enrol-socket",
    env: "AMBIT_ENROL_SOCKET",
    default: ENROL_SOCKET,
    help: "the node agent's enrolment socket",
  },
  waitMs: {
    kind: duration(0, 600_000),
    flag: "wait",
    default: 10_000,
    help: "how long to try again while the node agent or ztunnel is not there yet",
  },
});

/** Annotations of the container that say who it is; the first makes it one of the mesh. */
const NAME = "ambit.mesh/name", NAMESPACE = "ambit.mesh/namespace", ACCOUNT = "ambit.mesh/service-account";
const STATE_BYTES_MAX = 1 << 20;

/** What the state says of the container. @returns undefined for one that is not of the mesh. Throws AMB7178. Pure. */
export function enrolmentOf(state: string): string[] | undefined {
  let value: unknown;
  try {
    value = JSON.parse(state);
  } catch (cause) {
    throw badState("it is not JSON", cause);
  }
  if (!isFields(value)) throw badState("it is no map");
  const annotations = isFields(value.annotations) ? value.annotations : {},
    said = (key: string) => `${annotations[key] ?? ""}`;
  if (said(NAME) === "") return undefined;
  if (!Number.isInteger(value.pid) || Number(value.pid) < 1) throw badState("it names no process");
  const missing = [NAMESPACE, ACCOUNT].filter((key) => said(key) === "");
  if (missing.length > 0) throw badState(`the container has ${NAME}, and no ${missing.join(", ")}`);
  return [
    `pid/${value.pid}`,
    `--name=${said(NAME)}`,
    `--namespace=${said(NAMESPACE)}`,
    `--service-account=${said(ACCOUNT)}`,
  ];
}

function badState(why: string, cause?: unknown): MeshError {
  return new MeshError("AMB7178", `the runtime's word of the container cannot be used: ${why}`, {
    remedy:
      `Call this as a createRuntime hook, and give the container the annotations ${NAME}, ${NAMESPACE} and ${ACCOUNT}.`,
    cause,
  });
}

/** @returns 0 when the container is enrolled, or not of the mesh. Throws MeshError otherwise: the runtime starts it not. */
export async function runOciHook(args: string[]): Promise<number> {
  if (ConfigDefinition.wantsHelp(args)) {
    writeOut(OCI_HOOK_CONFIG.help("Enrols the container whose OCI state is on standard input, by its annotations."));
    return 0;
  }
  const { config } = OCI_HOOK_CONFIG.parse(args, (name) => Deno.env.get(name));
  const enrolment = enrolmentOf(await readState());
  if (enrolment === undefined) return 0;
  return await runEnroll([...enrolment, `--enrol-socket=${config.enrolSocket}`, `--wait=${config.waitMs}ms`]);
}

async function readState(): Promise<string> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let bytes = 0;
  for await (const part of Deno.stdin.readable) {
    bytes += part.length;
    if (bytes > STATE_BYTES_MAX) throw badState(`it is longer than ${STATE_BYTES_MAX} bytes`);
    parts.push(part);
  }
  return await new Blob(parts).text();
}
