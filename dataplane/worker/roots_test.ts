/** Roots that change while connections are open: those stay, and whoever comes later is held to the new ones (ZT-159). */
import { assert, assertEquals } from "@std/assert";
import { TestAuthority } from "../../os/certificates_testing.ts";
import { ResponseFlag } from "../tables/layout.ts";
import { ListenerKind } from "./listener.ts";
import { freshIp, Server, Socket } from "./loopback_testing.ts";
import { Rig } from "./testing.ts";

const CLIENT_URI = "spiffe://cluster.local/ns/default/sa/client",
  SERVER_URI = "spiffe://cluster.local/ns/default/sa/server";
const [before, after] = [await TestAuthority.create("before"), await TestAuthority.create("after")];
const bundle = before.rootPem + after.rootPem;
const leaves = {
  client: [await before.issue([CLIENT_URI]), await after.issue([CLIENT_URI])],
  server: [await before.issue([SERVER_URI]), await after.issue([SERVER_URI])],
} as const;

Deno.test("a root is replaced step by step under open connections, and none of them notices (ZT-152, ZT-159)", () =>
  Rig.with(2, (rig) => {
    const clientIp = freshIp(), serverIp = freshIp();
    rig.addWorkload("client", clientIp);
    rig.addWorkload("server", serverIp);
    const client = rig.addPod(0, clientIp, CLIENT_URI);
    const server = rig.addPod(1, serverIp, SERVER_URI, { [ListenerKind.HBONE]: new Server(serverIp, 15008).fd });
    const application = new Server(serverIp), open: { near: Socket; far: Socket }[] = [];
    rig.atEnd(() => application.close());
    const certify = (side: "client" | "server", leaf: 0 | 1, roots: string) =>
      rig.certify(side === "client" ? 0 : 1, side === "client" ? client : server, { ...leaves[side][leaf], roots });
    const dial = () => rig.capture(0, client, ListenerKind.OUTBOUND, { ip: serverIp, port: application.port });
    /** One more connection, on a session of its own; then all there are carry bytes. */
    const carry = () => {
      const near = dial();
      let far: Socket | undefined;
      rig.until("the application is connected to", () => (far = application.accept()) !== undefined);
      rig.atEnd(() => far!.close());
      open.push({ near, far: far! });
      for (const it of open) {
        it.near.write(Uint8Array.of(1));
        rig.until("bytes go through", () => it.far.read().length === 1);
      }
    };
    certify("client", 0, before.rootPem);
    certify("server", 0, before.rootPem);
    rig.publish();
    carry();
    certify("client", 0, bundle); // Both roots first, then the leaves, then the old root goes.
    carry();
    certify("server", 1, bundle);
    carry();
    certify("client", 1, bundle);
    carry();
    certify("server", 1, after.rootPem);
    certify("client", 1, after.rootPem);
    carry();
    assertEquals(client.pool.sessionCount, open.length);
    certify("client", 0, bundle); // A leaf of the root that is gone.
    const refused = dial();
    rig.until("it is refused", () => (refused.read(), refused.ended || refused.error !== 0));
    assertEquals(rig.records(0).map(({ flag }) => flag), [ResponseFlag.CONNECT]);
    assert(open.every(({ near }) => near.error === 0 && !near.ended));
  }, { streamsPerSessionMax: 1 }));
