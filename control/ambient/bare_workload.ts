/** What is said of a workload that is an address and no more: an endpoint that nobody describes, or a gateway of another network. */
import { TunnelProtocol, WorkloadType } from "../../mesh/workload.ts";

export const BARE_WORKLOAD = Object.freeze({
  tunnelProtocol: TunnelProtocol.NONE,
  node: "",
  canonicalName: "",
  canonicalRevision: "",
  workloadType: WorkloadType.DEPLOYMENT,
  workloadName: "",
  nativeTunnel: false,
  authorizationPolicies: Object.freeze([]) as readonly string[],
  capacity: 1,
});
