import { assertEquals } from "@std/assert";
import { parseEnrolRequest, parseEnrolTarget } from "./enrolment.ts";

Deno.test("parseEnrolTarget() takes the three forms, and nothing that is almost one (CNI-271)", () => {
  assertEquals(parseEnrolTarget("netns/shop-web"), { kind: "netns", name: "shop-web", text: "netns/shop-web" });
  assertEquals(parseEnrolTarget("pid/12"), { kind: "pid", pid: 12, text: "pid/12" });
  const path = "/proc/12/ns/net";
  assertEquals(parseEnrolTarget(`netns-path:${path}`), { kind: "netns-path", path, text: `netns-path:${path}` });
  for (const text of ["", "netns/", "netns/../x", "netns/a/b", "netns/.x", "pid/0", "pid/-1", "pid/x", "pid/1 ", "x"]) {
    assertEquals(parseEnrolTarget(text), undefined, text);
  }
  for (const text of ["netns-path:relative", "netns-path:/a\0b", "netns-path:/" + "x".repeat(1024), "cgroup/x"]) {
    assertEquals(parseEnrolTarget(text), undefined, text);
  }
});

Deno.test("parseEnrolRequest() says which field is wrong", () => {
  const good = { target: "pid/7", namespace: "shop", serviceAccount: "web", name: "web-0" };
  assertEquals(parseEnrolRequest({ ...good, more: 1 }), { ...good, target: { kind: "pid", pid: 7, text: "pid/7" } });
  for (const field of ["target", "namespace", "serviceAccount", "name"] as const) {
    for (const value of [undefined, 1, "", "Upper", "a b", "-a", "x".repeat(254)]) {
      const parsed = parseEnrolRequest({ ...good, [field]: value });
      assertEquals("wrong" in parsed && parsed.wrong.startsWith(field), true, `${field}: ${value}`);
    }
  }
  for (const value of [null, 1, "x", []]) assertEquals("wrong" in parseEnrolRequest(value), true);
});

Deno.test("parseEnrolRequest() keeps what is said of DNS, and only a boolean says anything", () => {
  const good = { target: "pid/7", namespace: "shop", serviceAccount: "web", name: "web-0" };
  for (const dnsCapture of [true, false, undefined]) {
    const parsed = parseEnrolRequest({ ...good, dnsCapture });
    assertEquals("wrong" in parsed ? parsed.wrong : parsed.dnsCapture, dnsCapture);
  }
  assertEquals(parseEnrolRequest({ ...good, dnsCapture: "true" }), { wrong: "dnsCapture is no boolean" });
});
