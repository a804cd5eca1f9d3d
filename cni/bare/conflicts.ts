/** Which enrolments cannot stand beside each other on a node. Pure. */
import { MeshError } from "../../base/errors.ts";
import type { EnrolRequest } from "../../mesh/enrolment.ts";
import { type Place, samePlace } from "./place.ts";

/** One that is enrolled, or is to be. */
export interface Standing {
  readonly uid: string;
  readonly request: EnrolRequest;
  /** undefined: its unit does not run. */
  readonly place: Place | undefined;
}

export const identityOf = ({ namespace, serviceAccount, name }: EnrolRequest) =>
  `pod ${namespace}/${name} with service account ${serviceAccount}`;

/**
 * Throws AMB7105 where the target is enrolled as somebody else, AMB7102 where its place is another's, AMB7165 where a port of
 * the host is, and AMB7166 where two identities would have to answer at one address.
 */
export function refuseConflicts(wanted: Standing, standing: Iterable<Standing>): void {
  for (const other of standing) {
    if (other.uid === wanted.uid) refuseOtherIdentity(wanted.request, other.request);
    else refusePlace(wanted, other);
  }
}

function refuseOtherIdentity(wanted: EnrolRequest, present: EnrolRequest): void {
  if (identityOf(present) === identityOf(wanted)) return;
  throw new MeshError("AMB7105", `${wanted.target.text} is enrolled as ${identityOf(present)}`, {
    remedy: `Unenrol it first: ambit unenroll ${wanted.target.text}`,
  });
}

function refusePlace(wanted: Standing, other: Standing): void {
  const { request, place } = wanted, present = other.request;
  if (place !== undefined && other.place !== undefined && samePlace(place, other.place)) {
    throw new MeshError("AMB7102", `${request.target.text} is what ${present.target.text} is`, {
      remedy: "Name it as it was enrolled; one network namespace or control group is one workload.",
    });
  }
  if (!meet(request, present)) return;
  const port = request.inboundPorts!.find((it) => present.inboundPorts!.includes(it));
  if (port !== undefined) {
    throw new MeshError("AMB7165", `port ${port} of this host is ${present.target.text}'s already`, {
      remedy: "Leave it out of --ports, or give both workloads an --address of their own that they listen on.",
    });
  }
  if (request.namespace === present.namespace && request.serviceAccount === present.serviceAccount) return;
  throw new MeshError(
    "AMB7166",
    `${request.target.text} and ${present.target.text} serve at one address of this host, and have different service accounts`,
    {
      remedy: "A peer dials an address, and one certificate answers there: give each an --address of its own that it " +
        "listens on, or one service account, or a network namespace to one of them.",
    },
  );
}

/** Whether both are reached at one address of the host. */
function meet(one: EnrolRequest, other: EnrolRequest): boolean {
  const reached = ({ inboundPorts = [], ingress }: EnrolRequest) => inboundPorts.length > 0 && ingress !== true;
  if (!reached(one) || !reached(other)) return false;
  return one.address === undefined || other.address === undefined || one.address === other.address;
}
