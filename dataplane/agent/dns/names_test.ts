import { assertEquals } from "@std/assert";
import { candidates, hasDomain, hostnamesFor, kubernetesNames, searchDomains } from "./names.ts";

Deno.test("kubernetesNames() lengthens names of one to four labels as Kubernetes abbreviates them (ZT-179)", () => {
  const cases: readonly (readonly [name: string, names: readonly string[]])[] = [
    ["cart", ["cart.shop.svc.cluster.local"]],
    ["cart.bank", ["cart.bank.svc.cluster.local", "cart.bank.shop.svc.cluster.local"]],
    ["cart.bank.svc", ["cart.bank.svc.cluster.local", "cart.bank.svc.svc.cluster.local"]],
    ["cart.bank.else", ["cart.bank.else.svc.cluster.local"]],
    ["pod.cart.bank.svc", ["pod.cart.bank.svc.cluster.local"]],
    ["pod.cart.bank.else", []],
    ["cart.bank.svc.cluster", []],
    ["cart.bank.svc.cluster.local", []],
  ];
  for (const [name, names] of cases) assertEquals(kubernetesNames(name, "shop", "cluster.local"), names, name);
});

Deno.test("searchDomains() are those of a pod in the client's namespace (ZT-180)", () => {
  assertEquals(searchDomains("bank", "mesh.example"), ["bank.svc.mesh.example", "svc.mesh.example", "mesh.example"]);
});

Deno.test("candidates() are each tried once: the name, its long forms, then what is left without search domains", () => {
  const options = { clusterDomain: "d", search: searchDomains("ns", "d") };
  assertEquals(candidates("a.ns.svc.d", "ns", options).map(({ name, stripped }) => `${name} ${stripped ?? "-"}`), [
    "a.ns.svc.d -",
    "a a",
    "a.ns a.ns",
    "a.ns.ns.svc.d a.ns",
    "a.ns.svc a.ns.svc",
    "a.ns.svc.svc.d a.ns.svc",
  ]);
});

Deno.test("candidates() leaves out what no name can be", () => {
  const long = Array(4).fill("x".repeat(60)).join("."), options = { clusterDomain: "cluster.local", search: [] };
  assertEquals(candidates(long, "ns", options).map(({ name }) => name), [long]);
  assertEquals(candidates(`${"x".repeat(60)}.${"y".repeat(60)}`, "n".repeat(64), options).length, 2);
});

Deno.test("hostnamesFor() goes from the name to ever wider wildcards (ZT-181)", () => {
  assertEquals(hostnamesFor("a"), ["a"]);
  assertEquals(hostnamesFor("a.b.c"), ["a.b.c", "*.b.c", "*.c"]);
});

Deno.test("hasDomain() compares whole labels, and wants one more", () => {
  assertEquals([hasDomain("a.svc", "svc"), hasDomain("svc", "svc"), hasDomain("asvc", "svc")], [true, false, false]);
});
