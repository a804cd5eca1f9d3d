/** Who may read which page. */
import { assertEquals } from "@std/assert";
import { debugAccess } from "./access.ts";

const RULES = { namespaces: new Set(["istio-system", "ops"]), enforced: true };
const of = (namespace: string) => `spiffe://cluster.local/ns/${namespace}/sa/x`;

function check(identities: string[], enforced = true): string {
  const access = debugAccess(identities, { ...RULES, enforced });
  if (access === "nobody") return access;
  const pages = ["syncz", "config_dump", "ndsz", "edsz"].filter((page) => access.allows(page));
  return `${pages.join()} of ${["shop", "istio-system"].filter((namespace) => access.shows(namespace)).join()}`;
}

Deno.test("debugAccess() shows everything to the mesh's own namespaces and those added by setting (CP-017)", () => {
  const all = "syncz,config_dump,ndsz,edsz of shop,istio-system";
  assertEquals(check([of("istio-system")]), all);
  assertEquals(check([of("shop"), of("ops")]), all);
});

Deno.test("debugAccess() shows others their own proxies on the pages of one proxy, and nothing else (CP-017)", () => {
  assertEquals(check([of("shop")]), "config_dump,ndsz,edsz of shop");
  assertEquals(check([of("shop")], false), "syncz,config_dump,ndsz,edsz of shop,istio-system");
});

Deno.test("debugAccess() shows nothing to whoever has no identity of the mesh's form (CP-016)", () => {
  for (const identities of [[], ["https://example.org"], ["istio-system"]]) assertEquals(check(identities), "nobody");
  assertEquals(check([], false), "nobody");
});
