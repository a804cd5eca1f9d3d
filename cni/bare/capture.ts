/** How the traffic of one enrolled target is captured: by the backend in its own namespace, or by its slot in the host's. */
import type { EnrolRequest } from "../../mesh/enrolment.ts";
import type { SharedNetns } from "../../mesh/proto/zds_codec.ts";
import type { Awaitable, PodRedirection, PodRuleOptions } from "../redirection/redirection.ts";
import type { Place } from "./place.ts";
import type { SharedNode } from "./shared_node.ts";
import { SHARED_PORTS } from "./shared_statements.ts";

/** Each step can be repeated. Throws MeshError. */
export interface Capture {
  apply(): Awaitable<void>;
  /** Nothing new; what ztunnel carries keeps its way. */
  release(): Awaitable<void>;
  remove(): Awaitable<void>;
  /** What is missing or different, in words; of those in the host's namespace it is looked at all of them together. */
  check(): Awaitable<string[]>;
  /** What of it is not captured though it was asked for, in words. */
  remarks(): readonly string[];
}

export interface CaptureMeans {
  readonly redirection: PodRedirection;
  readonly shared: SharedNode;
  /** What holds for all, where a request says nothing else. */
  readonly rules: PodRuleOptions;
}

export function captureOf(place: Place, request: EnrolRequest, slot: number | undefined, means: CaptureMeans): Capture {
  const { redirection, shared, rules } = means, { netns, cgroup } = place;
  if (cgroup !== undefined && slot !== undefined) {
    const wanted = sharedRequestOf(request, rules);
    return {
      apply: () => shared.apply(slot, cgroup, wanted),
      release: () => shared.release(slot),
      remove: () => shared.delete(slot),
      check: () => [],
      remarks: () => shared.remarks(slot),
    };
  }
  const { dnsCapture = rules.dnsCapture, ingress = rules.ingress, exclude = rules.exclude } = request;
  const options = { ...rules, dnsCapture, ingress, exclude };
  return {
    apply: () => redirection.apply(netns, options),
    release: () => redirection.release(netns),
    remove: () => redirection.remove(netns),
    check: () => redirection.check(netns, options),
    remarks: () => [],
  };
}

/** What ztunnel is told of a workload in the host's namespace; undefined for one that has a namespace to itself. */
export function sharedNetnsOf(
  request: EnrolRequest,
  slot: number | undefined,
  rules: PodRuleOptions,
): SharedNetns | undefined {
  if (slot === undefined) return undefined;
  const { inboundPorts = [], exclude, ingress, address = "" } = request;
  return {
    outboundPort: SHARED_PORTS.outbound + slot,
    plaintextPort: SHARED_PORTS.plaintext + slot,
    inboundPorts: ingress === true ? [] : inboundPorts.filter((port) => exclude?.inboundPorts.includes(port) !== true),
    address,
    dnsPort: sharedRequestOf(request, rules).dnsCapture === true ? SHARED_PORTS.dns + slot : 0,
  };
}

/** What it says nothing of is as the node agent is set. */
export const sharedRequestOf = (request: EnrolRequest, { dnsCapture }: PodRuleOptions): EnrolRequest => ({
  ...request,
  dnsCapture: request.dnsCapture ?? dnsCapture,
});
