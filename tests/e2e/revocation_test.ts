/** Revocation lists in a running mesh: who is cut, who is not, and who is let in again (ZT-087 to ZT-089, ZT-078). */
import { assert, assertEquals } from "@std/assert";
import { Issuer } from "../../demo/lab/certificates.ts";
import { sumOf } from "../../demo/lab/metrics.ts";
import { Mesh, type Pod } from "../../demo/lab/mesh.ts";
import type { NodeName } from "../../demo/lab/network.ts";
import { NAME_PREFIX, sweepLeftovers } from "../../demo/lab/network.ts";
import { until } from "./mesh.ts";

const PORT = 7000,
  IN_FORCE = "revocation lists in force",
  REVOKED = "connection closed: peer certificate revoked by CRL";
const REJECTIONS = "istio_crl_policy_rejections_total", CUT_TIMEOUT_MS = 60_000;

interface Scene {
  readonly mesh: Mesh;
  readonly client: Pod;
  readonly bystander: Pod;
  readonly server: Pod;
  /** Replaces the file by a list of the mesh's CA with these pods' certificates; returns once both nodes have read it. */
  revoke(...pods: readonly Pod[]): Promise<void>;
  /** Refusals and cuts that a node has counted, under a reporter. */
  rejections(node: NodeName, reporter: string): Promise<number>;
}

async function withLists(body: (scene: Scene) => Promise<void>): Promise<void> {
  assert(Deno.uid() === 0, "network namespaces need root: run `deno task e2e` as root");
  sweepLeftovers();
  const folder = Deno.makeTempDirSync({ prefix: `${NAME_PREFIX}crl-${Deno.pid}-` }), path = `${folder}/crl.pem`;
  try {
    await using mesh = await Mesh.start({ key: "e2e", ztunnelEnvironment: { CRL_PATH: path } });
    const [client, bystander, server] = await Promise.all([
      mesh.addPod({ name: "client", namespace: "e2e", serviceAccount: "client", node: "node-a" }),
      mesh.addPod({ name: "bystander", namespace: "e2e", serviceAccount: "bystander", node: "node-a" }),
      mesh.addPod({ name: "server", namespace: "e2e", serviceAccount: "server", node: "node-b" }),
    ]);
    const issuer = await Issuer.ofMesh(`${mesh.folder}/state`);
    await body({
      mesh,
      client,
      bystander,
      server,
      async revoke(...pods) {
        const serials = await Promise.all(pods.map(serialOf));
        const nodes = Object.values(mesh.nodes), since = nodes.map(({ ztunnel }) => ztunnel.lineCount);
        Deno.writeTextFileSync(`${folder}/.new`, await issuer.revoke(["7f010203", ...serials]));
        Deno.renameSync(`${folder}/.new`, path);
        await Promise.all(
          nodes.map(({ ztunnel }, at) => ztunnel.line("the lists", (it) => it.includes(IN_FORCE), 60_000, since[at])),
        );
      },
      rejections: async (node, reporter) => sumOf(await mesh.nodes[node].metrics(), REJECTIONS, { reporter }),
    });
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

/** The number of a pod's certificate, in hexadecimal. */
async function serialOf(pod: Pod): Promise<string> {
  return await until(`the certificate of ${pod.spec.name}`, 60_000, async () => {
    const { certificates } = await pod.node.configDump() as unknown as {
      certificates: { identity: string; certChain: { serialNumber: string }[] }[];
    };
    const found = certificates.find(({ identity }) => identity === `spiffe://${pod.principal}`)?.certChain[0];
    if (found === undefined) return undefined;
    const hex = BigInt(found.serialNumber).toString(16);
    return hex.padStart(hex.length + hex.length % 2, "0");
  });
}

const ask = (from: Pod, to: Pod) => from.probe.attempt("line", { host: to.ipv4, port: PORT, text: "hello" });

async function startFlow(from: Pod, to: Pod): Promise<void> {
  await from.probe.do("startFlow", { host: to.ipv4, port: PORT });
}

for (const side of ["downstream", "upstream"] as const) {
  Deno.test(`a list that names a ${side} cuts what it has open under load and refuses it, others go on, and it is let in once it is off`, () =>
    withLists(async ({ mesh, client, bystander, server, revoke, rejections }) => {
      // Who is revoked, which node says so, and how that node counts it.
      const inbound = side === "downstream", revoked = inbound ? client : server;
      const [node, reporter] = inbound ? ["node-b", "destination"] as const : ["node-a", "source"] as const;
      await server.probe.do("listen", { port: PORT, kind: "line" });
      const neighbour = inbound ? server : bystander; // Somebody who is not revoked, for `bystander` or `client` to reach.
      if (!inbound) await bystander.probe.do("listen", { port: PORT, kind: "line" });
      const spared = inbound ? bystander : client;
      await startFlow(client, server);
      const { handle } = await client.probe.do("open", { host: server.ipv4, port: PORT });
      const idle = await spared.probe.do("open", { host: neighbour.ipv4, port: PORT });
      await revoke(); // An unrelated list: the file appears.
      assertEquals(await rejections(node, reporter), 0);
      assertEquals((await client.probe.do("say", { handle, text: "one" })).reply, `YOU ${client.ipv4} one`);

      const since = mesh.nodes[node].ztunnel.lineCount;
      await revoke(revoked);
      const record = await mesh.nodes[node].ztunnel.line(
        "the cut",
        (line) => line.includes(REVOKED) && line.includes(`direction="${inbound ? "inbound" : "outbound"}"`),
        CUT_TIMEOUT_MS,
        since,
      );
      assert(record.includes(client.ipv4), record);
      await until(
        "the open connection is over",
        CUT_TIMEOUT_MS,
        async () => (await client.probe.attempt("say", { handle, text: "two" })).failure !== undefined,
      );
      const flow = await client.probe.do("stopFlow", {});
      assert(flow.error !== "" && flow.exchanges > 0, "the load was cut, too");
      assert((await ask(client, server)).failure !== undefined, "nor is it let in anew");
      const bothCounted = async () => await rejections(node, reporter) >= 2;
      await until("the session that was cut, and the one that was refused, are counted", CUT_TIMEOUT_MS, bothCounted);
      assertEquals((await ask(spared, neighbour)).failure, undefined);
      assertEquals(
        (await spared.probe.do("say", { handle: idle.handle, text: "three" })).reply.split(" ").at(-1),
        "three",
      );

      await revoke();
      await until("it is let in again", CUT_TIMEOUT_MS, async () => (await ask(client, server)).failure === undefined);
    }));
}
