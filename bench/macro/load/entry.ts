/** A load process: takes commands from standard input, within the same epoll set as its sockets, and answers on standard output. */
import { ZTUNNEL_MARK } from "../../../cni/nft_rules.ts";
import { cpuSeconds, memoryUse } from "../process.ts";
import { chain } from "../../../base/errors.ts";
import { EPOLLIN } from "../../../os/libc.ts";
import { createTemplate, OpenSsl } from "../../../os/openssl.ts";
import { Churn, Download, Exchanges, Idle, type Load, Upload } from "./client_side.ts";
import { targetOf } from "./connection.ts";
import { Counters } from "./counters.ts";
import { Handshakes } from "./handshakes.ts";
import { type Answer, type Command, PORTS, type Snapshot } from "./messages.ts";
import { OpenLoop } from "./open_loop.ts";
import { Reactor } from "./reactor.ts";
import { listen } from "./server_side.ts";

// 32 KiB a call, in and out: what is in flight then stays in the second-level cache. Measured with direct TCP: 6 to 8
// GB/s, against 2 to 3 GB/s at 128 KiB and above, and 2 to 5 GB/s at 16 KiB.
const SCRATCH_BYTES = 32 << 10;
const STANDARD_INPUT = 0;

class LoadProcess {
  readonly #reactor = new Reactor(SCRATCH_BYTES);
  readonly #counters = new Counters();
  #openSsl: OpenSsl | undefined;
  #load: Load | undefined;
  #awaited: Load | undefined;
  #input = "";

  /** Runs until standard input ends. */
  run(): void {
    let ended = false;
    const buffer = new Uint8Array(64 << 10), decoder = new TextDecoder();
    this.#reactor.add(STANDARD_INPUT, EPOLLIN, {
      onEvents: () => {
        const count = Deno.stdin.readSync(buffer);
        if (count === null) return void (ended = true);
        this.#input += decoder.decode(buffer.subarray(0, count), { stream: true });
        for (let end = this.#input.indexOf("\n"); end >= 0; end = this.#input.indexOf("\n")) {
          const line = this.#input.slice(0, end);
          this.#input = this.#input.slice(end + 1);
          this.#obey(JSON.parse(line));
        }
      },
    });
    while (!ended) {
      this.#reactor.turn();
      if (this.#awaited?.ready) this.#sayReady();
    }
  }

  #obey(command: Command): void {
    try {
      this.#do(command);
    } catch (error) {
      say({ is: "refused", why: chain(error) });
    }
  }

  #do(command: Command): void {
    switch (command.do) {
      case "snapshot":
        say({ is: "snapshot", snapshot: this.#snapshot(command.pids) });
        if (command.reset) this.#resetLatency();
        return;
      case "listen":
        listen(this.#reactor, this.#counters);
        return this.#sayReady();
      case "stop":
        this.#load?.stop();
        this.#load = undefined;
        return this.#sayReady();
      default:
        this.#load?.stop();
        this.#load = this.#start(command);
        this.#awaited = this.#load;
    }
  }

  #start(command: Exclude<Command, { do: "snapshot" | "listen" | "stop" }>): Load {
    const reactor = this.#reactor, counters = this.#counters, connections = command.connections;
    counters.firstFailure = "";
    this.#resetLatency();
    const target = (port: number) => targetOf(command.ip, port);
    switch (command.do) {
      case "upload":
        return new Upload(reactor, counters, target(PORTS.sink), connections).start();
      case "download":
        return new Download(reactor, counters, target(PORTS.source), connections).start();
      case "idle":
        return new Idle(reactor, counters, target(PORTS.echo), connections).start();
      case "exchanges":
        return new Exchanges(reactor, counters, target(PORTS.echo), connections).start();
      case "churn":
        return new Churn(reactor, counters, target(PORTS.oneShot), connections).start();
      case "openLoop": {
        const load = { target: target(PORTS.echo), connections, ratePerSecond: command.ratePerSecond };
        return new OpenLoop(reactor, counters, load).start();
      }
      case "handshakes": {
        // A session is what a proxy opens: with the mark of proxies it is not redirected on its way.
        this.#openSsl ??= new OpenSsl(reactor.os.memory);
        const identity = this.#openSsl.derive(createTemplate(command));
        return new Handshakes(reactor, counters, {
          identity,
          target: targetOf(command.ip, command.port, ZTUNNEL_MARK),
          connections,
        }).start();
      }
    }
  }

  #snapshot(pids: readonly number[]): Snapshot {
    const { receivedBytes, completed, failures, firstFailure, latency, late } = this.#counters;
    return {
      atMs: performance.now(),
      cpuSeconds: pids.map(cpuSeconds),
      receivedBytes,
      completed,
      failures,
      firstFailure,
      latency: {
        count: latency.total,
        p50: latency.quantile(0.5),
        p99: latency.quantile(0.99),
        p999: latency.quantile(0.999),
        largest: latency.largest,
        lateP99: late.quantile(0.99),
      },
    };
  }

  #resetLatency(): void {
    this.#counters.latency.reset();
    this.#counters.late.reset();
  }

  #sayReady(): void {
    this.#awaited = undefined;
    say({ is: "ready", memoryMib: memoryUse(Deno.pid).residentMib });
  }
}

const encoder = new TextEncoder();

function say(answer: Answer): void {
  const bytes = encoder.encode(JSON.stringify(answer) + "\n");
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}

if (import.meta.main) new LoadProcess().run();
