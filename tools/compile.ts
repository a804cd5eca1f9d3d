/**
 * Compiles every role into one program: dist/ambit. Workers, the CNI plugin, manifests, units and, where `deno task openssl`
 * has built it, OpenSSL are inside. The runtime's base for that, denort, comes by the network the first time, or from DENORT_BIN.
 */
import { parseArgs } from "@std/cli";
import { chain, MeshError } from "../base/errors.ts";
import { ONE_FILE } from "../os/openssl_library.ts";
import { isFile, PROGRAM_ENTRIES, runtimeFlags } from "./program_parts.ts";

const ROOT = new URL("..", import.meta.url).pathname;
/** What the program reads of itself, besides its modules. */
const DATA = ["deno.json", "deploy/kubernetes", "deploy/systemd", "docs/bare_nodes.md"];

export interface CompileOptions {
  /** The runtime's compiler: the pinned Deno. */
  readonly deno: string;
  /** Its base, in place of DENORT_BIN and of what it downloads. */
  readonly denort?: string;
  readonly into: string;
  /** A library to have inside, in place of dist/libossl.so; empty: none. */
  readonly openssl?: string;
  /** What is run, in place of main.ts. */
  readonly entry?: string;
}

/** Throws AMB7177 with what the compiler says. */
export async function compile(
  { deno, denort, into, openssl = `dist/${ONE_FILE}`, entry = PROGRAM_ENTRIES[0]! }: CompileOptions,
): Promise<void> {
  const included = [...PROGRAM_ENTRIES.slice(1), ...DATA];
  if (openssl !== "" && await isFile(`${ROOT}${openssl}`)) included.push(openssl);
  const args = [
    "compile",
    "--quiet",
    "--no-check", // `deno task check` has done it, with the runtime's own types.
    ...await runtimeFlags(),
    ...included.flatMap((path) => ["--include", path]),
    "--output",
    into,
    entry,
  ];
  const { success, stderr } = await new Deno.Command(deno, {
    args,
    cwd: ROOT,
    env: denort === undefined ? {} : { DENORT_BIN: denort },
    stdin: "null",
  }).output();
  if (success) return;
  const said = new TextDecoder().decode(stderr).split("\n").filter((line) => /error|denort|download/i.test(line));
  throw new MeshError("AMB7177", `deno compile failed: ${said.slice(0, 3).join("; ").trim()}`, {
    remedy: "It needs denort of the same version: let it download that once, or name one in DENORT_BIN.",
  });
}

if (import.meta.main) {
  const { output, help } = parseArgs(Deno.args, {
    string: ["output"],
    boolean: ["help"],
    default: { output: `${ROOT}dist/ambit` },
  });
  const say = (text: string) => void Deno.stdout.writeSync(new TextEncoder().encode(`${text}\n`));
  if (help) say("deno task compile [--output dist/ambit]");
  else {
    try {
      await Deno.mkdir(output.replace(/[^/]*$/, "") || ".", { recursive: true });
      await compile({ deno: Deno.execPath(), into: output });
      const { size } = await Deno.stat(output);
      say(`${output}: ${Math.round(size / (1 << 20))} MiB`);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      Deno.stderr.writeSync(new TextEncoder().encode(`${error.code}: ${chain(error)}\n  ${error.remedy}\n`));
      Deno.exit(1);
    }
  }
}
