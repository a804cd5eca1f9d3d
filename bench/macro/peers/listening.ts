/** Whether a program has come as far as listening. */

const LISTEN = "0A"; // TCP_LISTEN in /proc/PID/net/tcp

/** Whether something listens on a TCP port in the network namespace of a process. */
export function isListening(pid: number, port: number): boolean {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  for (const table of ["tcp", "tcp6"]) {
    let text: string;
    try {
      text = Deno.readTextFileSync(`/proc/${pid}/net/${table}`);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return false;
      throw error;
    }
    for (const line of text.split("\n").slice(1)) {
      const fields = line.trim().split(/\s+/);
      if (fields[3] === LISTEN && fields[1]!.endsWith(suffix)) return true;
    }
  }
  return false;
}
