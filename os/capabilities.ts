/** What this process may do: the effective capabilities of capabilities(7). */
import { MeshError } from "../base/errors.ts";

/** Bit numbers of linux/capability.h that this repository asks for. */
export const CAPABILITIES = {
  CAP_NET_BIND_SERVICE: 10,
  CAP_NET_ADMIN: 12,
  CAP_NET_RAW: 13,
  CAP_SYS_PTRACE: 19,
  CAP_SYS_ADMIN: 21,
} as const;
export type Capability = keyof typeof CAPABILITIES;

/** The effective set of a `/proc/PID/status` text. @returns undefined when it has no `CapEff` line. */
export function parseEffectiveCapabilities(status: string): bigint | undefined {
  const match = /^CapEff:\s*([0-9a-f]{1,16})$/m.exec(status);
  return match === null ? undefined : BigInt(`0x${match[1]}`);
}

/** Those of `wanted` that this thread lacks. */
export function missingCapabilities(wanted: readonly Capability[]): Capability[] {
  const effective = parseEffectiveCapabilities(Deno.readTextFileSync("/proc/thread-self/status")) ?? 0n;
  return wanted.filter((name) => (effective >> BigInt(CAPABILITIES[name]) & 1n) === 0n);
}

/** Throws AMB7020 naming what is missing (ZT-172). */
export function requireCapabilities(wanted: readonly Capability[]): void {
  const missing = missingCapabilities(wanted);
  if (missing.length === 0) return;
  throw new MeshError("AMB7020", `this process lacks ${missing.join(", ")}`, {
    remedy:
      "Run as root, or grant them: in systemd AmbientCapabilities=, in Kubernetes securityContext.capabilities.add.",
  });
}
