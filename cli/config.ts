/** `ambit config`: what this node's ztunnel knows and does, of its admin port or of a dump in a file. */
import {
  ConfigDefinition,
  defineConfig,
  type ListenAddress,
  listenAddress,
  oneOf,
  optional,
  text,
} from "../base/config.ts";
import { MeshError } from "../base/errors.ts";
import { type Fields, isFields } from "../base/plain.ts";
import { nearest } from "../base/nearest.ts";
import { writeOut } from "../base/standard_output.ts";
import { formatSection, type Section, sectionOf, SECTIONS } from "./config_tables.ts";

const ASK_MS = 30_000; // A node of a large mesh writes a dump of 100 MB.

export const CONFIG_CONFIG = defineConfig("ambit config", {
  namespace: {
    kind: optional(text("NAME")),
    flag: "namespace",
    short: "n",
    default: undefined,
    defaultText: "all",
    help: "of this namespace alone; certificates by their identities",
  },
  adminAddress: {
    kind: listenAddress(),
    flag: "admin-address",
    default: Object.freeze({ host: "127.0.0.1", port: 15000 }) as ListenAddress,
    help: "ztunnel's admin port",
  },
  file: {
    kind: optional(text("PATH")),
    flag: "file",
    short: "f",
    default: undefined,
    defaultText: "none",
    help: "a dump in place of the admin port's: curl localhost:15000/config_dump, of Istio's ztunnel too",
  },
  output: {
    kind: oneOf("text", "json"),
    flag: "output",
    short: "o",
    default: "text" as const,
    help: "form of the answer",
  },
}, {
  operands: SECTIONS.join("|"),
  examples: [
    "ambit config workloads",
    "ambit config certificates -n shop",
    "ambit config connections -o json",
    "ambit config policies -f dump.json",
  ],
});

/** @returns 0 once it is written. @throws MeshError AMB0292 for another word, AMB0293 when there is no dump to be had. */
export async function runConfig(args: readonly string[]): Promise<number> {
  if (ConfigDefinition.wantsHelp(args)) {
    writeOut(
      CONFIG_CONFIG.help("Shows what this node's ztunnel knows of the mesh, its certificates and open connections."),
    );
    return 0;
  }
  const { config, operands } = CONFIG_CONFIG.parse(args, (name) => Deno.env.get(name));
  const section = sectionNamed(operands), dump = await readDump(config);
  const { namespace, output } = config;
  const shown = output === "json"
    ? `${JSON.stringify(sectionOf(dump, section), undefined, 2)}\n`
    : formatSection(dump, section, { namespace, nowMs: Date.now() });
  writeOut(shown);
  return 0;
}

/** One word; the singular is taken, as istioctl has it. */
function sectionNamed(operands: readonly string[]): Section {
  const [word = "", more] = operands;
  const singular = (section: Section) => section.replace(/ies$/, "y").replace(/s$/, "");
  const found = SECTIONS.find((section) => word === section || word === singular(section));
  if (found !== undefined && more === undefined) return found;
  const said = operands.length === 0 ? "" : `, not ${JSON.stringify(operands.join(" ").slice(0, 100))}`;
  const near = more === undefined ? nearest(word, SECTIONS) : undefined;
  throw new MeshError(
    "AMB0292",
    `ambit config needs one of ${SECTIONS.join(", ")}${said}`,
    {
      remedy: near === undefined ? "for example: ambit config workloads" : `did you mean ambit config ${near}?`,
    },
  );
}

async function readDump(
  { file, adminAddress: { host, port } }: { readonly file: string | undefined; readonly adminAddress: ListenAddress },
): Promise<Fields> {
  const from = file ?? `http://${host.includes(":") ? `[${host}]` : host}:${port}/config_dump`;
  try {
    const dump: unknown = JSON.parse(file === undefined ? await ask(from) : await Deno.readTextFile(file));
    if (isFields(dump) && Array.isArray(dump.workloads)) return dump;
    throw new Error("it is no dump of a ztunnel");
  } catch (cause) {
    if (!(cause instanceof Error)) throw cause;
    throw new MeshError("AMB0293", `reading the configuration of ztunnel from ${from}`, {
      remedy: file === undefined
        ? "run it on the node of a ztunnel that runs (systemctl status ambit-ztunnel), or name its --admin-address"
        : "name a file with the JSON of ztunnel's /config_dump",
      cause,
    });
  }
}

async function ask(url: string): Promise<string> {
  const response = await fetch(url, { signal: AbortSignal.timeout(ASK_MS) });
  if (response.ok) return await response.text();
  await response.body?.cancel();
  throw new Error(`it answers with status ${response.status}`);
}
