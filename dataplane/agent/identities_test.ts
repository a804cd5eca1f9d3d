import { assertEquals } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { TestAuthority } from "../../os/certificates_testing.ts";
import { createTables, openTables } from "../tables/handles.ts";
import { Command, IDENTITY, IdentityState } from "../tables/layout.ts";
import { Certificates } from "./certificates.ts";
import { Identities } from "./identities.ts";
import type { WorkloadCertificate } from "./workload_certificate.ts";

const URI = "spiffe://cluster.local/ns/shop/sa/cart";
const authority = await TestAuthority.create("mesh");

/** Identities over certificates that are fetched by hand. */
function rig() {
  const fetches = new Map<string, PromiseWithResolvers<WorkloadCertificate>>(), told: number[][] = [];
  const tables = openTables(createTables({ workers: 1, identities: 4, connectionsPerWorker: 64 }));
  const tell = (_worker: number, ...words: (number | undefined)[]) => void told.push(words.map(Number));
  const identities = new Identities(tables, { count: 1, tell, tellAll: (...words) => tell(0, ...words) });
  const certificates = new Certificates({
    fetch(identity) {
      const fetch = Promise.withResolvers<WorkloadCertificate>();
      fetches.set(identity, fetch);
      return fetch.promise;
    },
    onCertificate: (identity, certificate) => identities.onCertificate(identity, certificate),
    onUnavailable: (identity, error) => identities.onUnavailable(identity, error),
    now: Date.now,
    random: () => 0.5,
    schedule: () => () => {},
    log: new Logger("test", { sink: () => {} }),
  });
  identities.useCertificates(certificates);
  return { identities, certificates, fetches, told, rows: tables.identities };
}

async function certificate(): Promise<WorkloadCertificate> {
  const leaf = await authority.issue([URI]);
  return {
    leafAndIntermediatesPem: leaf.chain,
    rootsPem: leaf.roots,
    privateKeyPem: leaf.privateKey,
    serial: "1",
    notBeforeMs: Date.now() - 60_000,
    notAfterMs: Date.now() + 3_600_000,
  };
}

Deno.test("a certificate that was fetched ahead is there when the first pod comes (ZT-143)", async () => {
  const { identities, certificates, fetches, told, rows } = rig();
  identities.prefetch(URI);
  fetches.get(URI)!.resolve(await certificate());
  await certificates.get(URI);
  assertEquals(told, []);
  const row = identities.acquire(URI);
  assertEquals([rows.load(row, IDENTITY.state), told.map(([command]) => command)], [
    IdentityState.READY,
    [Command.IDENTITY_CHANGED],
  ]);
  assertEquals(fetches.size, 1);
  identities.forgetUnused(URI); // Its pod is still there.
  assertEquals(certificates.status().map(({ identity }) => identity), [URI]);
  identities.release(URI);
  assertEquals(certificates.status(), []);
});

Deno.test("a pod hears at once that its certificate could not be fetched ahead (ZT-143, ZT-156)", async () => {
  const { identities, certificates, fetches, told, rows } = rig();
  identities.prefetch(URI);
  fetches.get(URI)!.reject(new MeshError("AMB0310", "no", { remedy: "none" }));
  await certificates.get(URI).catch(() => "as it must");
  const row = identities.acquire(URI);
  assertEquals([rows.load(row, IDENTITY.state), told], [
    IdentityState.FAILED,
    [[Command.IDENTITY_CHANGED, row]],
  ]);
  identities.release(URI);
});

Deno.test("what was fetched ahead is forgotten with the last workload, if no pod came (ZT-143, ZT-158)", async () => {
  const { identities, certificates, fetches } = rig();
  identities.prefetch(URI);
  fetches.get(URI)!.resolve(await certificate());
  await certificates.get(URI);
  identities.forgetUnused(URI);
  assertEquals(certificates.status(), []);
});
