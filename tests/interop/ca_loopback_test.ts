/** The CA over gRPC: whom it refuses and how, and our CA client against it. */
import { Buffer } from "node:buffer";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import * as grpc from "@grpc/grpc-js";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { CaClient } from "../../dataplane/agent/ca_client.ts";
import { makeRequest } from "../../dataplane/agent/workload_certificate.ts";
import { decodeIstioCertificateResponse, encodeIstioCertificateRequest } from "../../mesh/proto/ca_codec.ts";
import type { StructObject } from "../../mesh/proto/struct_codec.ts";
import { CA_METHOD, ControlRig, headers, podObject, raw } from "./control_rig.ts";

const CART = "spiffe://cluster.local/ns/shop/sa/cart";
const PROXY = "spiffe://cluster.local/ns/istio-system/sa/ztunnel";

async function create(
  rig: ControlRig,
  metadata: grpc.Metadata,
  request: { csr: string; validitySeconds?: number; metadata?: StructObject } | Uint8Array,
): Promise<{ code: grpc.status; details: string; certChain: readonly string[] }> {
  const client = rig.client();
  const bytes = request instanceof Uint8Array
    ? request
    : encodeIstioCertificateRequest({ validitySeconds: 0, ...request });
  try {
    return await new Promise((resolve) => {
      client.makeUnaryRequest(
        CA_METHOD,
        raw,
        raw,
        Buffer.from(bytes),
        metadata,
        { deadline: Date.now() + 60_000 },
        (error, value) => {
          if (error !== null) resolve({ code: error.code, details: error.details, certChain: [] });
          else resolve({ code: grpc.status.OK, details: "", ...decodeIstioCertificateResponse(value!) });
        },
      );
    });
  } finally {
    client.close();
  }
}

/** A CSR as another tool makes it. */
async function opensslCsr(...keyArguments: string[]): Promise<string> {
  const args = ["req", "-new", "-nodes", "-keyout", "/dev/null", "-subj", "/O=any", ...keyArguments];
  const { success, stdout, stderr } = await new Deno.Command("openssl", { args }).output();
  assert(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

/** The CSR with its bytes changed by `edit`. */
function edited(csrPem: string, edit: (der: Uint8Array) => Uint8Array): string {
  const der = edit(Buffer.from(csrPem.replace(/-----[^-]+-----|\s/g, ""), "base64"));
  const base64 = Buffer.from(der).toString("base64");
  return `-----BEGIN CERTIFICATE REQUEST-----\n${base64}\n-----END CERTIFICATE REQUEST-----\n`;
}

/** Changes one bit of the signature, which ends the request. */
function spoilSignature(der: Uint8Array): Uint8Array {
  der[der.length - 3]! ^= 1;
  return der;
}

Deno.test("CreateCertificate refuses, says little, and signs nothing (CP-472, CP-475 to CP-485, CP-493, CP-494)", async () => {
  await using rig = await ControlRig.start();
  rig.setPod(podObject("cart-1", { serviceAccountName: "cart", nodeName: "node-1" }));
  rig.setPod(podObject("bill-1", { serviceAccountName: "bill", nodeName: "node-2" }));
  rig.setPod(podObject("gone-1", { serviceAccountName: "gone", nodeName: "node-1", phase: "Failed" }));
  rig.setPod(podObject("late-1", { serviceAccountName: "late", nodeName: "" }));
  rig.setPod(podObject("ztunnel-7", { namespace: "istio-system", serviceAccountName: "ztunnel", nodeName: "node-1" }));
  const good = await rig.token();
  const { csrPem: csr } = await makeRequest(CART);
  const as = (identity: unknown) => ({ csr, metadata: { ImpersonatedIdentity: identity as string } });
  const { UNAUTHENTICATED, INVALID_ARGUMENT } = grpc.status;
  const proxy7 = { pod: "ztunnel-7", podUid: "uid-1", node: "node-1" };
  const cases: [string, grpc.Metadata, Parameters<typeof create>[2], grpc.status][] = [
    ["no credentials", headers(undefined), { csr }, UNAUTHENTICATED],
    ["not a token", headers("x.y.z"), { csr }, UNAUTHENTICATED],
    ["basic authentication", headers(undefined, { authorization: `Basic ${good}` }), { csr }, UNAUTHENTICATED],
    ["other audience", headers(await rig.token({}, { audience: "vault" })), { csr }, UNAUTHENTICATED],
    ["expired", headers(await rig.token({}, { ttlMs: -2_000 })), { csr }, UNAUTHENTICATED],
    ["unknown cluster", headers(good, { clusterid: "elsewhere" }), { csr }, UNAUTHENTICATED],
    [
      "untrusted account",
      headers(await rig.token({ namespace: "shop", serviceAccount: "cart" })),
      as(CART),
      UNAUTHENTICATED,
    ],
    ["wrong node", headers(await rig.token({ node: "node-9" })), as(CART), UNAUTHENTICATED],
    ["pod on another node", headers(good), as("spiffe://cluster.local/ns/shop/sa/bill"), UNAUTHENTICATED],
    ["no such account", headers(good), as("spiffe://cluster.local/ns/shop/sa/none"), UNAUTHENTICATED],
    ["failed pod", headers(good), as("spiffe://cluster.local/ns/shop/sa/gone"), UNAUTHENTICATED],
    ["unscheduled pod", headers(good), as("spiffe://cluster.local/ns/shop/sa/late"), UNAUTHENTICATED],
    ["other trust domain", headers(good), as("spiffe://evil.example/ns/shop/sa/cart"), UNAUTHENTICATED],
    ["unparsable identity", headers(good), as(`${CART}/x`), UNAUTHENTICATED],
    ["identity of another kind", headers(good), as(7), UNAUTHENTICATED],
    ["other uid", headers(await rig.token({ ...proxy7, podUid: "uid-2" })), as(CART), UNAUTHENTICATED],
    [
      "token for another node than the pod's",
      headers(await rig.token({ ...proxy7, node: "node-2" })),
      as(CART),
      UNAUTHENTICATED,
    ],
    ["no CSR", headers(good), { csr: "" }, INVALID_ARGUMENT],
    ["not a CSR", headers(good), { csr: rig.authority.material.rootsPem }, INVALID_ARGUMENT],
    ["two CSRs", headers(good), { csr: csr + "\n" + csr }, INVALID_ARGUMENT],
    ["bad signature", headers(good), { csr: edited(csr, spoilSignature) }, INVALID_ARGUMENT],
    ["cut off", headers(good), { csr: edited(csr, (der) => der.subarray(0, der.length - 40)) }, INVALID_ARGUMENT],
    ["oversized", headers(good), { csr: `${"x".repeat(20_000)}\n${csr}` }, INVALID_ARGUMENT],
    ["huge message", headers(good), { csr: "x".repeat(2_000_000) }, grpc.status.RESOURCE_EXHAUSTED],
    ["weak RSA", headers(good), { csr: await opensslCsr("-newkey", "rsa:1024") }, INVALID_ARGUMENT],
    ["Ed25519", headers(good), { csr: await opensslCsr("-newkey", "ed25519") }, INVALID_ARGUMENT],
    ["other curve", headers(good), {
      csr: await opensslCsr("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"),
    }, INVALID_ARGUMENT],
    ["excessive life", headers(good), { csr, validitySeconds: 91 * 86_400 }, INVALID_ARGUMENT],
    ["not a message", headers(good), new Uint8Array([0xff, 0xff]), INVALID_ARGUMENT],
  ];
  for (const [what, metadata, request, code] of cases) {
    const answer = await create(rig, metadata, request);
    assertEquals([what, answer.code, answer.certChain], [what, code, []]);
    if (code === UNAUTHENTICATED) {
      const opaque = ["request authenticate failure", "request impersonation authentication failure"];
      assert(opaque.includes(answer.details), `${what}: ${answer.details}`);
    }
  }
  const metrics = rig.metrics.render();
  assertStringIncludes(metrics, "citadel_server_success_cert_issuance_count 0\n");
  assertStringIncludes(metrics, "citadel_server_authentication_failure_count 17\n");
  assertStringIncludes(metrics, "citadel_server_id_extraction_err_count 11\n");
  assert(
    rig.logLines.some((line) => line.includes("shop/cart is not among CA_TRUSTED_NODE_ACCOUNTS")),
    "the log says why",
  );
});

Deno.test("CreateCertificate signs for the caller whatever the CSR says, and for a pod of its node (CP-471, CP-478, CP-481)", async () => {
  await using rig = await ControlRig.start();
  rig.setPod(podObject("cart-1", { serviceAccountName: "cart", nodeName: "node-1", phase: "Pending" }));
  const { csrPem: csr } = await makeRequest("spiffe://evil.example/ns/kube-system/sa/admin");
  const token = headers(await rig.token(), { clusterid: "Kubernetes" });
  const own = await create(rig, token, { csr });
  assertEquals([own.code, own.certChain.length, own.certChain[1]], [
    grpc.status.OK,
    2,
    rig.authority.material.rootsPem,
  ]);
  assertStringIncludes(await describe(own.certChain[0]!), `URI:${PROXY}\n`);
  const other = await create(rig, token, { csr, metadata: { ImpersonatedIdentity: CART } });
  assertStringIncludes(await describe(other.certChain[0]!), `URI:${CART}\n`);
  const rsa = await create(rig, token, { csr: await opensslCsr("-newkey", "rsa:2048") });
  assertStringIncludes(await describe(rsa.certChain[0]!), "Public-Key: (2048 bit)");
  assertStringIncludes(rig.metrics.render(), "citadel_server_success_cert_issuance_count 3\n");
});

async function describe(pem: string): Promise<string> {
  const child = new Deno.Command("openssl", { args: ["x509", "-noout", "-text"], stdin: "piped", stdout: "piped" })
    .spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(pem));
  await writer.close();
  return new TextDecoder().decode((await child.output()).stdout);
}

function caClient(rig: ControlRig, token: string, impersonate = true): CaClient {
  return new CaClient({
    endpoint: rig.endpoint(token),
    ttlMs: 3_600_000,
    impersonate,
    now: Date.now,
    log: new Logger("client", { sink: () => {} }),
  });
}

Deno.test("CaClient gets a certificate that its key and the roots fit (ZT-149 to ZT-152)", async () => {
  await using rig = await ControlRig.start();
  rig.setPod(podObject("cart-1", { serviceAccountName: "cart", nodeName: "node-1" }));
  const client = caClient(rig, await rig.token());
  const certificate = await client.fetch(CART);
  client.close();
  const text = await describe(certificate.leafAndIntermediatesPem);
  assertStringIncludes(text, `X509v3 Subject Alternative Name: critical\n                URI:${CART}\n`);
  assertStringIncludes(text, "Subject: \n");
  assertStringIncludes(certificate.privateKeyPem, "-----BEGIN PRIVATE KEY-----");
  assertEquals(certificate.rootsPem.trim(), rig.authority.material.rootsPem.trim());
  assert(Math.abs(certificate.notAfterMs - Date.now() - 3_600_000) < 60_000, "the validity asked for");
  assert(certificate.notBeforeMs <= Date.now() - 100_000);
});

Deno.test("CaClient reports a refusal with its status, and a certificate of another identity (ZT-150)", async () => {
  await using rig = await ControlRig.start();
  const client = caClient(rig, await rig.token());
  const refused = await assertRejects(() => client.fetch(CART), MeshError);
  assertStringIncludes(refused.message, "UNAUTHENTICATED: request impersonation authentication failure");
  client.close();
  const dedicated = caClient(rig, await rig.token(), false);
  const wrong = await assertRejects(() => dedicated.fetch(CART), MeshError);
  assertStringIncludes(wrong.message, `did not find expected SAN: ${CART}`);
  assertEquals((await dedicated.fetch(PROXY)).leafAndIntermediatesPem.match(/BEGIN/g)!.length, 1);
  dedicated.close();
});

Deno.test("CaClient sends the token file as it is: a trailing newline or an empty file is an error (ZT-123)", async () => {
  await using rig = await ControlRig.start();
  const path = `${rig.stateDir}/token`, token = await rig.token();
  const endpoint = { ...rig.endpoint(""), token: { kind: "file" as const, path } };
  const options = {
    endpoint,
    ttlMs: 600_000,
    impersonate: false,
    now: Date.now,
    log: new Logger("x", { sink: () => {} }),
  };
  const client = new CaClient(options);
  await assertRejects(() => client.fetch(PROXY), MeshError, "cannot read the token");
  await Deno.writeTextFile(path, `${token}\n`);
  await assertRejects(() => client.fetch(PROXY), MeshError, "ends in a newline");
  await Deno.writeTextFile(path, "");
  await assertRejects(() => client.fetch(PROXY), MeshError, "is empty");
  await Deno.writeTextFile(path, token);
  await client.fetch(PROXY);
  client.close();
});

Deno.test("a request that is under way when the CA client closes is refused, not thrown out of the blue (ZT-156)", async () => {
  await using rig = await ControlRig.start();
  const endpoint = rig.endpoint(await rig.token());
  let closes = false;
  const headers = {
    get "x-late"() { // Read while the request is made.
      if (closes) client.close();
      return "yes";
    },
  };
  const client = new CaClient({
    endpoint: { ...endpoint, headers },
    ttlMs: 600_000,
    impersonate: false,
    now: Date.now,
    log: new Logger("client", { sink: () => {} }),
  });
  await client.fetch(PROXY);
  closes = true;
  await assertRejects(() => client.fetch(PROXY), MeshError, "the client was closed");
});
