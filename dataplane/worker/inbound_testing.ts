/** For tests: one pod's inbound HBONE, and clients for it. */
import { assertEquals } from "@std/assert";
import { formatIp, type IpWords } from "../../base/address.ts";
import { ascii } from "../../wire/h2/testing.ts";
import { concat, connectFrame, H2Peer } from "./h2_peer_testing.ts";
import { ListenerKind } from "./listener.ts";
import type { Pod } from "./pod.ts";
import { freshIp, Server, Socket } from "./loopback_testing.ts";
import type { ShardOptions } from "./shard_options.ts";
import { issue, Rig } from "./testing.ts";

const CLIENT_URI = "spiffe://cluster.local/ns/default/sa/client",
  SERVER_URI = "spiffe://cluster.local/ns/default/sa/server";
export const client = await issue(CLIENT_URI);
const own = await issue(SERVER_URI);

export interface Inbound {
  readonly rig: Rig;
  readonly pod: Pod;
  readonly ip: IpWords;
  readonly application: Server;
  /** The application's authority. */
  readonly authority: string;
  /** A session after TLS handshake and greeting. */
  peer(): H2Peer;
  /** A tunnel on this stream, up. @returns The application's end. */
  tunnel(peer: H2Peer, streamId: number): Socket;
  arrive(): Socket;
}

/** A worker that serves one pod's inbound HBONE, certificates and all. `prepare` adds to its mesh. */
export function withInbound(
  body: (inbound: Inbound) => void,
  prepare: (rig: Rig) => void = () => {},
  options: Partial<ShardOptions> = {},
): Promise<void> {
  return Rig.with(1, (rig) => {
    const ip = freshIp();
    rig.addWorkload("server", ip);
    prepare(rig);
    const pod = rig.addPod(0, ip, SERVER_URI, { [ListenerKind.HBONE]: new Server(ip, 15008).fd });
    rig.certify(0, pod, own);
    rig.publish();
    const application = new Server(ip);
    rig.atEnd(() => application.close());
    const authority = `${formatIp(...ip)}:${application.port}`;
    const arrive = () => {
      let arrived: Socket | undefined;
      rig.until("the application is connected to", () => (arrived = application.accept()) !== undefined);
      rig.atEnd(() => arrived!.close());
      return arrived!;
    };
    body({
      rig,
      pod,
      ip,
      application,
      authority,
      arrive,
      peer: () => H2Peer.dial(rig, ip, client).greet(),
      tunnel(peer, streamId) {
        peer.send(connectFrame(streamId, authority));
        const socket = arrive();
        assertEquals(peer.answer(streamId), { headers: [":status: 200"], ended: false });
        return socket;
      },
    });
  }, options);
}

/** A literal header field without indexing. */
export function field(name: string, value: string): Uint8Array {
  return concat(Uint8Array.of(0, name.length), ascii(name), Uint8Array.of(value.length), ascii(value));
}
export const CONNECT_METHOD = field(":method", "CONNECT");
