/** Which workloads are sent: this network's as they are, those of another as one for each service (CP-282, CP-283). */
import { serviceKey } from "../../mesh/service.ts";
import type { Workload } from "../../mesh/workload.ts";
import type { Engine } from "../collect/engine.ts";
import type { Collection } from "../collect/store.ts";
import type { NetworkCollections } from "./network_graph.ts";
import type { AmbientOptions } from "./options.ts";
import type { ServiceCollections } from "./service_graph.ts";
import type { MeshCells } from "./sources.ts";
import { identitiesOf, mergedService, splitHorizonWorkload } from "./split_horizon.ts";
import { winnerOf } from "./service_candidates.ts";

export interface SentWorkloads {
  readonly workloads: Collection<Workload>;
  /** By service, of its members on other networks; undefined with one network alone. */
  readonly identities: Collection<readonly string[]> | undefined;
}

/** Builds it. With one network alone every workload is sent. */
export function buildSentWorkloads(
  engine: Engine,
  { kinds, networks, services, mesh }: {
    readonly kinds: readonly Collection<Workload>[];
    readonly networks: NetworkCollections;
    readonly services: ServiceCollections;
    readonly mesh: MeshCells;
  },
  options: AmbientOptions,
): SentWorkloads {
  if (!options.multiNetwork) {
    return { workloads: engine.join("workloads", [...kinds, networks.workloads]), identities: undefined };
  }
  const all = engine.join("workloads of all networks", kinds);
  const near = engine.derive(
    "workloads of this network",
    all,
    (workload, fetch) => workload.network === fetch.value(networks.place).network ? workload : undefined,
  );
  const far = engine.derive(
    "workloads of other networks",
    all,
    (workload, fetch) => workload.network === fetch.value(networks.place).network ? undefined : workload,
  );
  const farByService = engine.index(far, "far workloads by service", ({ services }) => [...services.keys()]);
  const identities = engine.group("identities elsewhere", farByService, (members) => identitiesOf(members));
  const groups = engine.index(
    far,
    "far workloads by network and service",
    ({ network, services }) => [...services.keys()].map((key) => `${key}\n${network}`),
  );
  const merged = engine.deriveMany(
    "split-horizon workloads by uid",
    engine.group("split-horizon workloads", groups, (members, fetch, group) => {
      const [key = "", network = ""] = group.split("\n"), [gateway] = fetch.by(networks.gatewaysByNetwork, network);
      const claims = fetch.by(services.claims, key);
      const service = mergedService(
        winnerOf(claims.filter(({ suffix }) => suffix === "")),
        claims.filter(({ suffix }) => suffix !== ""),
      );
      if (gateway === undefined || service?.global !== true) return undefined;
      return splitHorizonWorkload(serviceKey(service.service.namespace, service.service.hostname), {
        service: service.service,
        gateway,
        members,
        trustDomain: fetch.value(mesh.trustDomain),
      });
    }),
    (workload) => [[workload.uid, workload]],
  );
  return { workloads: engine.join("workloads", [near, merged, networks.workloads]), identities };
}
