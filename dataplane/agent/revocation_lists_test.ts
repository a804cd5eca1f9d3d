/** The file of revocation lists over its life: missing, empty, wrong, replaced, swapped (ZT-087). */
import { assert, assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { crlPem, TestAuthority } from "../../os/certificates_testing.ts";
import { Revocation } from "../../os/revocation.ts";
import { Command } from "../tables/layout.ts";
import { RevocationFile } from "./revocation_lists.ts";

const authority = await TestAuthority.create("mesh");
const one = crlPem(await authority.revoke(["01"])), two = crlPem(await authority.revoke(["01", "02"]));
const worker = new Revocation();
const TIMES = { debounceMs: 30, firstMs: 5, pollMs: 100 }, UNTIL_MS = 60_000;

interface Scene {
  readonly folder: string;
  /** Follows this file of the folder. */
  follow(path: string): Promise<void>;
  /** What came of each reading: how many certificates are revoked, or what the log says instead. */
  readonly heard: (number | string)[];
  /** Waits for what comes of the next reading, past those that change nothing. */
  next(): Promise<number | string>;
}

async function withFolder(body: (scene: Scene) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir(), heard: (number | string)[] = [], told: number[] = [];
  const log = new Logger("test", {
    json: true,
    sink(line) {
      const { message, revoked } = JSON.parse(line);
      heard.push(message === "revocation lists in force" ? revoked : message);
    },
  });
  const workers = {
    count: 1,
    tellAllAndWait(command: number, low: number, high: number) {
      assertEquals(command, Command.REVOCATIONS_CHANGED);
      worker.use({ low: low >>> 0, high: high >>> 0 });
      told.push(low);
      return Promise.resolve();
    },
  };
  let file: RevocationFile | undefined, seen = 0;
  try {
    await body({
      folder,
      heard,
      async follow(path) {
        file = new RevocationFile(`${folder}/${path}`, workers, log, TIMES);
        await file.start();
      },
      async next() {
        const deadline = performance.now() + UNTIL_MS;
        while (heard.length <= seen || heard[seen] === heard[seen - 1]) {
          assert(performance.now() < deadline, `another reading came in time, after ${heard}`);
          if (heard.length > seen) seen++;
          else await new Promise((resolve) => setTimeout(resolve, 5));
        }
        return heard[seen++]!;
      },
    });
  } finally {
    await file?.close();
    await Deno.remove(folder, { recursive: true });
  }
}

const MISSING = "there is no file of revocation lists yet", UNUSABLE = "revocation lists cannot be used";
const NO_LIST = "no block of the file is a revocation list";

Deno.test("a missing file is no revocations, and is taken as soon as it is there (ZT-087)", () =>
  withFolder(async ({ folder, follow, next }) => {
    await follow("crl.pem");
    assertEquals(await next(), MISSING);
    await Deno.writeTextFile(`${folder}/crl.pem`, one);
    let heard = await next();
    if (heard === UNUSABLE || heard === 0) heard = await next(); // Read while it was being written.
    assertEquals(heard, 1);
  }));

Deno.test("a missing folder is no different, once it appears (ZT-087)", () =>
  withFolder(async ({ folder, follow, next }) => {
    await follow("mounted/later/crl.pem");
    assertEquals(await next(), MISSING);
    await Deno.mkdir(`${folder}/staged`);
    await Deno.writeTextFile(`${folder}/staged/crl.pem`, two);
    await Deno.mkdir(`${folder}/mounted`);
    await Deno.rename(`${folder}/staged`, `${folder}/mounted/later`);
    assertEquals(await next(), 2);
  }));

Deno.test("an unparsable file at the start is no revocations with a warning; a good one after it counts (ZT-087)", () =>
  withFolder(async ({ folder, follow, next }) => {
    await Deno.writeTextFile(`${folder}/crl.pem`, "not a valid CRL");
    await follow("crl.pem");
    assertEquals(await next(), UNUSABLE);
    await Deno.writeTextFile(`${folder}/.new`, two);
    await Deno.rename(`${folder}/.new`, `${folder}/crl.pem`);
    assertEquals(await next(), 2);
  }));

Deno.test("what cannot be read later, or is gone, leaves in force what was; an empty file lifts all (ZT-087)", () =>
  withFolder(async ({ folder, follow, next }) => {
    const put = async (text: string) => {
      await Deno.writeTextFile(`${folder}/.new`, text);
      await Deno.rename(`${folder}/.new`, `${folder}/crl.pem`);
    };
    await put(two);
    await follow("crl.pem");
    assertEquals(await next(), 2);
    await put("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    assertEquals(await next(), UNUSABLE);
    await Deno.remove(`${folder}/crl.pem`);
    assertEquals(await next(), MISSING);
    await put(one);
    assertEquals(await next(), 1);
    await put("");
    assertEquals(await next(), 0);
    await put(authority.pem);
    assertEquals(await next(), NO_LIST);
  }));

Deno.test("a volume's link that is swapped counts as a change (ZT-087)", () =>
  withFolder(async ({ folder, follow, next }) => {
    for (const [name, text] of [["v1", one], ["v2", two]] as const) {
      await Deno.mkdir(`${folder}/${name}`);
      await Deno.writeTextFile(`${folder}/${name}/crl.pem`, text);
    }
    await Deno.symlink("v1", `${folder}/..data`);
    await Deno.symlink("..data/crl.pem", `${folder}/crl.pem`);
    await follow("crl.pem");
    assertEquals(await next(), 1);
    await Deno.symlink("v2", `${folder}/..data_tmp`);
    await Deno.rename(`${folder}/..data_tmp`, `${folder}/..data`);
    assertEquals(await next(), 2);
  }));

Deno.test("a file outside the watched folder that a link leads to is looked at from time to time (ZT-087)", () =>
  withFolder(async ({ folder, follow, next }) => {
    await Deno.mkdir(`${folder}/mount`);
    await Deno.writeTextFile(`${folder}/elsewhere.pem`, one);
    await Deno.symlink(`${folder}/elsewhere.pem`, `${folder}/mount/crl.pem`);
    await follow("mount/crl.pem");
    assertEquals(await next(), 1);
    await Deno.writeTextFile(`${folder}/.new`, two);
    await Deno.rename(`${folder}/.new`, `${folder}/elsewhere.pem`);
    assertEquals(await next(), 2);
  }));
