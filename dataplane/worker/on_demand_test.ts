/** Connections of a worker that knows only as much of the mesh as was asked for (ZT-127). */
import { assertEquals } from "@std/assert";
import type { IpWords } from "../../base/address.ts";
import { formatIp, parseIp } from "../../base/address.ts";
import { CLOSE_REQUESTED, Command, CONNECTION } from "../tables/layout.ts";
import { AnswerStatus, QuestionKind } from "../tables/questions.ts";
import { ipv4, serviceOf } from "../tables/testing.ts";
import { ListenerKind } from "./listener.ts";
import { freshIp, Server, Socket } from "./loopback_testing.ts";
import type { Pod } from "./pod.ts";
import { Asked, QUESTIONS_MAX } from "./questions.ts";
import { ABSENT_MS } from "./on_demand.ts";
import { connectFrame } from "./h2_peer_testing.ts";
import { withInbound } from "./inbound_testing.ts";
import { Rig } from "./testing.ts";

const URI = "spiffe://cluster.local/ns/default/sa/client";
const { KNOWN, UNSUPPORTED } = AnswerStatus;
const nameOf = (ip: IpWords) => `/${formatIp(...ip)}`;
const nothing = () => {};
const over = (socket: Socket) => (socket.read(), socket.ended || socket.error !== 0);

interface Place {
  readonly rig: Rig;
  readonly pod: Pod;
  /** Somebody who can be connected to. */
  readonly target: Server;
  /** An application of the pod connects to the target. */
  dial(): Socket;
  arrives(): Socket;
  nobodyArrives(): void;
}

function withPlace(body: (place: Place) => void): Promise<void> {
  return Rig.with(1, (rig) => {
    const ip = freshIp(), target = new Server(freshIp());
    rig.atEnd(() => target.close());
    rig.addWorkload("client", ip);
    const pod = rig.addPod(0, ip, URI);
    rig.publish();
    body({
      rig,
      pod,
      target,
      dial: () => rig.capture(0, pod, ListenerKind.OUTBOUND, { ip: target.ip, port: target.port }),
      arrives() {
        let socket: Socket | undefined;
        rig.until("a connection arrives", () => (socket = target.accept()) !== undefined);
        rig.atEnd(() => socket!.close());
        return socket!;
      },
      nobodyArrives() {
        for (let turn = 0; turn < 5; turn++) rig.turn();
        assertEquals(target.accept(), undefined);
      },
    });
  }, { onDemand: true });
}

Deno.test("a connection to an unknown address waits, and goes where the mesh says once it is known (ZT-127)", () =>
  withPlace(({ rig, target, dial, arrives, nobodyArrives }) => {
    const application = dial();
    application.write(new TextEncoder().encode("early"));
    nobodyArrives();
    rig.answer(0, (question) => {
      assertEquals([question.kind, question.text], [QuestionKind.RESOURCE, nameOf(target.ip)]);
      rig.addWorkload("server", target.ip, { tunnelProtocol: 0, canonicalName: "found" });
      rig.publish();
      return [KNOWN];
    });
    const arrived = arrives();
    let heard = "";
    rig.until("what was sent early comes", () => (heard += new TextDecoder().decode(arrived.read())) === "early");
    arrived.finish();
    application.finish();
    rig.until("both ends are over", () => over(application) && over(arrived));
    assertEquals(rig.records(0).map(({ error }) => error), [undefined]);
    dial();
    arrives();
    assertEquals(rig.questions(0), [], "what is known is not asked for");
  }));

Deno.test("what istiod does not know is passed through, and for 1 s not asked for again, unless it appears", () =>
  withPlace(({ rig, target, dial, arrives }) => {
    dial();
    rig.answer(0, () => [KNOWN]);
    arrives();
    dial();
    arrives();
    assertEquals(rig.questions(0), []);
    rig.pass(ABSENT_MS);
    dial();
    rig.answer(0, () => [KNOWN]);
    arrives();
    // It appears: known at once, as a workload that is reached by HBONE, for which the pod has no certificate yet.
    rig.addWorkload("server", target.ip);
    rig.publish();
    const waiting = dial();
    for (let turn = 0; turn < 5; turn++) rig.turn();
    assertEquals([target.accept(), rig.questions(0)], [undefined, []]);
    rig.pass(6_000);
    rig.until("it is let go", () => over(waiting));
  }));

Deno.test("a connection never goes out for lack of an answer: after 10 s, or when nobody can be asked, it is closed", () =>
  withPlace(({ rig, target, dial, nobodyArrives }) => {
    const silent = dial();
    rig.until("the agent is asked", () => rig.questions(0).length === 1);
    rig.pass(9_000);
    assertEquals(over(silent), false); // Ours: the original waits for ever, which no peer can tell from our closing.
    rig.pass(2_000);
    rig.until("it is closed", () => over(silent));
    const refused = dial();
    rig.answer(0, () => [UNSUPPORTED]);
    rig.until("it is closed", () => over(refused));
    nobodyArrives();
    const name = nameOf(target.ip);
    assertEquals(rig.records(0).map(({ error }) => error), [
      `istiod has not said within 10 s what ${name} is`,
      `istiod has not said what ${name} is`,
    ]);
    dial();
    rig.until("neither is taken for an answer", () => rig.questions(0).length === 1);
  }));

Deno.test("one name leads to the next: a service, then its waypoint, which is never left out (ZT-034, ZT-127)", () =>
  withPlace(({ rig, target, dial, nobodyArrives }) => {
    const application = dial();
    rig.answer(0, () => {
      rig.mesh.putService(serviceOf("default", "web.example", {
        addresses: [{ network: "", ip: target.ip }],
        ports: [{ servicePort: target.port, targetPort: target.port }],
        waypoint: { hostname: { namespace: "default", hostname: "gate.example" }, hboneMtlsPort: 15008 },
      }));
      rig.publish();
      return [KNOWN];
    });
    assertEquals(rig.answer(0, () => [KNOWN]).text, "default/gate.example");
    rig.until("it is refused", () => over(application));
    nobodyArrives();
    assertEquals(rig.records(0)[0]!.error, "unknown waypoint: default/gate.example");
  }));

Deno.test("waiting connections end with their application, their pod, an operator's wish or a drain (ZT-169, ZT-224)", () =>
  withPlace(({ rig, pod, dial, nobodyArrives }) => {
    const reset = dial(), closed = dial(), drained = dial(), removed = dial();
    rig.until("all are asked for", () => rig.shards[0]!.questions.count === 4);
    reset.abort();
    rig.until("one has ended", () => rig.shards[0]!.questions.count === 3);
    assertEquals(rig.records(0)[0]!.error, "the application ended before its destination was known");
    const { connections } = rig.shards[0]!, row = rig.shards[0]!.rows.limit - 3;
    connections.or(row, CONNECTION.control, CLOSE_REQUESTED);
    rig.command(0, Command.CLOSE_CONNECTION, row);
    rig.until("one was closed", () => over(closed) || over(drained) || over(removed));
    rig.removePod(pod);
    rig.until("the others have ended", () => over(closed) && over(drained) && over(removed));
    assertEquals(rig.shards[0]!.questions.count, 0);
    nobodyArrives();
  }));

Deno.test("how many connections wait for the agent is bounded: one more is refused", () =>
  withPlace(({ rig, dial }) => {
    const { questions } = rig.shards[0]!;
    const silent = Array.from({ length: QUESTIONS_MAX }, () => new Asked(nothing, nothing));
    for (const it of silent) {
      rig.shards[0]!.onDemand!.ask(it, "ns/name");
      rig.questions(0);
    }
    const refused = dial();
    rig.until("it is refused", () => over(refused));
    assertEquals(rig.records(0)[0]!.error, "too many connections wait for an answer of the agent");
    for (const it of silent) questions.cancel(it);
  }));

Deno.test("an inbound connection does not wait for who its source is; but the wish to know is no knowledge", () =>
  withPlace(({ rig, pod, target, arrives }) => {
    const inbound = rig.capture(0, pod, ListenerKind.PLAINTEXT, { ip: target.ip, port: target.port });
    arrives();
    const wishes = rig.questions(0);
    rig.capture(0, pod, ListenerKind.PLAINTEXT, { ip: target.ip, port: target.port });
    arrives();
    assertEquals([wishes.length, wishes[0]!.text.startsWith("/127.")], [1, true]);
    wishes.push(...rig.questions(0));
    const source = parseIp(wishes[0]!.text.slice(1))!, there = new Server(source);
    rig.atEnd(() => there.close());
    rig.capture(0, pod, ListenerKind.OUTBOUND, { ip: source, port: there.port });
    for (let turn = 0; turn < 5; turn++) rig.turn();
    // It waits for the answer to its own question, which no wish stands for.
    assertEquals([there.accept(), rig.questions(0).map(({ text }) => text)], [undefined, [nameOf(source)]]);
    for (const { number } of wishes) rig.command(0, Command.ANSWER, number, KNOWN);
    inbound.finish();
  }));

// The original lets the request wait. Ours asks, and sends the client away with a 503 that names no fault of its own: a
// waiting stream would hold bytes of an application that may never be allowed in.
Deno.test("an HBONE request for an address that is not known yet is asked for, and served when it comes again (ZT-090)", () =>
  withInbound(
    ({ rig, ip, application, peer: open, arrive }) => {
      const peer = open(), vip = ipv4(0x0a600009), authority = `10.96.0.9:${application.port}`;
      peer.send(connectFrame(1, authority));
      assertEquals(peer.answer(1), { headers: [":status: 503"], ended: true });
      assertEquals(rig.records(0).map(({ error }) => error), ["/10.96.0.9 is not known yet"]);
      rig.answer(0, ({ text }) => {
        assertEquals(text, "/10.96.0.9");
        rig.mesh.putService(serviceOf("default", "web.example", {
          addresses: [{ network: "", ip: vip }],
          waypoint: { address: { network: "", ip }, hboneMtlsPort: 15008 },
        }));
        rig.publish();
        return [KNOWN];
      });
      rig.until("the answer is taken in", () => rig.shards[0]!.questions.count === 0);
      peer.send(connectFrame(3, authority));
      arrive();
      assertEquals(peer.answer(3), { headers: [":status: 200"], ended: false });
      for (const { number } of rig.questions(0)) rig.command(0, Command.ANSWER, number, KNOWN); // Who the source is.
      // What istiod does not know is refused as ever.
      peer.send(connectFrame(5, "10.96.0.10:80"));
      assertEquals(peer.answer(5), { headers: [":status: 503"], ended: true });
      rig.answer(0, () => [KNOWN]);
      rig.until("the answer is taken in", () => rig.shards[0]!.questions.count === 0);
      peer.send(connectFrame(7, "10.96.0.10:80"));
      assertEquals(peer.answer(7), { headers: [":status: 400"], ended: true });
    },
    undefined,
    { onDemand: true },
  ));
