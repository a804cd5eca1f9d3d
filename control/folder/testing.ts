/** For tests: a temporary folder under a running source, and what it told. */
import { Logger } from "../../base/log.ts";
import type { ObjectChange } from "../objects.ts";
import { FolderSource, type Refusal } from "./folder_source.ts";

// Short, so that tests are; long enough that two writes in a row fall within it.
const SETTLE_MS = 40;
const RESCAN_MS = 250;
const DEADLINE_MS = 60_000;

/** Waits until a claim holds. Throws if it does not within ten seconds. */
export async function until(claim: string, holds: () => boolean): Promise<void> {
  for (const endMs = performance.now() + DEADLINE_MS; !holds();) {
    if (performance.now() > endMs) throw new Error(`in time: ${claim}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export class TestFolder implements AsyncDisposable {
  readonly path: string;
  readonly source: FolderSource;
  /** Every change told, as `+key` or `-key`, in order. */
  readonly told: string[] = [];
  readonly refused: Refusal[] = [];
  readonly logged: string[] = [];
  readonly #stop = new AbortController();

  constructor(path = Deno.makeTempDirSync({ prefix: "folder-source-" }), watched = path) {
    this.path = path;
    this.source = new FolderSource(watched, {
      log: new Logger("folder", { sink: (line) => this.logged.push(line) }),
      onChange: (changes) => this.told.push(...changes.map(describeChange)),
      onRefused: (refusal) => this.refused.push(refusal),
      settleMs: SETTLE_MS,
      rescanMs: RESCAN_MS,
    });
  }

  async start(): Promise<this> {
    await this.source.start(this.#stop.signal);
    return this;
  }

  write(name: string, content: string | Uint8Array): void {
    const path = `${this.path}/${name}`;
    Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    Deno.writeFileSync(path, typeof content === "string" ? new TextEncoder().encode(content) : content);
  }

  /** What was told since the last look. */
  news(): string[] {
    return this.told.splice(0);
  }

  /** Waits until exactly this is told next. */
  async expect(...changes: readonly string[]): Promise<void> {
    await until(
      `${changes.join(" ")} is told; told was ${this.told.join(" ")}`,
      () => this.told.length >= changes.length,
    );
    const news = this.news();
    if (JSON.stringify(news) !== JSON.stringify(changes)) {
      throw new Error(`told ${news.join(" ")}, not ${changes.join(" ")}`);
    }
  }

  /** Waits until a marker file has been taken: by then everything written before it has been, too. */
  async settled(): Promise<void> {
    const name = `marker-${crypto.randomUUID()}`;
    this.write(`${name}.yaml`, pod(name));
    await until("the marker is told", () => this.told.includes(`+Pod/default/${name}`));
    this.told.splice(this.told.indexOf(`+Pod/default/${name}`), 1);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.source.stopped;
    await Deno.remove(this.path, { recursive: true });
  }
}

function describeChange({ key, object }: ObjectChange): string {
  return `${object === undefined ? "-" : "+"}${key}`;
}

/** A small pod. */
export function pod(name: string, ip = "10.0.0.1"): string {
  return `apiVersion: v1\nkind: Pod\nmetadata:\n  name: ${name}\nspec: {}\nstatus:\n  podIP: ${ip}\n`;
}
