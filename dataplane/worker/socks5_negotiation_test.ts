import { assertEquals } from "@std/assert";
import type { IpWords } from "../../base/address.ts";
import { ResponseFlag } from "../tables/layout.ts";
import { ListenerKind } from "./listener.ts";
import { freshIp, Server, Socket } from "./loopback_testing.ts";
import type { Pod } from "./pod.ts";
import { issue, Rig } from "./testing.ts";

const CLIENT_URI = "spiffe://cluster.local/ns/default/sa/client";
const SERVER_URI = "spiffe://cluster.local/ns/default/sa/server";
const leaves = { client: await issue(CLIENT_URI), server: await issue(SERVER_URI) };
const GREETING = "050100";
const SUCCESS = "05000001000000000000", CHOSEN = "0500";
const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");
const requestTo = (ip: IpWords, port: number) => `05010001${hex(ip[3], 8)}${hex(port, 4)}`;

interface Pair {
  readonly rig: Rig;
  readonly client: Pod;
  readonly serverIp: IpWords;
  readonly application: Server;
  /** A client of the SOCKS listener. */
  dial(): Socket;
  /** Reads until so much has come. */
  hears(socket: Socket, expected: string): void;
}

/** A client's worker and a server's; the client's has its certificate unless told otherwise. */
function withPair(body: (pair: Pair) => void, { certified = true } = {}): Promise<void> {
  return Rig.with(2, (rig) => {
    const clientIp = freshIp(), serverIp = freshIp();
    rig.addWorkload("client", clientIp);
    rig.addWorkload("server", serverIp);
    const client = rig.addPod(0, clientIp, CLIENT_URI);
    const server = rig.addPod(1, serverIp, SERVER_URI, { [ListenerKind.HBONE]: new Server(serverIp, 15008).fd });
    if (certified) rig.certify(0, client, leaves.client);
    rig.certify(1, server, leaves.server);
    rig.publish();
    const application = new Server(serverIp), listener = new Server(freshIp());
    rig.atEnd(() => application.close());
    rig.atEnd(() => listener.close());
    body({
      rig,
      client,
      serverIp,
      application,
      dial() {
        const socket = Socket.connect(listener.ip, listener.port);
        rig.atEnd(() => socket.close());
        rig.take(0, client, listener.accept()!, ListenerKind.SOCKS);
        return socket;
      },
      hears(socket, expected) {
        let heard = "";
        rig.until(`${expected} comes`, () => (heard += socket.read().toHex()).length >= expected.length);
        assertEquals(heard, expected);
      },
    });
  });
}

/** What comes from the application until it ends. */
function untilEnd(rig: Rig, socket: Socket): string {
  let heard = "";
  rig.until("the connection ends", () => {
    heard += socket.read().toHex();
    return socket.ended || socket.error !== 0;
  });
  return heard;
}

Deno.test("a SOCKS client reaches a workload by HBONE, and what it sends with its request is the application's (ZT-189)", () =>
  withPair(({ rig, application, serverIp, dial, hears }) => {
    for (const cut of [1, 2, 3, 5, 12, 13, 14, 18]) {
      const socket = dial(), all = Uint8Array.fromHex(GREETING + requestTo(serverIp, application.port) + "68656c6c6f");
      socket.write(all.slice(0, cut));
      for (let turn = 0; turn < 3; turn++) rig.turn();
      socket.write(all.slice(cut));
      hears(socket, CHOSEN + SUCCESS);
      let arrived: Socket | undefined;
      rig.until("the application is connected to", () => (arrived = application.accept()) !== undefined);
      rig.atEnd(() => arrived!.close());
      hears(arrived!, "68656c6c6f");
      arrived!.write(Uint8Array.fromHex("6869"));
      hears(socket, "6869");
      socket.finish();
      arrived!.finish();
      assertEquals([untilEnd(rig, socket), untilEnd(rig, arrived!)], ["", ""]);
    }
    rig.turn();
    const records = rig.records(0);
    assertEquals(records.map(({ flag, receivedBytes, sentBytes }) => [flag, receivedBytes, sentBytes]), [
      ...Array(8).fill([ResponseFlag.NONE, 5, 2]),
    ]);
    assertEquals(records[0]!.destination.port, 15008);
  }));

Deno.test("a SOCKS client hears what is wrong, and is logged (ZT-190)", () =>
  withPair(({ rig, dial }) => {
    const cases: readonly (readonly [sent: string, answer: string, logged: string])[] = [
      ["04", "", "the SOCKS client ended before its request"],
      ["0401", "05070001000000000000", "the SOCKS client wants what is not supported"],
      ["050102", "05070001000000000000", "the SOCKS client wants what is not supported"],
      [
        GREETING + "05020001" + "0a000001" + "0050",
        CHOSEN + "05070001000000000000",
        "the SOCKS client wants what is not",
      ],
      [GREETING + "0501000301" + "61" + "0050", CHOSEN + "05040001000000000000", "SOCKS: names are not resolved"],
      [GREETING + "0501", CHOSEN, "the SOCKS client ended before its request"],
    ];
    for (const [sent, answer, logged] of cases) {
      const socket = dial();
      socket.write(Uint8Array.fromHex(sent));
      socket.finish();
      assertEquals(untilEnd(rig, socket), answer, sent);
      const [record] = rig.records(0);
      assertEquals(record?.error?.startsWith(logged), true, `${sent}: ${record?.error}`);
    }
  }));

Deno.test("success is said before anything is connected, so that a failure shows as a close (ZT-190)", () =>
  withPair(({ rig, application, serverIp, dial }) => {
    application.close();
    const socket = dial();
    socket.write(Uint8Array.fromHex(GREETING + requestTo(serverIp, application.port)));
    assertEquals(untilEnd(rig, socket), CHOSEN + SUCCESS);
    assertEquals(rig.records(0)[0]!.error, "http status: 503 Service Unavailable");
  }));

Deno.test("a SOCKS client that says nothing is let go after 5 s, and so is one whose pod goes (ZT-169)", () =>
  withPair(({ rig, client, dial }) => {
    const silent = dial();
    silent.write(Uint8Array.fromHex("05"));
    rig.turn();
    rig.pass(6_000);
    assertEquals(untilEnd(rig, silent), "05010001000000000000");
    const other = dial();
    rig.turn();
    rig.removePod(client);
    assertEquals(untilEnd(rig, other), "");
  }));

Deno.test("a SOCKS client waits for its pod's certificate before a word is read (ZT-016)", () =>
  withPair(({ rig, client, application, serverIp, dial, hears }) => {
    const socket = dial();
    socket.write(Uint8Array.fromHex(GREETING + requestTo(serverIp, application.port)));
    for (let turn = 0; turn < 5; turn++) rig.turn();
    assertEquals(socket.read().length, 0);
    rig.certify(0, client, leaves.client);
    hears(socket, CHOSEN + SUCCESS);
    let arrived: Socket | undefined;
    rig.until("the application is connected to", () => (arrived = application.accept()) !== undefined);
    arrived!.close();
    untilEnd(rig, socket);
  }, { certified: false }));
