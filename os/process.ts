/** Programs started inside a network namespace, without `ip netns` or `nsenter`. */
import * as libc from "./libc_cold.ts";
import { type Netns, withinNetns } from "./netns.ts";

/**
 * Starts a program whose network namespace is `netns` from its first instruction: Deno forks on the calling thread, and
 * a child is born into the namespaces of the thread that forked it. The caller owns the child and waits for its end.
 */
export function spawnWithin(netns: Netns, command: string, options: Deno.CommandOptions = {}): Deno.ChildProcess {
  return withinNetns(netns, () => new Deno.Command(command, options).spawn());
}

/** Runs a program inside `netns` to its end, blocking this thread: for short commands. */
export function runWithin(netns: Netns, command: string, options: Deno.CommandOptions = {}): Deno.CommandOutput {
  return withinNetns(netns, () => new Deno.Command(command, options).outputSync());
}

/** The user id that this process acts as. */
export function effectiveUserId(): number {
  return libc.effectiveUserId();
}
