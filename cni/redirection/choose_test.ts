import { assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { candidateNames, type RedirectSettings } from "./choices.ts";
import { chooseRedirection } from "./choose.ts";
import { NETLINK_REDIRECTION } from "./netlink.ts";
import { type BackendName, BACKENDS, type Candidate } from "./redirection.ts";

const NOTHING_SAID: RedirectSettings = { redirect: "auto", nativeNftables: undefined, forceIptables: undefined };
const log = new Logger("test", { sink: () => {} });

/** Every backend; those named in `lacking` cannot be used. */
function candidates(lacking: readonly BackendName[]): Candidate[] {
  return BACKENDS.map((name) => ({
    name,
    missing: () => lacking.includes(name) ? ["a part"] : [],
    open: () => ({ ...NETLINK_REDIRECTION, name }),
  }));
}

Deno.test("candidateNames() follows what was said, in Istio's words too (CNI-139, CNI-144)", () => {
  const names = (said: Partial<RedirectSettings>) => candidateNames({ ...NOTHING_SAID, ...said }).join(" ");
  assertEquals(names({}), "nft nft-binary iptables-nft iptables-legacy");
  assertEquals(names({ nativeNftables: true, forceIptables: "legacy" }), "nft nft-binary");
  assertEquals(names({ nativeNftables: false }), "iptables-nft iptables-legacy");
  assertEquals(names({ forceIptables: "legacy" }), "iptables-legacy");
  assertEquals(names({ forceIptables: "nft", nativeNftables: false }), "iptables-nft");
  for (const redirect of BACKENDS) assertEquals(names({ redirect, nativeNftables: false }), redirect);
});

Deno.test("chooseRedirection() takes the first that works, and says of none what each lacks (CNI-144)", async () => {
  const chosen = async (lacking: readonly BackendName[], said: Partial<RedirectSettings> = {}) =>
    (await chooseRedirection({ ...NOTHING_SAID, ...said }, { log, candidates: candidates(lacking) })).name;
  assertEquals(await chosen([]), "nft");
  assertEquals(await chosen(["nft", "nft-binary"]), "iptables-nft");
  assertEquals(await chosen(["nft"], { redirect: "bpf" }), "bpf");
  const none = await assertRejects(
    () => chosen(["iptables-nft", "iptables-legacy"], { nativeNftables: false }),
    MeshError,
  );
  assertEquals(none.code, "AMB7140");
  assertEquals(none.message, "no redirection can be used here: iptables-nft: a part; iptables-legacy: a part");
});
