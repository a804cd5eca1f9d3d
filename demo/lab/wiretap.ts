/** What somebody learns who listens on the wire between the nodes. */
import { Buffer } from "node:buffer";
import type { Netns } from "../../os/netns.ts";
import { PacketCapture } from "../../os/packet_capture.ts";
import { readSegment, type Segment } from "./packets.ts";
import { TlsRecords } from "./tls_records.ts";

const HBONE_PORT = 15008;
const FRAMES_PER_TURN = 200; // frames have up to 64 KiB: the rest of the process has its turn after some milliseconds
const WAIT_MS = 100;
const DIRECTIONS_MAX = 50_000; // forgotten oldest first, so that a long run stays small

/** Pods of the lab. */
const POD = /^(10\.80\.[12]\.|fd80:[12]:)/;

/** One direction of one connection between two pods. */
export interface Direction {
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  bytes: number;
  /** How many of its segments held the marker in clear. */
  markers: number;
  /** Only where it was seen from its first byte and nothing was lost since. */
  tls: TlsRecords | undefined;
  nextSequence: number;
}

/** A running capture; disposing ends it. */
export class Wiretap implements AsyncDisposable {
  readonly #capture: PacketCapture;
  readonly #marker: Buffer;
  readonly #directions = new Map<string, Direction>();
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  readonly #waiting: (() => void)[] = [];

  readonly #pods: RegExp;

  /** Listens on `interfaceName` for frames in which `marker` can be read. @param pods matches addresses of pods. */
  constructor(netns: Netns, interfaceName: string, marker: string, pods = POD) {
    this.#pods = pods;
    this.#capture = PacketCapture.open(netns, interfaceName);
    this.#marker = Buffer.from(marker);
    this.#done = this.#run();
  }

  /** What was seen of directions between pods, up to the last frame that had crossed the wire at the call. */
  async seen(): Promise<Direction[]> {
    await this.#caughtUp();
    return [...this.#directions.values()];
  }

  get droppedCount(): number {
    return this.#capture.droppedCount();
  }

  /** Forgets everything that crossed the wire before the call. */
  async clear(): Promise<void> {
    await this.#caughtUp();
    this.#directions.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#done;
    this.#capture[Symbol.dispose]();
  }

  #caughtUp(): Promise<void> {
    if (this.#stop.signal.aborted) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  async #run(): Promise<void> {
    const onFrame = (frame: Uint8Array<ArrayBuffer>) => {
      const segment = readSegment(frame);
      if (segment !== undefined && this.#betweenPods(segment)) this.#take(segment);
    };
    while (!this.#stop.signal.aborted) {
      await this.#capture.wait(WAIT_MS);
      // Also after a time-out: a frame may have come between it and the turn in which somebody asked.
      if (this.#capture.drain(onFrame, FRAMES_PER_TURN) < FRAMES_PER_TURN) {
        for (const caughtUp of this.#waiting.splice(0)) caughtUp();
      }
      await new Promise((resolve) => setTimeout(resolve)); // Frames that wait already would leave nobody else a turn.
    }
    for (const caughtUp of this.#waiting.splice(0)) caughtUp();
  }

  #betweenPods({ source, destination }: Segment): boolean {
    return this.#pods.test(source) && this.#pods.test(destination);
  }

  #take(segment: Segment): void {
    const { source, sourcePort, destination, destinationPort, payload } = segment;
    const key = `${source} ${sourcePort} ${destination} ${destinationPort}`;
    let direction = this.#directions.get(key);
    if (direction === undefined || segment.syn) {
      direction = {
        source,
        sourcePort,
        destination,
        destinationPort,
        bytes: 0,
        markers: 0,
        tls: segment.syn && isHbone(segment) ? new TlsRecords() : undefined,
        nextSequence: (segment.sequence + 1) >>> 0,
      };
      this.#directions.set(key, direction);
      if (this.#directions.size > DIRECTIONS_MAX) this.#directions.delete(this.#directions.keys().next().value!);
    }
    if (payload.length === 0) return;
    direction.bytes += payload.length;
    if (Buffer.from(payload.buffer, payload.byteOffset, payload.length).includes(this.#marker)) direction.markers++;
    this.#follow(direction, segment);
  }

  #follow(direction: Direction, { sequence, payload }: Segment): void {
    if (direction.tls === undefined) return;
    const ahead = (sequence - direction.nextSequence) | 0;
    if (ahead < 0) return; // Sent again: read already.
    if (ahead > 0) {
      direction.tls = undefined; // A segment is missing: from here on record bounds are guesses.
      return;
    }
    direction.tls.feed(payload);
    direction.nextSequence = (sequence + payload.length) >>> 0;
  }
}

export function isHbone({ sourcePort, destinationPort }: { sourcePort: number; destinationPort: number }): boolean {
  return sourcePort === HBONE_PORT || destinationPort === HBONE_PORT;
}
