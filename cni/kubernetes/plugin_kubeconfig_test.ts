import { assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import type { KubeAccess } from "../../kube/access.ts";
import { KubeError } from "../../kube/api.ts";
import { parsePluginKubeconfig } from "../kubeconfig_file.ts";
import { PluginKubeconfig, tokenEndS } from "./plugin_kubeconfig.ts";

function token(name: string, endS?: number): string {
  const part = (value: object) => new TextEncoder().encode(JSON.stringify(value)).toBase64({ alphabet: "base64url" });
  return `${part({ alg: "none" })}.${part({ sub: name, exp: endS })}.x`;
}

Deno.test("PluginKubeconfig takes up a new token once the API server takes it, and tells of one that ends soon (CNI-045)", async () => {
  const lines: string[] = [], clock = { ms: 0 }, stop = new AbortController();
  let current = token("first", 3_600), taken = false;
  const access = {
    server: new URL("https://10.0.0.1:443"),
    ca: "CA",
    credentials: { current: () => Promise.resolve({ token: current }), refused: () => {} },
  } as unknown as KubeAccess;
  const kubeconfig = await PluginKubeconfig.open(access, {
    verify: () => taken ? Promise.resolve() : Promise.reject(new KubeError(401, "Unauthorized", "no")),
    log: new Logger("install", { sink: (line) => void lines.push(line) }),
    nowMs: () => clock.ms,
  }, stop.signal);
  const inFile = async () => (await parsePluginKubeconfig(kubeconfig.text).credentials.current(stop.signal)).token!;
  assertEquals([await inFile(), kubeconfig.expiresInS()], [current, 3_600]);
  const first = current;
  current = token("second", 7_200);
  await kubeconfig.look(stop.signal);
  assertEquals(await inFile(), first, "what the API server does not take replaces nothing");
  assertEquals(lines.splice(0).length, 1);
  taken = true;
  await kubeconfig.look(stop.signal);
  assertEquals([await inFile(), kubeconfig.expiresInS(), lines.splice(0).length], [current, 7_200, 1]);
  await kubeconfig.look(stop.signal);
  assertEquals(lines, [], "nothing new, nothing said");
  clock.ms = 6_700_000;
  await kubeconfig.look(stop.signal);
  assertEquals([lines.length, kubeconfig.expiresInS()], [1, 500]);
});

Deno.test("tokenEndS() reads a token's end, and makes nothing of other texts (CNI-293)", () => {
  assertEquals([token("a", 7), token("b"), "a.b.c", "", "x", "a.bnVsbA.c"].map(tokenEndS), [
    7,
    undefined,
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
});
