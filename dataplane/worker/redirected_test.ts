/** A pod that eBPF redirects: what its connections were meant for, and how the application is reached. */
import { assert, assertEquals } from "@std/assert";
import type { IpWords } from "../../base/address.ts";
import { POD } from "../tables/layout.ts";
import { type Inbound, withInbound } from "./inbound_testing.ts";
import { ListenerKind } from "./listener.ts";
import { freshIp, Server } from "./loopback_testing.ts";

const MAP = 33, COOKIE = [7, 9] as const;
const EADDRINUSE = 98, ENOENT = 2;
const NOWHERE = { ip: freshIp(), port: 9 };

/** The pod is redirected; the map tells `told` of every connection, or knows nothing. */
function redirect({ rig, pod }: Inbound, told: { ip: IpWords; port: number } | undefined): number[][] {
  const { pods } = rig.tables, os = rig.systems[0]!, before = os.redirectedDestination.bind(os), asked: number[][] = [];
  pods.set(pod.row, POD.cookieLow, COOKIE[0]);
  pods.set(pod.row, POD.cookieHigh, COOKIE[1]);
  pods.store(pod.row, POD.byTuple, MAP + 1);
  os.redirectedDestination = (map, low, high) => {
    asked.push([map, low, high]);
    if (told === undefined) return -ENOENT;
    os.addressWords.set([...told.ip, told.port]);
    return 0;
  };
  rig.atEnd(() => {
    os.redirectedDestination = before;
    pods.store(pod.row, POD.byTuple, 0);
  });
  return asked;
}

Deno.test("an outbound connection goes where the map of the redirection says (CNI-202)", () =>
  withInbound((inbound) => {
    const { rig, pod } = inbound, target = new Server(freshIp());
    rig.atEnd(() => target.close());
    const asked = redirect(inbound, { ip: target.ip, port: target.port });
    rig.capture(0, pod, ListenerKind.OUTBOUND, NOWHERE);
    rig.until("it is connected to", () => {
      const socket = target.accept();
      socket?.close();
      return socket !== undefined;
    });
    assertEquals(asked, [[MAP, ...COOKIE]]);
  }));

Deno.test("an outbound connection to our own port that nothing redirected is refused, by rules as by eBPF (CNI-202)", () =>
  withInbound((inbound) => {
    const { rig, pod } = inbound, ownPort = { ip: freshIp(), port: 15001 };
    redirect(inbound, undefined);
    rig.capture(0, pod, ListenerKind.OUTBOUND, ownPort); // What connection tracking would say of it.
    assertEquals(rig.records(0).map(({ error }) => error), ["nothing redirected the connection to us"]);
    rig.tables.pods.store(pod.row, POD.byTuple, 0);
    const os = rig.systems[0]!, before = os.localAddress.bind(os);
    os.localAddress = () => {
      os.addressWords.set([...ownPort.ip, ownPort.port]);
      return 0;
    };
    os.originalDestination = () => -ENOENT;
    rig.atEnd(() => {
      os.localAddress = before;
      Reflect.deleteProperty(os, "originalDestination");
    });
    rig.capture(0, pod, ListenerKind.OUTBOUND, ownPort);
    assertEquals(rig.records(0).map(({ error }) => error), ["nothing redirected the connection to us"]);
  }));

Deno.test("the application is reached over loopback from the client's address and a port of ours; one that is taken is not the last (CNI-206, CNI-207)", () =>
  withInbound((inbound) => {
    const { rig, pod, application } = inbound, os = rig.systems[0]!, ports: number[] = [], sources: number[][] = [];
    redirect(inbound, undefined);
    (pod as { transparent: boolean }).transparent = true;
    const before = os.bindLooped.bind(os), localBefore = os.localAddress.bind(os);
    os.bindLooped = (_fd, word0, word1, word2, word3, port) => {
      sources.push([word0, word1, word2, word3]);
      return ports.push(port) < 3 ? -EADDRINUSE : 0;
    };
    os.localAddress = () => {
      os.addressWords.set([...application.ip, application.port]);
      return 0;
    };
    rig.atEnd(() => {
      os.bindLooped = before;
      os.localAddress = localBefore;
    });
    rig.capture(0, pod, ListenerKind.PLAINTEXT, NOWHERE);
    inbound.arrive();
    assertEquals(ports.length, 3);
    assert(ports.every((port) => port >= 16_384 && port < 32_768), `${ports}`);
    assertEquals(sources, Array(3).fill([0, 0, 0xffff, 0x7f000001]));
  }));
