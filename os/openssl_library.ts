/** Which OpenSSL this process uses: chosen once, before anything of it is loaded, and the same on every thread. */
import { chain, ignore, MeshError } from "../base/errors.ts";
import { createMemoryFile } from "./memory_file.ts";

/** The setting's variable. It stands in the process's environment, so that workers choose as the main thread did. */
export const OPENSSL_VARIABLE = "AMBIT_OPENSSL";
/** libssl and libcrypto in one file, as `deno task openssl` builds it. */
export const ONE_FILE = "libossl.so";
const OPENSSL_INIT_NO_ATEXIT = 0x80000n;
const LIBSSL = "libssl.so.3", LIBCRYPTO = "libcrypto.so.3";
`name a folder with ${LIBSSL} and ${LIBCRYPTO}, a file that holds both, or "system" in ${OPENSSL_VARIABLE}`;

/** Where the two libraries come from: paths, or names that the loader finds in the system. */
export interface OpenSslLibrary {
  readonly libssl: string;
  readonly libcrypto: string;
}

/** The system's own, wherever its loader finds it. */
export const SYSTEM_OPENSSL: OpenSslLibrary = { libssl: LIBSSL, libcrypto: LIBCRYPTO };

/** What the choice depends on besides the setting. */
export interface LibraryPlaces {
  /** The one file beside the program, whether it is there or not. */
  readonly beside: string;
  isFile(path: string): boolean;
  /** `OpenSSL_version_num`, or undefined when the library cannot be loaded. */
  versionOf(library: OpenSslLibrary): number | undefined;
}

/**
 * The libraries that a setting names; for an empty one the newer of the file beside the program and the system's.
 * @throws MeshError AMB7055 when a path is named that has no OpenSSL.
 */
export function chooseOpenSsl(setting: string, places: LibraryPlaces): OpenSslLibrary {
  if (setting === "system") return SYSTEM_OPENSSL;
  if (setting !== "") {
    const named = librariesAt(setting, places);
    if (named !== undefined) return named;
    throw new MeshError("AMB7055", `there is no OpenSSL at ${setting}`, {
      remedy:
        `name a folder with ${LIBSSL} and ${LIBCRYPTO}, a file that holds both, or "system" in ${OPENSSL_VARIABLE}`,
    });
  }
  if (!places.isFile(places.beside)) return SYSTEM_OPENSSL;
  const own = oneFile(places.beside), version = places.versionOf(own);
  if (version === undefined) return SYSTEM_OPENSSL;
  // A security update of the system's may overtake what was built once.
  return version >= (places.versionOf(SYSTEM_OPENSSL) ?? 0) ? own : SYSTEM_OPENSSL;
}

function librariesAt(path: string, places: LibraryPlaces): OpenSslLibrary | undefined {
  if (places.isFile(path)) return oneFile(path);
  if (places.isFile(`${path}/${ONE_FILE}`)) return oneFile(`${path}/${ONE_FILE}`);
  if (!places.isFile(`${path}/${LIBSSL}`) || !places.isFile(`${path}/${LIBCRYPTO}`)) return undefined;
  return { libssl: `${path}/${LIBSSL}`, libcrypto: `${path}/${LIBCRYPTO}` };
}

function oneFile(path: string): OpenSslLibrary {
  // Without a slash the loader would search the system for it.
  const named = path.includes("/") ? path : `./${path}`;
  return { libssl: named, libcrypto: named };
}

/** `0x30500080` as `3.5.8`. */
export function showVersion(number: number): string {
  return `${number >>> 28}.${(number >>> 20) & 0xff}.${(number >>> 4) & 0xffff}`;
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch (error) {
    ignore(error, "no such file");
    return false;
  }
}

/** Loads a library only to ask it. It may stay: what is loaded apart finds none of its symbols. */
function versionOf({ libcrypto }: OpenSslLibrary): number | undefined {
  try {
    const library = Deno.dlopen(libcrypto, { OpenSSL_version_num: { parameters: [], result: "u64" } });
    const version = Number(library.symbols.OpenSSL_version_num());
    library.close();
    return version;
  } catch (error) {
    ignore(error, "it is not there, or not for this machine");
    return undefined;
  }
}

/** The file beside a compiled program or else inside of it, or where `deno task openssl` puts it. */
function besideProgram(): string {
  const built = new URL(`../dist/${ONE_FILE}`, import.meta.url);
  if (!Deno.build.standalone) return built.pathname;
  const beside = `${Deno.execPath().replace(/\/[^/]*$/, "")}/${ONE_FILE}`;
  return isFile(beside) ? beside : embedded(built) ?? beside;
}

/** Tells the other threads of this process, and no other process, which descriptor has the library. */
const EMBEDDED_VARIABLE = "AMBIT_OPENSSL_EMBEDDED";

/** The loader wants a file, so what is in the program is put into memory as one; every thread loads that same file. */
function embedded(built: URL): string | undefined {
  const [pid, path] = Deno.env.get(EMBEDDED_VARIABLE)?.split(" ") ?? [];
  if (Number(pid) === Deno.pid && path !== undefined) return path;
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = Deno.readFileSync(built);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined; // It was compiled without one.
    throw error;
  }
  const file = `/proc/self/fd/${createMemoryFile(ONE_FILE, bytes)}`; // Open as long as the process.
  Deno.env.set(EMBEDDED_VARIABLE, `${Deno.pid} ${file}`);
  return file;
}

/** This process's choice. */
export const OPENSSL: OpenSslLibrary = chooseOpenSsl(Deno.env.get(OPENSSL_VARIABLE) ?? "", {
  beside: besideProgram(),
  isFile,
  versionOf,
});

/** Loads symbols of the chosen libssl. @throws MeshError AMB7056 */
export function loadLibssl<const S extends Deno.ForeignLibraryInterface>(symbols: S): Symbols<S> {
  loadLibcrypto({}); // First: libssl needs it under a name that would otherwise lead to the system's.
  return load(OPENSSL.libssl, symbols);
}

/** Loads symbols of the chosen libcrypto. @throws MeshError AMB7056 */
export function loadLibcrypto<const S extends Deno.ForeignLibraryInterface>(symbols: S): Symbols<S> {
  const { OPENSSL_init_crypto } = load(OPENSSL.libcrypto, {
    OPENSSL_init_crypto: { parameters: ["u64", "pointer"], result: "i32" }, // uint64_t opts, const OPENSSL_INIT_SETTINGS *
  });
  // The process may end while workers still use the library: nothing of it may be freed under them then.
  OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, null);
  return load(OPENSSL.libcrypto, symbols);
}

type Symbols<S extends Deno.ForeignLibraryInterface> = Deno.DynamicLibrary<S>["symbols"];

function load<const S extends Deno.ForeignLibraryInterface>(path: string, symbols: S): Symbols<S> {
  try {
    return Deno.dlopen(path, symbols).symbols;
  } catch (cause) {
    throw new MeshError("AMB7056", `cannot load ${path}: ${chain(cause)}`, {
      remedy:
        `install OpenSSL 3 (Debian, Ubuntu: libssl3; Fedora: openssl-libs), or name another in ${OPENSSL_VARIABLE}`,
    });
  }
}
