/** Follows what says which revision a tag points to: webhooks, and Services of the system namespace (CP-661). */
import { isFields } from "../../base/plain.ts";
import { ignore } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { InformerChange, KubeApi, ResourceType, Scope } from "../../kube/api.ts";
import { startInformer } from "../../kube/informer.ts";
import { MUTATING_WEBHOOKS, SERVICES, VALIDATING_WEBHOOKS } from "../../kube/resource_types.ts";
import { DEFAULT_VALIDATOR, type RevisionTags, type TagSource } from "./revision_tags.ts";

export interface TagWatch {
  /** Resolves once all of it is known; rejects when stopped before. */
  readonly synced: Promise<void>;
  readonly stopped: Promise<void>;
}

/** Fills the tags until the signal. A missing permission leaves them as if there were none, and is logged by the informer. */
export function watchTags(
  { api, namespace, tags, log }: { api: KubeApi; namespace: string; tags: RevisionTags; log: Logger },
  signal: AbortSignal,
): TagWatch {
  const watch = (type: ResourceType, scope: Scope) => {
    const onChange = (changes: readonly InformerChange[]) => {
      for (const { name, object } of changes) {
        tags.note(type.kind as TagSource, name, object === undefined ? undefined : labelsOf(object.metadata["labels"]));
      }
    };
    return startInformer(api, type, { ...scope, metadataOnly: true }, { onChange, log }, signal);
  };
  const informers = [
    watch(MUTATING_WEBHOOKS, { labelSelector: "istio.io/tag" }),
    watch(VALIDATING_WEBHOOKS, { fieldSelector: `metadata.name=${DEFAULT_VALIDATOR}` }),
    watch(SERVICES, { namespace, labelSelector: "istio.io/tag" }),
  ];
  const synced = Promise.all(informers.map((it) => it.synced)).then(() => {});
  ignore(synced.catch((error) => error), "whoever waits for it hears of it; nobody has to wait");
  return {
    synced,
    stopped: Promise.all(informers.map((it) => it.stopped)).then(() => {}),
  };
}

function labelsOf(value: unknown): ReadonlyMap<string, string> {
  const entries = isFields(value) ? Object.entries(value) : [];
  return new Map(entries.filter((entry): entry is [string, string] => typeof entry[1] === "string"));
}
