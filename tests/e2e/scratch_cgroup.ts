/** Control groups for a test: made empty, entered by this process or another, and gone afterwards. */
import { type Cgroup, findCgroupRoot, openCgroup, unifiedPathOf } from "../../cni/bare/cgroups.ts";
import { removeEmptied } from "./bpf_scratch.ts";

let made = 0;

/** A folder of control groups below the one that the test is in. */
export class ScratchCgroups implements Disposable {
  readonly root = findCgroupRoot();
  readonly #home = unifiedPathOf(Deno.readTextFileSync("/proc/self/cgroup"))!;
  readonly #base = `ambit-test-${Deno.pid}-${++made}`;
  readonly #paths: string[] = [this.#base];

  constructor() {
    Deno.mkdirSync(`${this.root}/${this.#base}`);
  }

  /** Makes `NAME` in the scratch folder. */
  add(name: string): Cgroup {
    const path = `${this.#base}/${name}`;
    Deno.mkdirSync(`${this.root}/${path}`);
    this.#paths.push(path);
    return openCgroup(this.root, path)!;
  }

  /** Takes it away, and makes it again: as when a unit is started anew. */
  renew(name: string): Cgroup {
    const path = `${this.#base}/${name}`;
    Deno.removeSync(`${this.root}/${path}`);
    Deno.mkdirSync(`${this.root}/${path}`);
    return openCgroup(this.root, path)!;
  }

  /** Runs `body` with this process in the group: sockets made meanwhile are the group's. */
  within<T>({ path }: Cgroup, body: () => T): T {
    this.#enter(path, Deno.pid);
    try {
      return body();
    } finally {
      this.#enter(this.#home, Deno.pid);
    }
  }

  /** Puts this process, with all its threads, into the group until it is disposed of. */
  stay({ path }: Cgroup): Disposable {
    this.#enter(path, Deno.pid);
    return { [Symbol.dispose]: () => this.#enter(this.#home, Deno.pid) };
  }

  /** Moves a process. */
  put({ path }: Cgroup, pid: number): void {
    this.#enter(path, pid);
  }

  #enter(path: string, pid: number): void {
    Deno.writeTextFileSync(`${this.root}/${path}/cgroup.procs`, String(pid));
  }

  [Symbol.dispose](): void {
    for (const path of this.#paths.reverse()) removeEmptied(`${this.root}/${path}`);
  }
}
