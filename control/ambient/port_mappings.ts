/** Which port of a workload a service's port means there (CP-210 to CP-214). Pure. */
import type { PortMapping } from "../../mesh/workload.ts";
import type { EntryEndpoint, PodObject, SlicePort } from "../objects.ts";
import type { CandidatePort, ServiceCandidate } from "./service_candidates.ts";

function mapPorts(
  candidate: ServiceCandidate,
  targetOf: (port: CandidatePort) => number | undefined,
): readonly PortMapping[] {
  const mappings: PortMapping[] = [];
  for (const port of candidate.ports) {
    const targetPort = targetOf(port);
    if (targetPort !== undefined) mappings.push({ servicePort: port.port, targetPort });
  }
  return mappings;
}

/** A port the pod's containers name; containers first, then sidecars (CP-210). */
function containerPort(pod: PodObject, name: string): number | undefined {
  return pod.containerPorts.find((port) => port.protocol === "TCP" && port.name === name)?.port;
}

/** A service's ports on a pod (CP-210, CP-211). */
export function portsOnPod(candidate: ServiceCandidate, pod: PodObject): readonly PortMapping[] {
  if (candidate.fromKubernetes) {
    return mapPorts(candidate, ({ target }) => typeof target === "string" ? containerPort(pod, target) : target);
  }
  return mapPorts(candidate, ({ name, port, target }) => {
    const named = name === "" ? undefined : containerPort(pod, name);
    return named ?? (Number(target) || port);
  });
}

/** A service's ports on a WorkloadEntry or a ServiceEntry's own endpoint (CP-212). */
export function portsOnEntry(candidate: ServiceCandidate, endpoint: EntryEndpoint): readonly PortMapping[] {
  return mapPorts(candidate, ({ name, port, target }) => {
    if (typeof target === "string") return endpoint.ports.get(target);
    return endpoint.ports.get(name) ?? (target || port);
  });
}

/** A service's ports on an endpoint of one of its slices: joined by name (CP-214). */
export function portsOnSlice(candidate: ServiceCandidate, ports: readonly SlicePort[]): readonly PortMapping[] {
  return mapPorts(
    candidate,
    ({ name }) => ports.find((it) => it.protocol === "TCP" && it.port > 0 && it.name === name)?.port,
  );
}
