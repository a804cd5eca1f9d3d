/** The command line as a shell sees it: exit status, which stream says what, and what a misspelt word is told. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { denoProgram } from "../../demo/lab/program.ts";

const MAIN = new URL("../../main.ts", import.meta.url);
const CACHE = Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME")}/.cache/deno`;
/** As on a machine where nothing is set up: no kubeconfig, no settings. */
const BARE = { HOME: "/nonexistent", DENO_DIR: CACHE, KUBECONFIG: "", AMBIT_CONFIG_DIR: "", AMBIT_STATE_DIR: "" };

interface Answer {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

async function ambit(line: string, input = ""): Promise<Answer> {
  const { command, args } = denoProgram(MAIN, line.split(" ").filter((it) => it !== ""));
  const child = new Deno.Command(command, { args, env: BARE, stdin: "piped", stdout: "piped", stderr: "piped" })
    .spawn();
  const typed = new Blob([input]).stream().pipeTo(child.stdin).catch(() => undefined); // It need not read all.
  const { code, stdout, stderr } = await child.output();
  await typed;
  return { status: code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
}

interface Case {
  readonly line: string;
  readonly input?: string;
  readonly status: number;
  /** What standard error says; absent: nothing, and standard output says something. */
  readonly says?: RegExp;
}

const FOREIGN = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: shop}\n" +
  "spec: {action: DENY, rules: [{to: [{operation: {paths: [/x]}}]}]}\n";

const CASES: readonly Case[] = [
  { line: "", status: 0 },
  { line: "--help", status: 0 },
  { line: "--version", status: 0 },
  { line: "version -o json", status: 0 },
  { line: "help cni check", status: 0 },
  { line: "isitod", status: 64, says: /fix: did you mean ambit istiod\?/ },
  { line: "proxy", status: 64, says: /fix: run ambit --help/ },
  { line: "status --outptu json", status: 64, says: /fix: did you mean --output\?/ },
  { line: "status -o yaml", status: 64, says: /"yaml" is none of text, json/ },
  { line: "install --dry-run false", status: 64, says: /--flag=false/ },
  { line: "istiod stray", status: 64, says: /takes no argument "stray"/ },
  { line: "completion bash", status: 0 },
  { line: "completion tcsh", status: 64, says: /one of bash, zsh, fish/ },
  { line: "config polices", status: 64, says: /did you mean ambit config policies\?/ },
  { line: "config workloads --file /nonexistent", status: 1, says: /\/nonexistent/ },
  { line: "token", status: 64, says: /needs --state-dir/ },
  { line: "enroll", status: 64, says: /needs one target/ },
  { line: "enroll host/x --namespace a --service-account b --name c", status: 64, says: /is no target/ },
  { line: "status --enrol-socket /nonexistent.sock", status: 1, says: /fix: .*ambit cni --node-mode/ },
  { line: "analyze", status: 1, says: /nothing says where the Kubernetes objects are/ },
  { line: "analyze /nonexistent.yaml", status: 1, says: /reading \/nonexistent\.yaml/ },
  { line: "analyze --kubeconfig /nonexistent.conf", status: 1, says: /fix: name one readable file by --kubeconfig/ },
  { line: "analyze -", input: FOREIGN, status: 0 },
  { line: "analyze - --failure-threshold Warning", input: FOREIGN, status: 79 },
];

for (const { line, input, status, says } of CASES) {
  Deno.test(`\`ambit ${line}\`${input === undefined ? "" : " with a policy"} ends with ${status}`, async () => {
    const answer = await ambit(line, input);
    assertEquals(answer.status, status, answer.err);
    if (says === undefined) {
      assertEquals(answer.err, "");
      assert(answer.out.length > 0 && !answer.out.includes("\x1b"), "data and no escape goes to standard output");
      return;
    }
    assertEquals(answer.out, "", "what went wrong is no data");
    assertMatch(answer.err, says);
    assertMatch(answer.err, /^error: .+\nfix: .+\ncode: AMB\d{4}\n$/);
  });
}

Deno.test("a reader that has had enough, as head, is no failure", async () => {
  const { command, args } = denoProgram(MAIN, ["istiod", "--help"]);
  const piped = `exec 3>&1; { "$@"; echo "status $?" >&3; } | true`; // `true` is gone long before help is written.
  const { stdout, stderr } = await new Deno.Command("bash", { args: ["-c", piped, "-", command, ...args], env: BARE })
    .output();
  assertEquals(new TextDecoder().decode(stderr), "");
  assertEquals(new TextDecoder().decode(stdout), "status 0\n");
});
