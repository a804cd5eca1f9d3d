/** Dedicated mode: two processes, each for the one workload of its network namespace, without a node agent (ZT-001). */
import { SeqpacketListener } from "../../os/seqpacket.ts";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { ipToBytes, parseIp } from "../../base/address.ts";
import { CAPTURE_PORTS } from "../../cni/nft_rules.ts";
import { until } from "../../demo/lab/until.ts";
import { serviceYaml } from "../../demo/lab/yaml.ts";
import { APP_PORT, localYaml, Rig, STARTED_MS } from "./dedicated_rig.ts";

const textHex = (text: string) => new TextEncoder().encode(text).toHex();
const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");

const MUTUAL_TLS = {
  connection_security_policy: "mutual_tls",
  source_principal: "spiffe://cluster.local/ns/shop/sa/client",
  destination_principal: "spiffe://cluster.local/ns/shop/sa/server",
};

Deno.test("two dedicated ztunnels carry their applications' TCP by mutual TLS (ZT-001, ZT-002, ZT-150, ZT-221)", async () => {
  await using rig = new Rig();
  await rig.start();
  await rig.pods.server.probe.do("listen", { port: APP_PORT, kind: "line" });
  await using client = rig.ztunnel("client");
  await using server = rig.ztunnel("server");
  await Promise.all([rig.ready("client", client), rig.ready("server", server)]);
  assertStringIncludes(await rig.say("hello"), "hello");
  await until(
    "both have counted it",
    60_000,
    async () =>
      await rig.counted("client", { ...MUTUAL_TLS, reporter: "source" }) === 1 &&
      await rig.counted("server", { ...MUTUAL_TLS, reporter: "destination" }) === 1,
  );
  const dump = JSON.parse((await rig.page("server", ":15000/config_dump")).body);
  assertEquals(dump.workloadState, undefined); // ZT-208
  assertEquals(dump.config.proxyMode, "dedicated");
  assertEquals(dump.certificates.map((it: { identity: string }) => it.identity), [
    "spiffe://cluster.local/ns/shop/sa/server", // Its own, and no other's.
  ]);
});

Deno.test("a mesh of local files needs istiod for certificates alone, and obeys the file's policies (ZT-009, ZT-145)", async () => {
  await using rig = new Rig();
  await rig.start();
  await rig.pods.server.probe.do("listen", { port: APP_PORT, kind: "line" });
  const path = `${rig.folder}/mesh.yaml`;
  Deno.writeTextFileSync(path, localYaml(rig));
  await using client = rig.ztunnel("client", { XDS_ADDRESS: "", LOCAL_XDS_PATH: path });
  {
    await using server = rig.ztunnel("server", { XDS_ADDRESS: "", LOCAL_XDS: localYaml(rig) });
    await Promise.all([rig.ready("client", client), rig.ready("server", server)]);
    assertStringIncludes(await rig.say("by file"), "by file");
    const counted = async () => await rig.counted("client", { ...MUTUAL_TLS, reporter: "source" }) === 1;
    await until("it is counted once", 60_000, counted);
    const dump = JSON.parse((await rig.page("client", ":15000/config_dump")).body);
    assertEquals(dump.staticConfig.workloads.map((it: { uid: string }) => it.uid), ["client", "server"]);
  }
  const policy = `[{ name: not-client, namespace: shop, scope: Namespace, action: Deny, dryRun: false,
    rules: [[[{ principals: [!Exact cluster.local/ns/shop/sa/client] }]]] }]`;
  await using server = rig.ztunnel("server", { XDS_ADDRESS: "", LOCAL_XDS: localYaml(rig, { policies: policy }) });
  await rig.ready("server", server);
  const host = rig.pods.server.place.ipv4;
  await until("the server refuses by policy", 60_000, async () => {
    const { failure } = await rig.pods.client.probe.attempt("line", { host, port: APP_PORT, text: "no" });
    return failure !== undefined && server.lines.some((line) => line.includes("not-client"));
  });
});

Deno.test("an application is told by a PROXY header who speaks, over both families (ZT-095, ZT-097)", async () => {
  await using rig = new Rig();
  await rig.start();
  const tunnel = ", applicationTunnel: { protocol: PROXY, port: 9100 } ";
  const environment = { XDS_ADDRESS: "", LOCAL_XDS: localYaml(rig, { server: tunnel }) };
  await using _application = await rig.proxyApplication(9100);
  await using client = rig.ztunnel("client", environment);
  await using server = rig.ztunnel("server", environment);
  await Promise.all([rig.ready("client", client), rig.ready("server", server)]);
  const identity = MUTUAL_TLS.source_principal, tlv = `d0${hex(identity.length, 4)}${textHex(identity)}`;
  const hexOf = (ip: string) => ipToBytes(parseIp(ip)!).toHex();
  for (const [family, protocol] of [["ipv4", "11"], ["ipv6", "21"]] as const) {
    const [from, to] = [rig.pods.client.place[family], rig.pods.server.place[family]];
    const { reply } = await rig.pods.client.probe.do("line", { host: to, port: APP_PORT, text: family });
    const [reachedFrom, heard] = reply.split(" ");
    assertEquals(reachedFrom, family === "ipv4" ? "127.0.0.1" : "::1");
    const addresses = hexOf(from) + hexOf(to);
    const length = hex(addresses.length / 2 + 4 + tlv.length / 2, 4);
    const sourcePort = heard!.slice(32 + addresses.length, 36 + addresses.length);
    const header = `0d0a0d0a000d0a515549540a21${protocol}${length}${addresses}${sourcePort}${hex(APP_PORT, 4)}${tlv}`;
    assertEquals(heard, header + textHex(`${family}\n`));
  }
});

Deno.test("a SOCKS client in the namespace reaches a workload by mutual TLS (ZT-189, ZT-190)", async () => {
  await using rig = new Rig();
  await rig.start();
  await rig.pods.server.probe.do("listen", { port: APP_PORT, kind: "line" });
  const environment = { XDS_ADDRESS: "", LOCAL_XDS: localYaml(rig), UNSTABLE_ENABLE_SOCKS5: "true" };
  await using client = rig.ztunnel("client", environment);
  await using server = rig.ztunnel("server", environment);
  await Promise.all([rig.ready("client", client), rig.ready("server", server)]);
  const request = `05010001${ipToBytes(parseIp(rig.pods.server.place.ipv4)!).toHex()}${hex(APP_PORT, 4)}`;
  const target = { host: "127.0.0.1", port: 15080, hex: `050100${request}${textHex("by socks\n")}`, waitMs: 2_000 };
  const reply = `YOU ${rig.pods.server.place.ipv4} by socks\n`; // Sources are not kept here: ztunnel's own address.
  await until("the server's line comes", 60_000, async () => {
    const { receivedBytes } = await rig.pods.client.probe.do("raw", target);
    return receivedBytes === 2 + 10 + reply.length;
  });
  const counted = async () => await rig.counted("client", { ...MUTUAL_TLS, reporter: "source" }) > 0;
  await until("it is counted", 60_000, counted);
});

Deno.test("a SOCKS client reaches a service of the mesh by its name, and hears of one that nobody has (ZT-189, ZT-190)", async () => {
  await using rig = new Rig();
  await rig.start();
  const vip = { name: "server", namespace: "shop", addresses: ["10.96.1.1"], port: 80, targetPort: APP_PORT };
  Deno.writeTextFileSync(`${rig.folder}/config/service.yaml`, serviceYaml(vip));
  await rig.pods.server.probe.do("listen", { port: APP_PORT, kind: "line" });
  const environment = {
    UNSTABLE_ENABLE_SOCKS5: "true",
    ISTIO_META_DNS_CAPTURE: "true",
    AMBIT_RESOLV_CONF: "/dev/null",
  };
  await using client = rig.ztunnel("client", environment);
  await using server = rig.ztunnel("server");
  await Promise.all([rig.ready("client", client), rig.ready("server", server)]);
  const ask = async (name: string, waitMs: number) => {
    const request = `05010003${hex(name.length, 2)}${textHex(name)}${hex(80, 4)}${textHex("by name\n")}`;
    const target = { host: "127.0.0.1", port: 15080, hex: `050100${request}`, waitMs };
    return (await rig.pods.client.probe.do("raw", target)).receivedBytes;
  };
  const reply = `YOU ${rig.pods.server.place.ipv4} by name\n`;
  await until("the server's line comes", 60_000, async () => {
    return await ask("server.shop.svc.cluster.local", 2_000) === 2 + 10 + reply.length;
  });
  const labels = { ...MUTUAL_TLS, destination_service: "server.shop.svc.cluster.local" };
  await until("it is counted", 60_000, async () => await rig.counted("client", labels) > 0);
  assertEquals(await ask("nobody.example", 60_000), 2 + 10); // The refusal ends the connection.
});

Deno.test("a dedicated ztunnel takes its ports at once, and accepts when it knows the mesh (ZT-220, ZT-221, ZT-222)", async () => {
  await using rig = new Rig();
  await rig.start();
  await rig.pods.server.probe.do("listen", { port: APP_PORT, kind: "line" });
  await using client = rig.ztunnel("client", { XDS_ADDRESS: "https://127.0.0.1:1" });
  const page = await until("the ports are taken", STARTED_MS, async () => {
    const page = await rig.page("client", ":15021/healthz/ready");
    return page.body.includes("proxy") ? undefined : page;
  });
  assertEquals([page.status, page.body.trim()], [500, "not ready, pending: state manager"]);
  assertMatch(client.lines[0]!, /\tinfo\tambit\tsettings\t.*proxy-mode="dedicated \(environment\)"/); // First of all, what it runs with.
  const target = { host: rig.pods.server.place.ipv4, port: APP_PORT };
  const { handle } = await rig.pods.client.probe.do("open", target); // Waits in the backlog.
  assertEquals((await rig.pods.client.probe.do("ended", { handle, timeoutMs: 300 })).ending, "open");
  assert(!client.ended, client.tail());
});

Deno.test("a ztunnel without its TCP proxy leaves the ports of that alone (ZT-008)", async () => {
  await using rig = new Rig();
  await rig.start();
  await rig.pods.client.probe.do("listen", { port: CAPTURE_PORTS.outbound, kind: "line" });
  await using client = rig.ztunnel("client", { ENABLE_PROXY: "false", ISTIO_META_DNS_CAPTURE: "true" });
  await rig.ready("client", client);
});

Deno.test("a dedicated ztunnel ends with an error where a port is taken, or its settings are wrong (ZT-002, ZT-004)", async () => {
  await using rig = new Rig();
  await rig.start();
  await rig.pods.client.probe.do("listen", { port: CAPTURE_PORTS.inboundPlaintext, kind: "line" });
  const cases: readonly (readonly [environment: Record<string, string>, told: string])[] = [
    [{}, `cannot listen on port ${CAPTURE_PORTS.inboundPlaintext}`],
    [{ PROXY_WORKLOAD_INFO: "shop/client" }, "must match the format 'namespace/name/service-account'"],
    [{ LOCAL_XDS: "pods: []" }, "pods: no such field"],
    [{ ENABLE_PROXY: "false" }, "ztunnel run without any servers enabled"],
  ];
  for (const [environment, told] of cases) {
    await using program = rig.ztunnel("client", environment);
    const { code } = await program.status;
    await until(told, 60_000, () => program.tail().includes(told));
    assert(code !== 0, told);
  }
});

Deno.test("a successor on the same ports takes over without a refused connection, and without a word between the two (ZT-226)", async () => {
  await using rig = new Rig();
  await rig.start();
  await rig.pods.server.probe.do("listen", { port: APP_PORT, kind: "line" });
  await using client = rig.ztunnel("client");
  await using first = rig.ztunnel("server", { TERMINATION_GRACE_PERIOD_SECONDS: "25" }); // Less five for its connections.
  await Promise.all([rig.ready("client", client), rig.ready("server", first)]);
  const host = rig.pods.server.place.ipv4;
  const { handle } = await rig.pods.client.probe.do("open", { host, port: APP_PORT });
  const replied = (await rig.pods.client.probe.do("say", { handle, text: "one" })).reply;
  const burst = () => rig.pods.client.probe.do("burst", { host, ports: [APP_PORT], count: 400, concurrency: 8 });
  assertEquals((await burst()).errors, {});
  // A node agent gives both the same namespaces; here both are started in it. Pages of its own tell them apart.
  const pages = { AMBIT_ADMIN_PORT: "16000", AMBIT_STATS_PORT: "16020", AMBIT_READINESS_PORT: "16021" };
  await using second = rig.ztunnel("server", pages);
  const errors: Record<string, number>[] = [];
  const handedOver = (async () => {
    await until("the successor is ready", STARTED_MS, async () => {
      assert(!second.ended, second.tail());
      return (await rig.page("server", ":16021/healthz/ready")).status === 200;
    });
    first.kill("SIGTERM");
    await first.line("the drain", (line) => line.includes("draining"));
  })();
  let over = false;
  const outcome = Promise.allSettled([handedOver]).finally(() => over = true);
  while (!over) errors.push((await burst()).errors);
  await outcome;
  await handedOver;
  // What the first one has runs on in it until its deadline; it is not handed over.
  assertEquals((await rig.pods.client.probe.do("say", { handle, text: "two" })).reply, replied.replace("one", "two"));
  errors.push((await burst()).errors);
  // Nobody finds a port without a listener, and streams that cross the GOAWAY are served.
  assertEquals(errors.filter((it) => Object.keys(it).length > 0), []);
  for (let round = 0; round < 3; round++) assertEquals((await burst()).errors, {});
  await until("the first one has ended", 60_000, () => Promise.resolve(first.ended));
  assertEquals((await rig.pods.client.probe.do("ended", { handle, timeoutMs: 60_000 })).ending !== "open", true);
  assertEquals((await burst()).errors, {});
  assert(!second.ended, second.tail());
});

Deno.test("a shared ztunnel asks the node agent for pods once it knows the mesh, and not before (ZT-220, ZT-222)", async () => {
  await using rig = new Rig();
  await rig.start();
  const path = `${rig.folder}/zds.sock`, listener = SeqpacketListener.listen(path, { mode: 0o600 });
  const own = { POD_NAME: "client", POD_NAMESPACE: "shop" }; // As whom its token speaks.
  const shared = { PROXY_MODE: "shared", PROXY_WORKLOAD_INFO: "", INPOD_UDS: path, ...own };
  try {
    const early = listener.accept();
    let asked = false;
    const seen = early.then(() => asked = true);
    {
      await using blind = rig.ztunnel("client", { ...shared, XDS_ADDRESS: "https://127.0.0.1:1" });
      await blind.line("a try to reach istiod", (line) => line.includes("xds connection lost"), STARTED_MS);
      const { body } = await rig.page("client", ":15021/healthz/ready");
      assertEquals(body.trim(), "not ready, pending: state manager, workload proxy manager");
      assertEquals(asked, false);
    }
    await using knowing = rig.ztunnel("client", shared);
    await until("it asks", STARTED_MS, () => Promise.resolve(asked));
    await seen;
    const socket = (await early)!, hello = await socket.receive(1024, { timeoutMs: 60_000 });
    assert(typeof hello !== "string", "it says hello");
    await knowing.line("the whole mesh", (line) => line.includes("mesh state complete"), STARTED_MS);
    assertEquals(
      (await rig.page("client", ":15021/healthz/ready")).body.trim(),
      "not ready, pending: workload proxy manager",
    );
    await socket.close();
  } finally {
    await listener.close();
  }
});
