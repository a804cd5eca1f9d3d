import { assertEquals } from "@std/assert";
import { formatIp, ipToBytes, type IpWords } from "../../base/address.ts";
import type { AccessRecord } from "../tables/access.ts";
import { ResponseFlag } from "../tables/layout.ts";
import { proxyHeader, sendHeader } from "./application_tunnel.ts";
import { ListenerKind } from "./listener.ts";
import { freshIp, host, Server, type Socket } from "./loopback_testing.ts";
import type { Shard } from "./shard.ts";
import { issue, Rig } from "./testing.ts";

const CLIENT_URI = "spiffe://cluster.local/ns/default/sa/client";
const SERVER_URI = "spiffe://cluster.local/ns/default/sa/server";
const LOOPBACK: IpWords = [0, 0, 0xffff, 0x7f00_0001];
const server = await issue(SERVER_URI), client = await issue(CLIENT_URI);
/** Of the mesh, but of no form that names a workload (ZT-084). */
const nameless = await issue("spiffe://cluster.local/agent");

interface Case {
  readonly leaf?: typeof client;
  /** The application tunnel names its port. */
  readonly ownPort: boolean;
  readonly byLoopback: boolean;
}

/** What the application saw. */
interface Seen {
  readonly serverIp: IpWords;
  /** The port that the client asked for. */
  readonly port: number;
  /** All that it read: the header, then `hello`. */
  readonly bytes: string;
  readonly reachedFrom: string;
  /** The address by which it was reached. */
  readonly reachedAt: string;
  /** The server's side of it. */
  readonly record: AccessRecord;
}

/** Says hello, by a worker of the client's and one of the server's, to an application that takes PROXY headers. */
function sayHello({ leaf = client, ownPort, byLoopback }: Case, check: (seen: Seen) => void): Promise<void> {
  return Rig.with(2, (rig) => {
    const clientIp = freshIp(), serverIp = freshIp();
    const application = new Server(byLoopback ? LOOPBACK : serverIp);
    rig.atEnd(() => application.close());
    rig.addWorkload("client", clientIp);
    rig.addWorkload("server", serverIp, { applicationTunnel: { protocol: 1, port: ownPort ? application.port : 0 } });
    const from = rig.addPod(0, clientIp, CLIENT_URI);
    const to = rig.addPod(1, serverIp, SERVER_URI, { [ListenerKind.HBONE]: new Server(serverIp, 15008).fd });
    rig.certify(0, from, leaf);
    rig.certify(1, to, server);
    rig.publish();
    const port = ownPort ? 8080 : application.port;
    const caller = rig.capture(0, from, ListenerKind.OUTBOUND, { ip: serverIp, port });
    caller.write(new TextEncoder().encode("hello"));
    let arrived: Socket | undefined;
    rig.until("the application is connected to", () => (arrived = application.accept()) !== undefined);
    const reached = arrived!,
      words = host.addressWords,
      address = () => formatIp(words[0]!, words[1]!, words[2]!, words[3]!);
    rig.atEnd(() => reached.close());
    host.peerAddress(reached.fd);
    const reachedFrom = address();
    host.localAddress(reached.fd);
    const reachedAt = address();
    let bytes = "";
    rig.until("hello comes", () => (bytes += reached.read().toHex()).endsWith(textHex("hello")));
    caller.finish();
    reached.finish();
    rig.until("both ends arrive", () => (caller.read(), reached.read(), caller.ended && reached.ended));
    let records: AccessRecord[] = [];
    rig.until("it is logged", () => (records = [...records, ...rig.records(1)]).length > 0);
    check({ serverIp, port, bytes, reachedFrom, reachedAt, record: records[0]! });
  }, { localhostAppTunnel: byLoopback });
}

const textHex = (text: string) => new TextEncoder().encode(text).toHex();
const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");

/** The bytes that the application has to see (ZT-095). */
function expected({ serverIp, port, record }: Seen, identity: string): string {
  const addresses = ipToBytes(record.source.ip).toHex() + ipToBytes(serverIp).toHex() + hex(record.source.port, 4) +
    hex(port, 4);
  const tlv = identity === "" ? "" : `d0${hex(identity.length, 4)}${textHex(identity)}`;
  return `0d0a0d0a000d0a515549540a2111${hex(12 + tlv.length / 2, 4)}${addresses}${tlv}${textHex("hello")}`;
}

Deno.test("an application tunnel begins with a PROXY header of peer, destination and identity, not counted (ZT-095)", () =>
  sayHello({ ownPort: true, byLoopback: false }, (seen) => {
    assertEquals(seen.bytes, expected(seen, CLIENT_URI));
    assertEquals([seen.record.receivedBytes, seen.record.sentBytes, seen.record.flag], [5, 0, ResponseFlag.NONE]);
    assertEquals(seen.reachedAt, formatIp(...seen.serverIp));
  }));

Deno.test("a PROXY header says nothing of an identity that is none of the mesh's form (ZT-084, ZT-095)", () =>
  sayHello({ leaf: nameless, ownPort: true, byLoopback: true }, (seen) => {
    assertEquals(seen.bytes, expected(seen, ""));
  }));

Deno.test("an application tunnel is reached by loopback, from loopback, if LOCALHOST_APP_TUNNEL says so (ZT-097)", () =>
  sayHello({ ownPort: true, byLoopback: true }, (seen) => {
    assertEquals([seen.reachedFrom, seen.reachedAt], ["127.0.0.1", "127.0.0.1"]);
    assertEquals(seen.bytes, expected(seen, CLIENT_URI));
  }));

Deno.test("an application tunnel without a port of its own is reached at the port asked for (ZT-095)", () =>
  sayHello({ ownPort: false, byLoopback: true }, (seen) => {
    assertEquals(seen.bytes, expected(seen, CLIENT_URI));
  }));

Deno.test("sendHeader() tells a failure and a header cut short, which is of no use to anybody", () => {
  const header = Uint8Array.of(1, 2, 3), u8 = new Uint8Array(8);
  const send = (result: number) => {
    const os = { memory: { u8, base: 100 }, send: () => result };
    return sendHeader({ os, buffers: { scratchAt: 4 } } as unknown as Shard, 9, header);
  };
  assertEquals([send(3), send(2), send(-11), send(-32)], [0, -105, -11, -32]);
  assertEquals([...u8], [0, 0, 0, 0, 1, 2, 3, 0]);
});

Deno.test("proxyHeader() refuses an identity that fits no header", () => {
  const address = { ip: LOOPBACK, port: 1 };
  assertEquals(proxyHeader(address, address, "a".repeat(65_521)), undefined);
  assertEquals(proxyHeader(address, address, "a")?.length, 32);
});
