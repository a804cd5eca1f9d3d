/** The validation webhook, asked by a real API server: what kubectl is told, and how the registration comes to refuse. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { ISTIOD_CONFIG } from "../../control/config.ts";
import { startIstiod } from "../../control/main.ts";
import { type ApiServer, startApiServer } from "./api_server.ts";
import { freePort } from "./free_port.ts";

const SYSTEM = "istio-system";
const REGISTRATION = "istio-validator-istio-system";

/** The registration of deploy/, asked at a port of this machine: the Service leads nowhere else. */
async function register(server: ApiServer, port: number): Promise<void> {
  await server.apply({ apiVersion: "v1", kind: "Namespace", metadata: { name: SYSTEM } });
  const service = { kind: "Service", apiVersion: "v1", metadata: { name: "istiod", namespace: SYSTEM } };
  await server.apply({ ...service, spec: { type: "ExternalName", externalName: "localhost" } });
  const file = new URL("../../deploy/kubernetes/webhook.yaml", import.meta.url);
  const text = (await Deno.readTextFile(file)).replaceAll("path: /validate }", `path: /validate, port: ${port} }`);
  const path = `${server.folder}/webhook.yaml`;
  await Deno.writeTextFile(path, text);
  await server.kubectl(["apply", "-f", path]);
}

function policy(name: string, spec: object, metadata: object = {}): object {
  return {
    apiVersion: "security.istio.io/v1",
    kind: "AuthorizationPolicy",
    metadata: { name, namespace: "default", ...metadata },
    spec,
  };
}

async function failurePolicies(server: ApiServer): Promise<string[]> {
  const path = "jsonpath={.webhooks[*].failurePolicy}";
  return (await server.kubectl(["get", "validatingwebhookconfiguration", REGISTRATION, "-o", path])).split(" ");
}

Deno.test("a real API server asks the webhook, and objects are refused and warned of from then on (CP-690, CP-693)", async () => {
  await using server = await startApiServer({ definitions: ["istio", "gateway"] });
  const port = freePort(), state = `${server.folder}/state`;
  await register(server, port);
  const flags = [
    `--kubeconfig=${server.kubeconfig}`,
    `--system-namespace=${SYSTEM}`,
    `--state-dir=${state}`,
    `--https-address=127.0.0.1:${port}`,
    ...["secure-grpc", "http", "monitoring"].map((name) => `--${name}-address=127.0.0.1:0`),
  ];
  const signal = AbortSignal.timeout(180_000);
  const stop = new AbortController(),
    lines: string[] = [],
    log = new Logger("istiod", { sink: (line) => lines.push(line) });
  const { config } = ISTIOD_CONFIG.parse(flags, () => undefined);
  const running = await startIstiod(config, { signal: stop.signal, log });
  try {
    while (!(await failurePolicies(server)).every((it) => it === "Fail")) signal.throwIfAborted();
    await server.apply(policy("good", { action: "DENY", rules: [{ from: [{ source: { principals: ["a"] } }] }] }));
    const refused = await assertRejects(() => server.apply(policy("bad", { action: "DENY" })), Error);
    assertStringIncludes(refused.message, "DENY without rules would never match");
    const badEntry = {
      apiVersion: "networking.istio.io/v1",
      kind: "ServiceEntry",
      metadata: { name: "e", namespace: "default" },
    };
    const refusedEntry = await assertRejects(
      () =>
        server.apply({
          ...badEntry,
          spec: { hosts: ["*.a.com"], ports: [{ number: 80, name: "http", protocol: "HTTP" }], resolution: "DNS" },
        }),
      Error,
    );
    assertStringIncludes(refusedEntry.message, "must be whole names");
    // Another revision's objects are for its own istiod to judge.
    await server.apply(policy("theirs", { action: "DENY" }, { labels: { "istio.io/rev": "other" } }));
    const stored = await server.kubectl([
      "get",
      "authorizationpolicies",
      "-A",
      "-o",
      "jsonpath={.items[*].metadata.name}",
    ]);
    assertEquals(stored, "good theirs");
  } finally {
    stop.abort();
    await running.done;
  }
  // Nobody checks any more: nothing gets in unchecked.
  const unchecked = await assertRejects(() => server.apply(policy("late", {})), Error);
  assertStringIncludes(unchecked.message, "failed calling webhook");
});
