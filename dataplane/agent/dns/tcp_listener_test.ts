/** Who is let wait, and who is refused, where a listener has all the connections that it may have (ZT-176). */
import { assert, assertEquals } from "@std/assert";
import { parseIp } from "../../../base/address.ts";
import { HeldPort } from "../../../os/held_port_testing.ts";
import { bindInet } from "../../../os/inet.ts";
import { Poller } from "../../../os/poller.ts";
import { TCP_CONNECTIONS_MAX, TcpListener } from "./tcp_listener.ts";

const WAIT_MS = 60_000, EXTRA = 10;

async function until(claim: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + WAIT_MS;
  while (!condition()) {
    assert(performance.now() < deadline, claim);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

interface Crowd {
  readonly listener: TcpListener;
  readonly taken: readonly Deno.Conn[];
  readonly waiting: readonly Deno.Conn[];
  /** How many connections were taken so far, as long as nobody sweeps. */
  readonly takenCount: () => number;
}

/** A listener that nobody sweeps but the test, with as many clients as it takes, and some more. */
async function crowded(body: (crowd: Crowd) => Promise<void>): Promise<void> {
  await using poller = new Poller();
  using held = new HeldPort();
  const options = { transport: "tcp", mark: 0, reusePort: false } as const;
  const fd = bindInet(parseIp("127.0.0.1")!, held.port, options), clients: Deno.Conn[] = [];
  let looks = 0; // Each connection looks at the clock when it begins.
  using listener = new TcpListener(fd, { poller, respond: () => new Promise(() => {}), now: () => looks++ * 0 });
  try {
    while (clients.length < TCP_CONNECTIONS_MAX + EXTRA) {
      clients.push(await Deno.connect({ hostname: "127.0.0.1", port: held.port }));
    }
    await until("it takes as many as it may", () => listener.connectionCount === TCP_CONNECTIONS_MAX);
    const [taken, waiting] = [clients.slice(0, TCP_CONNECTIONS_MAX), clients.slice(TCP_CONNECTIONS_MAX)];
    await body({ listener, taken, waiting, takenCount: () => looks });
  } finally {
    for (const client of clients) client.close();
  }
}

Deno.test("TcpListener refuses who waits where nobody has left for three sweeps (ZT-176)", () =>
  crowded(async ({ listener, waiting }) => {
    for (let sweep = 0; sweep < 3; sweep++) listener.sweep();
    assertEquals(await Promise.all(waiting.map((it) => it.read(new Uint8Array(1)))), Array(EXTRA).fill(null));
    assertEquals(listener.connectionCount, TCP_CONNECTIONS_MAX);
  }));

Deno.test("TcpListener refuses nobody of a crowd that moves up, however slowly (ZT-176)", () =>
  crowded(async ({ listener, taken, waiting, takenCount }) => {
    for (let round = 0; round < EXTRA; round++) {
      for (let sweep = 0; sweep < 2; sweep++) listener.sweep();
      const before = takenCount();
      await taken[round]!.closeWrite(); // It asks nothing more, and is let go.
      await until("another is taken", () => takenCount() === before + 1);
    }
    for (const it of taken.slice(0, EXTRA)) assertEquals(await it.read(new Uint8Array(1)), null);
    assertEquals(listener.connectionCount, TCP_CONNECTIONS_MAX, `all ${waiting.length} have moved up`);
  }));
