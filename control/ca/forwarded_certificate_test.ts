/** Certificates that a gateway tells of. */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { bearer } from "./cluster_testing.ts";
import { ForwardedCertificateWay } from "./forwarded_certificate.ts";

const CART = "spiffe://mesh.test/ns/shop/sa/cart", BILL = "spiffe://mesh.test/ns/shop/sa/bill";
const way = new ForwardedCertificateWay(["10.0.0.0/8", "fd00::/8"], (domain) => domain === "mesh.test");

async function judge(forwardedCertificate: string[], peerAddress = "10.1.2.3"): Promise<string> {
  const result = await way.authenticate(bearer("x", { forwardedCertificate, peerAddress }));
  if ("refused" in result) return result.refused;
  assertEquals(result.token, undefined);
  return result.identities.join();
}

Deno.test("ForwardedCertificateWay believes gateways of its networks and of this machine, and nobody else (CP-430)", async () => {
  const header = [`By=spiffe://mesh.test/ns/gw/sa/gw;Hash=00;Subject="CN=x,O=\\"y\\"";URI=${CART}`];
  for (const peer of ["10.0.0.1", "10.255.255.255", "127.0.0.1", "::1", "fd12::1", "::ffff:10.0.0.1"]) {
    assertEquals(await judge(header, peer), CART, peer);
  }
  for (const peer of ["11.0.0.1", "192.168.0.1", "fe80::1", "", "unix:/x", "10.0.0.1:80"]) {
    assertStringIncludes(await judge(header, peer), "is no trusted gateway", peer);
  }
});

Deno.test("ForwardedCertificateWay takes the gateway's own element, and of it identities of ours alone (CP-430)", async () => {
  assertEquals(await judge([`URI=${BILL},By=a;URI=${CART}`]), CART, "what stands before, its caller may have written");
  assertEquals(await judge([`URI=${BILL}`, `URI=${CART}`]), CART);
  assertEquals(await judge([`uri="${CART}";URI=${BILL}`]), `${CART},${BILL}`);
  assertEquals(await judge([`Subject="a;b,URI=${BILL}";URI=${CART}`]), CART, "quoted");
  for (const header of [`DNS=istiod`, `URI=spiffe://evil/ns/a/sa/b`, `Subject="CN=${CART}"`, "URI="]) {
    assertStringIncludes(await judge([header]), "names no identity", header);
  }
  for (
    const header of [
      "",
      "x",
      `URI=${CART},`,
      `URI=${CART};`,
      `"URI"=x`,
      `URI="${CART}`,
      "=x",
      "A=b,".repeat(65) + "A=b",
    ]
  ) {
    assertStringIncludes(await judge([header]), "cannot be read", header);
  }
  assertStringIncludes(await judge(["A=".padEnd(40_000, "x")]), "cannot be read");
  assertEquals(await judge([]), "no forwarded certificate");
});

Deno.test("ForwardedCertificateWay refuses networks that are none", () => {
  for (const text of ["10.0.0.0", "10.0.0.0/33", "x", ""]) {
    const error = assertThrows(() => new ForwardedCertificateWay([text], () => true), MeshError) as MeshError;
    assertEquals(error.code, "AMB0258");
  }
});
