/** A control plane that falls silent without a word, as one does whose node is gone or whose path is cut. */
import { assertEquals } from "@std/assert";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { ControlRig, until } from "./control_rig.ts";
import { ClientRig, FAILING, resource } from "./xds_rig.ts";

/** A path to the control plane that can be cut: connections stand, and nothing comes through. */
class Path implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #target: number;
  readonly #connections: Deno.TcpConn[] = [];
  readonly #done: Promise<void>[] = [];
  cut = false;

  constructor(target: number) {
    this.#target = target;
    this.#done.push(this.#accept());
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  async #accept(): Promise<void> {
    for await (const near of this.#listener) {
      const far = await Deno.connect({ hostname: "127.0.0.1", port: this.#target });
      this.#connections.push(near, far);
      const cut = this.cut;
      this.#done.push(this.#carry(near, far, cut), this.#carry(far, near, cut));
    }
  }

  /** Bytes that come while the path is cut are lost; a connection that was made then carries none ever. */
  async #carry(from: Deno.TcpConn, to: Deno.TcpConn, dead: boolean): Promise<void> {
    const bytes = new Uint8Array(65_536);
    try {
      for (let got = await from.read(bytes); got !== null; got = await from.read(bytes)) {
        if (this.cut) dead = true;
        if (dead) continue;
        for (let at = 0; at < got;) at += await to.write(bytes.subarray(at, got));
      }
      if (!dead) await to.closeWrite();
    } catch (error) {
      if (!isGone(error)) throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const connection of this.#connections) connection.close();
    await Promise.all(this.#done);
  }
}

function isGone(error: unknown): boolean {
  const { BadResource, BrokenPipe, ConnectionReset, Interrupted, NotConnected } = Deno.errors;
  return [BadResource, BrokenPipe, ConnectionReset, Interrupted, NotConnected].some((it) => error instanceof it);
}

Deno.test(
  "a control plane that answers no PING is left within a ping's time, and state is kept until it is back (ZT-124, ZT-133)",
  FAILING,
  async () => {
    await using rig = await ControlRig.start({ keepaliveIntervalMs: 400 }); // Clients may ping twice as often.
    await using path = new Path(rig.port);
    rig.mesh.set(ADDRESS_TYPE_URL, resource("w1", "1"));
    const token = await rig.token();
    // Long enough for an answer on a machine that does much else; the deadline below is far longer.
    const pings = { intervalMs: 200, timeoutMs: 5_000 };
    const endpoint = { ...rig.endpoint(token), address: `https://127.0.0.1:${path.port}`, pings };
    await using it = new ClientRig(rig, token, false, { endpoint });
    await it.ready();
    const idleUntil = performance.now() + 10 * pings.intervalMs;
    await until(() => performance.now() > idleUntil, "some pings");
    assertEquals([it.client.connected, it.terminations], [true, []], "answered pings end nothing");

    path.cut = true;
    await until(() => !it.client.connected, "the silence is noticed"); // Nothing else would end it: both connections stand.
    assertEquals(it.state.held.size, 1);

    path.cut = false;
    rig.mesh.set(ADDRESS_TYPE_URL, resource("w2", "1"));
    await until(() => it.client.connected && it.state.held.size === 2, "and it is back");
  },
);
