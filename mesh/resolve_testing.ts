/** For tests of resolve(): a case as data, and a route as one line. */
import { assertEquals } from "@std/assert";
import { formatSocketAddress } from "../base/address.ts";
import { type MeshState, PlainMeshView } from "./plain_view.ts";
import { resolve } from "./resolve.ts";
import type { Route } from "./route.ts";
import type { Service } from "./service.ts";
import { ip, service, serving, workload } from "./testing.ts";
import type { Workload } from "./workload.ts";

const client = workload("client", "10.0.0.1");
export const HBONE = { tunnelProtocol: 1 } as const;

interface Case {
  claim: string;
  state: MeshState;
  to: string;
  port?: number;
  source?: Workload;
  random?: number;
  expected: string;
}

/** A route as one line: kind, address, authority, workload, service, "waypoint". */
export function summary(route: Route): string {
  if (route.kind === "refused") return `refused ${route.reason}`;
  if (route.kind === "hostname") {
    const example = ip(route.wantsIpv4 ? "192.0.2.1" : "2001:db8::1");
    return `by ${route.workload.hostname}: ${summary(route.onward(example))}`;
  }
  const address = formatSocketAddress(route.ip, route.port);
  if (route.kind === "passthrough") return `passthrough ${address}`;
  const parts = [route.kind, address];
  if (route.kind === "hbone" || route.kind === "doubleHbone") parts.push(`for ${route.authority}`);
  parts.push(`at ${route.workload.name}`);
  if (route.service !== undefined) parts.push(`of ${route.service.name}`);
  if (route.kind === "hbone" && route.viaWaypoint) parts.push("via waypoint");
  return parts.join(" ");
}

/** What resolve() decides in this mesh. */
export function route({ state, to, port = 80, source = client, random = 0 }: Omit<Case, "claim" | "expected">): Route {
  const view = new PlainMeshView({ ...state, workloads: [source, ...state.workloads ?? []] });
  const [word0, word1, word2, word3] = ip(to);
  return resolve(view, source, { network: "", word0, word1, word2, word3, port }, () => random);
}

/** Every case comes to what it expects. */
export function check(cases: Case[]): void {
  for (const { claim, expected, ...input } of cases) assertEquals(summary(route(input)), expected, claim);
}

/** An endpoint of {@link svc}. */
export const backend = (name: string, address: string, fields: Partial<Workload> = {}) =>
  workload(name, address, { services: serving({ "ns1/svc.example": "80:8080" }), ...fields });
/** The service that cases ask for: 10.96.0.1, port 80 to 8080. */
export const svc = (fields: Partial<Service> = {}) => service("svc", "10.96.0.1", "80:8080", fields);
