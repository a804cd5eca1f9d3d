/** Which OpenSSL is taken, from what is said and what is there. */
import { assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import {
  chooseOpenSsl,
  type LibraryPlaces,
  type OpenSslLibrary,
  showVersion,
  SYSTEM_OPENSSL,
} from "./openssl_library.ts";

const V3_0 = 0x30000130, V3_5 = 0x30500080, V4_0 = 0x40000030;

/** A machine with these files, whose libcryptos have these versions; "" is the system's. */
function machine(files: readonly string[], versions: Readonly<Record<string, number>>): LibraryPlaces {
  return {
    beside: "/app/libossl.so",
    isFile: (path) => files.includes(path),
    versionOf: (library) => versions[library === SYSTEM_OPENSSL ? "" : library.libcrypto],
  };
}

const file = (path: string): OpenSslLibrary => ({ libssl: path, libcrypto: path });

Deno.test("chooseOpenSsl() takes the newer of the file beside the program and the system's", () => {
  const beside = "/app/libossl.so", files = [beside];
  assertEquals(chooseOpenSsl("", machine([], { "": V3_0 })), SYSTEM_OPENSSL);
  assertEquals(chooseOpenSsl("", machine(files, { "": V3_0, [beside]: V3_5 })), file(beside));
  assertEquals(chooseOpenSsl("", machine(files, { "": V3_5, [beside]: V3_5 })), file(beside));
  assertEquals(chooseOpenSsl("", machine(files, { "": V4_0, [beside]: V3_5 })), SYSTEM_OPENSSL);
  assertEquals(chooseOpenSsl("", machine(files, { [beside]: V3_5 })), file(beside)); // The system has none.
  assertEquals(chooseOpenSsl("", machine(files, { "": V3_0 })), SYSTEM_OPENSSL); // Not a library, or of another machine.
});

Deno.test("chooseOpenSsl() takes what is named: a file, a folder of one or of two, or the system's", () => {
  const places = machine(["/a/libossl.so", "/b/libssl.so.3", "/b/libcrypto.so.3", "here.so"], { "": V3_0 });
  assertEquals(chooseOpenSsl("system", places), SYSTEM_OPENSSL);
  assertEquals(chooseOpenSsl("/a/libossl.so", places), file("/a/libossl.so"));
  assertEquals(chooseOpenSsl("/a", places), file("/a/libossl.so"));
  assertEquals(chooseOpenSsl("/b", places), { libssl: "/b/libssl.so.3", libcrypto: "/b/libcrypto.so.3" });
  assertEquals(chooseOpenSsl("here.so", places), file("./here.so")); // Not one that the loader finds elsewhere.
});

Deno.test("chooseOpenSsl() takes nothing else for what was named", () => {
  const places = machine(["/app/libossl.so", "/half/libssl.so.3"], { "": V3_0, "/app/libossl.so": V3_5 });
  for (const setting of ["/none", "/half", "/none/libossl.so"]) {
    assertEquals(assertThrows(() => chooseOpenSsl(setting, places), MeshError).code, "AMB7055");
  }
});

Deno.test("showVersion() reads OpenSSL's number", () => {
  assertEquals([V3_0, V3_5, V4_0].map(showVersion), ["3.0.19", "3.5.8", "4.0.3"]);
});

Deno.test("ztunnel loads the OpenSSL that its flag names, or ends and says what would help", async () => {
  const entry = new URL("../main.ts", import.meta.url).pathname;
  const folder = await Deno.makeTempDir();
  try {
    const broken = `${folder}/libossl.so`;
    await Deno.writeTextFile(broken, "not a library");
    for (const [setting, code] of [[`${folder}/none`, "AMB7055"], [broken, "AMB7056"]] as const) {
      const { success, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--unstable-worker-options", entry, "ztunnel", "--openssl", setting],
      }).output();
      const said = new TextDecoder().decode(stderr);
      assertEquals(success, false);
      assertStringIncludes(said, setting);
      assertMatch(said, new RegExp(`fix: .*AMBIT_OPENSSL\ncode: ${code}`));
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
