/** What the listener on the wire promises: who asks is told of all that had crossed before, however busy the process is. */
import { assert, assertEquals } from "@std/assert";
import { pause } from "../../demo/lab/until.ts";
import { type Direction, Wiretap } from "../../demo/lab/wiretap.ts";
import { createAnonymousNetns, type Netns } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { RawSocket } from "./raw_socket.ts";

const MARKER = "ambit-wiretap-marker", PORT = 9000, ROUNDS = 20;
const [HERE, THERE] = ["10.61.0.1", "10.61.0.2"] as const;
const BUSY_MS = 5;
/** Time for the listener to be waiting again, with all acknowledgements read. */
const QUIET_MS = 60;
/** Longer than it waits at a stretch: its wait ends without a frame, and it has no turn to begin another. */
const PAST_WAIT_MS = 150;
/** More frames than it reads in a turn. */
const CONNECTIONS = 300;

/** Two namespaces, a listener on the wire between them, and an event loop that others keep busy. */
class Bench implements AsyncDisposable {
  readonly near: Netns = createAnonymousNetns();
  readonly far: Netns = createAnonymousNetns();
  readonly wiretap: Wiretap;
  readonly #server: RawSocket;
  readonly #sockets = new DisposableStack();
  readonly #busy = setInterval(() => block(BUSY_MS), 0);

  constructor() {
    using near = RouteSocket.open(this.near);
    using far = RouteSocket.open(this.far);
    near.addVeth({ name: "wire", peerName: "wire", peerNetns: this.far });
    for (const [routes, ip] of [[near, HERE], [far, THERE]] as const) {
      routes.addAddress("wire", `${ip}/24`);
      routes.setUp("wire");
    }
    this.#server = this.#sockets.use(RawSocket.listen(this.far, THERE, PORT));
    this.wiretap = new Wiretap(this.near, "wire", MARKER, /^10\.61\./);
  }

  /** Sends the marker on a connection of its own; when this returns, it has crossed. @returns The port it came from. */
  cross(): number {
    const client = this.#sockets.use(RawSocket.connect(this.near, THERE, PORT));
    const served = this.#sockets.use(this.#server.accept());
    client.send(MARKER);
    assertEquals(served.receive(), MARKER);
    return Number(client.localName().split(" ")[1]);
  }

  /** Ports from which the marker was seen to come. */
  async markedPorts(): Promise<number[]> {
    const marked = ({ markers }: Direction) => markers > 0;
    return (await this.wiretap.seen()).filter(marked).map(({ sourcePort }) => sourcePort).sort((a, b) => a - b);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#busy);
    await this.wiretap[Symbol.asyncDispose]();
    this.#sockets[Symbol.dispose]();
    this.near[Symbol.dispose]();
    this.far[Symbol.dispose]();
  }
}

/** Leaves nobody else of this process a turn. */
function block(ms: number): void {
  for (const endMs = performance.now() + ms; performance.now() < endMs;);
}

/** The listener's wait ends unheard: what crosses next, it has not been told of. */
async function missTheWait(): Promise<void> {
  await pause(QUIET_MS);
  block(PAST_WAIT_MS);
}

Deno.test("Wiretap.seen() tells of what crossed a moment ago, in a busy process and after a wait that brought nothing", async () => {
  await using bench = new Bench();
  const crossed: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    if (round % 2 === 1) await missTheWait();
    crossed.push(bench.cross());
    assertEquals(await bench.markedPorts(), crossed.toSorted((a, b) => a - b), `round ${round}`);
  }
});

Deno.test("Wiretap.clear() forgets what crossed before it was called, and nothing of what crosses afterwards", async () => {
  await using bench = new Bench();
  for (let round = 0; round < ROUNDS; round++) {
    if (round % 2 === 1) await missTheWait();
    bench.cross();
    await bench.wiretap.clear();
    assertEquals(await bench.markedPorts(), [], `round ${round}: what was there at the call`);
    const later = bench.cross();
    assertEquals(await bench.markedPorts(), [later], `round ${round}: what came after it`);
    await bench.wiretap.clear();
  }
});

Deno.test("Wiretap.seen() reads more frames than fit a turn, and who asks at its end is answered", async () => {
  const bench = new Bench();
  try {
    const crossed = Array.from({ length: CONNECTIONS }, () => bench.cross());
    assertEquals(await bench.markedPorts(), crossed.toSorted((a, b) => a - b));
    assertEquals(bench.wiretap.droppedCount, 0);
  } finally {
    const asked = bench.wiretap.seen();
    await bench[Symbol.asyncDispose]();
    assert((await asked).length > 0);
  }
});
