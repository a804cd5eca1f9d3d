/** A gRPC server on one listener, with TLS or without: connections, their clock, and the way out (CP-003, CP-008, CP-009). */
import { createServer, type Server as NetServer, type Socket } from "node:net";
import { createServer as createTlsServer, type TLSSocket } from "node:tls";
import type { AddressInfo } from "node:net";
import type { ListenAddress } from "../../base/config.ts";
import { MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { RequestFields } from "../../wire/h2/request_fields.ts";
import type { Peer } from "./carrier.ts";
import { Connection, type ConnectionLimits, type ConnectionOwner } from "./connection.ts";
import { type Method, Methods } from "./methods.ts";
import type { GrpcMetrics } from "./metrics.ts";
import { reflectionMethods } from "./reflection.ts";
import type { ServerStream } from "./server_stream.ts";
import { SocketCarrier } from "./socket_carrier.ts";
import { ANONYMOUS, type ListenerCredentials, tlsOptions, verifiedPeer } from "./listener_credentials.ts";

export interface GrpcServerOptions {
  readonly limits: ConnectionLimits;
  readonly metrics: GrpcMetrics;
  readonly log: Logger;
}
import { suiteProblem } from "./tls_rules.ts";

/** Connections on one listener; files are what a process has fewest of. */
const CONNECTIONS_MAX = 20_000;
const TICK_MS = 250;

export class GrpcServer implements ConnectionOwner {
  readonly limits: ConnectionLimits;
  readonly #options: GrpcServerOptions;
  readonly #methods: Methods;
  readonly #connections = new Set<Connection>();
  /** All sockets, those too that are still in their handshake. */
  readonly #sockets = new Set<Socket>();
  #listener: NetServer | undefined;
  #ticking: ReturnType<typeof setInterval> | undefined;
  #stopping = false;
  /** The time of the last tick. Connections bound seconds by it, and ask for it many times for each message. */
  #nowMs = performance.now();
  #emptied = () => {};
  #forgetCredentials = () => {};

  constructor(options: GrpcServerOptions) {
    this.#options = options;
    this.limits = options.limits;
    this.#methods = new Methods(options.metrics);
    for (const method of reflectionMethods(() => this.#methods.services())) this.#methods.add(method);
  }

  /** Offers a method. */
  add(method: Method): void {
    this.#methods.add(method);
  }

  /** Opens the listener. @param credentials of TLS; without them there is none. @returns The port. @throws MeshError AMB0220 */
  async listen(address: ListenAddress, credentials?: ListenerCredentials): Promise<number> {
    const listener = credentials === undefined ? this.#plain() : this.#secure(credentials);
    this.#listener = listener;
    listener.maxConnections = CONNECTIONS_MAX;
    listener.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    listener.once("error", reject);
    listener.listen(address.port, address.host, resolve);
    try {
      await promise;
    } catch (cause) {
      const { host, port } = address,
        remedy = "choose another --secure-grpc-address or --grpc-address, or stop what listens there";
      throw new MeshError("AMB0220", `cannot listen on ${host.includes(":") ? `[${host}]` : host}:${port} for gRPC`, {
        remedy,
        cause,
      });
    }
    listener.off("error", reject);
    listener.on(
      "error",
      (error: Error) => this.#options.log.warn("accepting a connection failed", { error: error.message }),
    );
    this.#ticking = setInterval(() => this.#tick(), TICK_MS);
    return (listener.address() as AddressInfo).port;
  }

  /** Takes no more connections, asks clients to leave, and cuts what is left of their calls after `graceMs`. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    const closed = new Promise<void>((resolve) => this.#listener?.close(() => resolve()) ?? resolve());
    const emptied = new Promise<void>((resolve) => this.#emptied = resolve);
    for (const connection of this.#connections) connection.leave(graceMs);
    if (this.#connections.size === 0) this.#emptied();
    const cut = setTimeout(() => {
      for (const connection of [...this.#connections]) connection.die("the server ends");
    }, graceMs);
    await emptied;
    clearTimeout(cut);
    for (const socket of this.#sockets) drop(socket); // They are no connections yet.
    clearInterval(this.#ticking);
    this.#forgetCredentials();
    await closed;
  }

  onRequest(connection: Connection, stream: ServerStream, fields: RequestFields | undefined): void {
    this.#methods.serve(stream, connection.peer, fields);
  }

  onStalled(): void {
    this.#options.metrics.stalled();
  }

  onClosed(connection: Connection, reason: string, byClient: boolean): void {
    this.#connections.delete(connection);
    this.#options.metrics.disconnected(byClient ? "closed by the client" : reason);
    this.#options.log.debug("grpc connection ended", { address: connection.peer.host, reason });
    if (this.#connections.size === 0) this.#emptied();
  }

  #plain(): NetServer {
    return createServer((socket) => this.#accept(socket, ANONYMOUS));
  }

  #secure(credentials: ListenerCredentials): NetServer {
    const server = createTlsServer(tlsOptions(credentials.now, credentials.rules));
    server.on("secureConnection", (socket: TLSSocket) => {
      const peer = verifiedPeer(socket, credentials.rootsChanged);
      const refused = suiteProblem(socket, credentials.rules) ?? ("refused" in peer ? peer.refused : undefined);
      if (refused !== undefined || "refused" in peer) {
        this.#options.log.debug("client refused", { address: socket.remoteAddress ?? "", reason: refused });
        drop(socket);
      } else this.#accept(socket, peer);
    });
    server.on("tlsClientError", (error: Error, socket: TLSSocket) => {
      this.#options.log.debug("tls handshake failed", { address: socket.remoteAddress ?? "", error: error.message });
      drop(socket); // The runtime leaves it open: a client that says nothing would hold it for ever.
    });
    this.#forgetCredentials = credentials.subscribe((tls) =>
      server.setSecureContext(tlsOptions(tls, credentials.rules))
    );
    return server;
  }

  #accept(socket: Socket, shown: Pick<Peer, "certificate" | "issuers">): void {
    const { remoteAddress: host = "", remotePort: port = 0 } = socket;
    if (this.#stopping) return drop(socket);
    socket.setNoDelay(true); // Each write is whole frames: none is worth waiting for another.
    const carrier = new SocketCarrier(socket), now = () => this.#nowMs;
    const connection = new Connection(carrier, { host, port, ...shown }, this, now, Math.random);
    this.#connections.add(connection);
    this.#options.metrics.connected();
    carrier.attach(connection);
  }

  #tick(): void {
    this.#nowMs = performance.now();
    for (const connection of [...this.#connections]) connection.tick();
  }
}

/** Closes a socket that nobody listens to: how it ends is no news. */
function drop(socket: Socket): void {
  socket.on("error", () => {});
  socket.destroy();
}
