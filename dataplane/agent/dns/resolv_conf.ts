/** The system resolver's settings, as far as forwarding needs them (resolv.conf(5)). */
import { type IpWords, isLoopback, parseIp } from "../../../base/address.ts";
import { chain, ignore } from "../../../base/errors.ts";
import type { Logger } from "../../../base/log.ts";
import { parseName } from "../../../wire/dns/name.ts";

/** Where queries are forwarded to, and how patiently. */
export interface UpstreamSettings {
  readonly nameservers: readonly IpWords[];
  /** For one try at one nameserver. */
  readonly timeoutMs: number;
  /** How often the list is gone through. */
  readonly attempts: number;
  /** Whether the list is begun at another place each time. */
  readonly rotate: boolean;
  /** Search domains, in lower case. Only dedicated mode has use for them, where the workload's are ours (ZT-180). */
  readonly search: readonly string[];
}

const NAMESERVERS_MAX = 3, ATTEMPTS_MAX = 5, SEARCH_MAX = 32; // The first two are limits of the C library (MAXNS, RES_MAXRETRY).
const TIMEOUT_MIN_S = 1, TIMEOUT_MAX_S = 30, TIMEOUT_DEFAULT_S = 5;
const FILE_BYTES_MAX = 64 * 1024;

/** Parses the file's text. */
export function parseResolvConf(text: string): UpstreamSettings {
  const nameservers: IpWords[] = [];
  let timeoutSeconds = TIMEOUT_DEFAULT_S, attempts = 2, rotate = false, search: string[] = [];
  for (const line of text.split("\n")) {
    const [keyword, ...values] = line.trim().split(/\s+/);
    if (keyword === "nameserver" && nameservers.length < NAMESERVERS_MAX) {
      const ip = parseIp(values[0] ?? "");
      if (ip !== undefined) nameservers.push(ip);
    }
    if (keyword === "search" || keyword === "domain") { // The last of either counts.
      search = values.slice(0, SEARCH_MAX).flatMap((domain) => parseName(domain) || []);
    }
    if (keyword !== "options") continue;
    for (const option of values) {
      const [name, value] = option.split(":", 2);
      const number = /^\d{1,9}$/.test(value ?? "") ? Number(value) : undefined;
      if (name === "rotate") rotate = true;
      else if (name === "timeout" && number !== undefined) timeoutSeconds = clamp(number, TIMEOUT_MIN_S, TIMEOUT_MAX_S);
      else if (name === "attempts" && number !== undefined) attempts = clamp(number, 1, ATTEMPTS_MAX);
    }
  }
  return { nameservers, timeoutMs: timeoutSeconds * 1_000, attempts, rotate, search };
}

/** The file as it is now; one that cannot be read has no nameservers. */
export function readResolvConf(path: string): UpstreamSettings {
  try {
    return parseResolvConf(Deno.readTextFileSync(path).slice(0, FILE_BYTES_MAX));
  } catch (error) {
    ignore(error, "names stay unresolved, which whoever asks for them is told");
    return parseResolvConf("");
  }
}

/** Reads the file anew each time it is asked, since it may have changed. */
export class ResolvConf {
  readonly #path: string;
  readonly #log: Logger;
  #said: string | undefined;

  constructor(path: string, log: Logger) {
    this.#path = path;
    this.#log = log;
  }

  /** A file that cannot be read has no nameservers: names of the mesh still resolve. What is wrong is logged once. */
  read(): UpstreamSettings {
    let text = "", unreadable: string | undefined;
    try {
      text = Deno.readTextFileSync(this.#path).slice(0, FILE_BYTES_MAX);
    } catch (error) {
      unreadable = chain(error);
    }
    const settings = parseResolvConf(text);
    const problem = problemOf(settings.nameservers);
    if (problem !== undefined && problem !== this.#said) {
      this.#log.warn(problem, { path: this.#path, error: unreadable });
    }
    this.#said = problem;
    return settings;
  }
}

function problemOf(nameservers: readonly IpWords[]): string | undefined {
  if (nameservers.length === 0) return "no nameserver to forward to";
  const onLoopback = nameservers.every((ip) => isLoopback(...ip));
  return onLoopback
    ? "nameservers are on loopback, which in a pod is the pod's own: only units of this host reach them"
    : undefined;
}

function clamp(value: number, min: number, max: number): number {
  return Math.min(Math.max(value, min), max);
}
