/** The plugin's talk with the node agent: HTTP over the unix socket of its run folder (CNI-012, CNI-021). */
import { chain } from "../../base/errors.ts";
import { DECIDE_PATH, EVENT_PATH, EVENT_SOCKET } from "../plugin_event.ts";

const TIMEOUT_MS = 5_000; // CNI-012
const DECIDE_TIMEOUT_MS = 1_000; // It answers from memory, or there is something wrong with it.
const ANSWER_BYTES_MAX = 1 << 20;

/** What the agent says of a pod; `unreachable` also for an agent that knows no such question. */
export type Decision = "ambient" | "not-ambient" | "unknown" | "unreachable";

export interface PodQuestion {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
}

/** The agent as the plugin needs it. */
export interface Agent {
  decide(pod: PodQuestion): Promise<Decision>;
  /** Sends an event. @returns Why it failed, or undefined once the pod is enrolled. */
  enrol(body: string): Promise<string | undefined>;
}

/** The agent behind the socket of a run folder. */
export class SocketAgent implements Agent {
  readonly #socket: string;

  constructor(runDir: string) {
    this.#socket = `${runDir}/${EVENT_SOCKET}`;
  }

  async decide(pod: PodQuestion): Promise<Decision> {
    let answer: { status: number; text: string };
    try {
      answer = await this.#post(DECIDE_PATH, JSON.stringify(pod), DECIDE_TIMEOUT_MS);
    } catch (error) {
      if (error instanceof TypeError || error instanceof DOMException) return "unreachable";
      throw error;
    }
    const decision = (["ambient", "not-ambient", "unknown"] as const).find((it) => it === answer.text.trim());
    return answer.status === 200 && decision !== undefined ? decision : "unreachable";
  }

  async enrol(body: string): Promise<string | undefined> {
    try {
      const { status, text } = await this.#post(EVENT_PATH, body, TIMEOUT_MS);
      return status === 200 ? undefined : `the node agent refused the pod (status ${status}): ${text.trim()}`;
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof DOMException)) throw error;
      return `the node agent does not answer at ${this.#socket}: ${chain(error)}`;
    }
  }

  async #post(path: string, body: string, timeoutMs: number): Promise<{ status: number; text: string }> {
    using client = Deno.createHttpClient({ proxy: { transport: "unix", path: this.#socket } });
    const response = await fetch(`http://localhost${path}`, {
      client,
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
      signal: AbortSignal.timeout(timeoutMs),
    });
    return { status: response.status, text: await boundedText(response) };
  }
}

async function boundedText(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = "", bytes = 0;
  for await (const part of response.body ?? []) {
    bytes += part.length;
    if (bytes > ANSWER_BYTES_MAX) break; // Leaving the loop cancels what is left.
    text += decoder.decode(part, { stream: true });
  }
  return text;
}
