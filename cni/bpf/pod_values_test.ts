import { assertEquals } from "@std/assert";
import { parseIp } from "../../base/address.ts";
import { ENROLLED, EnrolledFlag } from "../../os/bpf/shared_maps.ts";
import { CIDR_KEY, CidrReason } from "./maps.ts";
import { enrolledValue, excludedEntries, ownAddressEntries, sameEnrolment } from "./pod_values.ts";

const OPTIONS = { dns: false, ingress: false, exceptions: false };
const ip = (text: string) => parseIp(text)!;
const facts = (ipv4: string[], ipv6: string[] = []) => ({ ipv4: ipv4.map(ip), ipv6: ipv6.map(ip), interfaces: [] });
const flags = (value: Uint8Array<ArrayBuffer>) => new DataView(value.buffer).getUint32(ENROLLED.flags, true);

Deno.test("enrolledValue() holds the first address of each family, and says whether there are exceptions (CNI-201)", () => {
  const value = enrolledValue(facts(["10.0.0.2"], ["fd00::2"]), { ...OPTIONS, dns: true });
  assertEquals([...value.subarray(ENROLLED.ipv4, ENROLLED.ipv4 + 16)], [
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    255,
    255,
    10,
    0,
    0,
    2,
  ]);
  assertEquals([...value.subarray(ENROLLED.ipv6, ENROLLED.ipv6 + 2), value.at(-1)], [0xfd, 0, 2]);
  assertEquals(flags(value), EnrolledFlag.DNS);
  assertEquals(flags(enrolledValue(facts(["10.0.0.2", "10.0.0.3"]), OPTIONS)), EnrolledFlag.EXCEPTIONS);
  assertEquals(
    flags(enrolledValue(facts([]), { ...OPTIONS, ingress: true, exceptions: true })),
    EnrolledFlag.INGRESS | EnrolledFlag.EXCEPTIONS,
  );
});

Deno.test("sameEnrolment() overlooks the generation, and nothing else", () => {
  const one = enrolledValue(facts(["10.0.0.2"]), OPTIONS), other = one.slice();
  other[ENROLLED.generation] = 7;
  assertEquals(sameEnrolment(one, other), true);
  for (const at of [ENROLLED.flags, ENROLLED.workload, ENROLLED.ipv4 + 15, ENROLLED.ipv6]) {
    const changed = one.slice();
    changed[at]! ^= 1;
    assertEquals(sameEnrolment(one, changed), false, `${at}`);
  }
});

Deno.test("prefixes of exceptions count the cookie's bits, and IPv4 lies at the end of its mapped form (CNI-099)", () => {
  const bits = ([key]: [Uint8Array<ArrayBuffer>, number]) =>
    new DataView(key.buffer).getUint32(CIDR_KEY.prefixBits, true);
  assertEquals(excludedEntries(5n, ["10.0.0.0/8", "fd00::/16", "192.0.2.1"]).map(bits), [
    64 + 96 + 8,
    64 + 16,
    64 + 128,
  ]);
  const [own] = ownAddressEntries(5n, facts(["10.0.0.2", "10.0.0.3"]));
  assertEquals([bits(own!), own![1], own![0].at(-1), own![0][CIDR_KEY.cookie]], [192, CidrReason.OWN, 3, 5]);
});
