import { assertEquals, assertRejects } from "@std/assert";
import { createSecureServer } from "node:http2";
import { MeshError } from "../../base/errors.ts";
import { ONLY_SERVER, TestAuthority } from "../../os/certificates_testing.ts";
import {
  callMetadata,
  connectChannel,
  type ControlEndpoint,
  parseRootSource,
  parseTokenSource,
  readRoots,
  type TokenSource,
} from "./control_channel.ts";

const PEM = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

function endpoint(token: TokenSource): ControlEndpoint {
  return {
    address: "https://istiod:15012",
    roots: { kind: "system" },
    token,
    clusterId: "east",
    alternativeHostname: "",
    headers: { "x-more": "1" },
    tls12: false,
  };
}

Deno.test("parseRootSource() and readRoots(): a file, the system's store, or the text itself (ZT-010)", async () => {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(path, PEM);
    assertEquals(parseRootSource(path), { kind: "file", path });
    assertEquals(await readRoots(parseRootSource(path)), PEM);
    assertEquals(parseRootSource("SYSTEM"), { kind: "system" });
    assertEquals(await readRoots(parseRootSource("SYSTEM")), null);
    assertEquals(await readRoots(parseRootSource(PEM)), PEM);
    const error = await assertRejects(() => readRoots(parseRootSource(`${path}.none`)), MeshError);
    assertEquals(error.code, "AMB0302"); // Clearer than taking a path that is not there for a certificate's text.
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("a token file is read for each call, another text is the token, nothing is no token (ZT-011, ZT-123)", async () => {
  const path = await Deno.makeTempFile();
  const sent = async (token: TokenSource) => (await callMetadata(endpoint(token))).getMap();
  try {
    await Deno.writeTextFile(path, "first");
    const source = parseTokenSource(path);
    assertEquals((await sent(source))["authorization"], "Bearer first");
    await Deno.writeTextFile(path, "second");
    assertEquals((await sent(source))["authorization"], "Bearer second");
    const metadata = await sent(parseTokenSource("eyJhbGciOi"));
    assertEquals(metadata, { authorization: "Bearer eyJhbGciOi", clusterid: "east", "x-more": "1" });
    for (const none of ["", "./var/run/secrets/tokens/istio-token"]) {
      assertEquals(await sent(parseTokenSource(none)), { clusterid: "east", "x-more": "1" });
    }
    for (const bad of ["", "ends in a newline\n"]) {
      await Deno.writeTextFile(path, bad);
      assertEquals((await assertRejects(() => sent(source), MeshError)).code, "AMB0304");
    }
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("connectChannel() takes a certificate of the alternative name, and of no third one (ZT-124)", {
  sanitizeOps: false, // A gRPC channel that failed keeps a back-off timer for a while after it was closed.
  sanitizeResources: false,
}, async () => {
  const authority = await TestAuthority.create("control");
  const leaf = await authority.issue([], { usages: ONLY_SERVER, host: "istiod-east.example" });
  const server = createSecureServer({ key: leaf.privateKey, cert: leaf.chain });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  const at = (alternativeHostname: string) => ({
    ...endpoint({ kind: "none" }),
    address: `https://127.0.0.1:${port}`,
    alternativeHostname,
  });
  try {
    (await connectChannel(at("istiod-east.example"), authority.rootPem)).close();
    for (const other of ["", "istiod-west.example"]) {
      const error = await assertRejects(() => connectChannel(at(other), authority.rootPem), MeshError);
      assertEquals(error.code, "AMB0301");
    }
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
});
