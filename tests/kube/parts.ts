/**
 * The programs that these tests run: etcd, kube-apiserver, kube-controller-manager and kubectl, built from `parts/` into
 * a cache folder by whoever comes first, and the old etcd of Debian. Run as a program it makes them and says where.
 */
import { MeshError } from "../../base/errors.ts";
import {
  buildOnce,
  cacheFolder,
  exists,
  go,
  KUBERNETES_VERSION,
  lockedFile,
  output,
  say,
  versionFlags,
} from "./go_tools.ts";

const SOURCE = new URL("parts/", import.meta.url).pathname;
/** Where the custom resource definitions are published; nothing of them is copied into the repository. */
const ISTIO_API = "istio.io/api@v1.31.1";
const GATEWAY_API = "sigs.k8s.io/gateway-api@v1.6.0";

const BUILT = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"] as const;

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
  const cache = cacheFolder(`kube-${KUBERNETES_VERSION}`), given = Deno.env.get("AMBIT_KUBE_BIN");
  await Deno.mkdir(cache, { recursive: true });
  using _lock = await lockedFile(`${cache}/lock`); // Test files may start side by side.
  const folder = given ?? cache;
  const what = `Kubernetes ${KUBERNETES_VERSION} and etcd`;
  const marked = ["main.go", "go.mod"];
  if (given === undefined) await buildOnce({ source: SOURCE, marked, cache, what, build: () => build(cache) });
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

async function build(cache: string): Promise<void> {
  await go(["build", "-mod=readonly", "-trimpath", "-ldflags", versionFlags(), "-o", `${cache}/kube`, "."], SOURCE);
  for (const name of BUILT) {
    const link = `${cache}/${name}`;
    if (await exists(link)) await Deno.remove(link);
    await Deno.symlink("kube", link);
  }
}

/** Where a module's published files lie on this machine, fetched and verified by go. */
async function moduleFolder(module: string): Promise<string> {
  const output = await go(["mod", "download", "-json", module], SOURCE);
  return (JSON.parse(output) as { Dir: string }).Dir;
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
