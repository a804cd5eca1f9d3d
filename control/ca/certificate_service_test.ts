/** CreateCertificate from end to end, but for gRPC: answers, refusals, and what is counted of them. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Logger } from "../../base/log.ts";
import type { StructObject } from "../../mesh/proto/struct_codec.ts";
import { Metrics } from "../../base/metrics.ts";
import { CertificateAuthority } from "./authority.ts";
import type { Caller, Refused } from "./caller.ts";
import { CallerClusters } from "./caller_clusters.ts";
import { CertificateService } from "./certificate_service.ts";
import { bearer, podOn, QuestionedApi } from "./cluster_testing.ts";
import { assembleMaterial, ISTIO_NAMES, makeRoot } from "./key_material.ts";
import { NodeAuthorizer } from "./node_authorizer.ts";
import { Folder } from "./testing.ts";

const CART = "spiffe://mesh.test/ns/shop/sa/cart", PROXY = "spiffe://mesh.test/ns/istio-system/sa/ztunnel";
const TOKEN = {
  cluster: "own",
  namespace: "istio-system",
  serviceAccount: "ztunnel",
  pod: "ztunnel-1",
  podUid: "uid-ztunnel-1",
  node: "",
};
const DAY_S = 86_400;

async function rig() {
  const startMs = Date.now(), clock = { ms: startMs };
  const root = {
    organisation: "mesh.test",
    nowMs: startMs,
    lifeMs: 30 * DAY_S * 1_000,
    key: "ecdsa",
    rsaBits: 0,
  } as const;
  const origin = { where: "a test", remedy: "", names: ISTIO_NAMES };
  const material = await assembleMaterial(origin, await makeRoot(root), { nowMs: startMs, selfSigned: true });
  const clusters = new CallerClusters("own"), pods = clusters.set("own", new QuestionedApi());
  for (const pod of [podOn("node-1", "istio-system", "ztunnel"), podOn("node-1", "shop", "cart")]) {
    pods.apply({ kind: "Pod", key: `Pod/${pod.meta.namespace}/${pod.meta.name}`, object: pod });
  }
  const metrics = new Metrics(), lines: string[] = [];
  const caller: { now: Caller | Refused } = { now: { identities: [PROXY], token: TOKEN } };
  const service = new CertificateService({
    authority: await CertificateAuthority.create(material, () => clock.ms),
    authenticator: { authenticate: () => Promise.resolve(caller.now) },
    authorizer: new NodeAuthorizer({
      clusters,
      trustedAccounts: new Set(["istio-system/ztunnel"]),
      isOurs: (domain) => domain === "mesh.test",
    }),
    defaultTtlMs: DAY_S * 1_000,
    maxTtlMs: 90 * DAY_S * 1_000,
    metrics,
    log: new Logger("ca", { sink: (line) => lines.push(line) }),
  });
  await using folder = await Folder.create();
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "k"];
  await folder.openssl("req", "-new", ...key, "-out", "csr", "-subj", "/");
  const csr = await Deno.readTextFile(`${folder.path}/csr`);
  const ask = (metadata?: StructObject, part: { csr?: string; validitySeconds?: number } = {}) =>
    service.create({ csr, validitySeconds: 0, ...part, ...(metadata ? { metadata } : {}) }, bearer("x"));
  const metric = (name: string) => {
    const line = metrics.render().split("\n").find((it) => it.startsWith(`citadel_server_${name} `));
    return Number(line?.split(" ")[1]);
  };
  return { ask, metric, caller, clock, lines, material, metrics };
}

function statusOf(answer: object): string {
  return "status" in answer ? String(answer.status) : "OK";
}

Deno.test("CertificateService answers leaf and roots, and counts each outcome under Istio's names (CP-024, CP-470, CP-471)", async () => {
  const it = await rig();
  const own = await it.ask(), theirs = await it.ask({ ImpersonatedIdentity: CART });
  for (const answer of [own, theirs]) {
    if ("status" in answer) throw new Error(answer.message);
    assertEquals([answer.certChain.length, answer.certChain.at(-1)], [2, it.material.rootsPem]);
  }
  const outcomes: [string, () => ReturnType<typeof it.ask>][] = [
    ["INVALID_ARGUMENT", () => it.ask({}, { csr: "x" })],
    ["INVALID_ARGUMENT", () => it.ask({}, { validitySeconds: 91 * DAY_S })],
    ["INVALID_ARGUMENT", () => it.ask({ CertSigner: "issuers.test/other" })],
    ["UNAUTHENTICATED", () => it.ask({ ImpersonatedIdentity: "spiffe://mesh.test/ns/shop/sa/bill" })],
  ];
  for (const [status, ask] of outcomes) assertEquals(statusOf(await ask()), status);
  it.caller.now = { refused: "no token" };
  assertEquals(await it.ask(), { status: "UNAUTHENTICATED", message: "request authenticate failure" });
  it.caller.now = { refused: "no answer", unavailable: true };
  assertEquals(statusOf(await it.ask()), "UNAVAILABLE");
  const names = ["csr_count", "authentication_failure_count", "csr_parsing_err_count", "id_extraction_err_count"];
  assertEquals([...names, "success_cert_issuance_count"].map(it.metric), [8, 3, 1, 1, 2]);
  for (const error of ["TTL_ERROR", "CERT_SIGNER"]) assertEquals(it.metric(`csr_sign_err_count{error="${error}"}`), 1);
});

Deno.test("CertificateService tells when root and signer end, as a moment and as a time to go (CP-024)", async () => {
  const it = await rig(), endS = Math.floor(it.material.signer.notAfter.getTime() / 1_000);
  for (const name of ["root_cert_expiry", "cert_chain_expiry"]) {
    assertEquals(it.metric(`${name}_timestamp`), endS);
    const left = it.metric(`${name}_seconds`);
    assert(Math.abs(left - (endS - Date.now() / 1_000)) < 10, `${left}`);
  }
});

Deno.test("CertificateService signs nothing with a signer that has ended, and says so to the log alone (CP-472, CP-492)", async () => {
  const it = await rig();
  it.clock.ms += 31 * DAY_S * 1_000;
  assertEquals(await it.ask(), { status: "INTERNAL", message: "CSR signing error (the CA cannot sign now)" });
  assertStringIncludes(it.lines.join("\n"), "the signing certificate expired");
  assertEquals(it.metric('csr_sign_err_count{error="CERT_GEN_ERROR"}'), 1);
});

Deno.test("CertificateService takes an agent's empty CertSigner for none, as agents send it (CP-495)", async () => {
  const it = await rig();
  assertEquals(statusOf(await it.ask({ CertSigner: "" })), "OK");
});
