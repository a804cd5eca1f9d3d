/** haproxy at both ends: TCP in, mutual TLS between, TCP out. No HBONE: every connection is a TLS session of its own. */
import { Authority, CLIENT_URI, SERVER_URI } from "../certificates.ts";
import type { Cleanup } from "../cleanup.ts";
import { PORTS } from "../load/messages.ts";
import { descriptorsMax } from "../machine.ts";
import { Program } from "../process.ts";
import { SERVER_IP, type Topology } from "../topology.ts";
import { isListening } from "./listening.ts";
import { type Peer, type RunningPeer, versionLine } from "./peer.ts";
import { redirectPorts } from "./redirect.ts";

const LOCAL_OFFSET = 1000, TLS_OFFSET = 2000; // 9001 is taken in on 10001 and travels to 11001.

export class Haproxy implements Peer {
  readonly name = "haproxy";
  readonly hasWorkers = true;
  readonly descriptorsPerConnection = 2;

  describe(): Promise<string> {
    return versionLine("haproxy", ["-v"]);
  }

  async setup(topology: Topology, workers: number, cleanup: Cleanup): Promise<RunningPeer> {
    const { folder, client, server } = topology;
    const authority = await Authority.create();
    const clientLeaf = await authority.issue({ uri: CLIENT_URI }),
      serverLeaf = await authority.issue({ uri: SERVER_URI });
    Deno.writeTextFileSync(`${folder}/root.pem`, authority.rootPem);
    Deno.writeTextFileSync(`${folder}/client.pem`, clientLeaf.chain + clientLeaf.privateKey);
    Deno.writeTextFileSync(`${folder}/server.pem`, serverLeaf.chain + serverLeaf.privateKey);
    Deno.writeTextFileSync(
      `${folder}/out.cfg`,
      configuration(workers, (port) => {
        const tls = `ssl verify required ca-file ${folder}/root.pem crt ${folder}/client.pem no-ssl-reuse`;
        return [`:${port + LOCAL_OFFSET}`, `${SERVER_IP}:${port + TLS_OFFSET} ${tls}`];
      }),
    );
    Deno.writeTextFileSync(
      `${folder}/in.cfg`,
      configuration(workers, (port) => {
        const tls = `ssl crt ${folder}/server.pem ca-file ${folder}/root.pem verify required ssl-min-ver TLSv1.3`;
        return [`:${port + TLS_OFFSET} ${tls}`, `${SERVER_IP}:${port}`];
      }),
    );
    redirectPorts(client.netns, Object.values(PORTS).map((port) => [port, port + LOCAL_OFFSET]), folder);
    const start = (name: "out" | "in", place: typeof client) => {
      const options = {
        command: "haproxy",
        args: ["-db", "-f", `${folder}/${name}.cfg`],
        logPath: `${folder}/${name}.log`,
      };
      return Program.start(`haproxy ${name}`, place.netns, options, cleanup);
    };
    const inbound = start("in", server), outbound = start("out", client);
    await inbound.ready("its listener", () => isListening(server.netns, PORTS.oneShot + TLS_OFFSET));
    await outbound.ready("its listener", () => isListening(client.netns, PORTS.oneShot + LOCAL_OFFSET));
    return {
      processes: [{ name: "out", pid: outbound.pid }, { name: "in", pid: inbound.pid }],
      tls: { port: PORTS.echo + TLS_OFFSET, ...clientLeaf, roots: authority.rootPem },
    };
  }
}

/** Defaults, but for limits that the loads would hit and an access log, which every other peer writes too. */
function configuration(workers: number, sides: (port: number) => [string, string]): string {
  const sections = Object.entries(PORTS).map(([name, port]) => {
    const [bind, upstream] = sides(port);
    return `listen ${name}\n  bind ${bind}\n  server upstream ${upstream}\n`;
  });
  // It refuses to start with more than its open files allow: two each, and some of its own.
  const connectionsMax = Math.min(16_000, Math.floor(descriptorsMax() / 2) - 100);
  return `global
  nbthread ${workers}
  maxconn ${connectionsMax}
  log stdout format raw local0
defaults
  mode tcp
  log global
  option tcplog
  maxconn ${connectionsMax}
  timeout connect 10s
  timeout client 10m
  timeout server 10m
${sections.join("")}`;
}
