/**
 * The programs that these tests run: etcd, kube-apiserver, kube-controller-manager and kubectl, built from `parts/` into
 * a cache folder by whoever comes first, and the old etcd of Debian. Run as a program it makes them and says where.
 */
import { MeshError } from "../../base/errors.ts";

export const KUBERNETES_VERSION = "1.34.4";
/** Where the custom resource definitions are published; nothing of them is copied into the repository. */
const ISTIO_API = "istio.io/api@v1.31.1";
const GATEWAY_API = "sigs.k8s.io/gateway-api@v1.6.0";

const BUILT = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"] as const;
const VERSION_PACKAGE = "k8s.io/component-base/version";

export type EtcdVersion = "3.6" | "3.4";
/** A set of custom resource definitions, by who publishes it. */
export type Definitions = "istio" | "gateway" | "gateway-experimental";

export interface KubeParts {
  readonly apiServer: string;
  readonly controllerManager: string;
  readonly kubectl: string;
  readonly etcd: Readonly<Record<EtcdVersion, string>>;
  /** A file or folder for `kubectl apply -f`. */
  readonly definitions: Readonly<Record<Definitions, string>>;
}

let found: Promise<KubeParts> | undefined;

/** Finds or makes all parts; minutes the first time on a machine. @throws MeshError AMB0280 or AMB0281. */
export function kubeParts(): Promise<KubeParts> {
  return found ??= findParts();
}

async function findParts(): Promise<KubeParts> {
  const cache = cacheFolder(), given = Deno.env.get("AMBIT_KUBE_BIN");
  await Deno.mkdir(cache, { recursive: true });
  using _lock = await lockedFile(`${cache}/lock`); // Test files may start side by side.
  const folder = given ?? cache;
  if (given === undefined && !await built(cache)) await build(cache);
  const program = async (name: string) => await exists(`${folder}/${name}`) ? `${folder}/${name}` : name;
  const [istio, gateway] = [await moduleFolder(ISTIO_API), await moduleFolder(GATEWAY_API)];
  return {
    apiServer: await program("kube-apiserver"),
    controllerManager: await program("kube-controller-manager"),
    kubectl: await program("kubectl"),
    etcd: { "3.6": await program("etcd"), "3.4": await oldEtcd(cache) },
    definitions: {
      istio: `${istio}/kubernetes/customresourcedefinitions.gen.yaml`,
      gateway: `${gateway}/config/crd/standard`,
      "gateway-experimental": `${gateway}/config/crd/experimental`,
    },
  };
}

function cacheFolder(): string {
  const base = Deno.env.get("XDG_CACHE_HOME") ?? `${Deno.env.get("HOME") ?? "/tmp"}/.cache`;
  return `${base}/ambit/kube-${KUBERNETES_VERSION}`;
}

/** The source that a built program was made of: a change of it makes a new one. */
async function sourceMark(): Promise<string> {
  const texts = await Promise.all(["main.go", "go.mod"].map((name) => Deno.readTextFile(sourceFile(name))));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(texts.join("\0")));
  return new Uint8Array(digest).toHex();
}

function sourceFile(name: string): string {
  return new URL(`parts/${name}`, import.meta.url).pathname;
}

async function built(cache: string): Promise<boolean> {
  const mark = `${cache}/source`;
  return await exists(mark) && await Deno.readTextFile(mark) === await sourceMark();
}

async function build(cache: string): Promise<void> {
  say(`building Kubernetes ${KUBERNETES_VERSION} and etcd into ${cache}: 2 to 15 minutes, once`);
  const startedAt = performance.now(), [major, minor] = KUBERNETES_VERSION.split(".");
  const stamps = { gitVersion: `v${KUBERNETES_VERSION}`, gitMajor: major, gitMinor: minor };
  const flags = Object.entries(stamps).map(([name, value]) => `-X ${VERSION_PACKAGE}.${name}=${value}`);
  const program = `${cache}/kube`;
  await go(["build", "-mod=readonly", "-trimpath", "-ldflags", `-s -w ${flags.join(" ")}`, "-o", program, "."]);
  for (const name of BUILT) {
    const link = `${cache}/${name}`;
    if (await exists(link)) await Deno.remove(link);
    await Deno.symlink("kube", link);
  }
  await Deno.writeTextFile(`${cache}/source`, await sourceMark());
  say(`built in ${((performance.now() - startedAt) / 1_000).toFixed(0)} s`);
}

/** Where a module's published files lie on this machine, fetched and verified by go. */
async function moduleFolder(module: string): Promise<string> {
  const output = await go(["mod", "download", "-json", module]);
  return (JSON.parse(output) as { Dir: string }).Dir;
}

async function go(args: readonly string[]): Promise<string> {
  const remedy =
    "Install go 1.24 or later, and let it reach its module proxy; or name ready programs by AMBIT_KUBE_BIN.";
  // Set by whoever runs us for work of his own, it would change what is built.
  const env = { GOFLAGS: "-buildvcs=false" };
  try {
    return await output("go", args, { cwd: sourceFile(""), env });
  } catch (cause) {
    throw new MeshError("AMB0280", `cannot get the parts of Kubernetes: go ${args[0]}`, { remedy, cause });
  }
}

/** Debian's etcd 3.4, unpacked but not installed: nothing starts, and no privilege is needed. */
async function oldEtcd(cache: string): Promise<string> {
  const kept = `${cache}/etcd-3.4`;
  if (await exists(kept)) return kept;
  const folder = await Deno.makeTempDir({ prefix: "ambit-etcd-" });
  try {
    const download = () => output("apt-get", ["download", "-q", "etcd-server"], { cwd: folder });
    await download().catch(async () => {
      await output("apt-get", ["update", "-q"]); // A machine that has not asked yet knows no package.
      await download();
    });
    const [archive] = [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) => name.endsWith(".deb"));
    await output("dpkg-deb", ["-x", `${folder}/${archive}`, folder]);
    await Deno.copyFile(`${folder}/usr/bin/etcd`, kept);
    return kept;
  } catch (cause) {
    const remedy = "Run apt-get update, so that apt knows its packages.";
    throw new MeshError("AMB0281", "cannot get Debian's etcd-server", { remedy, cause });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function output(command: string, args: readonly string[], options: Deno.CommandOptions = {}): Promise<string> {
  const { success, code, stdout, stderr } = await new Deno.Command(command, { args: [...args], ...options }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  if (success) return text(stdout);
  throw new Error(`${command} ended with status ${code}: ${text(stderr).trim().slice(-2_000)}`);
}

async function lockedFile(path: string): Promise<Disposable> {
  const file = await Deno.open(path, { create: true, write: true });
  await file.lock(true);
  return { [Symbol.dispose]: () => file.close() };
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

function say(line: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`${line}\n`));
}

if (import.meta.main) {
  try {
    const { apiServer, etcd, kubectl } = await kubeParts();
    say(`tests run ${[apiServer, ...Object.values(etcd), kubectl].join(", ")}`);
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    say(`${error.code}: ${error.message}: ${error.cause}\n  try: ${error.remedy}`);
    Deno.exit(1);
  }
}
