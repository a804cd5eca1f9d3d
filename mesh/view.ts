/** What the decisions need to see of the mesh. The data plane answers from shared memory, tests from plain maps. */
import type { Policy } from "./policy.ts";
import type { Service } from "./service.ts";
import type { Workload } from "./workload.ts";

/** Read access to one generation of the mesh. Addresses are four words (base/address.ts). Lookups never throw. */
export interface MeshView {
  /** The workload that owns the address; never one on the host's network (ZT-023); the preferred one if several do (ZT-024). */
  workloadAt(network: string, word0: number, word1: number, word2: number, word3: number): Workload | undefined;
  /**
   * The service whose VIP (exact first, then CIDR) this is, as the client's namespace sees it (ZT-018).
   * `clientNamespace` undefined: visibility is not enforced (ZT-141).
   */
  serviceAt(
    network: string,
    word0: number,
    word1: number,
    word2: number,
    word3: number,
    clientNamespace: string | undefined,
  ): Service | undefined;
  /** The service with exactly this key (ZT-140). */
  serviceNamed(namespace: string, hostname: string): Service | undefined;
  /** Every service of that hostname, whatever its namespace, in stable order (ZT-091). */
  servicesOfHostname(hostname: string): readonly Service[];
  /** A workload with exactly this namespace and hostname (ZT-036). */
  workloadNamed(namespace: string, hostname: string): Workload | undefined;
  /** The service's stored endpoints: known workloads, health-filtered already (ZT-137). The array is shared; do not change it. */
  endpointsOf(service: Service): readonly Workload[];
  /** Policies in force for a destination workload: GLOBAL, its NAMESPACE, then those it names that are known (ZT-106). Dry runs included. */
  policiesFor(workload: Workload): readonly Policy[];
}
