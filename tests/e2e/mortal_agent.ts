/**
 * `ambit cni` that can be made to die at any step: before each change that it makes on the node, to a pod, at ztunnel or at
 * the API server it looks into the folder AMBIT_STEPS. Once the file `die-at` is there it counts, writes the change's name
 * to `steps`, and kills itself where the count is that of the file; 0 means never.
 */
import { HostProbes } from "../../cni/host_probes.ts";
import { ZdsConnection } from "../../cni/zds_connection.ts";
import { fixedCredentials } from "../../kube/access.ts";
import { openKubeApi } from "../../kube/client.ts";
import { Logger } from "../../base/log.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";

const folder = Deno.env.get("AMBIT_STEPS")!;
let count = 0;

function step(name: string): void {
  let dieAt: number;
  try {
    dieAt = Number(Deno.readTextFileSync(`${folder}/die-at`));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    count = 0;
    return;
  }
  Deno.writeTextFileSync(`${folder}/steps`, `${name}\n`, { append: true });
  if (++count === dieAt) Deno.kill(Deno.pid, "SIGKILL");
}

type Method = (...args: never[]) => unknown;

/** Has the step said before each call of these methods. */
function mark(target: object, part: string, names: readonly string[]): void {
  const methods = target as Record<string, Method>;
  for (const name of names) {
    const original = methods[name]!;
    methods[name] = function (this: unknown, ...args: never[]) {
      step(`${part}.${name}`);
      return original.apply(this, args);
    };
  }
}

mark(FirewallSocket.prototype, "nft", ["replace", "deleteTables"]);
mark(RouteSocket.prototype, "route", ["addRoute", "deleteRoute", "addRule", "deleteRule"]);
mark(HostProbes.prototype, "probes", ["add", "remove"]);
mark(ZdsConnection.prototype, "zds", ["request"]);

// The client's class is its module's own.
const api = openKubeApi({
  server: new URL("http://127.0.0.1:1"),
  ca: undefined,
  serverName: undefined,
  insecure: false,
  credentials: fixedCredentials({}),
  headers: {},
  namespace: "",
  source: "",
}, { log: new Logger("kube", { sink: () => {} }) });
mark(Object.getPrototypeOf(api), "api", ["patch"]);
api.close();

/** What is noted of enrolments that have begun. */
const isJournal = (path: unknown) => String(path).includes("/enrolling/");
const { renameSync, removeSync } = Deno;

function isThere(path: string | URL): boolean {
  try {
    return Deno.lstatSync(path).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

Deno.renameSync = (from, to) => {
  if (isJournal(to)) step("journal.begin");
  renameSync(from, to);
};
Deno.removeSync = (path, options) => {
  if (isJournal(path) && isThere(path)) step("journal.end"); // To remove nothing changes nothing, and is no step.
  removeSync(path, options);
};

const { CNI_CONFIG } = await import("../../cni/config.ts");
const { runCni } = await import("../../cni/main.ts");
const { config } = CNI_CONFIG.parse(Deno.args.slice(1), (name) => Deno.env.get(name)); // Behind the role's name.
await runCni(config, { signal: new AbortController().signal, log: new Logger("ambit") });
