/** The application behind the mesh: sink, source, echo and one-shot answers, each on a port of its own. */
import { MeshError } from "../../../base/errors.ts";
import { EAGAIN, EPOLLIN } from "../../../os/libc.ts";
import * as cold from "../../../os/libc_cold.ts";
import { Connection, ENDED, NOTHING_YET, type User } from "./connection.ts";
import type { Counters } from "./counters.ts";
import { EXCHANGE_BYTES, PORTS } from "./messages.ts";
import type { Reactor } from "./reactor.ts";

const SOL_SOCKET = 1, SO_REUSEADDR = 2;
const BACKLOG = 8192;
// One wake-up serves one connection at most this often, so that 64 of them share the loop evenly.
const CHUNKS_PER_TURN = 4;

export type PortName = keyof typeof PORTS;

/**
 * Opens four ports on every address; 0 lets the kernel choose.
 * @returns What they are. Throws AMB9003 when one is taken.
 */
export function listen(
  reactor: Reactor,
  counters: Counters,
  wanted: Readonly<Record<PortName, number>> = PORTS,
): Record<PortName, number> {
  const users: Record<PortName, User> = {
    sink: new Sink(reactor),
    source: new Source(reactor),
    echo: new Echo(),
    oneShot: new OneShot(),
  };
  const ports = { ...wanted };
  for (const name of Object.keys(users) as PortName[]) {
    const listener = openListener(wanted[name]), user = users[name];
    reactor.os.localAddress(listener);
    ports[name] = reactor.os.addressWords[4]!;
    reactor.add(listener, EPOLLIN, {
      onEvents: () => {
        for (let accepted = 0; accepted < 64; accepted++) {
          const fd = reactor.os.accept(listener);
          if (fd === -EAGAIN) return;
          if (fd < 0) return counters.fail(`accept: ${cold.errnoName(fd)}`);
          user.onOpen(Connection.accepted(reactor, counters, user, fd));
        }
      },
    });
  }
  return ports;
}

function openListener(port: number): number {
  const fd = cold.socket(cold.AF.INET, cold.SOCK.STREAM | cold.SOCK.NONBLOCK, 0);
  const address = new Uint8Array(16); // sockaddr_in of 0.0.0.0
  address.set([cold.AF.INET, 0, port >> 8, port & 255]);
  const result = cold.setSocketFlag(fd, SOL_SOCKET, SO_REUSEADDR, 1) || cold.bind(fd, address) ||
    cold.listen(fd, BACKLOG);
  if (result === 0) return fd;
  throw new MeshError("AMB9003", `cannot listen on port ${port}: ${cold.errnoName(result)}`, {
    remedy: "Run the load process in a namespace of its own, where nothing else listens.",
  });
}

class Sink implements User {
  constructor(readonly reactor: Reactor) {}
  onOpen(): void {}
  onReadable(connection: Connection): void {
    for (let chunk = 0; chunk < CHUNKS_PER_TURN; chunk++) {
      const count = connection.receive(this.reactor.scratchBytes);
      if (count === ENDED) return connection.close();
      if (count < this.reactor.scratchBytes) return;
    }
  }
  onWritable(): void {}
  onLost(): void {}
}

class Source implements User {
  constructor(readonly reactor: Reactor) {}
  onOpen(connection: Connection): void {
    connection.want(true, true);
  }
  onReadable(connection: Connection): void {
    if (connection.receive(1) === ENDED) connection.close(); // Downstream sends nothing: this is its end.
  }
  onWritable(connection: Connection): void {
    for (let chunk = 0; chunk < CHUNKS_PER_TURN; chunk++) {
      if (connection.send(this.reactor.scratchBytes) < this.reactor.scratchBytes) return;
    }
  }
  onLost(): void {}
}

class Echo implements User {
  onOpen(): void {}
  onReadable(connection: Connection): void {
    const count = connection.receive(64 * 1024);
    if (count === ENDED) return connection.close();
    // Exchanges are small: a socket that cannot take them back at once has a downstream that does not read.
    if (count !== NOTHING_YET && connection.send(count) < count) connection.lose("echo: downstream does not read");
  }
  onWritable(): void {}
  onLost(): void {}
}

class OneShot implements User {
  onOpen(): void {}
  onReadable(connection: Connection): void {
    const count = connection.receive(EXCHANGE_BYTES - connection.mark);
    if (count === ENDED) return connection.close();
    if (count === NOTHING_YET) return;
    connection.mark += count;
    if (connection.mark < EXCHANGE_BYTES) return;
    connection.send(EXCHANGE_BYTES);
    connection.close();
  }
  onWritable(): void {}
  onLost(): void {}
}
