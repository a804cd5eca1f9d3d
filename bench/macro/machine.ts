/** Where and on what a run took place. */

/** Cores, model and kernel. */
export function describeMachine(): string {
  const model = /^model name\s*:\s*(.*)$/m.exec(Deno.readTextFileSync("/proc/cpuinfo"))?.[1] ?? "unknown processor";
  const memory = Math.round(Deno.systemMemoryInfo().total / 2 ** 30);
  const congestion = Deno.readTextFileSync("/proc/sys/net/ipv4/tcp_congestion_control").trim();
  return `${navigator.hardwareConcurrency} cores of ${model}, ${memory} GiB, Linux ${Deno.osRelease()}, ` +
    `TCP ${congestion}, Deno ${Deno.version.deno}`;
}

/** The repository's commit, marked when files differ from it. */
export function describeCommit(): string {
  const cwd = new URL("../..", import.meta.url).pathname;
  const git = (...args: string[]) => {
    const output = new Deno.Command("git", { args, cwd, stdout: "piped", stderr: "null" }).outputSync();
    return output.success ? new TextDecoder().decode(output.stdout).trim() : undefined;
  };
  const commit = git("rev-parse", "--short=10", "HEAD");
  if (commit === undefined) return "unknown";
  return git("status", "--porcelain", "--untracked-files=no") === "" ? commit : `${commit} with local changes`;
}

/** How many descriptors a program started by us may open. */
export function descriptorsMax(): number {
  const limit = /^Max open files\s+\S+\s+(\S+)/m.exec(Deno.readTextFileSync("/proc/self/limits"))?.[1];
  return limit === "unlimited" ? Infinity : Number(limit ?? 0);
}
