/** Which test files are run together by one process, and in which order: decided from what each has taken before. */

/** What a folder's files have taken on four quiet cores, in seconds; whoever is not named is short. */
export interface Weights {
  readonly seconds: Readonly<Record<string, number>>;
  /** Files that measure, or that want all cores for themselves: run one after the other, when the others are done. */
  readonly alone: readonly string[];
  /** Files that fetch something: they keep the machine's own network, and make no namespace that has a name. */
  readonly fetching: readonly string[];
}

/** Files for one process. */
export interface Batch {
  readonly files: readonly string[];
  readonly seconds: number;
  readonly fetching?: boolean;
}

export interface Plan {
  /** Taken by the lanes from the first on: the longest first, so that lanes end at about the same time. */
  readonly shared: readonly Batch[];
  readonly alone: readonly Batch[];
}

/** What a file is held for that has never been measured. */
export const UNKNOWN_SECONDS = 3;
/** Short files share a process up to this: starting one costs about a second of a core. */
export const BATCH_SECONDS = 12;

/** Plans `files`. Equal input is planned equally. */
export function planOf(files: readonly string[], weights: Weights): Plan {
  const weighed = files.map((file) => ({ file, seconds: weights.seconds[file] ?? UNKNOWN_SECONDS }))
    .sort((a, b) => b.seconds - a.seconds || (a.file < b.file ? -1 : 1));
  const isAlone = ({ file }: { file: string }) => weights.alone.includes(file);
  const batches: { files: string[]; seconds: number; fetching?: boolean }[] = [];
  for (const { file, seconds } of weighed.filter((it) => !isAlone(it))) {
    const fetching = weights.fetching.includes(file);
    const room = fetching ? undefined : batches.find((it) => !it.fetching && it.seconds + seconds <= BATCH_SECONDS);
    if (room === undefined) batches.push({ files: [file], seconds, ...(fetching && { fetching }) });
    else {
      room.files.push(file);
      room.seconds += seconds;
    }
  }
  return {
    shared: batches.sort((a, b) => b.seconds - a.seconds),
    alone: weighed.filter(isAlone).map(({ file, seconds }) => ({ files: [file], seconds })),
  };
}
