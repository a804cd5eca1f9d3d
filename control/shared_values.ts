/**
 * What is kept of objects, small: pods of one template have the same labels, ports and names of places, which
 * arrive anew with each of them. Values seen lately are used again; nothing here changes what an object says.
 */
import type { ContainerPort, ControllerReference, KubernetesObject, Labels, ObjectMeta, PodObject } from "./objects.ts";

// Templates in flight at once. A first list is in the order of names, so that few are enough; later changes are of few.
const SEEN_MAX = 4_096;
const NO_PORTS: readonly ContainerPort[] = [];
const NOTHING: Labels = new Map();
/** Annotations that mean anything here have it in their names. Others, such as kubectl's copy of the object, are dropped. */
const ISTIO = "istio.io/";

/** The last values by a text that is equal for equal values alone; when it is full it starts anew. */
class Seen<T> {
  readonly #values = new Map<string, T>();
  /** Those of them that are objects: one that is handed in again needs no text. */
  readonly #own = new WeakSet<object>();

  has(value: T & object): boolean {
    return this.#own.has(value);
  }

  of(text: string, value: () => T): T {
    let seen = this.#values.get(text);
    if (seen !== undefined) return seen;
    if (this.#values.size === SEEN_MAX) this.#values.clear();
    this.#values.set(text, seen = value());
    if (typeof seen === "object" && seen !== null) this.#own.add(seen);
    return seen;
  }
}

function textOf(labels: Labels): string {
  let text = "";
  for (const [key, value] of labels) text += `${key}=${value}\n`;
  return text;
}

export class SharedValues {
  readonly #texts = new Seen<string>();
  readonly #labels = new Seen<Labels>();
  readonly #ports = new Seen<readonly ContainerPort[]>();
  readonly #controllers = new Seen<ControllerReference>();

  /**
   * The same object, with what it has in common with others in common; itself, if that is so already, by whomever. Only
   * pods are many enough.
   */
  of(object: KubernetesObject): KubernetesObject {
    return object.kind === "Pod" ? this.#pod(object) : object;
  }

  #pod(pod: PodObject): PodObject {
    const meta = this.#meta(pod.meta), containerPorts = this.#sharedPorts(pod.containerPorts);
    if (meta === pod.meta && containerPorts === pod.containerPorts) return pod;
    const serviceAccountName = this.#text(pod.serviceAccountName), nodeName = this.#text(pod.nodeName);
    return { ...pod, meta, serviceAccountName, nodeName, containerPorts };
  }

  #sharedPorts(ports: readonly ContainerPort[]): readonly ContainerPort[] {
    if (ports.length === 0) return NO_PORTS;
    return this.#ports.has(ports) ? ports : this.#ports.of(JSON.stringify(ports), () => ports);
  }

  #meta(meta: ObjectMeta): ObjectMeta {
    const labels = this.#map(meta.labels), annotations = this.#annotations(meta.annotations);
    const controller = meta.controller && this.#controller(meta.controller);
    if (labels === meta.labels && annotations === meta.annotations && controller === meta.controller) return meta;
    const namespace = this.#text(meta.namespace), generateName = this.#text(meta.generateName);
    return { ...meta, namespace, generateName, labels, annotations, controller };
  }

  #controller(controller: ControllerReference): ControllerReference {
    if (this.#controllers.has(controller)) return controller;
    return this.#controllers.of(`${controller.kind}/${controller.name}`, () => controller);
  }

  #annotations(annotations: Labels): Labels {
    if (annotations === NOTHING || this.#labels.has(annotations)) return annotations;
    for (const key of annotations.keys()) {
      if (!key.includes(ISTIO)) return this.#map(new Map([...annotations].filter(([name]) => name.includes(ISTIO))));
    }
    return this.#map(annotations);
  }

  #map(labels: Labels): Labels {
    if (labels.size === 0) return NOTHING;
    return this.#labels.has(labels) ? labels : this.#labels.of(textOf(labels), () => labels);
  }

  #text(text: string): string {
    return text === "" ? text : this.#texts.of(text, () => text);
  }
}
