/** A run's end of a process of simulated proxies: commands out, answers in. */
import { MeshError } from "../../base/errors.ts";
import type { Cleanup } from "../macro/cleanup.ts";
import { killChild, RAISE_LIMIT } from "../macro/process.ts";
import type { ProxyAnswer, ProxyCommand } from "./proxies/messages.ts";

const ANSWER_MS_MAX = 180_000; // 200 proxies are let in one after the other

export class ProxiesProcess {
  readonly pid: number;
  readonly stop: () => void;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reader: ReadableStreamDefaultReader<string>;
  #text = "";

  private constructor(child: Deno.ChildProcess, cleanup: Cleanup) {
    this.pid = child.pid;
    this.#writer = child.stdin.getWriter();
    this.#reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    this.stop = cleanup.add("end the simulated proxies", () => killChild(child));
  }

  static start(cleanup: Cleanup): ProxiesProcess {
    const entry = new URL("./proxies/entry.ts", import.meta.url).pathname;
    const child = new Deno.Command("setpriv", {
      args: [
        ...["--pdeathsig", "KILL", "sh", "-c", `${RAISE_LIMIT} exec "$@"`, "sh"],
        ...[Deno.execPath(), "run", "-A", "--quiet", entry],
      ],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    return new ProxiesProcess(child, cleanup);
  }

  /** Asks and waits. @throws MeshError AMB9011 if the answer is another, or none. */
  async ask<Is extends ProxyAnswer["is"]>(command: ProxyCommand, is: Is): Promise<Extract<ProxyAnswer, { is: Is }>> {
    await this.#writer.write(new TextEncoder().encode(JSON.stringify(command) + "\n"));
    const { promise, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => reject(this.#failure(command.do, `no answer in ${ANSWER_MS_MAX} ms`)),
      ANSWER_MS_MAX,
    );
    try {
      const answer = await Promise.race([this.#line(), promise]);
      if (answer.is !== is) throw this.#failure(command.do, "why" in answer ? answer.why : answer.is);
      return answer as Extract<ProxyAnswer, { is: Is }>;
    } finally {
      clearTimeout(timer);
    }
  }

  async #line(): Promise<ProxyAnswer> {
    for (;;) {
      const end = this.#text.indexOf("\n");
      if (end >= 0) {
        const line = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 1);
        return JSON.parse(line) as ProxyAnswer;
      }
      const { value, done } = await this.#reader.read();
      if (done) throw this.#failure("answer", "the process has ended");
      this.#text += value;
    }
  }

  #failure(what: string, why: string): MeshError {
    return new MeshError("AMB9011", `simulated proxies: ${what}: ${why}`, {
      remedy: "Look at the control plane's log in the run's folder (--keep keeps it).",
    });
  }
}
