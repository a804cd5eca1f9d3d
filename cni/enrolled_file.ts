/** `enrolled.json`: what is enrolled, kept over restarts of the node agent (CNI-270). */
import { chain, MeshError } from "../base/errors.ts";
import {
  ENROLMENT_STATES,
  type EnrolmentState,
  type EnrolRequest,
  isProcess,
  parseEnrolRequest,
} from "../mesh/enrolment.ts";
import { bootId } from "../os/boot_id.ts";
import { writeNodeFile } from "./install/node_files.ts";

/** One line of the file: the request, how far it went, and which namespace it was. */
export interface EnrolledEntry {
  readonly request: EnrolRequest;
  readonly state: EnrolmentState;
  readonly netnsDevice: number;
  readonly netnsInode: number;
  /** For a target in the host's namespace: its slot, which its ports come from. */
  readonly slot?: number;
  /** It is a file's of the enrolment folder, and goes with it. */
  readonly file?: string;
}

const VERSION = 1;
const FILE_BYTES_MAX = 16 * 1024 * 1024; // far beyond what a node's pods fill

/** Writes the whole file to its side and moves it into place: a crash or a power cut leaves the old one or the new one. Throws AMB7103. */
export function writeEnrolled(path: string, entries: Iterable<EnrolledEntry>): void {
  const rows = [...entries].map(({ request, ...rest }) => ({ ...request, target: request.target.text, ...rest }));
  try {
    writeNodeFile(path, JSON.stringify({ version: VERSION, boot: bootId(), enrolled: rows }, null, 2) + "\n", 0o600);
  } catch (cause) {
    throw new MeshError("AMB7103", `cannot write ${path}`, {
      remedy: "Make the folder of --state-dir writable, with some space left.",
      cause,
    });
  }
}

/**
 * @returns Nothing when there is no file yet; of a boot before, what is not named by the number of a process. Throws AMB7104 for
 * a file that cannot be trusted as a whole.
 */
export function readEnrolled(path: string, boot = bootId()): EnrolledEntry[] {
  let text: string;
  try {
    if (Deno.statSync(path).size > FILE_BYTES_MAX) throw new Error("it is too long");
    text = Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw unreadable(path, error);
  }
  try {
    const parsed = JSON.parse(text);
    if (parsed?.version !== VERSION || !Array.isArray(parsed.enrolled)) throw new Error("its version is not 1");
    const entries: EnrolledEntry[] = parsed.enrolled.map(readEntry);
    return parsed.boot === undefined || parsed.boot === boot
      ? entries
      : entries.filter(({ request }) => !isProcess(request.target));
  } catch (error) {
    throw unreadable(path, error);
  }
}

function readEntry(row: Readonly<Record<string, unknown>>, at: number): EnrolledEntry {
  const request = parseEnrolRequest(row);
  if ("wrong" in request) throw new Error(`entry ${at + 1}: ${request.wrong}`);
  const state = ENROLMENT_STATES.find((it) => it === row.state);
  const { netnsDevice, netnsInode, slot, file } = row;
  if (slot !== undefined && (!Number.isInteger(slot) || Number(slot) < 0)) throw new Error(`entry ${at + 1}: slot`);
  if (file !== undefined && typeof file !== "string") throw new Error(`entry ${at + 1}: file`);
  if (state === undefined || typeof netnsDevice !== "number" || typeof netnsInode !== "number") {
    throw new Error(`entry ${at + 1}: state or namespace is malformed`);
  }
  const more = { ...(slot === undefined ? {} : { slot: Number(slot) }), ...(file === undefined ? {} : { file }) };
  return { request, state, netnsDevice, netnsInode, ...more };
}

function unreadable(path: string, cause: unknown): MeshError {
  return new MeshError("AMB7104", `cannot read ${path}: ${chain(cause)}`, {
    remedy: "Repair or remove the file; what it named stays captured until it is enrolled and unenrolled again.",
  });
}
