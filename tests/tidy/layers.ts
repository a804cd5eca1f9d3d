/** Who may import whom, and which words each room may speak: the rules as data, and the two functions that apply them. */

interface Room {
  /** Folders of ours that it may import besides itself. */
  readonly imports: readonly string[];
  /** Packages (and `node:` modules), and the part of the folder that may import them; "" is all of it. */
  readonly packages?: Readonly<Record<string, string>>;
}

const GRPC = "@grpc/grpc-js", X509 = "@peculiar/x509";

/** Every top folder with code in it. What is not listed may be imported by nobody and imports anything. */
export const ROOMS: Readonly<Record<string, Room>> = {
  base: { imports: [] },
  wire: { imports: ["base"] },
  mesh: { imports: ["base"], packages: { "protobufjs/minimal": "proto/" } },
  os: { imports: ["base"] },
  kube: { imports: ["base"], packages: { "@std/yaml": "", "node:": "" } },
  control: {
    imports: ["base", "wire", "mesh", "kube"],
    packages: { [X509]: "", jose: "", "@std/yaml": "", "node:": "" },
  },
  dataplane: {
    imports: ["base", "wire", "mesh", "os"],
    packages: { [GRPC]: "agent/", [X509]: "agent/", "@std/yaml": "agent/", "node:": "agent/" },
  },
  cni: { imports: ["base", "mesh", "os", "kube"], packages: { "node:": "", "@std/yaml": "" } },
  cli: { imports: ["base", "mesh", "os", "kube"], packages: { "@std/cli": "", "@std/yaml": "" } },
};

/** Folders that may import anything, and that nobody imports but main.ts for the command that starts them. */
export const OUTSIDE: readonly string[] = ["tests", "bench", "demo", "examples", "tools"];

/** Started by `new Worker(new URL(…))`, which no import shows: they alone reach the real `os/` from a worker's folder. */
export const WORKER_ENTRIES: readonly string[] = ["dataplane/worker/entry.ts", "cni/redirection/program_thread.ts"];

/** Folders whose code runs as a function of its arguments: no clock, no randomness, no outside world. */
export const PURE_FOLDERS: readonly string[] = ["wire", "mesh"];
/** Names that a pure folder does not speak. `Math.random` is told apart by its member. */
export const IMPURE_NAMES: readonly string[] = [
  "Deno",
  "Date",
  "performance",
  "crypto",
  "setTimeout",
  "setInterval",
  "fetch",
];
/** Names that the synchronous world of `worker/` does not speak, since it never returns to an event loop. */
export const ASYNC_NAMES: readonly string[] = [
  "Promise",
  "setTimeout",
  "setInterval",
  "queueMicrotask",
  "fetch",
  "postMessage",
];

/** Whether it is a test or what only tests import: free to import any package and to speak any word. */
export function isTest(file: string): boolean {
  return /(_test|_testing|\/testing)\.ts$/.test(file);
}

/** Whether the file is part of the synchronous world. */
export function isSynchronous(file: string): boolean {
  return file.includes("/worker/") && !isTest(file) && !OUTSIDE.includes(roomOf(file)) &&
    !WORKER_ENTRIES.includes(file);
}

/** The top folder of a path from the repository's root, or the file itself if it lies there. */
export function roomOf(file: string): string {
  return file.split("/")[0]!;
}

function resolved(file: string, specifier: string): string {
  return new URL(specifier, `file:///${file}`).pathname.slice(1);
}

function packageProblem(file: string, specifier: string): string | undefined {
  const room = roomOf(file), allowed = ROOMS[room]?.packages ?? {};
  for (const [name, part] of Object.entries(allowed)) {
    const named = name.endsWith(":") ? specifier.startsWith(name) : specifier === name;
    if (named && file.startsWith(`${room}/${part}`)) return undefined;
  }
  return `${room}/ may not import ${specifier}`;
}

/** What the agent posts to a worker when it starts it: the one file of `worker/` that the agent knows by value. */
export const WORKER_START = "/worker/start.ts";

/**
 * What is wrong with an import, as a sentence, or undefined. @param file from the repository's root.
 * @param types whether only types are imported: they leave nothing behind at run time.
 */
export function importProblem(file: string, specifier: string, types: boolean): string | undefined {
  const from = roomOf(file);
  if (OUTSIDE.includes(from)) return undefined;
  if (!specifier.startsWith(".")) {
    return isTest(file) || from === "main.ts" ? undefined : packageProblem(file, specifier);
  }
  const target = resolved(file, specifier), to = roomOf(target);
  if (from === "main.ts") return undefined;
  const isHelp = to === "os" && isTest(file) && isTest(target); // What tests of every room need of the kernel.
  if (from !== to && !isHelp && !(ROOMS[from]?.imports.includes(to) ?? false)) return `${from}/ may not import ${to}/`;
  if (isTest(target) && !isTest(file)) return "only tests may import what is made for tests";
  if (isTest(file)) return undefined;
  if (file.includes("/agent/") && target.includes("/worker/") && !types && !target.endsWith(WORKER_START)) {
    return "agent/ may not import worker/: tables/ is what they share";
  }
  if (file.includes("/worker/") && target.includes("/agent/")) {
    return "worker/ may not import agent/: tables/ is what they share";
  }
  if (isSynchronous(file) && to === "os" && target !== "os/api.ts") {
    return "worker/ may import os/api.ts only: its entry hands the real one in";
  }
  return undefined;
}
