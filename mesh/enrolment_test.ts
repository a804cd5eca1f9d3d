import { assertEquals } from "@std/assert";
import { parseEnrolRequest, parseEnrolTarget } from "./enrolment.ts";

Deno.test("parseEnrolTarget() takes each form, and nothing that is almost one (CNI-271)", () => {
  assertEquals(parseEnrolTarget("netns/shop-web"), { kind: "netns", name: "shop-web", text: "netns/shop-web" });
  assertEquals(parseEnrolTarget("pid/12"), { kind: "pid", pid: 12, text: "pid/12" });
  const path = "/proc/12/ns/net";
  assertEquals(parseEnrolTarget(`netns-path:${path}`), { kind: "netns-path", path, text: `netns-path:${path}` });
  for (const text of ["", "netns/", "netns/../x", "netns/a/b", "netns/.x", "pid/0", "pid/-1", "pid/x", "pid/1 ", "x"]) {
    assertEquals(parseEnrolTarget(text), undefined, text);
  }
  for (const text of ["netns-path:relative", "netns-path:/a\0b", "netns-path:/" + "x".repeat(1024)]) {
    assertEquals(parseEnrolTarget(text), undefined, text);
  }
});

Deno.test("parseEnrolTarget() takes containers, units and control groups (CNI-271)", () => {
  for (
    const [text, target] of [
      ["container/8f4b2a0c9d1e", { kind: "container", id: "8f4b2a0c9d1e" }],
      ["unit/web@1.service", { kind: "unit", unit: "web@1.service" }],
      ["unit/a\\x2db.service", { kind: "unit", unit: "a\\x2db.service" }],
      ["cgroup/system.slice/web.service", { kind: "cgroup", path: "system.slice/web.service" }],
    ] as const
  ) assertEquals(parseEnrolTarget(text) as unknown, { ...target, text });
  const wrong = [
    "container/",
    "container/ab",
    "unit/web",
    "unit/../x.service",
    "unit/a/b.service",
    "cgroup/",
    "cgroup//a",
  ];
  for (const text of [...wrong, "cgroup/a/../b", "cgroup/a/", "host/x"]) {
    assertEquals(parseEnrolTarget(text), undefined, text);
  }
});

Deno.test("parseEnrolRequest() takes ports of what shares the host's namespace, and never SSH's (CNI-275, CNI-276)", () => {
  const good = { target: "unit/web.service", namespace: "shop", serviceAccount: "web", name: "web-0" };
  const wrong = (more: Record<string, unknown>) => {
    const parsed = parseEnrolRequest({ ...good, ...more });
    return "wrong" in parsed ? parsed.wrong : undefined;
  };
  const exclude = { outboundPorts: [3306], outboundCidrs: ["10.0.0.0/8", "fd00::1"], inboundPorts: [] };
  assertEquals(wrong({ inboundPorts: [80, 443], address: "10.0.0.1", ingress: false, exclude }), undefined);
  assertEquals(wrong({ inboundPorts: [22] }), "inboundPorts has 22, which is never captured on a host");
  for (const inboundPorts of ["80", [0], [65_536], [1.5], ["80"], Array.from({ length: 16 }, () => 80)]) {
    assertEquals(wrong({ inboundPorts }), "inboundPorts is no list of at most 15 ports from 1 to 65535");
  }
  assertEquals(wrong({ address: "x" }), "address is no IP address");
  assertEquals(
    wrong({ exclude: { outboundCidrs: ["10.0.0.0/33"] } }),
    'exclude.outboundCidrs: "10.0.0.0/33" is no address range',
  );
  assertEquals(
    wrong({ target: "netns/web", inboundPorts: [80] })?.startsWith("inboundPorts and address are only"),
    true,
  );
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
