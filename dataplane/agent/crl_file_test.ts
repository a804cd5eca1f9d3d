/** What a file of revocation lists may look like (ZT-087). */
import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { crlPem, TestAuthority } from "../../os/certificates_testing.ts";
import { CRL_FILE_BYTES_MAX, readCrlFile, splitCrlFile } from "./crl_file.ts";

const authority = await TestAuthority.create("mesh");
const lists = [await authority.revoke(["01"]), await authority.revoke(["02", "03"])] as const;
const bytes = (text: string) => new TextEncoder().encode(text);
const split = (text: string) => splitCrlFile(bytes(text), "crl.pem");

Deno.test("splitCrlFile() reads PEM with several lists, passes over other blocks, or takes one list in DER (ZT-087)", () => {
  const [one, two] = lists.map(crlPem);
  assertEquals(split(one! + two!), [...lists]);
  assertEquals(split(authority.pem + one! + authority.pem), [lists[0]]);
  assertEquals(split(`Certificate Revocation List (CRL):\n    Version 2\n${one}`), [lists[0]], "openssl crl -text");
  assertEquals(split(one!.replaceAll("\n", "\r\n")), [lists[0]]);
  assertEquals(splitCrlFile(lists[1], "crl.der"), [lists[1]]);
});

Deno.test("splitCrlFile() takes an empty file, and one with other blocks alone, as no revocations (ZT-087)", () => {
  assertEquals(split(""), []);
  assertEquals(split(authority.pem), []);
});

Deno.test("splitCrlFile() refuses what it cannot read as a whole, since a part of it may be what revokes (ZT-087)", () => {
  const [one, two] = lists.map(crlPem);
  const cases: [string, RegExp][] = [
    ["not a valid CRL", /it is neither/],
    [" \n", /it is neither/],
    [one! + two!.slice(0, -10), /a block has no end/],
    [one!.slice(0, 80) + one!, /a block has no end|base64/],
    [one!.replace(/\n[A-Za-z0-9]/, "\n*"), /list 1 is no base64/],
  ];
  for (const [text, why] of cases) assertMatch(assertThrows(() => split(text), MeshError).message, why);
  assertThrows(() => split(one!.repeat(1025)), MeshError, "more than 1024 lists");
});

Deno.test("readCrlFile() tells a missing file from an empty one, and reads none without bound (ZT-087)", async () => {
  const folder = await Deno.makeTempDir();
  try {
    assertEquals(await readCrlFile(`${folder}/crl.pem`), undefined);
    assertEquals(await readCrlFile(`${folder}/no/crl.pem`), undefined);
    await Deno.writeTextFile(`${folder}/crl.pem`, "");
    assertEquals(await readCrlFile(`${folder}/crl.pem`), new Uint8Array(0));
    await Deno.writeFile(`${folder}/crl.der`, lists[0]);
    assertEquals(await readCrlFile(`${folder}/crl.der`), lists[0]);
    await assertRejects(() => readCrlFile(folder), MeshError, "it is no file");
    await Deno.truncate(`${folder}/crl.pem`, CRL_FILE_BYTES_MAX + 1);
    await assertRejects(() => readCrlFile(`${folder}/crl.pem`), MeshError, "bytes");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
