/** With which TLS the control plane is spoken to. */
import { assertEquals, assertRejects } from "@std/assert";
import { createSecureServer } from "node:http2";
import type { SecureVersion } from "node:tls";
import { chain, MeshError } from "../../base/errors.ts";
import { ONLY_SERVER, TestAuthority } from "../../os/certificates_testing.ts";
import { connectChannel, type ControlEndpoint } from "./control_channel.ts";

const authority = await TestAuthority.create("control");
const leaf = await authority.issue([], { usages: ONLY_SERVER, host: "istiod.istio-system.svc" });

/** A control plane of one version of TLS; `body` gets an endpoint that says whether 1.2 will do. */
async function withServer(
  version: SecureVersion,
  body: (endpoint: (tls12: boolean) => ControlEndpoint) => Promise<void>,
) {
  const server = createSecureServer({
    key: leaf.privateKey,
    cert: leaf.chain,
    minVersion: version,
    maxVersion: version,
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  try {
    await body((tls12) => ({
      address: `https://127.0.0.1:${port}`,
      roots: { kind: "pem", pem: authority.rootPem },
      token: { kind: "none" },
      clusterId: "Kubernetes",
      alternativeHostname: "",
      tls12,
      headers: {},
    }));
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
}

Deno.test("connectChannel() speaks TLS 1.3, and 1.2 where that is allowed (ZT-079)", {
  sanitizeOps: false, // A gRPC channel that failed keeps a back-off timer for a while after it was closed.
  sanitizeResources: false,
}, async () => {
  await withServer("TLSv1.2", async (endpoint) => {
    const refused = await assertRejects(() => connectChannel(endpoint(false), authority.rootPem), MeshError);
    assertEquals([refused.code, /ProtocolVersion/.test(chain(refused))], ["AMB0301", true]); // alert 70
    (await connectChannel(endpoint(true), authority.rootPem)).close();
  });
  await withServer("TLSv1.3", async (endpoint) => {
    for (const tls12 of [false, true]) (await connectChannel(endpoint(tls12), authority.rootPem)).close();
  });
});
