import { assertEquals, assertThrows } from "@std/assert";
import { formatIp, formatSocketAddress } from "../../../base/address.ts";
import { MeshError } from "../../../base/errors.ts";
import { Logger } from "../../../base/log.ts";
import { addressesToBind, parseListenAddress } from "./listen_address.ts";
import { parseResolvConf, ResolvConf } from "./resolv_conf.ts";

const nameserversOf = (text: string) => parseResolvConf(text).nameservers.map((words) => formatIp(...words));

Deno.test("parseResolvConf() takes the first three nameservers that are addresses (ZT-186)", () => {
  const text =
    "# nameserver 1.1.1.1\nnameserver 10.0.0.1\n\tnameserver\tfd00::1 # note\nnameserver host\nnameserver\n" +
    "nameserver 10.0.0.2\nnameserver 10.0.0.3\n";
  assertEquals(nameserversOf(text), ["10.0.0.1", "fd00::1", "10.0.0.2"]);
  assertEquals(nameserversOf(""), []);
});

Deno.test("parseResolvConf() knows the options that matter, within bounds, and the search list (ZT-180)", () => {
  const { timeoutMs, attempts, rotate, search } = parseResolvConf(
    "search A.example b.example. ..\noptions timeout:1 rotate attempts:99\n",
  );
  assertEquals([timeoutMs, attempts, rotate, search], [1_000, 5, true, ["a.example", "b.example"]]);
  const plain = parseResolvConf("options timeout:0 attempts:x ndots:5");
  assertEquals([plain.timeoutMs, plain.attempts, plain.rotate, plain.search], [1_000, 2, false, []]);
});

Deno.test("ResolvConf says once what keeps pods from being forwarded, and again after it was mended", () => {
  const lines: string[] = [], log = new Logger("dns", { sink: (line) => lines.push(line.split("\t")[3]!) });
  const path = Deno.makeTempFileSync(), file = new ResolvConf(path, log);
  const counts: number[] = [];
  try {
    for (const ip of ["127.0.0.53", "127.0.0.53", "10.0.0.1", "127.0.0.53"]) {
      Deno.writeTextFileSync(path, `nameserver ${ip}\n`);
      counts.push(file.read().nameservers.length);
    }
  } finally {
    Deno.removeSync(path);
  }
  counts.push(file.read().nameservers.length);
  assertEquals(counts, [1, 1, 1, 1, 0]);
  const loopback = "nameservers are on loopback, which in a pod is the pod's own: only units of this host reach them";
  assertEquals(lines, [loopback, loopback, "no nameserver to forward to"]);
});

Deno.test("parseListenAddress() takes localhost or an address, with a port (ZT-003, ZT-008)", () => {
  const bound = (text: string, ipv6 = true) =>
    addressesToBind(parseListenAddress(text), ipv6).map((ip) => formatSocketAddress(ip, parseListenAddress(text).port));
  assertEquals(bound("localhost:15053"), ["127.0.0.1:15053", "[::1]:15053"]);
  assertEquals(bound("localhost:53", false), ["127.0.0.1:53"]);
  assertEquals([bound("10.0.0.1:99"), bound("[fd00::1]:99")], [["10.0.0.1:99"], ["[fd00::1]:99"]]);
  for (
    const text of ["", "localhost", "localhost:", "localhost:0", "localhost:65536", "10.0.0.1", "host:53", "fd00::1:53"]
  ) {
    const error = assertThrows(() => parseListenAddress(text), MeshError, `failed to parse DNS_PROXY_ADDR: ${text}`);
    assertEquals(error.code, "AMB2410");
  }
});
