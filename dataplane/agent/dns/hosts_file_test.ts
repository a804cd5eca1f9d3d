import { assertEquals } from "@std/assert";
import { formatIp } from "../../../base/address.ts";
import { parseHosts, readHosts } from "./hosts_file.ts";

Deno.test("parseHosts() has every name of a line, comments and nonsense left out (ZT-033)", () => {
  const hosts = parseHosts(
    "127.0.0.1 localhost\n::1\tlocalhost  ip6-localhost # six\n#10.0.0.1 no\n10.0.0.2 DB.example. db\nx y\n10.0.0.3\n",
  );
  const shown = [...hosts].map(([name, ips]) => `${name} ${ips.map((ip) => formatIp(...ip))}`);
  assertEquals(shown, ["localhost 127.0.0.1,::1", "ip6-localhost ::1", "db.example 10.0.0.2", "db 10.0.0.2"]);
  assertEquals(readHosts("/nonexistent/hosts"), "");
});
