/** Where the demo can build its namespaces: right here as root, or in a user namespace of its own; else, what is missing. */
import { ignore, MeshError } from "../base/errors.ts";
import { missingCapabilities } from "../os/capabilities.ts";
import * as libc from "../os/libc_cold.ts";
import { createAnonymousNetns, NAMED_NETNS_FOLDER } from "../os/netns.ts";
import { effectiveUserId } from "../os/process.ts";

/** Set for the process that was started inside a user namespace. */
const INSIDE = "AMBIT_DEMO_INSIDE";
// Mounts in it are its own, so that nothing of the demo is seen outside, nor left there when it is killed.
const UNSHARE = ["--user", "--map-root-user", "--mount", "--net"];

/** Whether namespaces can be made by this process as it is. */
export function canBuildHere(): boolean {
  if (missingCapabilities(["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NET_RAW"]).length > 0) return false;
  try {
    createAnonymousNetns()[Symbol.dispose]();
    return true;
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    return false;
  }
}

/** Makes room for named namespaces where they belong to us alone. For the process inside the user namespace. */
export function settleInside(): void {
  if (Deno.env.get(INSIDE) === undefined) return;
  const result = libc.mount("tmpfs", "/run", "tmpfs", 0);
  if (result >= 0) return;
  throw new MeshError("AMB9110", `cannot mount a file system of our own at /run: ${libc.errnoName(result)}`, {
    remedy: "Run the demo as root.",
  });
}

/** Runs this program again inside a user namespace. @returns Its exit status. Throws AMB9111, saying what is missing. */
export async function runInUserNamespace(args: readonly string[], signal: AbortSignal): Promise<number> {
  await probeUserNamespace();
  const inside = ["run", "-A", "--quiet", "--cached-only", "--unstable-worker-options", Deno.mainModule, ...args];
  const child = new Deno.Command("unshare", {
    args: [...UNSHARE, Deno.execPath(), ...inside],
    env: { [INSIDE]: "1" },
    stdin: "inherit",
    stdout: "inherit",
    stderr: "inherit",
  }).spawn();
  const pass = () => {
    try {
      child.kill("SIGTERM");
    } catch (error) {
      ignore(error, "it has ended by itself");
    }
  };
  signal.addEventListener("abort", pass);
  const { code } = await child.status;
  signal.removeEventListener("abort", pass);
  return code;
}

async function probeUserNamespace(): Promise<void> {
  let said: string;
  try {
    const { success, stderr } = await new Deno.Command("unshare", { args: [...UNSHARE, "true"] }).output();
    if (success) return;
    said = new TextDecoder().decode(stderr).trim();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new MeshError(
      "AMB9111",
      `${whoWeAre()}, and the program unshare, by which it would get its own, is not here`,
      {
        remedy: "Run the demo as root (sudo), or install unshare, which is part of util-linux.",
      },
    );
  }
  throw new MeshError("AMB9111", `${whoWeAre()}, and this system gives it no user namespace (${said})`, {
    remedy: cure(),
  });
}

function whoWeAre(): string {
  const missing = missingCapabilities(["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NET_RAW"]);
  const lack = missing.length > 0 ? `lacks ${missing.join(", ")}` : "may not create network namespaces";
  return `this process ${lack}${effectiveUserId() === 0 ? " although it is root" : ""}`;
}

/** What the administrator can change, most likely cause first. */
function cure(): string {
  const asRoot = effectiveUserId() === 0 ? "Outside of a container, or: " : "Run it as root (sudo), or: ";
  if (setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") === "1") {
    return `${asRoot}sysctl kernel.apparmor_restrict_unprivileged_userns=0`;
  }
  if (setting("/proc/sys/kernel/unprivileged_userns_clone") === "0") {
    return `${asRoot}sysctl kernel.unprivileged_userns_clone=1`;
  }
  if (setting("/proc/sys/user/max_user_namespaces") === "0") {
    return `${asRoot}sysctl user.max_user_namespaces=15000`;
  }
  return effectiveUserId() === 0
    ? "In a container, start it with --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined " +
      "--security-opt apparmor=unconfined, or run the demo outside of it."
    : "Run it as root (sudo). In a container a seccomp profile may forbid it: --security-opt seccomp=unconfined.";
}

function setting(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path).trim();
  } catch (error) {
    ignore(error, "this kernel has no such setting, or does not show it");
    return undefined;
  }
}

/** Fetches what the programs import, as long as there is a network: the lab's namespaces have none. Throws AMB9112. */
export async function fetchImports(): Promise<void> {
  const root = new URL("../", import.meta.url);
  const apps = [...Deno.readDirSync(new URL("examples/shop/apps/", root))].map(({ name }) =>
    `examples/shop/apps/${name}`
  );
  const programs = ["main.ts", "demo/main.ts", "demo/lab/probe_program.ts", "dataplane/worker/entry.ts", ...apps];
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["cache", "--quiet", ...programs],
    cwd: root.pathname,
    stdin: "null",
  }).output();
  if (success) return;
  throw new MeshError("AMB9112", `cannot fetch what the programs import: ${new TextDecoder().decode(stderr).trim()}`, {
    remedy: "Check the network, or copy the cache of a machine that has it (DENO_DIR).",
  });
}

/** Whether the folder of named namespaces is there already; {@link removeNetnsFolder} takes away what we added. */
export function hasNetnsFolder(): boolean {
  try {
    return Deno.statSync(NAMED_NETNS_FOLDER).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Removes the folder of named namespaces and its mount, if nobody else uses it. */
export function removeNetnsFolder(): void {
  if (!hasNetnsFolder() || [...Deno.readDirSync(NAMED_NETNS_FOLDER)].length > 0) return;
  ignore(libc.unmount(NAMED_NETNS_FOLDER, libc.MNT_DETACH), "EINVAL: it was no mount");
  Deno.removeSync(NAMED_NETNS_FOLDER);
}
