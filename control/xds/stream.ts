/** A connected client: its node, what it may read, its delta session, and the questions of tools among its requests. */
import type { DiscoveryResource } from "../../mesh/proto/discovery_codec.ts";
import type { DebugAccess } from "../debug/access.ts";
import {
  answerDebug,
  DebugConversation,
  type DebugQuestion,
  type DebugRefusal,
  type DebugSource,
} from "./debug_types.ts";
import type { ClientNode } from "./node.ts";
import type { WatchStatus } from "./session.ts";

/** A connected client, for the debug pages. */
export interface StreamStatus {
  readonly connectionId: string;
  readonly connectedAtMs: number;
  readonly address: string;
  readonly node: ClientNode;
  readonly watches: readonly (WatchStatus & {
    /** When its last response went out; undefined before the first. */
    readonly sentAtMs: number | undefined;
  })[];
}

/** Questions of tools on one stream: one waits for each type, and the newest of it is answered. */
export class DebugDesk {
  readonly #conversation = new DebugConversation();
  readonly #waiting = new Map<string, DebugQuestion>();
  readonly #access: DebugAccess;

  constructor(access: DebugAccess) {
    this.#access = access;
  }

  receive(question: DebugQuestion, reply: { nonce: string; rejects: boolean }): void {
    if (this.#conversation.asks(question, reply)) this.#waiting.set(question.typeUrl, question);
  }

  /** Whether a question waits. */
  get asked(): boolean {
    return this.#waiting.size > 0;
  }

  /** Answers one question. @returns undefined if none waits. */
  next(
    source: DebugSource,
    nextNonce: () => string,
  ): { typeUrl: string; nonce: string; resources: readonly DiscoveryResource[] } | DebugRefusal | undefined {
    for (const [typeUrl, question] of this.#waiting) {
      this.#waiting.delete(typeUrl);
      const answer = answerDebug(question, this.#access, source);
      if ("status" in answer) return answer;
      const nonce = nextNonce();
      this.#conversation.answered(question, nonce);
      return { typeUrl, nonce, resources: answer };
    }
    return undefined;
  }
}
