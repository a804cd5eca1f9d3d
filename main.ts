/** Picks the role or command and hands over; nothing else. */
import { parseArgs } from "@std/cli";
import { ConfigDefinition, type Table } from "./base/config.ts";
import { chain, MeshError } from "./base/errors.ts";
import { LogFilter, Logger } from "./base/log.ts";
import { nearest } from "./base/nearest.ts";
import { writeOut } from "./base/standard_output.ts";
import { VERSION } from "./base/version.ts";
import type { Completed } from "./cli/completion.ts";
import { runRole } from "./cli/role.ts";

type Run = (args: readonly string[]) => Promise<number>;

type Settings = () => Promise<ConfigDefinition<Table>>;

interface Command {
  readonly name: string;
  readonly summary: string;
  readonly run: Run;
  /** What may be given to it, by subcommand; the empty name is the command itself. */
  readonly settings?: Readonly<Record<string, Settings>>;
}

const EXIT_USAGE = 64; // EX_USAGE of sysexits.h
// Of AMB01xx, and of targets: what was typed cannot be meant, whatever the state of the mesh.
const USAGE_CODES = /^AMB(01\d\d|029[24]|7145|7500)$/;

// Each entry is imported when it is chosen: a role loads only what it needs.
export const COMMANDS: readonly Command[] = [
  {
    name: "istiod",
    summary: "control plane: configuration and certificates, from a cluster or a folder of Kubernetes YAML",
    settings: { "": async () => (await import("./control/config.ts")).ISTIOD_CONFIG },
    run: async (args) => {
      const { ISTIOD_CONFIG } = await import("./control/config.ts");
      const { runIstiod } = await import("./control/main.ts");
      return await runRole(ISTIOD_CONFIG, "istiod, the control plane", args, (config, role) => runIstiod(config, role));
    },
  },
  {
    name: "ztunnel",
    summary: "node proxy: carries the pods' TCP over mutual TLS",
    settings: { "": async () => (await import("./dataplane/config.ts")).ZTUNNEL_CONFIG },
    run: async (args) => {
      // Before all else: what a parent does not load it does not hold for as long as it waits.
      const { isParent, supervise } = await import("./dataplane/supervisor.ts");
      if (isParent(args)) return await supervise(new Logger("ambit"));
      const { ZTUNNEL_CONFIG } = await import("./dataplane/config.ts");
      const { applyLevels } = await import("./dataplane/agent/log_levels.ts");
      const { MESH_FILE, readMeshFile } = await import("./dataplane/agent/proxy_config.ts");
      const { SettingsSources } = await import("./dataplane/agent/settings_sources.ts");
      const wantsHelp = ConfigDefinition.wantsHelp(args);
      const sources = new SettingsSources(Deno.env.toObject(), wantsHelp ? undefined : readMeshFile(MESH_FILE));
      return await runRole(ZTUNNEL_CONFIG, "ztunnel, the node proxy", args, async (config, role) => {
        const wrong = applyLevels(role.filter, config.logLevel);
        if (wrong !== undefined) role.log.warn("not a log level", { level: wrong });
        // Before anything loads OpenSSL, here or on a worker's thread.
        Deno.env.set("AMBIT_OPENSSL", config.openssl);
        const { runZtunnel } = await import("./dataplane/main.ts");
        await runZtunnel(config, { ...role, sources });
      }, sources);
    },
  },
  {
    name: "cni",
    summary: "node agent: redirects the traffic of enrolled network namespaces",
    settings: {
      "": async () => (await import("./cni/config.ts")).CNI_CONFIG,
      check: async () => (await import("./cni/check/main.ts")).CHECK_CONFIG,
      render: async () => (await import("./cni/render.ts")).RENDER_CONFIG,
    },
    run: async (args) => {
      if (args[0] === "check") return await (await import("./cni/check/main.ts")).runCheck(args.slice(1));
      if (args[0] === "render") return await (await import("./cni/render.ts")).runRender(args.slice(1));
      const { CNI_CONFIG } = await import("./cni/config.ts");
      const { runCni } = await import("./cni/main.ts");
      return await runRole(CNI_CONFIG, "cni, the node agent", args, (config, role) => runCni(config, role));
    },
  },
  { name: "waypoint", summary: "L7 proxy; not there yet", run: waypointIsMissing },
  {
    name: "install",
    summary: "put the mesh into a cluster, or with --node onto this machine",
    settings: { "": async () => (await import("./cli/install.ts")).INSTALL_CONFIG },
    run: async (args) => (await import("./cli/install.ts")).runInstall([...args]),
  },
  {
    name: "uninstall",
    summary: "take it out again",
    settings: { "": async () => (await import("./cli/install.ts")).UNINSTALL_CONFIG },
    run: async (args) => (await import("./cli/install.ts")).runUninstall([...args]),
  },
  {
    name: "enroll",
    summary: "bring a namespace, container, unit or control group of this node into the mesh",
    settings: { "": async () => (await import("./cli/enroll.ts")).ENROLL_CONFIG },
    run: async (args) => (await import("./cli/enroll.ts")).runEnroll([...args]),
  },
  {
    name: "unenroll",
    summary: "take it out of the mesh",
    settings: { "": async () => (await import("./cli/unenroll.ts")).UNENROLL_CONFIG },
    run: async (args) => (await import("./cli/unenroll.ts")).runUnenroll([...args]),
  },
  {
    name: "oci-hook",
    summary: "what a container runtime calls, so that a container starts in the mesh or not at all",
    settings: { "": async () => (await import("./cli/oci_hook.ts")).OCI_HOOK_CONFIG },
    run: async (args) => (await import("./cli/oci_hook.ts")).runOciHook([...args]),
  },
  {
    name: "status",
    summary: "what of this node is in the mesh, and what is wrong",
    settings: { "": async () => (await import("./cli/status.ts")).STATUS_CONFIG },
    run: async (args) => (await import("./cli/status.ts")).runStatus([...args]),
  },
  {
    name: "config",
    summary: "what this node's ztunnel knows: workloads, services, policies, certificates, connections",
    settings: { "": async () => (await import("./cli/config.ts")).CONFIG_CONFIG },
    run: async (args) => await (await import("./cli/config.ts")).runConfig(args),
  },
  {
    name: "token",
    summary: "issue a token for a ztunnel on a bare node",
    settings: { "": async () => (await import("./cli/token.ts")).TOKEN_CONFIG },
    run: async (args) => {
      const { runToken, TOKEN_CONFIG } = await import("./cli/token.ts");
      if (ConfigDefinition.wantsHelp(args)) {
        return print(TOKEN_CONFIG.help("Issues a token for a ztunnel on a bare node."));
      }
      const { TokenIssuer } = await import("./control/tokens.ts");
      await runToken(args, {
        env: (name) => Deno.env.get(name),
        openMint: (stateDir) => TokenIssuer.openExisting(stateDir),
        write: writeOut,
        interactive: Deno.stdout.isTerminal(),
      });
      return 0;
    },
  },
  {
    name: "analyze",
    summary: "tell what is wrong with the mesh's objects, of a folder or a cluster",
    settings: { "": async () => (await import("./control/analysis/command.ts")).ANALYZE_CONFIG },
    run: async (args) => {
      const { ANALYZE_CONFIG, runAnalyze } = await import("./control/analysis/command.ts");
      if (ConfigDefinition.wantsHelp(args)) {
        return print(
          ANALYZE_CONFIG.help("Tells what is wrong with the mesh's objects, of files or, without any, of a cluster."),
        );
      }
      const { config, operands } = ANALYZE_CONFIG.parse(args, (name) => Deno.env.get(name));
      const log = new Logger("ambit", { filter: new LogFilter(), sink: () => {} }); // Its answer is all it says.
      return await runAnalyze(config, { log, write: writeOut, paths: operands });
    },
  },
  {
    name: "completion",
    summary: "a script by which bash, zsh or fish completes commands and flags",
    settings: { "": async () => (await import("./cli/completion.ts")).COMPLETION_CONFIG },
    run: async (args) => await (await import("./cli/completion.ts")).runCompletion(args, completed),
  },
  {
    name: "version",
    summary: "which version this is, and of what",
    settings: { "": async () => (await import("./cli/version.ts")).VERSION_CONFIG },
    run: async (args) => await (await import("./cli/version.ts")).runVersion(args),
  },
  {
    name: "doctor",
    summary: "check what this machine offers, with a cure for what is missing",
    settings: { "": async () => (await import("./cli/doctor.ts")).DOCTOR_CONFIG },
    run: async (args) => {
      const { nodeFindings } = await import("./cni/node_doctor.ts");
      return await (await import("./cli/doctor.ts")).runDoctor([...args], nodeFindings);
    },
  },
];

/** Every command and what is below it, with its table. */
async function completed(): Promise<Completed[]> {
  const all: Completed[] = [];
  for (const { name, summary, settings = {} } of COMMANDS) {
    for (const [below, load] of Object.entries(settings)) {
      all.push({ name: `${name} ${below}`.trim(), summary, definition: await load() });
    }
  }
  return all;
}

function usage(): string {
  const width = Math.max(...COMMANDS.map((it) => it.name.length));
  const lines = COMMANDS.map((it) => `  ${it.name.padEnd(width)}  ${it.summary}`);
  return ["ambit: an ambient service mesh", "", "Usage: ambit COMMAND [flags]; each has --help", "", ...lines, ""].join(
    "\n",
  );
}

function waypointIsMissing(): Promise<number> {
  throw new MeshError("AMB0001", "the role waypoint is not there yet", {
    remedy: "use the L4 roles istiod, ztunnel and cni; policies with HTTP fields need a waypoint",
  });
}

function print(text: string): number {
  writeOut(text);
  return 0;
}

function fail(text: string, status: number): number {
  Deno.stderr.writeSync(new TextEncoder().encode(text));
  return status;
}

/** The compiled program under the name of the CNI plugin is the plugin, as the container runtime calls it. */
async function runAsPlugin(): Promise<number> {
  const { kubePodLookup } = await import("./cni/plugin/pod_lookup.ts");
  const { runPlugin } = await import("./cni/plugin/process.ts");
  return await runPlugin(kubePodLookup(new Logger("kube", { sink: () => {} })));
}

async function main(args: readonly string[]): Promise<number> {
  // Flags behind the command are the command's own.
  const given = parseArgs([...args], {
    stopEarly: true,
    boolean: ["help", "version"],
    alias: { h: "help", v: "version" },
  });
  const [first, ...rest] = given._.map(String);
  if (given.version === true) return print(`ambit ${VERSION}\n`);
  if (first === undefined || given.help === true) return print(usage());
  try {
    // `ambit help cni check` is `ambit cni check --help`.
    if (first !== "help") return await commandOf(first).run(rest);
    const [about, ...below] = rest;
    return about === undefined ? print(usage()) : await commandOf(about).run([...below, "--help"]);
  } catch (error) {
    if (!(error instanceof MeshError)) throw error; // Our own mistake: end with its stack.
    return fail(
      `error: ${chain(error)}\nfix: ${error.remedy}\ncode: ${error.code}\n`,
      USAGE_CODES.test(error.code) ? EXIT_USAGE : 1,
    );
  }
}

function commandOf(name: string): Command {
  const command = COMMANDS.find((it) => it.name === name);
  if (command !== undefined) return command;
  const near = nearest(name, COMMANDS.map((it) => it.name));
  throw new MeshError("AMB0105", `ambit knows no command ${JSON.stringify(name.slice(0, 100))}`, {
    remedy: near === undefined ? "run ambit --help for the commands there are" : `did you mean ambit ${near}?`,
  });
}

const isPlugin = Deno.build.standalone && Deno.execPath().endsWith("/istio-cni");
if (import.meta.main) Deno.exit(await (isPlugin ? runAsPlugin() : main(Deno.args)));
