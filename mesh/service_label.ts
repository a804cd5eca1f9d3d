/** Which service an inbound connection is reported for (ZT-098). */
import type { Service } from "./service.ts";
import type { MeshView } from "./view.ts";
import type { Workload } from "./workload.ts";

/**
 * The service that the client named, if the workload belongs to it; else the first of the workload's services that leads
 * to `port` by its own target port or by this workload's mapping.
 * @param forwardedHost the `host=` of the `forwarded` header.
 */
export function inboundService(
  view: MeshView,
  local: Workload,
  forwardedHost: string | undefined,
  port: number,
): Service | undefined {
  let byPort: Service | undefined;
  for (const [key, mappings] of local.services) {
    const slash = key.indexOf("/");
    const service = view.serviceNamed(key.slice(0, slash), key.slice(slash + 1));
    if (service === undefined) continue;
    if (service.hostname === forwardedHost) return service;
    if (byPort !== undefined || port === 0) continue; // A target port of 0 is a name, not a port.
    const leadsToPort = mappings.some((mapping) => mapping.targetPort === port) ||
      service.ports.some((definition) => definition.targetPort === port);
    if (leadsToPort) byPort = service;
  }
  return byPort;
}
