/** Revocation on either level of double HBONE. */
import { assertEquals } from "@std/assert";
import { AccessKind } from "../tables/access.ts";
import { ResponseFlag } from "../tables/layout.ts";
import { closed, connect, leaves, type Networks, readAll, text, withNetworks } from "./double_hbone_testing.ts";
import { readRevocationLists } from "../../os/revocation_lists.ts";
import { authority } from "./testing.ts";

/** Lists by what they name, read before a test begins: its body waits for nothing. */
const LISTS = {
  nobody: await readRevocationLists([await authority.revoke(["7f01"])]),
  gateway: await readRevocationLists([await authority.revoke([leaves.gateway.serial!])]),
  server: await readRevocationLists([await authority.revoke([leaves.server.serial!])]),
};

const flagsOf = ({ rig }: Networks) =>
  rig.records(0).filter(({ kind }) => kind === AccessKind.COMPLETE).map(({ flag, error }) => [flag, error]);

for (const which of ["gateway", "server"] as const) {
  Deno.test(`both sessions of a double tunnel are held against revocation lists: the ${which}'s certificate (ZT-089)`, () =>
    withNetworks((networks) => {
      const { rig, open, gateway, serverIp } = networks, { client, server } = connect(networks);
      client.write(text("ping"));
      assertEquals(readAll(rig, server, 4), "ping");
      rig.enforce(0, LISTS.nobody);
      server.write(text("pong"));
      assertEquals(readAll(rig, client, 4), "pong");
      rig.enforce(0, LISTS[which]);
      closed(rig, client);
      assertEquals(flagsOf(networks), [
        [ResponseFlag.CERT_REVOKED, "connection closed: peer certificate revoked by CRL"],
      ]);
      gateway.joinAll(serverIp, 15008);
      closed(rig, open()); // Whoever is revoked is dialled anew, and refused.
      assertEquals(flagsOf(networks).map(([flag]) => flag), [ResponseFlag.CERT_REVOKED]);
    }));
}
