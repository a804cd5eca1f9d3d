/** What a load process counts; one object, shared by everything in it. */
import { Histogram } from "./histogram.ts";

export class Counters {
  receivedBytes = 0;
  completed = 0;
  failures = 0;
  firstFailure = "";
  /** Open-loop latencies in microseconds. */
  readonly latency = new Histogram();
  /** How late the open loop sent, in microseconds. */
  readonly late = new Histogram();

  fail(why: string): void {
    if (this.failures++ === 0) this.firstFailure = why;
  }
}
