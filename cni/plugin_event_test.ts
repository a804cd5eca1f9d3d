import { assert, assertEquals } from "@std/assert";
import { decodeEvent, encodeEvent } from "./plugin_event.ts";

const EVENT = { netns: "/var/run/netns/c1", name: "web-1", namespace: "shop", uid: "u1" };

Deno.test("encodeEvent() writes what decodeEvent() reads (CNI-013, CNI-015)", () => {
  const body = encodeEvent(EVENT, [
    { interface: 0, prefix: "10.0.0.2/20", gateway: "10.0.0.1" },
    { interface: undefined, prefix: "fd00::2/128", gateway: "" },
  ])!;
  assertEquals(JSON.parse(body).IPs[0].Address.Mask, "///wAA==");
  assertEquals(decodeEvent(body), { ...EVENT, ips: ["10.0.0.2", "fd00::2"] });
  assertEquals(decodeEvent(encodeEvent(EVENT, [])!), { ...EVENT, ips: [] });
  for (const prefix of ["10.0.0.2", "10.0.0.2/33", "fd00::2/129", "x/24"]) {
    assertEquals(encodeEvent(EVENT, [{ interface: 0, prefix, gateway: "" }]), undefined, prefix);
  }
});

Deno.test("decodeEvent() reads keys of any case, and unwraps mapped addresses (CNI-013, CNI-015)", () => {
  const body = JSON.stringify({
    netNS: "n",
    podname: "p",
    PODNAMESPACE: "s",
    ips: [{ address: { ip: "::ffff:10.0.0.2" } }],
  });
  assertEquals(decodeEvent(body), { netns: "n", name: "p", namespace: "s", uid: "", ips: ["10.0.0.2"] });
});

Deno.test("decodeEvent() says what is wrong, whatever comes (CNI-014)", () => {
  const body = encodeEvent(EVENT, [{ interface: 0, prefix: "10.0.0.2/24", gateway: "" }])!;
  for (let end = 0; end < body.length; end++) assert("wrong" in decodeEvent(body.slice(0, end)));
  for (
    const text of [
      "[]",
      "7",
      `{"Netns":1,"PodName":"a","PodNamespace":"b"}`,
      body.replace('"u1"', "1"),
      body.replace("10.0.0.2", "ten"),
    ]
  ) {
    assert("wrong" in decodeEvent(text), text);
  }
  const many = JSON.stringify({ Netns: "n", PodName: "p", PodNamespace: "s", IPs: Array(65).fill({}) });
  assert("wrong" in decodeEvent(many));
});
