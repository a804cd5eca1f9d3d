/** What the chapters of the walk share: the shop, the checks, a voice, and the questions that they ask again and again. */
import type { CheckMaker } from "../checks.ts";
import type { Pod } from "../lab/mesh.ts";
import { until } from "../lab/until.ts";
import { type PodName, type Shop, SHOP_PORT } from "../shop.ts";

export const TAKES_EFFECT_MS = 60_000; // far more than it takes: a check says how long it took

/** One part of the walk. */
export interface Chapter {
  readonly title: string;
  /** What is going to happen and why it matters, in a sentence or two. */
  readonly story: string;
  run(stage: Stage): Promise<void>;
}

export class Stage {
  readonly shop: Shop;
  readonly checks: CheckMaker;
  /** Says what happens now, and leaves time to read it. */
  readonly tell: (text: string) => Promise<void>;

  constructor(shop: Shop, checks: CheckMaker, tell: (text: string) => Promise<void>) {
    this.shop = shop;
    this.checks = checks;
    this.tell = tell;
  }

  pod(name: PodName): Pod {
    return this.shop.pods[name];
  }

  /** Asks the store of a pod who we are. @returns The answer, or why there was none. */
  async askStore(from: PodName, options: { port?: number; host?: string; timeoutMs?: number } = {}): Promise<
    { readonly answer: string } | { readonly failure: string }
  > {
    const { port = SHOP_PORT.store, host = this.pod("store").ipv4, timeoutMs } = options;
    const text = `WHO ${this.shop.banner}`;
    const { failure, ...rest } = await this.pod(from).probe.attempt("line", { host, port, text, timeoutMs });
    return "output" in rest ? { answer: rest.output!.reply } : { failure: failure! };
  }

  async admitted(from: PodName, options: { port?: number; host?: string } = {}): Promise<boolean> {
    return "answer" in await this.askStore(from, options);
  }

  /** Puts a file of `demo/steps` into istiod's folder. */
  apply(step: string, as = step): void {
    const yaml = Deno.readTextFileSync(new URL(`../steps/${step}.yaml`, import.meta.url));
    this.shop.mesh.writeConfig(`${as}.yaml`, yaml);
  }

  withdraw(step: string): void {
    this.shop.mesh.removeConfig(`${step}.yaml`);
  }

  /** Waits until the store admits, or refuses, the pod. @returns How long it took, in milliseconds. */
  async becomes(admitted: boolean, from: PodName, options: { port?: number } = {}): Promise<number> {
    const startedAtMs = performance.now();
    await until(`the store ${admitted ? "admits" : "refuses"} ${from}`, TAKES_EFFECT_MS, async () => {
      return await this.admitted(from, options) === admitted;
    });
    return Math.round(performance.now() - startedAtMs);
  }
}
