import { serveUnixHttp } from "../unix_http.ts";
import { formatAmbientNamespaces, parseAmbientNamespaces } from "../namespaces_file.ts";
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { Logger } from "../../base/log.ts";
import type { EnablementFacts } from "../enablement.ts";
import type { Agent, Decision } from "./agent.ts";
import { CniFailure, parseCall, versionIn } from "./call.ts";
import { runCall } from "./plugin.ts";
import { CNI_VERSIONS, convertResult, type Json } from "./result.ts";

const ENVIRONMENT: Readonly<Record<string, string>> = {
  CNI_COMMAND: "ADD",
  CNI_CONTAINERID: "c1",
  CNI_NETNS: "/var/run/netns/c1",
  CNI_IFNAME: "eth0",
  CNI_PATH: "/opt/cni/bin",
  CNI_ARGS: "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_UID=u1",
};
const PREVIOUS: Json = {
  cniVersion: "1.0.0",
  interfaces: [{ name: "eth0", sandbox: "/var/run/netns/c1" }],
  ips: [{ interface: 0, address: "10.0.0.2/24", gateway: "10.0.0.1" }, { address: "fd00::2/64" }],
  routes: [{ dst: "0.0.0.0/0" }],
  dns: {},
};
const CONFIG: Json = {
  cniVersion: "1.0.0",
  name: "net",
  type: "istio-cni",
  ambient_enabled: true,
  prevResult: PREVIOUS,
};

function call(config: unknown = CONFIG, environment: Readonly<Record<string, string | undefined>> = {}) {
  const all: Readonly<Record<string, string | undefined>> = { ...ENVIRONMENT, ...environment };
  return parseCall((name) => all[name], typeof config === "string" ? config : JSON.stringify(config));
}

interface World {
  readonly decision?: Decision;
  readonly refusal?: string;
  /** What each lookup gives; the last again and again. */
  readonly lookups?: readonly (EnablementFacts | Error | undefined)[];
  /** Namespaces of the file that the agent leaves. */
  readonly known?: ReadonlySet<string>;
}

const AMBIENT: EnablementFacts = {
  namespace: "shop",
  namespaceLabels: { "istio.io/dataplane-mode": "ambient" },
  labels: {},
  annotations: {},
  hostNetwork: false,
};

async function run(parsed: ReturnType<typeof call>, world: World) {
  const { decision = "unreachable", refusal, lookups = [AMBIENT], known } = world;
  const events: unknown[] = [], slept: number[] = [];
  let looked = 0;
  const agent: Agent = {
    decide: () => Promise.resolve(decision),
    enrol: (body) => Promise.resolve((events.push(JSON.parse(body)), refusal)),
  };
  const printed = await runCall(parsed, {
    agent: () => agent,
    lookup: () => ({
      pod: () => {
        const found = lookups[Math.min(looked++, lookups.length - 1)];
        return found instanceof Error ? Promise.reject(found) : Promise.resolve(found);
      },
    }),
    ambientNamespaces: () => Promise.resolve(known),
    log: new Logger("test", { sink: () => {} }),
    sleep: (ms) => Promise.resolve(void slept.push(ms)),
  });
  return { printed, events, looked, sleptMs: slept.reduce((sum, ms) => sum + ms, 0) };
}

Deno.test("parseCall() refuses what misses something, with the specification's code (CNI-001, CNI-002)", () => {
  const cases: readonly (readonly [unknown, Record<string, string | undefined>, code: number])[] = [
    [CONFIG, { CNI_COMMAND: "REMOVE" }, 4],
    [CONFIG, { CNI_NETNS: undefined, CNI_IFNAME: "" }, 4],
    ["{", {}, 6],
    ["[]", {}, 6],
    [{ ...CONFIG, name: undefined }, {}, 7],
    [{ ...CONFIG, cniVersion: "2.0.0" }, {}, 1],
    [{ ...CONFIG, cniVersion: "0.3.1" }, { CNI_COMMAND: "CHECK" }, 1],
    [{ ...CONFIG, cniVersion: "1.0.0" }, { CNI_COMMAND: "STATUS" }, 1],
  ];
  for (const [config, environment, code] of cases) {
    assertEquals(assertThrows(() => call(config, environment), CniFailure).code, code, JSON.stringify(environment));
  }
  assertEquals(new CniFailure(7, "no name").toJson("0.4.0"), { cniVersion: "0.4.0", code: 7, msg: "no name" });
  assertEquals(versionIn(`{"cniVersion":"0.4.0"}`), "0.4.0");
  assertEquals(versionIn("{"), "0.1.0");
});

Deno.test("every version and command is answered; DEL and CHECK whatever the configuration (CNI-001, CNI-004)", async () => {
  for (const cniVersion of CNI_VERSIONS) {
    const { printed } = await run(call({ ...CONFIG, cniVersion, prevResult: undefined }), { decision: "not-ambient" });
    assertEquals(printed, { cniVersion }); // CNI-003
    assertEquals((await run(call({ ...CONFIG, cniVersion }, { CNI_COMMAND: "VERSION" }), {})).printed, {
      cniVersion,
      supportedVersions: [...CNI_VERSIONS],
    });
  }
  for (const broken of ["", "{", "null", `{"name":7}`]) {
    for (const command of ["DEL", "CHECK"]) {
      assertEquals((await run(call(broken, { CNI_COMMAND: command }), {})).printed, undefined, command + broken);
    }
  }
});

Deno.test("convertResult() keeps a result but for what the version changes (CNI-003)", () => {
  assertEquals(convertResult(PREVIOUS, "1.1.0"), { ...PREVIOUS, cniVersion: "1.1.0" });
  const old = convertResult(PREVIOUS, "0.4.0");
  assertEquals(old.ips, [
    { version: "4", interface: 0, address: "10.0.0.2/24", gateway: "10.0.0.1" },
    { version: "6", address: "fd00::2/64" },
  ]);
  assertEquals(convertResult(old, "1.0.0"), PREVIOUS);
  const oldest = convertResult(PREVIOUS, "0.2.0");
  assertEquals(oldest, {
    cniVersion: "0.2.0",
    dns: {},
    ip4: { ip: "10.0.0.2/24", gateway: "10.0.0.1", routes: [{ dst: "0.0.0.0/0" }] },
    ip6: { ip: "fd00::2/64" },
  });
  assertEquals(convertResult(oldest, "1.0.0").ips, [
    { address: "10.0.0.2/24", gateway: "10.0.0.1" },
    { address: "fd00::2/64" },
  ]);
});

Deno.test("ADD sends a pod of the mesh to the agent with its addresses, and prints what was before (CNI-007, CNI-012, CNI-013)", async () => {
  for (const decision of ["ambient", "unknown", "unreachable"] as const) {
    const { printed, events } = await run(call(), { decision });
    assertEquals(printed, PREVIOUS);
    assertEquals(events, [{
      Netns: "/var/run/netns/c1",
      PodName: "web-1",
      PodNamespace: "shop",
      PodUID: "u1",
      IPs: [
        { Interface: 0, Address: { IP: "10.0.0.2", Mask: "////AA==" }, Gateway: "10.0.0.1" },
        { Interface: null, Address: { IP: "fd00::2", Mask: "//////////8AAAAAAAAAAA==" }, Gateway: "" },
      ],
    }]);
  }
});

Deno.test("ADD leaves alone what is no pod of the mesh (CNI-005, CNI-007, CNI-008, CNI-019)", async () => {
  const agents = { ...CONFIG, pod_namespace: "istio-system" };
  const named = (name: string, namespace: string) => ({
    CNI_ARGS: `K8S_POD_NAME=${name};K8S_POD_NAMESPACE=${namespace}`,
  });
  const cases = [
    call(CONFIG, { CNI_ARGS: "" }),
    call(CONFIG, named("web-1", "")),
    call({ ...CONFIG, ambient_enabled: false }),
    call({ ...CONFIG, exclude_namespaces: ["shop"] }),
    call(agents, named("istio-cni-node-x2", "istio-system")),
    call(agents, named("ztunnel-9", "istio-system")),
  ];
  for (const parsed of cases) {
    const { events, looked } = await run(parsed, {});
    assertEquals([events, looked], [[], 0]);
  }
  assertEquals((await run(call(), { decision: "not-ambient" })).events, []);
  assertEquals((await run(call(), { lookups: [{ ...AMBIENT, namespaceLabels: {} }] })).events, []);
});

Deno.test("ADD fails when the agent refuses, or when nobody can tell whose pod it is (CNI-009, CNI-012, CNI-019)", async () => {
  const refused = await assertRejects(() => run(call(), { decision: "ambient", refusal: "no ztunnel" }), CniFailure);
  assertEquals([refused.code, refused.message], [999, "no ztunnel"]);
  for (const lookup of [new Error("the API server does not answer"), undefined]) {
    await assertRejects(() => run(call(), { lookups: [lookup] }), CniFailure, "cannot tell whether shop/web-1");
  }
  const late = await run(call(), { lookups: [...Array(30).fill(new Error("not yet")), AMBIENT] });
  assertEquals([late.events.length, late.looked, late.sleptMs], [1, 31, 30_000]);
});

Deno.test("with nobody to ask a pod starts only where the agent last knew its namespace to be in no mesh (CNI-019, CNI-021)", async () => {
  const away = [new Error("the API server does not answer")], nobody = "cannot tell whether shop/web-1";
  const passed = await run(call(), { lookups: away, known: new Set(["other"]) });
  assertEquals([passed.events, passed.looked], [[], 31], "after all tries");
  await assertRejects(() => run(call(), { lookups: away, known: new Set(["shop"]) }), CniFailure, nobody);
  await assertRejects(() => run(call(), { lookups: away, known: undefined }), CniFailure, nobody);
  // An agent that answers knows better than its file, and so does an API server that has no such pod.
  const others = { known: new Set(["other"]) };
  await assertRejects(() => run(call(), { ...others, lookups: away, decision: "unknown" }), CniFailure, nobody);
  await assertRejects(() => run(call(), { ...others, lookups: [undefined] }), CniFailure, nobody);
});

Deno.test("the list of namespaces is read as it was written, and any other text is no list (CNI-021)", () => {
  assertEquals([...parseAmbientNamespaces(formatAmbientNamespaces(["b", "a"])) ?? []], ["a", "b"]);
  for (const text of ["", "{", "[]", '{"version":2,"ambient":[]}', '{"version":1,"ambient":[7]}']) {
    assertEquals(parseAmbientNamespaces(text), undefined);
  }
});

Deno.test("a mistake of ours becomes a CNI error with its stack, and one line in the log (CNI-003, CNI-011)", async () => {
  const entry = new URL("entry.ts", import.meta.url).pathname, folder = await Deno.makeTempDir();
  const start = async (environment: Record<string, string>, input: string) => {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", "--no-config", entry],
      env: { ...ENVIRONMENT, ...environment },
      stdin: input === "" ? "null" : "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    if (input !== "") {
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode(input));
      await writer.close();
    }
    const { code, stdout, stderr } = await child.output(), decoder = new TextDecoder();
    return { code, out: decoder.decode(stdout), said: decoder.decode(stderr) };
  };
  try {
    const inner = { ...CONFIG, cni_agent_run_dir: folder, plugin_log_level: "info" };
    const failed = await start({ CNI_ARGS: "K8S_POD_NAME=web-1;K8S_POD_NAMESPACE=" }, JSON.stringify(inner));
    assertEquals([failed.code, JSON.parse(failed.out).cniVersion], [0, "1.0.0"], "no pod: nothing to fail at");
    const bad = await start(
      {},
      JSON.stringify({ ...inner, prevResult: { ...PREVIOUS, ips: 7 }, enablement_selectors: 3 }),
    );
    const error = JSON.parse(bad.out);
    assertEquals([bad.code, error.code, error.cniVersion], [1, 7, "1.0.0"]);
    assertEquals(JSON.parse(bad.said.trim().split("\n").at(-1)!).message, "call failed");
    assertEquals(JSON.parse(Deno.readTextFileSync(`${folder}/istio-cni.log`)).msg, "call failed");
    const server = await serveUnixHttp(
      `${folder}/pluginevent.sock`,
      new Logger("test", { sink: () => {} }),
      () => Promise.resolve(new Response("ambient")),
    );
    const wrong = await start({}, JSON.stringify({ ...inner, prevResult: { ...PREVIOUS, ips: [null] } }));
    await server.shutdown();
    const mistake = JSON.parse(wrong.out);
    assertEquals([wrong.code, mistake.code, /\n\s+at /.test(mistake.details)], [1, 999, true], wrong.out);
    const about = await start({ CNI_COMMAND: "" }, "");
    assertEquals([about.code, about.out, /versions 0\.1\.0/.test(about.said)], [0, "", true]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("ADD refuses a configuration of ours that is not what it should be (CNI-006)", async () => {
  const bad: readonly Json[] = [
    { ambient_enabled: "yes" },
    { exclude_namespaces: "kube-system" },
    { enablement_selectors: [{ podSelector: { matchExpressions: [{ key: "a", operator: "Near" }] } }] },
    { cni_agent_run_dir: 7 },
  ];
  for (const part of bad) {
    const failure = await assertRejects(() => run(call({ ...CONFIG, ...part }), {}), CniFailure);
    assertEquals(failure.code, 7, JSON.stringify(part));
  }
});
