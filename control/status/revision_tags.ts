/** Which revisions and tags are ours, and which one is the mesh's default (CP-661, CP-662). No I/O. */
import type { Labels } from "../objects.ts";

const REVISION_LABEL = "istio.io/rev";
const TAG_LABEL = "istio.io/tag";
const DEFAULT_TAG = "default";
const DEFAULT_TAG_WEBHOOK = "istio-revision-tag-default";
export const DEFAULT_VALIDATOR = "istiod-default-validator";

/** What may say that a tag, or the default, points to a revision. */
export type TagSource = "MutatingWebhookConfiguration" | "Service" | "ValidatingWebhookConfiguration";

interface Tag {
  readonly source: TagSource;
  readonly tag: string;
  readonly revision: string;
}

export class RevisionTags {
  readonly #own: string;
  readonly #tags = new Map<string, Tag>();
  readonly #listeners = new Set<() => void>();

  /** @param revision empty counts as `default`. */
  constructor(revision: string) {
    this.#own = revision || "default";
  }

  /** Takes note of an object that may carry a tag, or that it is gone. */
  note(source: TagSource, name: string, labels: Labels | undefined): void {
    const key = `${source}/${name}`, before = this.#tags.get(key);
    const tag = source === "ValidatingWebhookConfiguration" ? "" : labels?.get(TAG_LABEL);
    const revision = labels?.get(REVISION_LABEL) ?? "";
    if (before?.tag === tag && before?.revision === revision) return;
    if (labels === undefined || tag === undefined) this.#tags.delete(key);
    else this.#tags.set(key, { source, tag, revision });
    for (const listener of [...this.#listeners]) listener();
  }

  /** Our revision and the tags that point to it. */
  mine(): ReadonlySet<string> {
    const tags = [...this.#tags.values()].filter(({ tag, revision }) => tag !== "" && revision === this.#own);
    return new Set([this.#own, ...tags.map(({ tag }) => tag)]);
  }

  /** The revision that the tag `default` points to; undefined while nothing says so. */
  get defaultRevision(): string | undefined {
    const webhook = this.#tags.get(`MutatingWebhookConfiguration/${DEFAULT_TAG_WEBHOOK}`);
    if (webhook !== undefined) return webhook.revision || undefined;
    return this.#defaultTag()?.revision || undefined;
  }

  /** Whether we serve what names no revision. */
  get areWeDefault(): boolean {
    if (this.mine().has(DEFAULT_TAG)) return true;
    if (this.#defaultTag() !== undefined) return false; // A tag wins over the validator's revision.
    return this.#tags.get(`ValidatingWebhookConfiguration/${DEFAULT_VALIDATOR}`)?.revision === this.#own;
  }

  /** Whether an object is ours to write to. @param namespace the labels of its namespace; undefined if that is not known. */
  isMine(labels: Labels, namespace: Labels | undefined): boolean {
    const own = labels.get(REVISION_LABEL);
    if (own === undefined && namespace === undefined) return true;
    const selected = own ?? namespace?.get(REVISION_LABEL) ?? "";
    return selected === "" ? this.areWeDefault : this.mine().has(selected);
  }

  /** Calls back after each change, until the returned function is called. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  #defaultTag(): Tag | undefined {
    return [...this.#tags.values()].find(({ tag }) => tag === DEFAULT_TAG);
  }
}
