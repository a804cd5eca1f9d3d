/** Rows of a snapshot as domain objects. */
import { assert } from "../../base/assert.ts";
import type { Policy } from "../../mesh/policy.ts";
import { decodeAuthorization } from "../../mesh/proto/authorization_codec.ts";
import { decodeAddress } from "../../mesh/proto/workload_codec.ts";
import type { Service } from "../../mesh/service.ts";
import type { Workload } from "../../mesh/workload.ts";
import { RowKind } from "./snapshot_format.ts";
import type { SnapshotSlot } from "./snapshot_slot.ts";

export function decodeWorkload(slot: SnapshotSlot, row: number): Workload {
  assert(slot.kindOf(row) === RowKind.WORKLOAD, "a workload's key leads to a workload's row");
  const { workload } = decodeAddress(slot.contentOf(row));
  assert(workload !== undefined, "the agent decoded the same bytes before");
  return workload;
}

export function decodeService(slot: SnapshotSlot, row: number): Service {
  assert(slot.kindOf(row) === RowKind.SERVICE, "a service's key leads to a service's row");
  const { service } = decodeAddress(slot.contentOf(row));
  assert(service !== undefined, "the agent decoded the same bytes before");
  return service;
}

export function decodePolicy(slot: SnapshotSlot, row: number): Policy {
  assert(slot.kindOf(row) === RowKind.POLICY, "a policy's key leads to a policy's row");
  const content = slot.contentOf(row);
  // The content starts with the resource's name, which the message does not carry.
  const keyEnd = 2 + content[0]! + content[1]! * 256;
  const key = new TextDecoder().decode(content.subarray(2, keyEnd));
  return decodeAuthorization(content.subarray(keyEnd), key);
}
