/** For tests of double HBONE: two workers on either side of a gateway of the tests' own. */
import type { IpWords } from "../../base/address.ts";
import { FrameType } from "../../wire/h2/frame_rules.ts";
import { parseFlowLabel } from "../tables/flow_label.ts";
import { FLOW } from "../tables/layout.ts";
import { ipv4, serviceOf } from "../tables/testing.ts";
import { Gateway } from "./gateway_testing.ts";
import { H2Peer } from "./h2_peer_testing.ts";
import { ListenerKind } from "./listener.ts";
import { freshIp, Server, Socket } from "./loopback_testing.ts";
import type { Pod } from "./pod.ts";
import type { ShardOptions } from "./shard_options.ts";
import { issue, Rig } from "./testing.ts";

const { HEADERS } = FrameType;
/** Of an account of the mesh. */
export const uri = (account: string) => `spiffe://cluster.local/ns/default/sa/${account}`;
export const leaves = {
  client: await issue(uri("client")),
  server: await issue(uri("server")),
  gateway: await issue(uri("gateway")),
  renewed: await issue(uri("renewed")), // Another name, so that it can be told from the one before.
};
export const VIP = ipv4(0x0a600001), SERVICE = "shop.default.svc.cluster.local";
const KEY = `default/${SERVICE}`;

export interface Networks {
  readonly rig: Rig;
  readonly client: Pod;
  readonly server: Pod;
  readonly gateway: Gateway;
  readonly serverIp: IpWords;
  /** Where the server's application listens, behind its proxy. */
  readonly application: Server;
  /** A new connection of the client's application to the service. */
  open(): Socket;
  /** Its other end at the server's application. */
  arrive(): Socket;
}

/** A client's node (worker 0), a gateway, and a server's node (worker 1) that only the gateway reaches. */
export function withNetworks(
  body: (networks: Networks) => void | Promise<void>,
  options: Partial<ShardOptions> = {},
): Promise<void> {
  return Rig.with(2, (rig) => {
    const clientIp = freshIp(), serverIp = freshIp(), gateway = new Gateway(rig, leaves.gateway);
    const application = new Server(serverIp);
    rig.addWorkload("client", clientIp, { network: "near", clusterId: "K1", workloadName: "client-workload" });
    rig.addWorkload("gateway", gateway.ip, { network: "far" });
    rig.addWorkload("server", serverIp, {
      network: "far",
      clusterId: "K2",
      canonicalName: "shop",
      canonicalRevision: "v7",
      workloadName: "shop-workload",
      locality: { region: "r2", zone: "z2", subzone: "" },
      networkGateway: { address: { network: "far", ip: gateway.ip }, hboneMtlsPort: 15_009 },
      services: new Map([[KEY, [{ servicePort: 80, targetPort: application.port }]]]),
    });
    rig.mesh.putService(serviceOf("default", SERVICE, {
      addresses: [{ network: "near", ip: VIP }],
      ports: [{ servicePort: 80, targetPort: 8080 }],
      subjectAltNames: [uri("server")],
    }));
    const client = rig.addPod(0, clientIp, uri("client"));
    const server = rig.addPod(1, serverIp, uri("server"), { [ListenerKind.HBONE]: new Server(serverIp, 15008).fd });
    rig.certify(0, client, leaves.client);
    rig.certify(1, server, leaves.server);
    rig.publish();
    rig.atEnd(() => application.close());
    return body({
      rig,
      client,
      server,
      gateway,
      serverIp,
      application,
      open: () => rig.capture(0, client, ListenerKind.OUTBOUND, { ip: VIP, port: 80 }),
      arrive() {
        let arrived: Socket | undefined;
        rig.until("the application is connected to", () => (arrived = application.accept()) !== undefined);
        rig.atEnd(() => arrived!.close());
        return arrived!;
      },
    });
  }, { network: "near", responseBaggage: true, ...options });
}

export const text = (value: string) => new TextEncoder().encode(value) as Uint8Array<ArrayBuffer>;

/** Reads until so many bytes have come. */
export function readAll(rig: Rig, socket: Socket, bytes: number): string {
  let got = "";
  rig.until(`${bytes} bytes come`, () => {
    got += new TextDecoder().decode(socket.read());
    return got.length >= bytes;
  });
  return got;
}

export const closed = (rig: Rig, socket: Socket) =>
  rig.until("the application is closed", () => (socket.read(), socket.ended || socket.error !== 0));

/** A connection up to both applications. */
export function connect(
  { gateway, serverIp, open, arrive }: Networks,
): { client: Socket; server: Socket; outer: H2Peer } {
  const client = open(), outer = gateway.peers[0] ?? gateway.accept();
  const { streamId } = outer.next("a CONNECT", ({ type }) => type === HEADERS);
  gateway.join(outer, streamId, serverIp, 15008);
  return { client, server: arrive(), outer };
}

/** The label of a flow of the client's worker. */
export function labelOf(rig: Rig, row: number) {
  const flows = rig.tables.flows[0]!;
  return parseFlowLabel(new TextDecoder().decode(flows.readBytes(row, FLOW.label, flows.get(row, FLOW.labelBytes))));
}

/** The peer behind the gateway, written by hand, after its handshake. */
export function acceptInner(rig: Rig, behind: Server, name: keyof typeof leaves): H2Peer {
  let socket: Socket | undefined;
  rig.until("the gateway connects", () => (socket = behind.accept()) !== undefined);
  const peer = new H2Peer(rig, socket!, { server: true, leaf: leaves[name], roots: leaves.client.roots });
  peer.handshake();
  return peer.greet();
}
