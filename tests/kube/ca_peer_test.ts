/** Our istiod and Istio's (AMBIT_PEER_ISTIOD) on one cluster: whichever comes first makes the root, and both sign with it. */
import { assertEquals } from "@std/assert";
import { parseControlOptions } from "../../bench/control/options.ts";
import { choosePeers } from "../../bench/control/peers.ts";
import { Cleanup } from "../../bench/macro/cleanup.ts";
import type { ApiServer } from "./api_server.ts";
import { Istiod, startMesh } from "./ca_rig.ts";

const PROGRAM = Deno.env.get("AMBIT_PEER_ISTIOD");

/** Runs Istio's until it is ready, and ends it. @returns The roots that it gives to every namespace. */
async function rootsOfIstio(server: ApiServer): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: "istiod-peer-" }), cleanup = new Cleanup();
  const [peer] = choosePeers(parseControlOptions([`--peer=istiod=${PROGRAM}`, "--only=istiod"]));
  try {
    const running = await peer!.start({ server, folder, cleanup });
    await running.stop();
    return running.rootsPem;
  } finally {
    cleanup.run();
    await Deno.remove(folder, { recursive: true });
  }
}

async function secretOf(server: ApiServer): Promise<unknown> {
  const args = ["get", "secret", "istio-ca-secret", "-n", "istio-system", "-o", "jsonpath={.data}"];
  return JSON.parse(await server.kubectl(args));
}

Deno.test({
  name: "Istio's istiod signs with the root that ours has made, and ours with Istio's (CP-501)",
  ignore: PROGRAM === undefined,
  async fn() {
    await using server = await startMesh();
    for (const key of ["rsa", "ecdsa"]) {
      const ours = await Istiod.start(server, "istiod-1", `--self-signed-ca-key=${key}`);
      await ours[Symbol.asyncDispose]();
      const stored = await secretOf(server);
      assertEquals(await rootsOfIstio(server), ours.rootsPem);
      assertEquals(await secretOf(server), stored);
      await forget(server);
    }
    const theirs = await rootsOfIstio(server), stored = await secretOf(server);
    await using ours = await Istiod.start(server, "istiod-1");
    assertEquals([ours.rootsPem, await secretOf(server)], [theirs, stored]);
  },
});

async function forget(server: ApiServer): Promise<void> {
  await server.kubectl(["delete", "secret", "istio-ca-secret", "-n", "istio-system"]);
  for (const namespace of ["istio-system", "shop"]) {
    await server.kubectl(["delete", "configmap", "istio-ca-root-cert", "-n", namespace, "--ignore-not-found"]);
  }
}
