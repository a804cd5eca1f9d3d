/** Istio's mesh file and PROXY_CONFIG: what they say of a ztunnel, and how they are merged (ZT-007). */
import { MeshError } from "../../base/errors.ts";
import { DocumentProblem, Field, parseDocument } from "./yaml_fields.ts";

/** The part of a ProxyConfig that a ztunnel reads. */
export interface ProxyConfig {
  readonly discoveryAddress?: string;
  readonly proxyAdminPort?: number;
  readonly statsPort?: number;
  /** 0: all CPUs. */
  readonly concurrency?: number;
  /** Without the prefix `ISTIO_META_`. */
  readonly metadata: ReadonlyMap<string, string>;
}

/** Where Istio mounts the mesh's configuration, relative to the working folder. */
export const MESH_FILE = "./etc/istio/config/mesh";
const META_PREFIX = "ISTIO_META_";

/** Reads the mesh file. @returns undefined if there is none. @throws MeshError AMB0323 if it cannot be read */
export function readMeshFile(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return undefined;
    throw new MeshError("AMB0323", `failed reading mesh config file ${path}`, {
      remedy: "let this process read it, or take it away",
      cause,
    });
  }
}

/**
 * Merges the mesh file, PROXY_CONFIG and the variables that begin with ISTIO_META_: the later wins, metadata key by
 * key. @param environment all variables. @throws MeshError AMB0323
 */
export function readProxyConfig(
  meshText: string | undefined,
  environment: Readonly<Record<string, string>>,
): ProxyConfig {
  const mesh = meshText === undefined ? undefined : document(meshText, "mesh config file", "defaultConfig");
  const text = environment["PROXY_CONFIG"] ?? "";
  const own = text === "" ? undefined : document(text, "proxy config env", undefined);
  const metadata = new Map([...mesh?.metadata ?? [], ...own?.metadata ?? []]);
  for (const [name, value] of Object.entries(environment)) {
    if (name.startsWith(META_PREFIX)) metadata.set(name.slice(META_PREFIX.length), value);
  }
  return {
    discoveryAddress: own?.discoveryAddress ?? mesh?.discoveryAddress,
    proxyAdminPort: own?.proxyAdminPort ?? mesh?.proxyAdminPort,
    statsPort: own?.statsPort ?? mesh?.statsPort,
    concurrency: own?.concurrency ?? mesh?.concurrency,
    metadata,
  };
}

/** One of the two. Other fields are for proxies of other kinds. */
function document(text: string, source: string, key: string | undefined): ProxyConfig | undefined {
  try {
    const parsed = parseDocument(text);
    if (parsed === null || parsed === undefined) return undefined;
    const root = new Field(parsed, ""), field = key === undefined ? root : root.at(key);
    if (field.absent) return undefined;
    const number = (name: string) => field.at(name).absent ? undefined : field.at(name).integer(0, 65_535);
    const address = field.at("discoveryAddress"), metadata = field.at("proxyMetadata");
    return {
      discoveryAddress: address.absent ? undefined : address.text(),
      proxyAdminPort: number("proxyAdminPort"),
      statsPort: number("statsPort"),
      concurrency: number("concurrency"),
      metadata: new Map(
        metadata.absent ? [] : metadata.entries().map(([name, value]) => [withoutPrefix(name), value.text()] as const),
      ),
    };
  } catch (error) {
    if (!(error instanceof DocumentProblem)) throw error;
    throw new MeshError("AMB0323", `failed parsing ${source}: ${error.message}`, {
      remedy: "correct it; of it discoveryAddress, proxyAdminPort, statsPort, concurrency and proxyMetadata are read",
    });
  }
}

function withoutPrefix(name: string): string {
  return name.startsWith(META_PREFIX) ? name.slice(META_PREFIX.length) : name;
}
