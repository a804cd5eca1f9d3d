/** At calm: what every worker's snapshot holds is what the control plane says, and what was refused never got there. */
import { equal } from "@std/assert";
import { AUTHORIZATION_TYPE_URL, decodeAuthorization } from "../../mesh/proto/authorization_codec.ts";
import { ADDRESS_TYPE_URL, decodeAddress } from "../../mesh/proto/workload_codec.ts";
import { type Policy, PolicyScope } from "../../mesh/policy.ts";
import { type Service, serviceKey } from "../../mesh/service.ts";
import type { Workload } from "../../mesh/workload.ts";
import { hold } from "./chance.ts";
import type { SimControl } from "./control.ts";
import type { ControlBooks } from "./control_books.ts";
import type { SimNode } from "./node.ts";

interface Meant {
  readonly workloads: readonly Workload[];
  readonly services: readonly Service[];
  readonly policies: readonly Policy[];
}

/** Throws a violation unless each worker of the node sees the control plane's mesh. */
export function checkConverged(control: SimControl, node: SimNode, books: ControlBooks): void {
  const meant = meantFor(control, books);
  for (const [index, { shard: { view } }] of node.workers.entries()) {
    const who = `worker ${index} of node${node.options.index}`;
    for (const workload of meant.workloads) {
      const [address] = workload.addresses;
      if (address === undefined) continue; // Of another network: seen as an endpoint, below.
      const found = view.workloadAt(workload.network, ...address);
      hold(found !== undefined && equal(found, workload), `${who} sees ${workload.uid} as the control plane says it`);
      const policies = [...view.policiesFor(found)].sort(byKey),
        due = meant.policies.filter((it) => inScope(it, workload));
      hold(equal(policies, due), `${who} holds ${workload.uid} to ${keys(due)}, not to ${keys(policies)}`);
    }
    for (const service of meant.services) {
      const found = view.serviceNamed(service.namespace, service.hostname);
      hold(
        found !== undefined && equal(found, service),
        `${who} sees ${service.hostname} as the control plane says it`,
      );
      const key = serviceKey(service.namespace, service.hostname);
      const members = meant.workloads.filter((it) => it.services.has(key)).map((it) => it.uid).sort();
      const endpoints = view.endpointsOf(found).map((it) => it.uid).sort();
      hold(endpoints.join() === members.join(), `${who} sees the endpoints ${members}, not ${endpoints}`);
    }
  }
  const names = [...control.of(ADDRESS_TYPE_URL)].filter((it) => !it.bad || isHeld(books, ADDRESS_TYPE_URL, it.name));
  const count = node.state.workloads.size + node.state.services.size;
  hold(count === names.length, `node${node.options.index} knows ${names.length} addresses, not ${count}`);
}

/** What is good as it is; what is bad as the node had it before, if it did. */
function meantFor(control: SimControl, books: ControlBooks): Meant {
  const workloads: Workload[] = [], services: Service[] = [], policies: Policy[] = [];
  for (const { name, bytes, bad } of control.of(ADDRESS_TYPE_URL)) {
    const inForce = bad ? books.heldBytes(ADDRESS_TYPE_URL, name) : bytes;
    if (inForce === undefined) continue;
    const { workload, service } = decodeAddress(inForce);
    if (workload !== undefined) workloads.push(workload);
    if (service !== undefined) services.push(service);
  }
  for (const { name, bytes, bad } of control.of(AUTHORIZATION_TYPE_URL)) {
    const inForce = bad ? books.heldBytes(AUTHORIZATION_TYPE_URL, name) : bytes;
    if (inForce !== undefined) policies.push(decodeAuthorization(inForce, name));
  }
  return { workloads, services, policies: policies.sort(byKey) };
}

function isHeld(books: ControlBooks, typeUrl: string, name: string): boolean {
  return books.heldBytes(typeUrl, name) !== undefined;
}

function inScope({ scope, namespace }: Policy, workload: Workload): boolean {
  return scope === PolicyScope.GLOBAL || (scope === PolicyScope.NAMESPACE && namespace === workload.namespace);
}

function byKey(one: Policy, other: Policy): number {
  return one.key < other.key ? -1 : 1;
}

function keys(policies: readonly Policy[]): string {
  return policies.map((it) => it.key).join() || "none";
}
