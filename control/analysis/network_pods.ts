/** Pods as NetworkPolicies and the mesh see them: pods that are alike count as one (CNI-190). */
import { type Fields, isFields } from "../../base/plain.ts";
import { tunnelOf } from "../ambient/labels.ts";
import type { NamedPorts } from "./network_policy.ts";

/** What all pods of one kind have in common. */
export interface PodKind {
  readonly namespace: string;
  readonly labels: ReadonlyMap<string, string>;
  readonly tcpPorts: readonly number[];
  readonly namedPorts: NamedPorts;
  /** TCP ports on which the kubelet looks whether they live. */
  readonly probedPorts: readonly number[];
  readonly families: readonly ("ipv4" | "ipv6")[];
  /** `shop/cart-1`, the first that was seen. */
  readonly example: string;
  /** Whether its peers in the mesh speak to it by HBONE, now or once it is enrolled. */
  inMesh: boolean;
}

const MODE = "istio.io/dataplane-mode", REDIRECTION = "ambient.istio.io/redirection";
const SIDECAR = "sidecar.istio.io/status";

/** Collects raw pods and namespaces, of which the mesh itself keeps less than is needed here. */
export class NetworkPods {
  readonly #namespaces = new Map<string, ReadonlyMap<string, string>>();
  /** As selectors see a namespace: with its name among its labels. */
  readonly #labels = new Map<string, ReadonlyMap<string, string>>();
  readonly #kinds = new Map<string, PodKind & { readonly wanted: string | undefined }>();

  addNamespace(object: Fields): void {
    const { name, labels } = fieldsOf(object.metadata);
    this.#namespaces.set(textOf(name), textsOf(labels));
  }

  addPod(object: Fields): void {
    const metadata = fieldsOf(object.metadata), spec = fieldsOf(object.spec), status = fieldsOf(object.status);
    if (spec.hostNetwork === true || status.phase === "Succeeded" || status.phase === "Failed") return;
    const labels = textsOf(metadata.labels), annotations = textsOf(metadata.annotations);
    const containers = [...itemsOf(spec.containers), ...itemsOf(spec.initContainers)];
    const ports = containers.flatMap(({ ports }) => itemsOf(ports)).filter((it) => (it.protocol ?? "TCP") === "TCP");
    const namedPorts = new Map<string, number[]>();
    for (const { name, containerPort } of ports) {
      if (typeof name !== "string" || typeof containerPort !== "number") continue;
      namedPorts.set(name, [...namedPorts.get(name) ?? [], containerPort]);
    }
    const namespace = textOf(metadata.namespace) || "default", tcpPorts = ports.map((it) => Number(it.containerPort));
    const probedPorts = containers.flatMap((it) => probedPortsOf(it, namedPorts));
    const families = familiesOf(status), enrolled = ["enabled", "pending"].includes(annotations.get(REDIRECTION) ?? "");
    const inMesh = tunnelOf(labels, annotations).hbone || enrolled;
    const wanted = annotations.has(SIDECAR) ? "none" : labels.get(MODE); // Undefined: as its namespace has it.
    const key = JSON.stringify([
      namespace,
      [...labels].sort(),
      tcpPorts,
      [...namedPorts],
      probedPorts,
      families,
      inMesh,
      wanted,
    ]);
    if (this.#kinds.has(key)) return;
    const example = `${namespace}/${textOf(metadata.name)}`;
    this.#kinds.set(key, { namespace, labels, tcpPorts, namedPorts, probedPorts, families, example, inMesh, wanted });
  }

  labelsOf(namespace: string): ReadonlyMap<string, string> {
    let labels = this.#labels.get(namespace);
    if (labels === undefined) {
      labels = new Map([...this.#namespaces.get(namespace) ?? [], ["kubernetes.io/metadata.name", namespace]]);
      this.#labels.set(namespace, labels);
    }
    return labels;
  }

  /** All kinds, each with whether it is, or is asked to be, in the mesh. */
  kinds(): readonly PodKind[] {
    return [...this.#kinds.values()].map(({ wanted, inMesh, ...kind }) => {
      const asked = wanted ?? this.#namespaces.get(kind.namespace)?.get(MODE);
      return { ...kind, inMesh: inMesh || asked === "ambient" };
    });
  }
}

/** The node's own questions, which start at the node and come from one address (CNI-180); a command asks from inside. */
function probedPortsOf(container: Fields, named: NamedPorts): number[] {
  const numbers = [container.livenessProbe, container.readinessProbe, container.startupProbe].flatMap((probe) => {
    const { httpGet, tcpSocket, grpc } = fieldsOf(probe);
    return [httpGet, tcpSocket, grpc].flatMap((it) => {
      const { port, host } = fieldsOf(it);
      if (textOf(host) !== "") return []; // It is somebody else who is asked.
      return typeof port === "number" ? [port] : named.get(textOf(port)) ?? [];
    });
  });
  return [...new Set(numbers)].sort((left, right) => left - right);
}

function familiesOf({ podIP, podIPs }: Fields): PodKind["families"] {
  const ips = [textOf(podIP), ...itemsOf(podIPs).map(({ ip }) => textOf(ip))].filter((it) => it !== "");
  const found = new Set(ips.map((it) => it.includes(":") ? "ipv6" as const : "ipv4" as const));
  return [...found].sort();
}

const fieldsOf = (value: unknown): Fields => isFields(value) ? value : {};
const itemsOf = (value: unknown): Fields[] => Array.isArray(value) ? value.filter(isFields) : [];
const textOf = (value: unknown): string => typeof value === "string" ? value : "";
const textsOf = (value: unknown): Map<string, string> =>
  new Map(Object.entries(fieldsOf(value)).filter((it): it is [string, string] => typeof it[1] === "string"));
