/** Double HBONE with a ztunnel of another make at either end of it, or as the gateway; each tells the same of a connection. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { APP_PORT, type Name } from "../e2e/dedicated_rig.ts";
import { type Makes, Networks, networksRig } from "../e2e/networks.ts";

const PEER = Deno.env.get("AMBIT_PEER_ZTUNNEL");
const OPTIONS = { ignore: PEER === undefined };

/** Fields of an access log line that do not change from run to run; what the gateway carries is ciphertext of any length. */
function toldOf(name: Name, line: string): Record<string, string> {
  const changing = name === "gateway" ? ["src.addr", "bytes_sent", "bytes_recv"] : ["src.addr"];
  const fields = line.matchAll(/(\S+?)=("[^"]*"|\S+)/g);
  const kept = [...fields].map(([, field, value]) => [field!, value!.replaceAll('"', "")] as const);
  return Object.fromEntries(
    kept.filter(([field]) => /^(src|dst|direction|bytes)/.test(field) && !changing.includes(field)),
  );
}

Deno.test(
  "double HBONE is one with another make, whoever has which part (ZT-046, ZT-047, ZT-054, ZT-099)",
  OPTIONS,
  async (t) => {
    await using rig = networksRig();
    await rig.start();
    await rig.pods.server.probe.do("listen", { port: APP_PORT, kind: "line" });
    const told: Partial<Record<Name | "nobody", Record<string, string>[]>> = {};
    for (const theirs of ["nobody", "client", "gateway", "server"] as const) {
      await t.step(`theirs: ${theirs}`, async () => {
        const makes: Makes = theirs === "nobody" ? {} : { [theirs]: PEER };
        await using networks = await Networks.start(rig, makes);
        assertStringIncludes(await networks.say("hello"), "hello");
        told[theirs] = [];
        for (const name of ["client", "gateway", "server"] as const) {
          const direction = name === "client" ? "outbound" : "inbound";
          const line = await networks.ztunnels[name].line(
            `the end at the ${name}`,
            (it) => it.includes("connection complete") && it.includes(`direction="${direction}"`),
            10_000,
          );
          told[theirs].push(toldOf(name, line));
        }
      });
    }
    for (const theirs of ["client", "gateway", "server"] as const) assertEquals(told[theirs], told.nobody, theirs);
  },
);
