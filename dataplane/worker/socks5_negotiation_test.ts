import { assertEquals } from "@std/assert";
import type { IpWords } from "../../base/address.ts";
import { Command, ResponseFlag } from "../tables/layout.ts";
import { AnswerStatus, QuestionKind } from "../tables/questions.ts";
import { ListenerKind } from "./listener.ts";
import { freshIp, Server, Socket } from "./loopback_testing.ts";
import type { Pod } from "./pod.ts";
import { Asked, QUESTIONS_MAX } from "./questions.ts";
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

const requestFor = (name: string, port: number) =>
  `05010003${hex(name.length, 2)}${new TextEncoder().encode(name).toHex()}${hex(port, 4)}`;

Deno.test("a SOCKS client's name is asked of the agent once, and its address reached as if it had been given (ZT-189)", () =>
  withPair(({ rig, client, application, serverIp, dial, hears }) => {
    const socket = dial();
    socket.write(Uint8Array.fromHex(GREETING + requestFor("server.shop", application.port) + "68656c6c6f"));
    const asked = rig.answer(0, () => [AnswerStatus.KNOWN, serverIp]);
    assertEquals([asked.kind, asked.podRow, asked.wantsIpv4, asked.text], [
      QuestionKind.SOCKS_NAME,
      client.row,
      true,
      "server.shop",
    ]);
    hears(socket, CHOSEN + SUCCESS);
    let arrived: Socket | undefined;
    rig.until("the application is connected to", () => (arrived = application.accept()) !== undefined);
    hears(arrived!, "68656c6c6f"); // What came with the request waited, and is the application's.
    arrived!.close();
    untilEnd(rig, socket);
    assertEquals(rig.questions(0), []);
  }));

Deno.test("a SOCKS client hears 4 when its name does not resolve or nobody says, and 7 where there is no DNS (ZT-190)", () =>
  withPair(({ rig, dial }) => {
    const cases = [
      [AnswerStatus.UNKNOWN, "05040001000000000000", "SOCKS: the name does not resolve"],
      [AnswerStatus.UNSUPPORTED, "05070001000000000000", "SOCKS: names need the DNS proxy, which is off"],
      [undefined, "05040001000000000000", "SOCKS: the name was not resolved in 10 s"],
    ] as const;
    for (const [status, answer, logged] of cases) {
      const socket = dial();
      socket.write(Uint8Array.fromHex(GREETING + requestFor("nowhere", 80)));
      if (status !== undefined) rig.answer(0, () => [status]);
      else {
        rig.until("the agent is asked", () => rig.questions(0).length === 1);
        rig.pass(9_000); // Longer than a negotiation may take: the client has said all it had to.
        assertEquals(socket.ended, false);
        rig.pass(2_000);
      }
      assertEquals(untilEnd(rig, socket), CHOSEN + answer);
      assertEquals(rig.records(0).map(({ error }) => error), [logged]);
    }
  }));

Deno.test("an answer that comes too late, to nobody or for a pod that has gone is dropped (ZT-169)", () =>
  withPair(({ rig, client, serverIp, dial }) => {
    const socket = dial();
    socket.write(Uint8Array.fromHex(GREETING + requestFor("server", 80)));
    let number = 0;
    rig.until("the agent is asked", () => (number = rig.questions(0)[0]?.number ?? 0) > 0);
    rig.removePod(client);
    assertEquals(untilEnd(rig, socket), CHOSEN);
    for (const late of [number, 0, -1, 77]) rig.command(0, Command.ANSWER, late, AnswerStatus.KNOWN, ...serverIp);
    for (let turn = 0; turn < 3; turn++) rig.turn();
    assertEquals(rig.shards[0]!.questions.count, 0);
  }));

Deno.test("a worker has a bounded number of questions: one more is refused at once, and answers make room", () =>
  withPair(({ rig, client, dial }) => {
    const { questions } = rig.shards[0]!, silent = () => {};
    const open = Array.from({ length: QUESTIONS_MAX }, () => new Asked(silent, silent));
    for (const it of open) {
      assertEquals(questions.ask(it, QuestionKind.SOCKS_NAME, client.row, true, "name"), true);
      rig.questions(0);
    }
    const socket = dial();
    socket.write(Uint8Array.fromHex(GREETING + requestFor("one.more", 80)));
    assertEquals(untilEnd(rig, socket), CHOSEN + "05010001000000000000");
    assertEquals(rig.records(0)[0]!.error, "SOCKS: too many names wait to be resolved");
    for (const it of open) questions.cancel(it);
    const next = dial();
    next.write(Uint8Array.fromHex(GREETING + requestFor("another", 80)));
    rig.answer(0, () => [AnswerStatus.UNKNOWN]);
    assertEquals(untilEnd(rig, next), CHOSEN + "05040001000000000000");
  }));
