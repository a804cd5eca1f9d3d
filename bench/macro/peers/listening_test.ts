import { assertEquals } from "@std/assert";
import { hasListener } from "./listening.ts";

const TABLE = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:3AA0 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1
   1: 0100007F:3A98 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1
`;

Deno.test("hasListener() tells a listener from a connection and from another port", () => {
  assertEquals([15008, 15000, 160].map((port) => hasListener(TABLE, port)), [true, false, false]);
});
