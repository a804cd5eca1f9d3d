/** Connections to workloads that have a hostname and no address (ZT-032, ZT-033). */
import { assertEquals } from "@std/assert";
import type { IpWords } from "../../base/address.ts";
import { AnswerStatus, QuestionKind } from "../tables/questions.ts";
import { ipv4, serviceOf, workloadOf } from "../tables/testing.ts";
import { ListenerKind } from "./listener.ts";
import { freshIp, Server, Socket } from "./loopback_testing.ts";
import type { Pod } from "./pod.ts";
import { Rig } from "./testing.ts";

const URI = "spiffe://cluster.local/ns/default/sa/client";
const VIP: IpWords = ipv4(0x0a600001), UID = "cluster//External/default/db";
const over = (socket: Socket) => (socket.read(), socket.ended || socket.error !== 0);

function withHostname(
  body: (place: { rig: Rig; pod: Pod; target: Server; dial(): Socket }) => void,
  { hbone = false } = {},
): Promise<void> {
  return Rig.with(1, (rig) => {
    const ip = freshIp(), target = new Server(freshIp());
    rig.atEnd(() => target.close());
    rig.addWorkload("client", ip);
    rig.mesh.putService(serviceOf("default", "db.mesh", {
      addresses: [{ network: "", ip: VIP }],
      ports: [{ servicePort: 80, targetPort: target.port }],
    }));
    const fields = { hostname: "db.example", services: new Map([["default/db.mesh", []]]) };
    rig.mesh.putWorkload(workloadOf(UID, { ...fields, tunnelProtocol: hbone ? 1 : 0 }));
    const pod = rig.addPod(0, ip, URI);
    rig.publish();
    const dial = () => rig.capture(0, pod, ListenerKind.OUTBOUND, { ip: VIP, port: 80 });
    body({ rig, pod, target, dial });
  });
}

Deno.test("a workload's hostname is resolved for each connection, and the address found is dialled (ZT-033)", () =>
  withHostname(({ rig, pod, target, dial }) => {
    for (let nth = 0; nth < 2; nth++) {
      const application = dial();
      const { kind, podRow, wantsIpv4, text } = rig.answer(0, () => [AnswerStatus.KNOWN, target.ip]);
      assertEquals([kind, podRow, wantsIpv4, text], [QuestionKind.HOSTNAME, pod.row, true, "db.example"]);
      let arrived: Socket | undefined;
      rig.until("it arrives", () => (arrived = target.accept()) !== undefined);
      arrived!.finish();
      application.finish();
      rig.until("both ends are over", () => over(application) && over(arrived!));
      arrived!.close();
      const [record] = rig.records(0);
      assertEquals([record!.error, record!.destination.port, record!.destination.ip], [
        undefined,
        target.port,
        target.ip,
      ]);
    }
  }));

Deno.test("a hostname that does not resolve fails the connection with its workload's uid, also when nobody says (ZT-033)", () =>
  withHostname(({ rig, target, dial }) => {
    const unresolved = dial();
    rig.answer(0, () => [AnswerStatus.UNKNOWN]);
    rig.until("it is closed", () => over(unresolved));
    const silent = dial();
    rig.until("the agent is asked", () => rig.questions(0).length === 1);
    rig.pass(9_000);
    assertEquals(over(silent), false);
    rig.pass(2_000);
    rig.until("it is closed", () => over(silent));
    const reason = `no ip addresses were resolved for workload: ${UID}`;
    assertEquals(rig.records(0).map(({ error }) => error), [reason, reason]);
    assertEquals(target.accept(), undefined);
  }));

Deno.test("DNS does not lead a connection to our own listeners (ZT-006)", () =>
  withHostname(({ rig, dial }) => {
    const application = dial();
    rig.answer(0, () => [AnswerStatus.KNOWN, ipv4(0x7f000001)]);
    rig.until("it is closed", () => over(application));
    assertEquals(rig.records(0)[0]!.error, "attempted recursive call to ourselves");
  }, { hbone: true }));

Deno.test("the mesh may change while a hostname is resolved: the way stays the one that was decided on", () =>
  withHostname(({ rig, target, dial }) => {
    const application = dial();
    rig.answer(0, () => {
      rig.mesh.removeWorkload(UID);
      rig.mesh.removeService("default/db.mesh");
      rig.publish();
      return [AnswerStatus.KNOWN, target.ip];
    });
    let arrived: Socket | undefined;
    rig.until("it arrives", () => (arrived = target.accept()) !== undefined);
    arrived!.close();
    rig.until("the end comes back", () => over(application));
  }));
