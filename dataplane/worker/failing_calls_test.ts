/** Every system call fails once, at every place where it is made: afterwards nothing may be left over, and work goes on. */
import { assert, assertEquals } from "@std/assert";
import type { IpWords } from "../../base/address.ts";
import { ipv4, serviceOf } from "../tables/testing.ts";
import { Gateway } from "./gateway_testing.ts";
import { ListenerKind } from "./listener.ts";
import { FAILURES, freshIp, Server, Socket } from "./loopback_testing.ts";
import { issue, Rig } from "./testing.ts";

const CLIENT_URI = "spiffe://cluster.local/ns/default/sa/client",
  SERVER_URI = "spiffe://cluster.local/ns/default/sa/server";
const leaves = {
  client: await issue(CLIENT_URI),
  server: await issue(SERVER_URI),
  gateway: await issue("spiffe://cluster.local/ns/default/sa/gateway"),
};
const SERVICE_IP = ipv4(0x0a600001);
const BODY = new Uint8Array(100_000).fill(7);
const TURNS_MAX = 400;

/** What a run may come to: all bytes through, or an end that the application sees. Anything else hangs. */
function carry(rig: Rig, caller: Socket, application: Server): boolean {
  let arrived: Socket | undefined, sent = 0, replied = 0;
  try {
    for (let turn = 0; turn < TURNS_MAX; turn++) {
      rig.turn();
      if (sent < BODY.length) {
        sent += caller.write(BODY.subarray(sent));
        if (sent === BODY.length) caller.finish();
      }
      if (arrived === undefined) arrived = application.accept();
      else {
        arrived.read();
        if (replied < BODY.length) {
          replied += arrived.write(BODY.subarray(replied));
          if (replied === BODY.length) arrived.finish();
        }
      }
      caller.read();
      const over = (it: Socket) => it.ended || it.error !== 0;
      if (over(caller) && (arrived === undefined || over(arrived))) break;
    }
    return caller.receivedBytes === BODY.length && arrived?.receivedBytes === BODY.length;
  } finally {
    arrived?.close();
  }
}

/** An application reached through both workers and HBONE. */
function prepareTunnel(rig: Rig, clientIp: IpWords, serverIp: IpWords) {
  rig.addWorkload("client", clientIp);
  rig.addWorkload("server", serverIp);
  const client = rig.addPod(0, clientIp, CLIENT_URI);
  const server = rig.addPod(1, serverIp, SERVER_URI, { [ListenerKind.HBONE]: new Server(serverIp, 15008).fd });
  rig.certify(0, client, leaves.client);
  rig.certify(1, server, leaves.server);
  const application = new Server(serverIp);
  const begin = () => rig.capture(0, client, ListenerKind.OUTBOUND, { ip: serverIp, port: application.port });
  return { application, begin, settled: () => true };
}

/** An application on another network, reached through a gateway of the test's own (ZT-046). */
function prepareRemote(rig: Rig, clientIp: IpWords, serverIp: IpWords) {
  const gateway = new Gateway(rig, leaves.gateway), application = new Server(serverIp), name = "shop.default.svc";
  rig.addWorkload("client", clientIp);
  rig.addWorkload("gateway", gateway.ip, { network: "far" });
  rig.addWorkload("server", serverIp, {
    network: "far",
    networkGateway: { address: { network: "far", ip: gateway.ip }, hboneMtlsPort: 15_009 },
    services: new Map([[`default/${name}`, [{ servicePort: 80, targetPort: application.port }]]]),
  });
  rig.mesh.putService(serviceOf("default", name, {
    addresses: [{ network: "", ip: SERVICE_IP }],
    ports: [{ servicePort: 80, targetPort: 8080 }],
    subjectAltNames: [SERVER_URI],
  }));
  const client = rig.addPod(0, clientIp, CLIENT_URI);
  const server = rig.addPod(1, serverIp, SERVER_URI, { [ListenerKind.HBONE]: new Server(serverIp, 15008).fd });
  rig.certify(0, client, leaves.client);
  rig.certify(1, server, leaves.server);
  gateway.joinAll(serverIp, 15008);
  const begin = () => rig.capture(0, client, ListenerKind.OUTBOUND, { ip: SERVICE_IP, port: 80 });
  const settled = () => gateway.idle && server.sessions.size === 0;
  return { application, begin, settled };
}

/** Passthrough at the client's worker, inbound plaintext at the server's. */
function prepareRelays(rig: Rig, clientIp: IpWords, serverIp: IpWords) {
  rig.addWorkload("client", clientIp);
  rig.addWorkload("server", serverIp);
  const client = rig.addPod(0, clientIp, CLIENT_URI), server = rig.addPod(1, serverIp, SERVER_URI);
  rig.certify(0, client, leaves.client);
  rig.certify(1, server, leaves.server);
  const application = new Server(serverIp), middle = new Server(freshIp());
  rig.atEnd(() => middle.close());
  const begin = () => {
    const caller = rig.capture(0, client, ListenerKind.OUTBOUND, { ip: middle.ip, port: middle.port });
    let relayed: Socket | undefined;
    for (let turn = 0; turn < 20 && relayed === undefined; turn++) {
      rig.turn();
      relayed = middle.accept();
    }
    if (relayed !== undefined) {
      rig.take(1, server, relayed, ListenerKind.PLAINTEXT, { ip: serverIp, port: application.port });
    }
    return caller;
  };
  return { application, begin, settled: () => true };
}

const WAYS = [
  ["a tunnel", prepareTunnel],
  ["relays", prepareRelays],
  ["double HBONE", prepareRemote],
] as const;

for (const [name, prepare] of WAYS) {
  for (const worker of [0, 1]) {
    for (const call of Object.keys(FAILURES)) {
      Deno.test(`${call}() may fail at any call of worker ${worker} under ${name}: nothing is left, the next connection works`, async () => {
        for (let failsIn = 0;; failsIn++) {
          assert(failsIn < 200, "a run without a failure comes");
          let met = 0;
          await Rig.with(2, (rig) => {
            const { application, begin, settled } = prepare(rig, freshIp(), freshIp());
            rig.atEnd(() => application.close());
            rig.publish();
            const os = rig.systems[worker]!;
            os.failing = call;
            os.failsIn = failsIn;
            const whole = carry(rig, begin(), application);
            met = os.failed;
            os.failing = "";
            if (met === 0) assertEquals(whole, true, "without a failure all bytes pass");
            const over = () => settled() && rig.shards.every((shard) => shard.connectionCount === 0);
            rig.until("the failed connection is over", over);
            for (let lost = application.accept(); lost !== undefined; lost = application.accept()) lost.close();
            assertEquals(carry(rig, begin(), application), true, `after ${call} failed at call ${failsIn}`);
          });
          if (met === 0) break;
        }
      });
    }
  }
}
