import { assertEquals } from "@std/assert";
import { formatSocketAddress } from "../base/address.ts";
import { parseAuthority } from "./authority.ts";

/** `address …` or `hostname …`, or undefined. */
function read(text: string): string | undefined {
  const authority = parseAuthority(text);
  if (authority === undefined) return undefined;
  return authority.kind === "address"
    ? `address ${formatSocketAddress(authority.ip, authority.port)}`
    : `hostname ${authority.hostname}:${authority.port}`;
}

Deno.test("parseAuthority() reads addresses and hostnames with a port (ZT-053)", () => {
  const cases: [string, string | undefined][] = [
    ["1.2.3.4:80", "address 1.2.3.4:80"],
    ["1.2.3.4:0", "address 1.2.3.4:0"],
    ["1.2.3.4:65535", "address 1.2.3.4:65535"],
    ["[2001:db8::1]:80", "address [2001:db8::1]:80"],
    ["[::ffff:1.2.3.4]:80", "address 1.2.3.4:80"], // ZT-014
    ["a.example:80", "hostname a.example:80"],
    ["a_b-c.example.:80", "hostname a_b-c.example.:80"],
    ["*.example:80", "hostname *.example:80"],
    ["1.2.3:80", "hostname 1.2.3:80"],
    ["", undefined],
    [":80", undefined],
    ["1.2.3.4", undefined],
    ["a.example", undefined],
    ["a.example:", undefined],
    ["a.example:65536", undefined],
    ["a.example:-1", undefined],
    ["a.example:+1", undefined],
    ["a.example:000080", undefined],
    ["a.example:8 0", undefined],
    ["a b:80", undefined],
    ["user@a.example:80", undefined],
    ["a.example/x:80", undefined],
    ["a%41:80", undefined],
    ["[1.2.3.4]:80", undefined],
    ["[2001:db8::1%eth0]:80", undefined],
    ["[2001:db8::1]", undefined],
    ["2001:db8::1:80", undefined],
    ["::ffff:1.2.3.4:80", undefined],
    ["[a]:80", undefined],
    ["é.example:80", undefined],
    [`${"a".repeat(253)}:80`, `hostname ${"a".repeat(253)}:80`],
    [`${"a".repeat(254)}:80`, undefined],
  ];
  for (const [text, expected] of cases) assertEquals(read(text), expected, text);
});
