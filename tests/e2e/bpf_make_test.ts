/** eBPF and a ztunnel of another make that nobody named: it is told by its hello, and no pod is lost to it (CNI-202). */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { askNodeAgent } from "../../cli/enrol_client.ts";
import { CNI_CONFIG } from "../../cni/config.ts";
import { startCni } from "../../cni/main.ts";
import { encodeZdsAcknowledgement, encodeZdsHello, ZdsFeature } from "../../mesh/proto/zds_codec.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { createNamedNetns, deleteNamedNetns } from "../../os/netns.ts";
import { closeDescriptor, SeqpacketSocket } from "../../os/seqpacket.ts";
import { PrivateBpffs, ScratchCgroup } from "./bpf_scratch.ts";

const PACKET_BYTES = 1024, FOR_EVER_MS = 600_000;

/** Says hello and yes to everything, as long as the agent lives. */
async function agreeableZtunnel(path: string, features?: number): Promise<void> {
  const socket = SeqpacketSocket.connect(path);
  await socket.send(encodeZdsHello({ version: 1, features }));
  while (true) {
    const packet = await socket.receive(PACKET_BYTES, { timeoutMs: FOR_EVER_MS });
    if (typeof packet === "string") return await socket.close();
    closeDescriptor(packet.descriptor);
    await socket.send(encodeZdsAcknowledgement({ error: "" }));
  }
}

for (const [make, features] of [["another", undefined], ["our", ZdsFeature.SHARED_NETNS]] as const) {
  Deno.test(`bpf: a ztunnel of ${make} make is ${features === undefined ? "given no pods, and the setting is named" : "given pods"} (CNI-202)`, async () => {
    using bpffs = new PrivateBpffs();
    using cgroup = new ScratchCgroup();
    cgroup.enter();
    const folder = Deno.makeTempDirSync(), name = `ambit-make-${Deno.pid}`, stop = new AbortController();
    const at = (file: string) => `${folder}/${file}`;
    const { config } = CNI_CONFIG.parse([
      "--node-mode",
      ...["--zds-socket", at("zds.sock"), "--enrol-socket", at("enrol.sock"), "--state-dir", at("state")],
      ...["--enrol-dir", at("enrol.d"), "--redirect", "bpf"],
      ...["--bpf-pins", `${bpffs.folder}/ambit`, "--bpf-cgroup", cgroup.path],
    ], () => undefined);
    using netns = createNamedNetns(name);
    {
      using routes = RouteSocket.open(netns);
      routes.setUp("lo");
      routes.addVeth({ name: "eth0", peerName: "other" });
      routes.addAddress("eth0", "10.59.0.2/24");
      routes.setUp("eth0");
      routes.setUp("other");
    }
    const agent = await startCni(config, { signal: stop.signal, log: new Logger("cni", { sink: () => {} }) });
    const ztunnel = agreeableZtunnel(at("zds.sock"), features);
    try {
      const body = { target: `netns/${name}`, namespace: "shop", serviceAccount: "web", name: "web-0" };
      const enrolled = () => askNodeAgent(at("enrol.sock"), { method: "POST", path: "/enrol", body });
      if (features !== undefined) return void await enrolled();
      const error = await assertRejects(enrolled, MeshError);
      assert(error.message.includes(`--bpf-foreign-ztunnel=${cgroup.path}`), error.message);
      const status = await askNodeAgent(at("enrol.sock"), { method: "GET", path: "/status" }) as { pods: unknown[] };
      assertEquals(status.pods, [], "nothing is captured that nobody serves");
    } finally {
      stop.abort();
      await agent.done;
      await ztunnel;
      deleteNamedNetns(name);
      Deno.removeSync(folder, { recursive: true });
    }
  });
}
