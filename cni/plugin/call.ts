/** What the container runtime asks of the plugin: environment and standard input, checked (CNI-001, CNI-002). Pure. */
import { isFields } from "../../base/plain.ts";
import { CNI_VERSIONS, type CniVersion, isAtLeast, isCniVersion, type Json } from "./result.ts";

/** Error codes of the CNI specification, and the one for everything of our own. */
export const CniCode = {
  INCOMPATIBLE_VERSION: 1,
  INVALID_ENVIRONMENT: 4,
  DECODING: 6,
  INVALID_CONFIG: 7,
  INVALID_NETNS: 8,
  OTHER: 999,
} as const;

/** A call that fails: printed as one JSON object, with exit status 1. */
export class CniFailure extends Error {
  override readonly name = "CniFailure";
  readonly code: number;
  readonly details: string;

  constructor(code: number, message: string, details = "") {
    super(message);
    this.code = code;
    this.details = details;
  }

  /** @param version The configuration's, as far as it was read. */
  toJson(version: string): Json {
    const { code, message, details } = this;
    return { cniVersion: version, code, msg: message, ...(details === "" ? {} : { details }) };
  }
}

export const COMMANDS = ["ADD", "CHECK", "DEL", "VERSION", "GC", "STATUS"] as const;
export type Command = (typeof COMMANDS)[number];

export interface PluginCall {
  readonly command: Command;
  readonly version: CniVersion;
  readonly containerId: string;
  /** Path of the sandbox's network namespace; empty where the command needs none. */
  readonly netns: string;
  readonly interfaceName: string;
  /** CNI_ARGS, `K=V` by key (CNI-005). */
  readonly args: ReadonlyMap<string, string>;
  readonly config: Json;
  /** What the plugins before us made; undefined when we are the first. */
  readonly previous: Json | undefined;
}

export const INPUT_BYTES_MAX = 1 << 20; // containerd's own configurations are a few KiB, results grow with routes
/** What a command cannot do without. DEL is always answered, so that a pod can be torn down (CNI-004). */
const REQUIRED: Readonly<Record<Command, readonly string[]>> = {
  ADD: ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
  CHECK: ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
  DEL: [],
  VERSION: [],
  GC: [],
  STATUS: [],
};
const FIRST_VERSION: Partial<Record<Command, CniVersion>> = { CHECK: "0.4.0", GC: "1.1.0", STATUS: "1.1.0" };

/** The version that an error or result of this input carries, however broken the rest is. */
export function versionIn(input: string): CniVersion {
  try {
    const stated = (JSON.parse(input) as Json | null)?.cniVersion;
    return typeof stated === "string" && isCniVersion(stated) ? stated : CNI_VERSIONS[0];
  } catch (error) {
    if (error instanceof SyntaxError) return CNI_VERSIONS[0];
    throw error;
  }
}

/** @throws CniFailure */
export function parseCall(environment: (name: string) => string | undefined, input: string): PluginCall {
  const command = environment("CNI_COMMAND") ?? "";
  if (!(COMMANDS as readonly string[]).includes(command)) {
    throw new CniFailure(CniCode.INVALID_ENVIRONMENT, `unknown CNI_COMMAND: ${command.slice(0, 80)}`);
  }
  const known = command as Command;
  const missing = REQUIRED[known].filter((name) => (environment(name) ?? "") === "");
  if (missing.length > 0) {
    throw new CniFailure(CniCode.INVALID_ENVIRONMENT, `required env variables [${missing.join(",")}] missing`);
  }
  const config = known === "DEL" || known === "CHECK" ? lenient(input) : strict(input);
  const version = versionOf(config);
  const first = FIRST_VERSION[known];
  if (first !== undefined && config.cniVersion !== undefined && !isAtLeast(version, first)) {
    throw new CniFailure(CniCode.INCOMPATIBLE_VERSION, `config version ${version} does not allow ${known}`);
  }
  const previous = config.prevResult;
  return {
    command: known,
    version,
    containerId: environment("CNI_CONTAINERID") ?? "",
    netns: environment("CNI_NETNS") ?? "",
    interfaceName: environment("CNI_IFNAME") ?? "",
    args: argsOf(environment("CNI_ARGS") ?? ""),
    config,
    previous: isFields(previous) ? previous : undefined,
  };
}

function strict(input: string): Json {
  let config: unknown;
  try {
    config = JSON.parse(input);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new CniFailure(CniCode.DECODING, "the network configuration on standard input is no JSON", error.message);
  }
  if (!isFields(config)) throw new CniFailure(CniCode.DECODING, "the network configuration is no JSON object");
  if (typeof config.name !== "string" || config.name === "") {
    throw new CniFailure(CniCode.INVALID_CONFIG, "the network configuration has no name");
  }
  return config;
}

/** Whatever stands there: what is to be torn down must not hang on it. */
function lenient(input: string): Json {
  try {
    const config: unknown = JSON.parse(input);
    return isFields(config) ? config : {};
  } catch (error) {
    if (error instanceof SyntaxError) return {};
    throw error;
  }
}

function versionOf({ cniVersion }: Json): CniVersion {
  if (cniVersion === undefined || cniVersion === "") return CNI_VERSIONS[0];
  if (typeof cniVersion === "string" && isCniVersion(cniVersion)) return cniVersion;
  throw new CniFailure(
    CniCode.INCOMPATIBLE_VERSION,
    "incompatible CNI versions",
    `config is ${JSON.stringify(cniVersion).slice(0, 40)}, plugin supports ${CNI_VERSIONS.join(", ")}`,
  );
}

function argsOf(text: string): Map<string, string> {
  const args = new Map<string, string>();
  for (const pair of text.split(";")) {
    const at = pair.indexOf("=");
    if (at > 0) args.set(pair.slice(0, at), pair.slice(at + 1));
  }
  return args;
}

/** What VERSION prints. */
export function versionAnswer(version: string): Json {
  return { cniVersion: version, supportedVersions: CNI_VERSIONS };
}
