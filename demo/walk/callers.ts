/** Chapter: who comes to port 15008 without a certificate of this mesh. */
import { Issuer } from "../lab/certificates.ts";
import type { TlsOutcome } from "../lab/probe_operations.ts";
import type { Chapter } from "./stage.ts";

const HBONE_PORT = 15008;

export const CALLERS: Chapter = {
  title: "Strangers at the door",
  story:
    "The passer-by, outside the mesh, calls the store's port 15008 itself: with no certificate, with one that it " +
    "made, and, so that we know the call is a good one, with one that the mesh's CA signed.",
  async run({ shop, checks, tell }) {
    const caller = shop.pods["passer-by"].probe, target = { host: shop.pods.store.ipv4, port: HBONE_PORT };
    const identity = `spiffe://${shop.pods.shopper.principal}`;
    const describe = ({ protocol, ending, error }: TlsOutcome) => `${protocol ?? "no TLS"}, ${ending}, ${error}`;
    await tell("No certificate.");
    await checks.check("a caller without a certificate is refused", async () => {
      const outcome = await caller.do("tls", target);
      return { ok: !outcome.answered && outcome.ending !== "open", detail: describe(outcome) };
    });
    await tell("A certificate with the shopper's identity, signed by a CA that we just made.");
    await checks.check("a caller with a certificate of an unknown CA is refused", async () => {
      const foreign = await (await Issuer.foreign()).issue(identity);
      const outcome = await caller.do("tls", { ...target, ...foreign });
      return { ok: !outcome.answered && outcome.ending !== "open", detail: describe(outcome) };
    });
    await tell("The same identity, signed by the mesh's CA.");
    await checks.check("the same call with a certificate of the mesh's CA is answered", async () => {
      const genuine = await (await Issuer.ofMesh(`${shop.mesh.folder}/state`)).issue(identity);
      const outcome = await caller.do("tls", { ...target, ...genuine });
      return { ok: outcome.answered, detail: describe(outcome) };
    });
  },
};
