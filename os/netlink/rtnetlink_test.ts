import { assert, assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { createAnonymousNetns, readSysctl, writeSysctl } from "../netns.ts";
import { runWithin } from "../process.ts";
import { RouteSocket } from "./rtnetlink.ts";

const privileged = Deno.uid() === 0;
const text = (output: Deno.CommandOutput) => new TextDecoder().decode(output.stdout);

Deno.test({
  name: "RouteSocket joins two namespaces by a bridge, and they reach each other over IPv4 and IPv6",
  ignore: !privileged,
  fn() {
    using node = createAnonymousNetns();
    using left = createAnonymousNetns();
    using right = createAnonymousNetns();
    using routes = RouteSocket.open(node);
    routes.addBridge("br0");
    routes.addAddress("br0", "10.9.0.1/24");
    routes.setUp("br0");
    for (const [at, netns] of [left, right].entries()) {
      routes.addVeth({ name: `v${at}`, peerName: "eth0", peerNetns: netns, mtu: 1400 });
      routes.setMaster(`v${at}`, "br0");
      routes.setUp(`v${at}`);
      using inside = RouteSocket.open(netns);
      inside.setUp("lo");
      inside.addAddress("eth0", `10.9.0.${at + 2}/24`);
      inside.addAddress("eth0", `fd00:9::${at + 2}/64`);
      inside.addAddress("eth0", `fd00:9::${at + 2}/64`); // again: fine
      inside.setUp("eth0");
      inside.addRoute({ destination: "0.0.0.0/0", via: "10.9.0.1" });
      inside.addRoute({ destination: "10.77.0.0/16", via: "10.9.0.1", device: "eth0", table: 300 });
      assert(inside.hasRoute({ destination: "10.77.0.0/16", table: 300, type: "unicast" }));
      assertEquals(
        inside.addresses().filter((it) => !it.ip.startsWith("fe80")).map((it) => `${it.ip}/${it.prefixLength}`).sort(),
        ["10.9.0." + (at + 2) + "/24", "127.0.0.1/8", "::1/128", `fd00:9::${at + 2}/64`].sort(),
      );
    }
    assert(routes.findLink("v0")!.masterIndex === routes.findLink("br0")!.index);
    for (const destination of ["10.9.0.3", "fd00:9::3"]) {
      const listening = runWithin(left, "bash", {
        args: ["-c", `exec 3<>/dev/tcp/${destination}/9; true`],
        stderr: "piped",
        stdout: "piped",
      });
      const answer = new TextDecoder().decode(listening.stderr); // Nobody listens: a refusal proves that packets pass.
      assert(answer.includes("refused"), answer);
    }
    assert(routes.deleteLink("v0"));
    assertEquals(routes.deleteLink("v0"), false);
  },
});

Deno.test({
  name: "RouteSocket adds and deletes a policy route once, however often it is asked (CNI-122)",
  ignore: !privileged,
  fn() {
    using netns = createAnonymousNetns();
    using routes = RouteSocket.open(netns);
    routes.setUp("lo");
    for (const family of ["ipv4", "ipv6"] as const) {
      const rule = { family, mark: 0x111, mask: 0xfff, priority: 32764, table: 100 };
      const route = {
        destination: family === "ipv4" ? "0.0.0.0/0" : "::/0",
        device: "lo",
        table: 100,
        type: "local",
      } as const;
      assertEquals(routes.hasRule(rule), false);
      assertEquals(routes.addRule(rule), true);
      assertEquals(routes.addRule(rule), false);
      assert(routes.hasRule(rule));
      routes.addRoute(route);
      routes.addRoute(route);
      assert(routes.hasRoute(route));
      const flag = family === "ipv4" ? "-4" : "-6";
      const rules = text(runWithin(netns, "ip", { args: [flag, "rule"] }));
      assertEquals(rules.split("\n").filter((it) => it.startsWith("32764:")).length, 1, rules);
      assert(rules.includes("from all fwmark 0x111/0xfff lookup 100"), rules);
      assert(text(runWithin(netns, "ip", { args: [flag, "route", "show", "table", "100"] })).includes("local default"));
      assertEquals([routes.deleteRoute(route), routes.deleteRoute(route)], [true, false]);
      assertEquals([routes.deleteRule(rule), routes.deleteRule(rule)], [true, false]);
    }
  },
});

Deno.test({
  name: "RouteSocket says what it was doing and what the kernel answered",
  ignore: !privileged,
  fn() {
    using netns = createAnonymousNetns();
    using routes = RouteSocket.open(netns);
    const missing = assertThrows(() => routes.setUp("nowhere"), MeshError);
    assertEquals(missing.code, "AMB7012");
    const refused = assertThrows(() => routes.addRoute({ destination: "10.0.0.0/8", via: "10.1.1.1" }), MeshError);
    assertEquals(refused.code, "AMB7011");
    assert(refused.cause instanceof Error && refused.cause.message.includes("Nexthop"), String(refused.cause));
    assertEquals(assertThrows(() => routes.addAddress("lo", "10.0.0.1"), MeshError).code, "AMB7013");
    assertEquals(assertThrows(() => routes.addAddress("lo", "10.0.0.1/33"), MeshError).code, "AMB7013");
  },
});

Deno.test({
  name: "writeSysctl() changes one namespace only",
  ignore: !privileged,
  fn() {
    using one = createAnonymousNetns();
    using other = createAnonymousNetns();
    writeSysctl(one, "net/ipv4/ip_forward", "1");
    writeSysctl(other, "net/ipv4/ip_forward", "0");
    assertEquals(readSysctl(one, "net/ipv4/ip_forward"), "1");
    assertEquals(readSysctl(other, "net/ipv4/ip_forward"), "0");
    assertEquals(readSysctl(one, "net/ipv4/no_such_entry"), undefined);
  },
});
