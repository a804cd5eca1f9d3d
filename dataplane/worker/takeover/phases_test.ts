/** When a worker takes no part in a takeover, and what it leaves behind then. */
import { assertEquals } from "@std/assert";
import { createEventFd } from "../../../os/sockets.ts";
import { Command, TAKEOVER, TakeoverPhase } from "../../tables/layout.ts";
import { ADOPTION_CODEC } from "../../tables/takeover_format.ts";
import { ListenerKind } from "../listener.ts";
import { freshIp, placeOf, Server } from "../loopback_testing.ts";
import { Rig } from "../testing.ts";
import { type StateFiles, TakeoverPhases } from "./phases.ts";

const URI = "spiffe://cluster.local/ns/default/sa/server";
placeOf(0); // Made before any test: OpenSSL's callbacks stay.

/** Memory files of a test, by descriptor. */
const readable = new Map<number, Uint8Array<ArrayBuffer>>();

/** What an agent gives a worker to adopt: two states of a descriptor each. @returns All descriptors, which are the worker's. */
function give(rig: Rig): number[] {
  const os = rig.systems[0]!, fds = Array.from({ length: 5 }, () => os.own(createEventFd()));
  const states = [{ fd: fds[1]!, handles: [fds[2]!] }, { fd: fds[3]!, handles: [fds[4]!] }];
  readable.clear();
  readable.set(fds[0]!, ADOPTION_CODEC.encode({ pods: [], states })).set(fds[1]!, Uint8Array.of(1));
  rig.tables.takeover.set(0, TAKEOVER.adoptionFd, fds[0]!);
  return fds;
}

const STATE_FILES: StateFiles = { write: () => -1, read: (fd) => readable.get(fd) };

interface Scene {
  readonly rig: Rig;
  /** Asks for a phase; the worker takes a step. @returns What it reached before the agent asked for something else. */
  ask(phase: number): number;
  reason(): string;
}

function drain(rig: Rig): void {
  rig.command(0, Command.DRAIN, 5_000);
  rig.until("it drains", () => rig.shards[0]!.draining);
  rig.atEnd(() => rig.pass(6_000));
}

/** A worker with a pod, played: whenever it waits, its agent asks it to go on as if nothing had been. */
function withWorker(
  body: (scene: Scene) => void,
  { commands }: { commands?: (rig: Rig) => void } = {},
): Promise<void> {
  return Rig.with(1, (rig) => {
    const ip = freshIp(), os = rig.systems[0]!, wait = os.wait, { takeover } = rig.tables;
    rig.addPod(0, ip, URI, { [ListenerKind.HBONE]: new Server(ip, 15008).fd });
    rig.atEnd(() => os.wait = wait);
    const wakeFd = os.own(createEventFd());
    let reached = -1, poll = -1;
    const create = os.pollCreate;
    os.pollCreate = () => poll = create.call(os);
    const phases = new TakeoverPhases(rig.shards[0]!, { onEvents: () => commands?.(rig) }, {
      worker: 0,
      wakeFd,
      files: STATE_FILES,
    });
    os.pollCreate = create;
    rig.atEnd(() => [poll, wakeFd].forEach((fd) => os.close(fd)));
    os.wait = (...asked) => {
      if (asked[0] !== poll) return wait.apply(os, asked);
      reached = takeover.load(0, TAKEOVER.reached);
      takeover.store(0, TAKEOVER.asked, TakeoverPhase.RUN);
      return 0;
    };
    body({
      rig,
      ask(phase) {
        reached = -1;
        takeover.store(0, TAKEOVER.asked, phase);
        phases.step();
        return reached < 0 ? takeover.load(0, TAKEOVER.reached) : reached;
      },
      reason: () =>
        new TextDecoder().decode(takeover.readBytes(0, TAKEOVER.reason, takeover.get(0, TAKEOVER.reasonBytes))),
    });
  });
}

Deno.test("a worker that drains hands nothing over: a successor would get pods that nobody listens for", () =>
  withWorker(({ rig, ask, reason }) => {
    drain(rig);
    assertEquals(ask(TakeoverPhase.QUIET), TakeoverPhase.FAILED);
    assertEquals(reason(), "this ztunnel is ending");
    assertEquals(ask(TakeoverPhase.RUN), TakeoverPhase.RUN, "it goes on");
  }));

Deno.test("a drain that begins between quiet and frozen ends the takeover as well", () =>
  withWorker(({ ask, reason }) => {
    assertEquals(ask(TakeoverPhase.QUIET), TakeoverPhase.QUIET);
    assertEquals(ask(TakeoverPhase.FROZEN), TakeoverPhase.FAILED);
    assertEquals(reason(), "this ztunnel is ending");
  }, { commands: drain }));

Deno.test("a worker that drains takes nothing over, and keeps no descriptor of what it was given", () =>
  withWorker(({ rig, ask, reason }) => {
    const fds = give(rig);
    drain(rig);
    assertEquals(ask(TakeoverPhase.ADOPTED), TakeoverPhase.FAILED);
    assertEquals(reason(), "this ztunnel is ending");
    assertEquals(fds.filter((fd) => rig.systems[0]!.owned.has(fd)), []);
  }));

Deno.test("of a state that is refused, and of those behind it, no descriptor is kept", () =>
  withWorker(({ rig, ask, reason }) => {
    const fds = give(rig);
    assertEquals(ask(TakeoverPhase.ADOPTED), TakeoverPhase.FAILED);
    assertEquals(reason(), "the state is malformed");
    assertEquals(fds.filter((fd) => rig.systems[0]!.owned.has(fd)), []);
  }));
