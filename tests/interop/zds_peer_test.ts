/**
 * A ztunnel of another make against our node agent (CNI-311). Needs root and AMBIT_PEER_ZTUNNEL, the path of its
 * program; without the variable the test is shown as ignored.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { CNI_CONFIG } from "../../cni/config.ts";
import { Enrolments } from "../../cni/enrolments.ts";
import { NETLINK_REDIRECTION } from "../../cni/redirection/netlink.ts";
import { ZdsServer } from "../../cni/zds_server.ts";
import { parseEnrolRequest } from "../../mesh/enrolment.ts";
import { createAnonymousNetns, type Netns, withinNetns } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { spawnWithin } from "../../os/process.ts";

const PEER = Deno.env.get("AMBIT_PEER_ZTUNNEL");
const silent = new Logger("zds", { sink: () => {} });
const LISTENERS = [15001, 15006, 15008];

/** The other ztunnel, in a namespace of its own so that its admin ports are free. */
class Peer implements AsyncDisposable {
  readonly home = createAnonymousNetns();
  readonly child: Deno.ChildProcess;

  constructor(zdsSocket: string) {
    using routes = RouteSocket.open(this.home);
    routes.setUp("lo");
    this.child = spawnWithin(this.home, PEER!, {
      env: {
        INPOD_UDS: zdsSocket,
        NODE_NAME: "node-1",
        XDS_ADDRESS: "",
        // Certificates are not what is looked at here: a CA that nobody serves will do.
        CA_ADDRESS: "https://127.0.0.1:1",
        CA_ROOT_CA: "SYSTEM",
        AUTH_TOKEN: "/proc/sys/kernel/hostname",
      },
      stdout: "null",
      stderr: "null",
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill("SIGKILL");
    await this.child.status;
    this.home[Symbol.dispose]();
  }
}

/** Ports of LISTEN sockets in a namespace, sorted. */
function listening(netns: Netns): number[] {
  const lines = withinNetns(netns, () => Deno.readTextFileSync("/proc/thread-self/net/tcp6")).split("\n").slice(1);
  const LISTEN = "0A";
  const ports = lines.map((line) => line.trim().split(/\s+/)).filter((columns) => columns[3] === LISTEN)
    .map((columns) => parseInt(columns[1]!.split(":")[1]!, 16));
  return [...new Set(ports)].sort();
}

async function until(claim: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!condition()) {
    assert(performance.now() < deadline, claim);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

Deno.test({
  name: "the other ztunnel listens in an enrolled namespace, is refused nothing, and leaves on our word",
  ignore: PEER === undefined,
  async fn() {
    const folder = Deno.makeTempDirSync();
    const { config } = CNI_CONFIG.parse(["--zds-socket", `${folder}/zds.sock`], () => undefined);
    using pod = createAnonymousNetns();
    const request = parseEnrolRequest({
      target: `netns-path:/proc/${Deno.pid}/fd/${pod.fd}`,
      namespace: "shop",
      serviceAccount: "web",
      name: "web-0",
    });
    if ("wrong" in request) throw new Error(request.wrong);
    const options = { file: `${folder}/enrolled.json`, rules: {}, redirection: NETLINK_REDIRECTION, log: silent };
    const listenOptions = { path: config.zdsSocket, log: silent };
    {
      await using zds = ZdsServer.listen(listenOptions);
      using enrolments = new Enrolments(options);
      await using peer = new Peer(config.zdsSocket);
      assert(peer.child.pid > 0);
      await until("the peer is in sync", () => zds.synchronized);
      await enrolments.enrol(request, zds);
      assertEquals(listening(pod).filter((port) => LISTENERS.includes(port)), LISTENERS);
      await enrolments.enrol(request, zds);
      await enrolments.unenrol(request.target, zds);
      await until("its listeners are gone", () => listening(pod).length === 0);
      using _taken = withinNetns(pod, () => Deno.listen({ hostname: "::", port: 15006 }));
      const refused = await assertRejects(() => enrolments.enrol(request, zds), MeshError);
      assertEquals(refused.code, "AMB7211", "it cannot bind, says so, and the enrolment is undone");
      assertEquals(enrolments.status(), []);
    }
    {
      using enrolments = new Enrolments(options);
      await using zds = ZdsServer.listen(listenOptions, await enrolments.restore());
      await using peer = new Peer(config.zdsSocket);
      assert(peer.child.pid > 0);
      await until("the peer is in sync", () => zds.synchronized);
      await enrolments.enrol(request, zds);
    }
    {
      // Started anew, both know the pod again: we from our file, the peer from our snapshot.
      using enrolments = new Enrolments(options);
      await using zds = ZdsServer.listen(listenOptions, await enrolments.restore());
      assertEquals(enrolments.status().map(({ state }) => state), ["enrolled"]);
      await using peer = new Peer(config.zdsSocket);
      assert(peer.child.pid > 0);
      await until("the peer is in sync", () => zds.synchronized);
      assertEquals(listening(pod).filter((port) => LISTENERS.includes(port)), LISTENERS);
      await enrolments.releaseAll(zds);
    }
    Deno.removeSync(folder, { recursive: true });
  },
});
