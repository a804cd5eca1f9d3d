/** Istio's ztunnel at both ends: one dedicated proxy for each pod, configured from a file, redirected as in ambient mode. */
import { MeshError } from "../../../base/errors.ts";
import { ZTUNNEL_MARK } from "../../../cni/nft_rules.ts";
import { applyPodRules } from "../../../cni/pod_rules.ts";
import { Authority, CLIENT_URI } from "../certificates.ts";
import type { Cleanup } from "../cleanup.ts";
import { Program } from "../process.ts";
import { CLIENT_IP, type Place, SERVER_IP, type Topology } from "../topology.ts";
import { CA_PORT } from "./ca_server.ts";
import { isFile } from "./files.ts";
import { isListening } from "./listening.ts";
import { otherIp, otherName } from "./mesh_objects.ts";
import { type Peer, type RunningPeer, versionLine } from "./peer.ts";

const OUTBOUND_PORT = 15001, INBOUND_PORT = 15008;

export class Ztunnel implements Peer {
  readonly name = "ztunnel";
  readonly hasWorkers = true;
  readonly descriptorsPerConnection = 1;
  readonly #path: string;
  readonly #workloads: number;

  /** @param workloads how many of other nodes it knows. Throws AMB9007 when there is no program at `path`. */
  constructor(path: string, workloads: number) {
    if (!isFile(path)) {
      throw new MeshError("AMB9007", `${path} is no file`, {
        remedy: "Name a release build of ztunnel: --peer ztunnel=PATH.",
      });
    }
    this.#path = path;
    this.#workloads = workloads;
  }

  async describe(): Promise<string> {
    const line = await versionLine(this.#path, ["version"]);
    const revision = /GitRevision:"([0-9a-f]{7})/.exec(line)?.[1];
    return `ztunnel${revision === undefined ? "" : ` ${revision}`}, dedicated mode`;
  }

  async setup(topology: Topology, workers: number, cleanup: Cleanup): Promise<RunningPeer> {
    const { folder, client, server } = topology;
    const authority = await Authority.create();
    await authority.save(folder);
    Deno.writeTextFileSync(`${folder}/workloads.yaml`, localFile(this.#workloads));
    // The very rules that our own CNI makes, so that both data planes pay for the same redirection.
    for (const place of [client, server]) applyPodRules(place.netns, {});
    const inbound = await this.#start("server", server, { workers, folder, cleanup });
    const outbound = await this.#start("client", client, { workers, folder, cleanup });
    return {
      processes: [{ name: "out", pid: outbound.pid }, { name: "in", pid: inbound.pid }],
      tls: { port: INBOUND_PORT, ...await authority.issue({ uri: CLIENT_URI }), roots: authority.rootPem },
    };
  }

  async #start(
    role: "client" | "server",
    place: Place,
    { workers, folder, cleanup }: { workers: number; folder: string; cleanup: Cleanup },
  ): Promise<Program> {
    const entry = new URL("./ca_server.ts", import.meta.url).pathname;
    const args = ["run", "-A", "--quiet", entry, folder];
    const service = { command: Deno.execPath(), args, logPath: `${folder}/${role}-ca.log` };
    const ca = Program.start(`certificate service of ${role}`, place.netns, service, cleanup);
    await ca.ready("its listener", () => isListening(place.netns, CA_PORT));
    const environment = {
      PROXY_MODE: "dedicated",
      PROXY_WORKLOAD_INFO: `bench/${role}/${role}`,
      NODE_NAME: `${role}-node`,
      XDS_ADDRESS: "",
      LOCAL_XDS_PATH: `${folder}/workloads.yaml`,
      CA_ADDRESS: `https://127.0.0.1:${CA_PORT}`,
      CA_ROOT_CA: `${folder}/root-cert.pem`,
      PACKET_MARK: `${ZTUNNEL_MARK}`,
      ENABLE_ORIG_SRC: "true",
      ZTUNNEL_WORKER_THREADS: `${workers}`,
    };
    const options = { command: this.#path, args: ["proxy", "ztunnel"], environment, logPath: `${folder}/${role}.log` };
    const proxy = Program.start(`ztunnel of ${role}`, place.netns, options, cleanup);
    for (const port of [OUTBOUND_PORT, INBOUND_PORT]) {
      await proxy.ready(`port ${port}`, () => isListening(place.netns, port));
    }
    return proxy;
  }
}

function localFile(otherWorkloads: number): string {
  const workloads = [workload("client", CLIENT_IP), workload("server", SERVER_IP)];
  for (let at = 0; at < otherWorkloads; at++) {
    const own = { account: `app-${at >> 2}`, node: "other-node" };
    workloads.push(workload(otherName(at), otherIp(at), own));
  }
  return `workloads:
${workloads.join("\n")}
policies:
- name: clients-only
  namespace: bench
  scope: Namespace
  action: Allow
  dryRun: false
  rules:
  - - - principals:
        - !Exact cluster.local/ns/bench/sa/client
services: []
`;
}

function workload(name: string, ip: string, own = { account: name, node: `${name}-node` }): string {
  return `- uid: Kubernetes//Pod/bench/${name}
  name: ${name}
  namespace: bench
  serviceAccount: ${own.account}
  trustDomain: cluster.local
  workloadIps: ["${ip}"]
  protocol: HBONE
  node: ${own.node}
  network: ""
  clusterId: Kubernetes
  services: {}`;
}
