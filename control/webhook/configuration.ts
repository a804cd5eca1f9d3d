/** Keeps the webhook's registration right (CP-693): whom to trust, and that objects are refused while nobody checks them. */
import { chain } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { type KubeApi, KubeError, type KubeObject, KubeUnreachable } from "../../kube/api.ts";
import { Backoff, sleep } from "../../kube/backoff.ts";
import { startInformer } from "../../kube/informer.ts";
import { AUTHORIZATION_POLICIES, VALIDATING_WEBHOOKS } from "../../kube/resource_types.ts";
import { ALWAYS_REJECT } from "./judge.ts";

const RETRIES = { firstMs: 100, maxMs: 60_000 };
/** Who is not overruled for so long writes at once again. */
const CALM_MS = 300_000;
/** The API server's words for what a webhook refused, whatever its name. */
const DENIED = /^admission webhook .* denied the request/;

export interface RegistrationOptions {
  readonly api: KubeApi;
  /** The Service that the registrations to be kept name; others are other people's. */
  readonly service: { readonly namespace: string; readonly name: string };
  readonly revision: string;
  /** The roots that lead to what the listener presents, as PEM. */
  readonly rootsPem: () => string;
  readonly log: Logger;
  readonly random?: () => number;
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
}

interface Webhook {
  readonly name?: unknown;
  readonly failurePolicy?: unknown;
  readonly clientConfig?: {
    readonly service?: { readonly namespace?: unknown; readonly name?: unknown };
    readonly caBundle?: unknown;
  };
}

/** What is to be changed of a registration; undefined if it is right. Pure. */
export function planPatch(
  registration: KubeObject,
  wanted: {
    readonly service: { namespace: string; name: string };
    readonly caBundle: string;
    readonly mayFail: boolean;
  },
): readonly object[] | undefined {
  const webhooks = Array.isArray(registration.webhooks) ? registration.webhooks as readonly Webhook[] : [];
  const operations = webhooks.flatMap(({ name, failurePolicy, clientConfig }, row) => {
    const service = clientConfig?.service, at = `/webhooks/${row}`;
    if (service?.namespace !== wanted.service.namespace || service.name !== wanted.service.name) return [];
    const bundle = clientConfig?.caBundle === wanted.caBundle
      ? []
      : [{ op: "add", path: `${at}/clientConfig/caBundle`, value: wanted.caBundle }];
    const policy = !wanted.mayFail || failurePolicy === "Fail"
      ? []
      : [{ op: "add", path: `${at}/failurePolicy`, value: "Fail" }];
    const changes = [...bundle, ...policy];
    // Somebody may have reordered them since.
    return changes.length === 0 ? [] : [{ op: "test", path: `${at}/name`, value: name }, ...changes];
  });
  return operations.length === 0 ? undefined : operations;
}

/** Follows the registrations of our revision, and corrects them. */
export class WebhookRegistration {
  readonly #options: RegistrationOptions;
  readonly #registrations = new Map<string, KubeObject>();
  /** After a failure, and after a write: of two istiods that disagree none is right, and both would write without end. */
  readonly #backoff: Backoff;
  readonly #restraint: Backoff;
  #wroteAtMs = -Infinity;
  /** Whether the API server has been seen to ask us. */
  #proven = false;
  #wake: () => void = () => {};
  #dirty = false;
  #reported = "";

  constructor(options: RegistrationOptions) {
    this.#options = options;
    this.#backoff = new Backoff(RETRIES, options.random);
    this.#restraint = new Backoff(RETRIES, options.random);
  }

  /** The roots have changed. */
  touch(): void {
    this.#dirty = true;
    this.#wake();
  }

  /** Runs until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const { api, revision, log } = this.#options;
    const scope = { labelSelector: `istio.io/rev=${revision === "" ? "default" : revision}` };
    const onChange = (changes: readonly { name: string; object: KubeObject | undefined }[]) => {
      for (const { name, object } of changes) {
        if (object === undefined) this.#registrations.delete(name);
        else this.#registrations.set(name, object);
      }
      this.touch();
    };
    const informer = startInformer(
      api,
      VALIDATING_WEBHOOKS,
      scope,
      { onChange, log, sleep: this.#options.sleep },
      signal,
    );
    while (!signal.aborted) {
      if (!this.#dirty) await this.#touched(signal);
      this.#dirty = false;
      if (signal.aborted) break;
      const outcome = await this.#correct(signal);
      if (outcome === "failed") {
        this.#dirty = true;
        await this.#pause(this.#backoff.next(), signal);
        continue;
      }
      this.#backoff.reset();
      if (outcome === "written") await this.#pause(this.#restrained(), signal);
    }
    await informer.stopped;
  }

  #touched(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
      if (signal.aborted) resolve();
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
  }

  #restrained(): number {
    const nowMs = performance.now();
    if (nowMs - this.#wroteAtMs > CALM_MS) this.#restraint.reset();
    this.#wroteAtMs = nowMs;
    return this.#restraint.next();
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    try {
      await (this.#options.sleep ?? sleep)(ms, signal);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** First the roots, then the proof, then the policy. @returns `right` if nothing was to be done. */
  async #correct(signal: AbortSignal): Promise<"right" | "written" | "failed"> {
    try {
      const patched = await this.#patch(false);
      if (!this.#names() || signal.aborted) return patched > 0 ? "written" : "right";
      if (!this.#proven) this.#proven = await this.#isAsked();
      if (!this.#proven) return "failed";
      const failing = await this.#patch(true);
      if (patched + failing > 0) {
        this.#options.log.info("the validation webhook is registered", { service: this.#options.service.name });
      }
      this.#reported = "";
      return patched + failing > 0 ? "written" : "right";
    } catch (error) {
      if (!(error instanceof KubeError) && !(error instanceof KubeUnreachable)) throw error;
      if (error instanceof KubeError && error.status === 409) return "failed";
      const text = chain(error);
      if (text !== this.#reported) {
        this.#options.log.warn("the validation webhook's registration cannot be kept; it is tried again", {
          error: text,
        });
      }
      this.#reported = text;
      return "failed";
    }
  }

  /** Whether any registration is about us. */
  #names(): boolean {
    const { service } = this.#options;
    const wanted = { service, caBundle: "", mayFail: false };
    return [...this.#registrations.values()].some((it) => planPatch(it, wanted) !== undefined);
  }

  async #patch(mayFail: boolean): Promise<number> {
    const { api, service, rootsPem } = this.#options;
    const caBundle = new TextEncoder().encode(rootsPem()).toBase64();
    let patched = 0;
    for (const [name, registration] of this.#registrations) {
      const patch = planPatch(registration, { service, caBundle, mayFail });
      if (patch === undefined) continue;
      const after = await api.patch(VALIDATING_WEBHOOKS, { namespace: "", name }, patch);
      this.#registrations.set(name, after);
      patched++;
    }
    return patched;
  }

  /** Offers the API server an object that only the webhook refuses. Nothing is stored. */
  async #isAsked(): Promise<boolean> {
    const { api, service, revision } = this.#options;
    const metadata = {
      name: "validation-probe",
      namespace: service.namespace,
      annotations: { [ALWAYS_REJECT]: "true" },
      labels: { "istio.io/rev": revision === "" ? "default" : revision },
    };
    try {
      await api.create(AUTHORIZATION_POLICIES, service.namespace, { metadata, spec: {} }, { dryRun: true });
      return false;
    } catch (error) {
      if (error instanceof KubeError && DENIED.test(error.message)) return true;
      throw error;
    }
  }
}
