import { assertEquals } from "@std/assert";
import { pemBlocks, toPem } from "./pem.ts";

Deno.test("pemBlocks() finds each block as it stands, and nothing between them", () => {
  const one = toPem("CERTIFICATE", Uint8Array.of(1, 2, 3)), two = toPem("X509 CRL", new Uint8Array(100));
  const odd = "-----BEGIN A-----  AQID\r\n  -----END A-----";
  assertEquals(pemBlocks(`words\n${one}-----BEGIN B-----\nAQ==\n-----END C-----\n${two}${odd} words`), [
    { label: "CERTIFICATE", text: one },
    { label: "X509 CRL", text: two },
    { label: "A", text: `${odd}\n` },
  ]);
  assertEquals(["", "-----BEGIN A-----\n-----END A-----", "-----BEGIN A-----AQ==-----END A-----"].map(pemBlocks), [
    [],
    [],
    [],
  ]);
});

Deno.test("pemBlocks() takes time by the length of what it reads, however hostile", () => {
  for (const filling of [" ", "\n", "A ", "-----BEGIN A-----\n"]) {
    const text = `-----BEGIN A-----\n${filling.repeat(1_000_000 / filling.length)}`, startedAtMs = performance.now();
    assertEquals(pemBlocks(text), []);
    assertEquals(performance.now() - startedAtMs < 30_000, true, JSON.stringify(filling)); // Some 10 ms; squared it were minutes.
  }
});
