/** What dashboards and alerts read of pushes, under upstream's names and with its buckets (CP-022, CP-025). */
import type { Counter, Histogram, Metrics } from "../../base/metrics.ts";
import { SERVED_TYPES } from "./resources.ts";

const CONVERGENCE_SECONDS = [0.1, 0.5, 1, 3, 5, 10, 20, 30];
const PUSH_SECONDS = [0.01, ...CONVERGENCE_SECONDS];
const SEND_SECONDS = [0.01, 0.1, 1, 3, 5, 10, 20, 30];
const SIZE_BYTES = [1, 10_000, 1_000_000, 4_000_000, 10_000_000, 40_000_000];

/** Why everybody is pushed to. */
export type PushReason = "ambient" | "debug";

export class PushMetrics {
  readonly #pushes: Counter;
  /** By type URL. */
  readonly #pushed = new Map<string, { value: number }>();
  readonly #triggers: Counter;
  readonly #rejects: Counter;
  readonly #expired: Counter;
  readonly #internalErrors: Counter;
  readonly #timeouts: Counter;
  readonly #pushTime: Histogram;
  readonly #sendTime: Histogram;
  readonly #queueTime: Histogram;
  readonly #convergence: Histogram;
  readonly #sizes: Histogram;
  #receivedBytesMax = 0;

  constructor(metrics: Metrics) {
    const typed = { labelled: true };
    this.#pushes = metrics.counter("pilot_xds_pushes", "Responses sent, by type.", typed);
    this.#triggers = metrics.counter("pilot_push_triggers", "Times everybody was pushed to, by reason.", typed);
    this.#rejects = metrics.counter("pilot_total_xds_rejects", "Responses that clients refused, by type.", typed);
    const stale = "Requests with a nonce that is not the last one sent, by type.";
    this.#expired = metrics.counter("pilot_xds_expired_nonce", stale, typed);
    this.#internalErrors = metrics.counter("pilot_total_xds_internal_errors", "Streams ended by an error of ours.");
    const late = "Streams ended because responses stayed unacknowledged.";
    this.#timeouts = metrics.counter("pilot_xds_write_timeout", late);
    const pushed = "Seconds from making a response until the transport has taken it, by type.";
    this.#pushTime = metrics.histogram("pilot_xds_push_time", pushed, PUSH_SECONDS);
    const sent = "Seconds until the transport has taken a response.";
    this.#sendTime = metrics.histogram("pilot_xds_send_time", sent, SEND_SECONDS);
    const queued = "Seconds that a push waited for its client to take the one before.";
    this.#queueTime = metrics.histogram("pilot_proxy_queue_time", queued, CONVERGENCE_SECONDS);
    const converged = "Seconds from a change's arrival until the transport of a client has taken its last byte.";
    this.#convergence = metrics.histogram("pilot_proxy_convergence_time", converged, CONVERGENCE_SECONDS);
    this.#sizes = metrics.histogram("pilot_xds_config_size_bytes", "Bytes of responses, by type.", SIZE_BYTES);
    metrics.gauge("pilot_xds_recv_max", "Bytes of the largest request so far.", () => this.#receivedBytesMax);
  }

  triggered(reason: PushReason): void {
    this.#triggers.increment({ type: reason });
  }

  received(bytes: number): void {
    this.#receivedBytesMax = Math.max(this.#receivedBytesMax, bytes);
  }

  rejected(typeUrl: string): void {
    this.#rejects.increment(labelOf(typeUrl));
  }

  expiredNonce(typeUrl: string): void {
    this.#expired.increment(labelOf(typeUrl));
  }

  internalError(): void {
    this.#internalErrors.increment();
  }

  timedOut(): void {
    this.#timeouts.increment();
  }

  made(typeUrl: string, bytes: number): void {
    const labels = labelOf(typeUrl);
    let pushed = this.#pushed.get(typeUrl); // Told of once for each client and push.
    if (pushed === undefined) this.#pushed.set(typeUrl, pushed = this.#pushes.series(labels));
    pushed.value++;
    this.#sizes.observe(bytes, labels);
  }

  /** A push has been waiting for its client since a moment. */
  dequeued(waitedMs: number): void {
    this.#queueTime.observe(waitedMs / 1_000);
  }

  /** The transport has taken a response. */
  taken(typeUrl: string, pushMs: number, sendMs: number): void {
    this.#pushTime.observe(pushMs / 1_000, labelOf(typeUrl));
    this.#sendTime.observe(sendMs / 1_000);
  }

  /** A client has been handed all that had changed. */
  converged(sinceArrivalMs: number): void {
    this.#convergence.observe(sinceArrivalMs / 1_000);
  }
}

const OTHER = { type: "other" };
const LABELS = new Map([...SERVED_TYPES].map(([typeUrl, type]) => [typeUrl, { type }]));

function labelOf(typeUrl: string): { readonly type: string } {
  return LABELS.get(typeUrl) ?? OTHER;
}
