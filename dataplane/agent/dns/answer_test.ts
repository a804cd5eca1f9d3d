import { assertEquals } from "@std/assert";
import { formatIp } from "../../../base/address.ts";
import { IpFamilies, type Service, serviceKey } from "../../../mesh/service.ts";
import { ip, service, serving, workload } from "../../../mesh/testing.ts";
import { Type } from "../../../wire/dns/message.ts";
import { answerLocally, type AnswerSettings, type DnsMesh } from "./answer.ts";

const SETTINGS: AnswerSettings = {
  clusterDomain: "cluster.local",
  search: undefined,
  preferredNamespace: "platform",
  ipv6: true,
};
const HERE = "here", ELSEWHERE = "elsewhere";
const CLIENT = { namespace: "shop", network: HERE };

/** A service of network `here`, unless a VIP names another: `elsewhere:192.0.2.1`. */
function known(namespace: string, hostname: string, vips: string, fields: Partial<Service> = {}): Service {
  const addresses = vips.split(" ").filter((text) => text !== "").map((text) => {
    const away = text.startsWith(`${ELSEWHERE}:`);
    return { network: away ? ELSEWHERE : HERE, ip: ip(away ? text.slice(ELSEWHERE.length + 1) : text) };
  });
  return { ...service(hostname, "", "80:80"), namespace, hostname, addresses, ...fields };
}

const kubernetes = (name: string, namespace: string, vips: string, fields: Partial<Service> = {}) =>
  known(namespace, `${name}.${namespace}.svc.cluster.local`, vips, fields);

const SERVICES = [
  kubernetes("cart", "shop", "10.0.0.1"),
  kubernetes("till", "bank", "10.0.0.2"),
  kubernetes("vault", "bank", "10.0.0.3", { namespaceOnly: true }),
  kubernetes("drawer", "shop", "10.0.0.4", { namespaceOnly: true }),
  known("bank", "rates.bank.svc.cluster.remote", "10.1.0.1 10.1.0.2 10.1.0.3"),
  known("shop", "www.example.com", "192.0.2.1"),
  known("shop", "v4.example", "192.0.2.4"),
  known("shop", "v6.example", "2001:db8::6"),
  known("shop", "both.example", "192.0.2.5 2001:db8::5"),
  known("shop", "*.wild", "192.0.2.10"),
  known("shop", "*.very.wild", "192.0.2.11"),
  known("shop", "*.svc.partner.example", "192.0.2.12"),
  known("bank", "Mixed.Example", "192.0.2.13"),
  // The same hostname in several namespaces.
  known("bank", "all.example", "192.0.2.20"),
  known("platform", "all.example", "192.0.2.21"),
  known("shop", "all.example", "192.0.2.22"),
  known("bank", "preferred.example", "192.0.2.30"),
  known("platform", "preferred.example", "192.0.2.31"),
  known("platform", "canonical.example", "192.0.2.41"),
  known("bank", "canonical.example", "192.0.2.42", { canonical: true }),
  known("shop", "own.example", "192.0.2.50"),
  known("bank", "own.example", "192.0.2.51", { canonical: true }),
  known("bank", "first.example", "192.0.2.60"),
  known("wood", "first.example", "192.0.2.61"),
  // Other networks.
  kubernetes("away", "shop", `${ELSEWHERE}:10.2.0.1`),
  kubernetes("split", "shop", `10.2.0.2 ${ELSEWHERE}:10.2.0.3`),
  // Without VIPs.
  kubernetes("sets", "shop", ""),
  kubernetes("sets-v6", "shop", "", { ipFamilies: IpFamilies.IPV6_ONLY }),
  kubernetes("sets-v4", "shop", "", { ipFamilies: IpFamilies.IPV4_ONLY }),
  kubernetes("empty", "shop", ""),
  known("shop", "outside.example", ""),
];

const ENDPOINTS = [
  workload("set-0", "10.3.0.1 2001:db8:3::1", { hostname: "set-0.sets.shop.svc.cluster.local" }),
  workload("set-1", "10.3.0.2 10.3.0.3 2001:db8:3::2", {}),
].map((it) => ({
  ...it,
  services: serving({
    "shop/sets.shop.svc.cluster.local": "",
    "shop/sets-v4.shop.svc.cluster.local": "",
    "shop/sets-v6.shop.svc.cluster.local": "",
    "shop/outside.example": "",
  }),
}));

const MESH: DnsMesh = {
  servicesOfHostname: (hostname) => SERVICES.filter((it) => it.hostname.toLowerCase() === hostname),
  storedEndpoints: (key) => ENDPOINTS.filter((it) => it.services.has(key)),
};

/** `forwarded`, or `[alias >] addresses` in ascending order. */
function answer(name: string, type: "A" | "AAAA" | "NS", change: Partial<AnswerSettings> = {}): string {
  const number = type === "NS" ? 2 : Type[type];
  const found = answerLocally(MESH, { name, type: number, client: CLIENT }, { ...SETTINGS, ...change }, () => 0.5);
  if (found === undefined) return "forwarded";
  const addresses = found.addresses.map((words) => formatIp(...words)).sort().join(" ");
  return found.alias === undefined ? addresses : `${found.alias} > ${addresses}`;
}

// Each row: what is asked, of which type, what the answer is, and the rule.
const CASES: readonly (readonly [name: string, type: "A" | "AAAA" | "NS", answer: string, rule: string])[] = [
  ["cart.shop", "NS", "forwarded", "ZT-178: another type"],
  ["www.example.com", "A", "192.0.2.1", "a hostname outside Kubernetes"],
  ["www.example.com.shop.svc.cluster.local", "A", "www.example.com > 192.0.2.1", "ZT-184: search domain taken off"],
  ["www.example.com.svc.cluster.local", "A", "www.example.com > 192.0.2.1", "ZT-180: the second search domain"],
  ["www.example.com.cluster.local", "A", "www.example.com > 192.0.2.1", "ZT-180: the third search domain"],
  ["www.example.com.bank.svc.cluster.local", "A", "forwarded", "ZT-180: not another namespace's search domain"],
  ["unknown.example.com", "A", "forwarded", "nobody's name"],
  ["cart.shop.svc.cluster.local", "A", "10.0.0.1", "full name"],
  ["cart.shop.svc", "A", "10.0.0.1", "ZT-179: three labels"],
  ["cart.shop", "A", "10.0.0.1", "ZT-179: two labels"],
  ["cart", "A", "10.0.0.1", "ZT-179: one label"],
  ["cart.shop.shop.svc.cluster.local", "A", "cart.shop > 10.0.0.1", "ZT-184: two labels and a search domain"],
  ["cart.shop.svc.cluster.local", "AAAA", "", "ZT-183: no address of the family"],
  ["cart.shop.shop.svc.cluster.local", "AAAA", "cart.shop > ", "ZT-183: the same by a search domain"],
  ["till.bank", "A", "10.0.0.2", "another namespace by two labels"],
  ["till.bank.svc", "A", "10.0.0.2", "another namespace by three labels"],
  ["till.bank.svc.cluster.local", "A", "10.0.0.2", "another namespace by its full name"],
  ["till", "A", "forwarded", "another namespace by one label"],
  ["vault.bank.svc.cluster.local", "A", "forwarded", "ZT-141: not visible to the client"],
  ["drawer.shop.svc.cluster.local", "A", "10.0.0.4", "ZT-141: visible in its own namespace"],
  ["rates.bank.svc.cluster.remote", "A", "10.1.0.1 10.1.0.2 10.1.0.3", "a service of another cluster domain"],
  ["rates.bank", "A", "forwarded", "which short names do not reach"],
  ["both.example", "A", "192.0.2.5", "ZT-183: only the asked family"],
  ["both.example", "AAAA", "2001:db8::5", "ZT-183: only the asked family"],
  ["v6.example", "A", "", "ZT-183: IPv6 alone"],
  ["v4.example", "AAAA", "", "ZT-183: IPv4 alone"],
  ["one.wild", "A", "192.0.2.10", "ZT-181: wildcard"],
  ["one.two.wild", "A", "192.0.2.10", "ZT-181: wildcard over two labels"],
  ["one.very.wild", "A", "192.0.2.11", "ZT-181: the most specific wildcard"],
  ["wild", "A", "forwarded", "a wildcard is not the domain itself"],
  ["one.svc.partner.example", "A", "192.0.2.12", "wildcard below svc"],
  ["one.two.svc.partner.example", "A", "192.0.2.12", "wildcard below svc, two labels"],
  ["one.svc.partner.example.shop.svc.cluster.local", "A", "192.0.2.12", "ZT-184: no alias for a wildcard"],
  ["mixed.example", "A", "192.0.2.13", "ZT-181: whatever the case of letters"],
  ["all.example", "A", "192.0.2.22", "ZT-182: the client's namespace first"],
  ["preferred.example", "A", "192.0.2.31", "ZT-182: the preferred namespace before the first"],
  ["canonical.example", "A", "192.0.2.42", "ZT-182: canonical before preferred"],
  ["own.example", "A", "192.0.2.50", "ZT-182: own before canonical"],
  ["first.example", "A", "192.0.2.60", "ZT-182: else the first"],
  ["away.shop.svc.cluster.local", "A", "", "ZT-183: no VIP in the client's network"],
  ["split.shop.svc.cluster.local", "A", "10.2.0.2", "ZT-183: the VIP of the client's network alone"],
  ["sets.shop.svc.cluster.local", "A", "10.3.0.1 10.3.0.2", "ZT-183: one address an endpoint"],
  ["sets.shop.svc.cluster.local", "AAAA", "2001:db8:3::1 2001:db8:3::2", "ZT-183: and of IPv6"],
  ["sets-v6.shop.svc.cluster.local", "AAAA", "2001:db8:3::1 2001:db8:3::2", "ZT-183: a service of IPv6 alone"],
  ["sets-v6.shop.svc.cluster.local", "A", "", "ZT-183: which has no IPv4"],
  ["sets-v4.shop.svc.cluster.local", "AAAA", "", "ZT-183: a service of IPv4 alone"],
  ["empty.shop.svc.cluster.local", "A", "", "ZT-182: headless without endpoints"],
  ["outside.example", "A", "forwarded", "ZT-182: without VIPs, and not of Kubernetes"],
  ["set-0.sets.shop.svc.cluster.local", "A", "forwarded", "ZT-187: a pod's name"],
  ["set-0.sets.shop", "A", "forwarded", "ZT-187: a pod's short name"],
  ["", "A", "forwarded", "the root"],
];

for (const [name, type, expected, rule] of CASES) {
  Deno.test(`answerLocally() of ${name === "" ? "." : name} ${type}: ${rule}`, () => {
    assertEquals(answer(name, type), expected);
  });
}

Deno.test("answerLocally() gives no AAAA where IPv6 is off, and does not forward either (ZT-183)", () => {
  assertEquals(answer("both.example", "AAAA", { ipv6: false }), "");
  assertEquals(answer("both.example", "A", { ipv6: false }), "192.0.2.5");
});

Deno.test("answerLocally() takes the search domains that it is given instead of guessing them (ZT-180)", () => {
  assertEquals(answer("cart.corp.example", "A", { search: ["corp.example"] }), "cart > 10.0.0.1");
  assertEquals(answer("www.example.com.shop.svc.cluster.local", "A", { search: [] }), "forwarded");
});

Deno.test("answerLocally() gives every order of addresses the same chance (ZT-183)", () => {
  let state = 1;
  const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
  const counts = new Map<string, number>(), rounds = 6_000;
  const question = { name: "rates.bank.svc.cluster.remote", type: Type.A, client: CLIENT };
  for (let round = 0; round < rounds; round++) {
    const order = answerLocally(MESH, question, SETTINGS, random)!.addresses.map((words) => words[3] & 3).join("");
    counts.set(order, (counts.get(order) ?? 0) + 1);
  }
  assertEquals([...counts.keys()].sort(), ["123", "132", "213", "231", "312", "321"]);
  assertEquals([...counts.values()].every((count) => Math.abs(count - rounds / 6) < rounds / 30), true);
});

Deno.test("answerLocally() names the service whose key the endpoints are stored under", () => {
  const question = { name: "sets.shop.svc.cluster.local", type: Type.A, client: CLIENT };
  const { service } = answerLocally(MESH, question, SETTINGS, () => 0)!;
  assertEquals(serviceKey(service.namespace, service.hostname), "shop/sets.shop.svc.cluster.local");
});
