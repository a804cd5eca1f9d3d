/** A carrier on a socket of the runtime, with TLS or without. */
import type { Socket } from "node:net";
import type { Carrier } from "./carrier.ts";

/** What hears of the socket. */
export interface CarrierSink {
  receive(bytes: Uint8Array): void;
  carrierClosed(reason: string): void;
}

export class SocketCarrier implements Carrier {
  readonly #socket: Socket;
  #taken = () => {};
  readonly #onWritten = (error?: Error | null) => {
    if (!error) this.#taken(); // Else it closes, which its sink hears of.
  };

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Hands on what the socket says from here on. */
  attach(sink: CarrierSink): void {
    let reason = "closed by the client";
    this.#socket.on("data", (bytes: Uint8Array) => sink.receive(bytes));
    this.#socket.on("error", (error: Error) => reason = error.message);
    this.#socket.on("end", () => this.#socket.end());
    this.#socket.on("close", () => sink.carrierClosed(reason));
  }

  write(bytes: Uint8Array, taken: () => void): void {
    this.#taken = taken;
    this.#socket.write(bytes, this.#onWritten);
  }

  end(): void {
    this.#socket.end();
  }

  destroy(): void {
    this.#socket.destroy();
  }
}
