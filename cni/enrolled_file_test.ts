import { assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import { parseEnrolTarget } from "../mesh/enrolment.ts";
import { type EnrolledEntry, readEnrolled, writeEnrolled } from "./enrolled_file.ts";

Deno.test("readEnrolled() gives back what writeEnrolled() wrote, and refuses a file that is not whole", () => {
  const folder = Deno.makeTempDirSync(), path = `${folder}/enrolled.json`;
  assertEquals(readEnrolled(path), []);
  const entries: EnrolledEntry[] = ["netns/a", "pid/7", "netns-path:/proc/7/ns/net", "netns-path:/x"].map((text) => ({
    request: { target: parseEnrolTarget(text)!, namespace: "shop", serviceAccount: "web", name: "web-0" },
    state: "enrolling",
    netnsDevice: 4,
    netnsInode: 4026532000,
  }));
  writeEnrolled(path, entries);
  writeEnrolled(path, entries);
  assertEquals(readEnrolled(path), entries);
  // After a boot a number is another process's, and a namespace may have the inode of the one that had it before.
  assertEquals(readEnrolled(path, "another boot").map(({ request }) => request.target.text), [
    "netns/a",
    "netns-path:/x",
  ]);
  assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["enrolled.json"]);
  assertEquals(Deno.statSync(path).mode! & 0o777, 0o600);
  const whole = Deno.readTextFileSync(path);
  for (let cut = 0; cut < whole.length - 2; cut += 7) {
    Deno.writeTextFileSync(path, whole.slice(0, cut));
    assertEquals(assertThrows(() => readEnrolled(path), MeshError).code, "AMB7104", `cut at ${cut}`);
  }
  for (
    const [from, to] of [["pid/7", "pid/x"], ["enrolling", "lost"], ['"version": 1', '"version": 2'], [
      "4026532000",
      "{}",
    ]]
  ) {
    Deno.writeTextFileSync(path, whole.replace(from!, to!));
    assertEquals(assertThrows(() => readEnrolled(path), MeshError).code, "AMB7104", to);
  }
  assertEquals(assertThrows(() => writeEnrolled(`${folder}/no/such`, []), MeshError).code, "AMB7103");
  Deno.removeSync(folder, { recursive: true });
});
