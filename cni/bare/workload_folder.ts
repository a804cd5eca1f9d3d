/** Keeps what the files of the enrolment folder name enrolled; a bad file is said, and the rest goes on (CNI-270, CNI-272). */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { type EnrolRequest, type EnrolTarget, parseEnrolTarget } from "../../mesh/enrolment.ts";
import { findCgroupRoot, findCgroups } from "./cgroups.ts";
import { findContainers } from "./containers.ts";
import { effectiveUserId } from "../../os/process.ts";
import type { Machine } from "./place.ts";
import { type NodeWorkload, parseWorkloadFile, targetsOf } from "./workload_file.ts";

/** The enrolments of a node, as far as files are concerned. */
export interface FileEnrolments {
  enrol(request: EnrolRequest, file: string): Promise<unknown>;
  unenrol(target: EnrolTarget): Promise<unknown>;
  /** What is enrolled for a file, by target. */
  ofFiles(): ReadonlyMap<string, { readonly file: string; readonly target: EnrolTarget }>;
}

const FILE_BYTES_MAX = 1024 * 1024, FILES_MAX = 1024;
const FILE_NAME = /^[^.].*\.ya?ml$/;

interface KnownFile {
  /** Of its content; another one is read anew. */
  readonly stamp: string;
  /** The last good state: it stays in force while the file is bad. */
  workloads: readonly NodeWorkload[];
  wrong: string | undefined;
}

export class WorkloadFolder {
  readonly #folder: string;
  readonly #enrolments: FileEnrolments;
  readonly #machine: Machine;
  readonly #log: Logger;
  readonly #files = new Map<string, KnownFile>();
  /** What could not be enrolled, by target; said once, tried at every pass. */
  readonly #failures = new Map<string, string>();
  /** What was asked for already, by target: only another request is asked for again. */
  readonly #asked = new Map<string, string>();

  constructor(folder: string, enrolments: FileEnrolments, options: { log: Logger; machine?: Machine }) {
    this.#folder = folder;
    this.#enrolments = enrolments;
    this.#machine = options.machine ?? {};
    this.#log = options.log;
  }

  /** What is wrong, by file or target; for `ambit status`. */
  problems(): string[] {
    const files = [...this.#files].flatMap(([name, { wrong }]) => wrong === undefined ? [] : [`${name}: ${wrong}`]);
    return [...files, ...[...this.#failures].map(([target, why]) => `${target}: ${why}`)];
  }

  /** Whether what runs must be looked at again and again, since a file names it by a glob or it is not there yet. */
  get looksOut(): boolean {
    const globs = [...this.#files.values()].some(({ workloads }) => workloads.some(({ glob }) => glob !== undefined));
    return globs || this.#failures.size > 0;
  }

  /** One pass: reads what changed, enrols what is missing, takes out what no file names any more. */
  async reconcile(signal: AbortSignal): Promise<void> {
    this.#read();
    const wanted = this.#wanted(), present = this.#enrolments.ofFiles();
    for (const [text, { target, file }] of present) {
      if (wanted.has(text) || signal.aborted) continue;
      if (this.#files.get(file)?.wrong !== undefined) continue; // What a bad file named before a restart, it may name still.
      if (this.#isGlobbed(text)) continue; // Gone with its container or unit: the audit sees to it.
      await this.#attempt(text, () => this.#enrolments.unenrol(target));
      this.#asked.delete(text);
    }
    for (const [text, { request, file }] of wanted) {
      if (signal.aborted) return;
      const asked = JSON.stringify(request);
      if (present.has(text) && this.#asked.get(text) === asked) continue;
      if (await this.#attempt(text, () => this.#enrolments.enrol(request, file))) this.#asked.set(text, asked);
    }
    for (const text of this.#failures.keys()) if (!wanted.has(text) && !present.has(text)) this.#failures.delete(text);
  }

  async #attempt(target: string, work: () => Promise<unknown>): Promise<boolean> {
    try {
      await work();
      this.#failures.delete(target);
      return true;
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      const why = chain(error);
      if (this.#failures.get(target) !== why) this.#log.warn("workload of a file not enrolled", { target, error: why });
      this.#failures.set(target, why);
      return false;
    }
  }

  #isGlobbed(text: string): boolean {
    const target = parseEnrolTarget(text);
    const globs = [...this.#files.values()].flatMap(({ workloads }) => workloads.flatMap(({ glob }) => glob ?? []));
    const own = target?.kind === "unit" ? target.unit : target?.kind === "container" ? target.id : undefined;
    return own !== undefined && globs.some((glob) => targetsOf(glob, [own]).includes(text));
  }

  /** What all files ask for, by target; of two that name the same the first file's holds, in the order of their names. */
  #wanted(): Map<string, { readonly request: EnrolRequest; readonly file: string }> {
    const wanted = new Map<string, { request: EnrolRequest; file: string }>();
    for (const [file, { workloads }] of [...this.#files].sort(([one], [other]) => one < other ? -1 : 1)) {
      for (const workload of workloads) {
        for (const target of workload.glob === undefined ? [undefined] : this.#find(workload.glob)) {
          const request = workload.requestFor(target);
          if ("wrong" in request) {
            this.#log.debug("passed over", { target: target ?? workload.name, reason: request.wrong });
          } else if (!wanted.has(request.target.text)) wanted.set(request.target.text, { request, file });
        }
      }
    }
    return wanted;
  }

  #find(glob: NonNullable<NodeWorkload["glob"]>): string[] {
    const { procDir = "/proc" } = this.#machine;
    if (glob.kind === "container") return targetsOf(glob, findContainers(procDir, () => true).map(({ id }) => id));
    const root = this.#machine.cgroupRoot ?? findCgroupRoot();
    const units = findCgroups(root, (name) => name.endsWith(".service")).map(({ path }) => path.split("/").at(-1)!);
    return targetsOf(glob, new Set(units));
  }

  #read(): void {
    const names = this.#names();
    for (const name of this.#files.keys()) if (!names.includes(name)) this.#files.delete(name);
    for (const name of names) this.#readFile(name);
  }

  #readFile(name: string): void {
    const path = `${this.#folder}/${name}`;
    let text: string, stamp: string;
    try {
      const stat = Deno.statSync(path), { size, mtime, ino, uid, mode } = stat;
      stamp = `${size} ${mtime?.getTime()} ${ino} ${uid} ${mode}`;
      if (this.#files.get(name)?.stamp === stamp) return;
      const stranger = strangerTo(stat) ?? strangerTo(Deno.statSync(this.#folder));
      if (stranger !== undefined) throw new Error(stranger);
      if (size > FILE_BYTES_MAX) throw new Error(`it is longer than ${FILE_BYTES_MAX} bytes`);
      text = Deno.readTextFileSync(path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return; // Renamed meanwhile: there is word of that, too.
      return this.#refuse(name, "", error instanceof Error ? error.message : String(error));
    }
    const parsed = parseWorkloadFile(text);
    if ("wrong" in parsed) return this.#refuse(name, stamp, parsed.wrong);
    this.#files.set(name, { stamp, workloads: parsed, wrong: undefined });
    this.#log.info("enrolment file read", { file: name, workloads: parsed.length });
  }

  /** Its last good state stays: a slip of the pen must not take a workload out of the mesh. */
  #refuse(name: string, stamp: string, wrong: string): void {
    const before = this.#files.get(name);
    if (before?.wrong !== wrong) this.#log.error("enrolment file refused", { file: name, error: wrong });
    this.#files.set(name, { stamp, workloads: before?.workloads ?? [], wrong });
  }

  #names(): string[] {
    try {
      return [...Deno.readDirSync(this.#folder)].map(({ name }) => name).filter((name) => FILE_NAME.test(name))
        .sort().slice(0, FILES_MAX);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  }
}

/** Who can write such a file can give any process any identity: that is for root and our own user. */
function strangerTo({ uid, mode }: Deno.FileInfo): string | undefined {
  const WRITABLE_BY_OTHERS = 0o022;
  if (uid !== 0 && uid !== effectiveUserId()) return `it, or its folder, belongs to user ${uid}, not to root`;
  return ((mode ?? 0) & WRITABLE_BY_OTHERS) === 0
    ? undefined
    : "it, or its folder, can be written by others: chmod go-w";
}
