/** Which addresses the listeners of istiod take unless told. */
import { assertEquals } from "@std/assert";
import { listenOn } from "./listening.ts";

Deno.test("listenOn() takes what is given, loopback on a bare node, and every address of a pod (CP-001)", () => {
  const given = { host: "10.0.0.1", port: 1 };
  const cases = [
    [given, { inPod: true, dualStack: true }, given],
    [undefined, { inPod: false, dualStack: true }, { host: "127.0.0.1", port: 15012 }],
    [undefined, { inPod: true, dualStack: false }, { host: "0.0.0.0", port: 15012 }],
    [undefined, { inPod: true, dualStack: true }, { host: "::", port: 15012 }],
  ] as const;
  for (const [address, around, expected] of cases) assertEquals(listenOn(address, 15012, around), expected);
});
