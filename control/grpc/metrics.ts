/** What dashboards read of gRPC calls, under the names of upstream's libraries (CP-022). */
import type { Metrics } from "../../base/metrics.ts";
import type { StatusName } from "../../wire/grpc/status.ts";

const HANDLING_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** As `grpc_type` says it. */
export type MethodKind = "unary" | "bidi_stream";

/** The counters of one method. */
export interface MethodMetrics {
  received(): void;
  sent(): void;
  handled(status: StatusName): void;
}

export class GrpcMetrics {
  readonly #started;
  readonly #handled;
  readonly #received;
  readonly #sent;
  readonly #seconds;
  readonly #ended;
  readonly #stalled;
  readonly #now: () => number;
  #connections = 0;

  /** @param now milliseconds of a monotonic clock. */
  constructor(metrics: Metrics, now: () => number) {
    const labelled = { labelled: true };
    this.#started = metrics.counter("grpc_server_started_total", "Calls begun, by method.", labelled);
    this.#handled = metrics.counter("grpc_server_handled_total", "Calls ended, by method and status.", labelled);
    this.#received = metrics.counter("grpc_server_msg_received_total", "Messages received, by method.", labelled);
    this.#sent = metrics.counter("grpc_server_msg_sent_total", "Messages sent, by method.", labelled);
    const seconds = "Seconds that a call of one question and one answer took, by method.";
    this.#seconds = metrics.histogram("grpc_server_handling_seconds", seconds, HANDLING_SECONDS);
    metrics.gauge("ambit_grpc_connections", "Open connections of gRPC clients.", () => this.#connections);
    const ended = "Connections of gRPC clients that have ended, by reason.";
    this.#ended = metrics.counter("ambit_grpc_connections_ended_total", ended, labelled);
    const stalled = "Calls ended because their client took nothing of a message for too long.";
    this.#stalled = metrics.counter("ambit_grpc_stalled_calls_total", stalled);
    this.#now = now;
  }

  connected(): void {
    this.#connections++;
  }

  /** @param reason one of few. */
  disconnected(reason: string): void {
    this.#connections--;
    this.#ended.increment({ reason });
  }

  stalled(): void {
    this.#stalled.increment();
  }

  /** @returns What counts one call of a method, which begins now. @param path `/service/method` */
  of(path: string, kind: MethodKind): () => MethodMetrics {
    const [, service = "", method = ""] = path.split("/");
    const labels = { grpc_method: method, grpc_service: service, grpc_type: kind };
    const started = this.#started.series(labels), received = this.#received.series(labels);
    const sent = this.#sent.series(labels);
    return () => {
      const startedAtMs = this.#now();
      started.value++;
      return {
        received: () => void received.value++,
        sent: () => void sent.value++,
        handled: (status) => {
          this.#handled.increment({ grpc_code: CODE_NAMES[status], ...labels });
          if (kind === "unary") this.#seconds.observe((this.#now() - startedAtMs) / 1_000, labels);
        },
      };
    };
  }
}

/** Codes as Go writes them, and so as dashboards ask for them. */
const CODE_NAMES: Readonly<Record<StatusName, string>> = {
  OK: "OK",
  CANCELLED: "Canceled",
  UNKNOWN: "Unknown",
  INVALID_ARGUMENT: "InvalidArgument",
  DEADLINE_EXCEEDED: "DeadlineExceeded",
  NOT_FOUND: "NotFound",
  ALREADY_EXISTS: "AlreadyExists",
  PERMISSION_DENIED: "PermissionDenied",
  RESOURCE_EXHAUSTED: "ResourceExhausted",
  FAILED_PRECONDITION: "FailedPrecondition",
  ABORTED: "Aborted",
  OUT_OF_RANGE: "OutOfRange",
  UNIMPLEMENTED: "Unimplemented",
  INTERNAL: "Internal",
  UNAVAILABLE: "Unavailable",
  DATA_LOSS: "DataLoss",
  UNAUTHENTICATED: "Unauthenticated",
};
