/** How much of the machine went to others while something was measured: what tells a quiet run from a noisy one. */
import { cpuSeconds } from "./process.ts";

const TICKS_PER_SECOND = 100;

/** Processor time of the whole machine, in seconds since it started. */
export interface MachineTime {
  /** Spent on anything, stolen time excluded. */
  readonly busy: number;
  /** Taken by the hypervisor for other machines. */
  readonly stolen: number;
  readonly total: number;
}

/** Reads the first line of /proc/stat. Guest time is within user time, so it is not added again (proc(5)). */
export function parseMachineTime(stat: string): MachineTime {
  const fields = stat.slice(0, stat.indexOf("\n")).trim().split(/\s+/).slice(1, 9).map(Number);
  const [user, nice, system, idle, ioWait, irq, softIrq, steal] = fields.map((ticks) => ticks / TICKS_PER_SECOND);
  const busy = user! + nice! + system! + irq! + softIrq!;
  return { busy, stolen: steal!, total: busy + idle! + ioWait! + steal! };
}

/** Shares of the machine, 0 to 1. */
export interface ForeignLoad {
  readonly others: number;
  readonly stolen: number;
}

/** Watches from its making until {@link ForeignWatch.read}. */
export class ForeignWatch {
  readonly #pids: readonly number[];
  readonly #machine: MachineTime;
  readonly #own: number;

  /** @param pids Every process of the run that works, this one included. All of them outlive the watch. */
  constructor(pids: readonly number[]) {
    this.#pids = pids;
    this.#machine = readMachineTime();
    this.#own = ownSeconds(pids);
  }

  /** @param ended What those of ours used that have come and gone meanwhile, in seconds. */
  read(ended = 0): ForeignLoad {
    const now = readMachineTime(), total = Math.max(now.total - this.#machine.total, 1 / TICKS_PER_SECOND);
    // Work in interrupts is charged to whom they interrupt, so the difference can come out slightly below zero.
    const others = Math.max(0, now.busy - this.#machine.busy - (ownSeconds(this.#pids) - this.#own) - ended);
    return { others: others / total, stolen: (now.stolen - this.#machine.stolen) / total };
  }
}

function readMachineTime(): MachineTime {
  return parseMachineTime(Deno.readTextFileSync("/proc/stat"));
}

function ownSeconds(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
}
