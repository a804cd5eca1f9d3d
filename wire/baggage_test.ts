import { assertEquals } from "@std/assert";
import { type Baggage, formatBaggage, parseBaggage } from "./baggage.ts";
import { visibleAscii } from "./visible_ascii.ts";

const EMPTY: Baggage = {
  cluster: "",
  namespace: "",
  workloadType: "",
  workloadName: "",
  canonicalName: "",
  canonicalRevision: "",
  region: "",
  zone: "",
};
const FULL: Baggage = {
  cluster: "K1",
  namespace: "default",
  workloadType: "deployment",
  workloadName: "w",
  canonicalName: "s",
  canonicalRevision: "v1",
  region: "r1",
  zone: "z1",
};
const FULL_TEXT = "k8s.cluster.name=K1,k8s.namespace.name=default,k8s.deployment.name=w,service.name=s," +
  "service.version=v1,cloud.region=r1,cloud.availability_zone=z1";

Deno.test("formatBaggage() writes keys in the order that peers expect (ZT-055)", () => {
  assertEquals(formatBaggage(FULL), FULL_TEXT);
  assertEquals(formatBaggage(EMPTY), "");
  assertEquals(
    formatBaggage({ ...EMPTY, zone: "z", namespace: "n" }),
    "k8s.namespace.name=n,cloud.availability_zone=z",
  );
});

Deno.test("formatBaggage() leaves out values that would say something else", () => {
  assertEquals(
    formatBaggage({ ...EMPTY, cluster: "a,service.name=b", region: "é", zone: "a=b", namespace: "n" }),
    "k8s.namespace.name=n",
  );
});

Deno.test("parseBaggage() reads what formatBaggage() writes, for every workload type (ZT-055)", () => {
  for (const workloadType of ["deployment", "cronjob", "pod", "job"]) {
    assertEquals(parseBaggage(formatBaggage({ ...FULL, workloadType })), { ...FULL, workloadType });
  }
});

Deno.test("parseBaggage() takes what it knows and ignores the rest (ZT-056)", () => {
  const cases: [string, Partial<Baggage>][] = [
    ["", {}],
    ["k8s.cluster.name=,service.name=,k8s.deployment.name=", {}],
    ["k8s.cluster.name", {}],
    ["unknown=1,service.name=s,k8s.daemonset.name=d", { canonicalName: "s" }],
    ["service.name=s=t", { canonicalName: "s" }],
    [" service.name=s", {}],
    ["Service.Name=s", {}],
    ["k8s.cluster.name=a,,=,k8s.cluster.name=b", { cluster: "b" }],
    ["k8s.cluster.name=a,k8s.cluster.name", { cluster: "a" }],
    ["k8s.cluster.name=a,k8s.cluster.name=", {}],
    ["k8s.job.name=j", { workloadType: "job", workloadName: "j" }],
    ["k8s.cluster.name=a,service.name=\u00e9", {}],
    ["k8s.cluster.name=a\u0000", {}],
    ["__proto__=x,constructor=y", {}],
  ];
  for (const [text, expected] of cases) assertEquals(parseBaggage(text), { ...EMPTY, ...expected }, text);
});

Deno.test("visibleAscii() gives text or nothing", () => {
  const bytes = new TextEncoder().encode("xa b\tcx");
  assertEquals(visibleAscii(bytes, 1, 6), "a b\tc");
  assertEquals(visibleAscii(bytes, 1, 1), "");
  for (const byte of [0x00, 0x0a, 0x1f, 0x7f, 0x80, 0xff]) {
    assertEquals(visibleAscii(Uint8Array.of(byte), 0, 1), undefined);
  }
});
