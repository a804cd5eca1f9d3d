/** Channels to the control plane: TLS roots, token and headers that ADS and the CA have in common (ZT-009 to ZT-011, ZT-123, ZT-124). */
import { Buffer } from "node:buffer";
import { createSecureContext } from "node:tls";
import * as grpc from "@grpc/grpc-js";
import { parseSocketAddress } from "../../base/address.ts";
import { ignore, MeshError } from "../../base/errors.ts";
import { RESPONSE_BYTES_MAX } from "../../mesh/proto/discovery_codec.ts";

/** Where the roots come from that the control plane's certificate must lead to (ZT-010). */
export type RootSource =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "pem"; readonly pem: string }
  | { readonly kind: "system" };

/** Where the token comes from (ZT-011). */
export type TokenSource =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "static"; readonly token: string }
  | { readonly kind: "none" };

/** One service of the control plane, and how to reach it. */
export interface ControlEndpoint {
  /** `https://host:port`; the scheme may be missing (ZT-009). */
  readonly address: string;
  readonly roots: RootSource;
  readonly token: TokenSource;
  readonly clusterId: string;
  /** Another name that the server's certificate may carry; empty for none. */
  readonly alternativeHostname: string;
  /** TLS 1.2 will do (TLS12_ENABLED). */
  readonly tls12: boolean;
  /** Further gRPC metadata. */
  readonly headers: Readonly<Record<string, string>>;
  /** For tests; {@link PINGS} otherwise. */
  readonly pings?: { readonly intervalMs: number; readonly timeoutMs: number };
}

const ISTIOD_SERVICE_NAME = "istiod.istio-system.svc"; // always in istiod's certificate (CP-004)
const CONNECT_TIMEOUT_MS = 5_000; // ZT-124, this and the next
/** HTTP/2's own. They leave TCP keepalive, which the runtime gives us no hold of, nothing to do: it begins after 300 s of silence. */
const PINGS = { intervalMs: 30_000, timeoutMs: 10_000 };
const TOKEN_BYTES_MAX = 16_384; // what fits a header with room to spare
/** Messages go as bytes: the codecs are ours. */
export const rawBytes = (bytes: Buffer): Buffer => bytes;

/** Parses what XDS_ROOT_CA and CA_ROOT_CA may hold: a path, `SYSTEM`, or PEM text (ZT-010). */
export function parseRootSource(value: string): RootSource {
  if (value === "SYSTEM") return { kind: "system" };
  return value.includes("-----BEGIN ") ? { kind: "pem", pem: value } : { kind: "file", path: value };
}

/**
 * Parses what AUTH_TOKEN may hold: an existing path is a file, other text the token itself. What looks like a path and is
 * not there is no token: the default path counts only if the file is there (ZT-011).
 */
export function parseTokenSource(value: string): TokenSource {
  if (value === "") return { kind: "none" };
  try {
    Deno.statSync(value);
    return { kind: "file", path: value };
  } catch (error) {
    ignore(error, "not a path that exists");
  }
  return value.includes("/") ? { kind: "none" } : { kind: "static", token: value };
}

/** The PEM text of the roots; null stands for the system's. @throws MeshError AMB0302 */
export async function readRoots(roots: RootSource): Promise<string | null> {
  if (roots.kind === "system") return null;
  if (roots.kind === "pem") return roots.pem;
  try {
    return await Deno.readTextFile(roots.path);
  } catch (cause) {
    const remedy = "put the mesh's root certificate there; istiod has it as root-cert.pem in its state folder";
    throw new MeshError("AMB0302", `cannot read the control plane's root certificate ${roots.path}`, { remedy, cause });
  }
}

/**
 * Opens a channel and waits until it is connected, trying the alternative name if the first one fails.
 * @throws MeshError AMB0301
 */
export async function connectChannel(endpoint: ControlEndpoint, rootsPem: string | null): Promise<grpc.Client> {
  try {
    return await connectOnce(endpoint, rootsPem, "");
  } catch (error) {
    if (endpoint.alternativeHostname === "" || !(error instanceof MeshError)) throw error;
    return await connectOnce(endpoint, rootsPem, endpoint.alternativeHostname);
  }
}

async function connectOnce(endpoint: ControlEndpoint, rootsPem: string | null, hostname: string): Promise<grpc.Client> {
  const target = targetOf(endpoint.address), pings = endpoint.pings ?? PINGS;
  grpc.setLogVerbosity(grpc.logVerbosity.NONE); // What goes wrong is reported by us, once.
  // TLS has no server name for an address: the certificate must carry istiod's own service name then.
  const isAddress = parseSocketAddress(target) !== undefined;
  const name = hostname !== "" ? hostname : isAddress ? ISTIOD_SERVICE_NAME : "";
  const credentials = grpc.credentials.createFromSecureContext(createSecureContext({
    ...(rootsPem === null ? {} : { ca: rootsPem }),
    minVersion: endpoint.tls12 ? "TLSv1.2" : "TLSv1.3", // ZT-079
  }));
  const client = new grpc.Client(target, credentials, {
    "grpc.max_receive_message_length": RESPONSE_BYTES_MAX,
    "grpc.max_send_message_length": -1,
    "grpc.keepalive_time_ms": pings.intervalMs,
    "grpc.keepalive_timeout_ms": pings.timeoutMs,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.enable_http_proxy": 0, // The control plane is reached directly, whatever http_proxy says.
    "grpc.enable_retries": 0, // We retry, with our own limits.
    "grpc.service_config_disable_resolution": 1,
    "grpc.use_local_subchannel_pool": 1, // A new channel must mean a new connection: its roots may differ.
    "grpc.enable_channelz": 0,
    ...(name === "" ? {} : { "grpc.ssl_target_name_override": name }),
  });
  if (await becomesReady(client)) return client;
  const cause = await failureOf(client);
  client.close();
  throw new MeshError("AMB0301", `cannot connect to ${endpoint.address}`, {
    remedy: "check that istiod listens there and that its certificate leads to the configured root and names this host",
    cause,
  });
}

/** Waits until the channel is connected. @returns False when it has failed, or after the timeout of ZT-124. */
async function becomesReady(client: grpc.Client): Promise<boolean> {
  const channel = client.getChannel(), deadlineMs = Date.now() + CONNECT_TIMEOUT_MS;
  for (;;) {
    const state = channel.getConnectivityState(true);
    if (state === grpc.connectivityState.READY) return true;
    if (state === grpc.connectivityState.TRANSIENT_FAILURE || state === grpc.connectivityState.SHUTDOWN) return false;
    const timedOut = await new Promise((resolve) =>
      channel.watchConnectivityState(state, deadlineMs, (error?: Error) => resolve(error !== undefined))
    );
    if (timedOut) return false;
  }
}

/** Why a channel failed: only a call on it is told. */
async function failureOf(client: grpc.Client): Promise<Error> {
  const options = { deadline: Date.now() + CONNECT_TIMEOUT_MS / 10 }; // It ends at once where the channel has failed.
  return await new Promise((resolve) => {
    client.makeUnaryRequest("/none/None", rawBytes, rawBytes, Buffer.alloc(0), options, (error) => {
      resolve(error ?? new Error("the connection came too late"));
    });
  });
}

/** @throws MeshError AMB0303 for anything but https. */
function targetOf(address: string): string {
  const match = /^(?:https:\/\/)?([^/\s:[\]]+|\[[0-9a-fA-F:.]+\])(?::(\d{1,5}))?\/?$/.exec(address);
  if (match === null) {
    const remedy = "give https://HOST:PORT; the control plane is not reached without TLS";
    throw new MeshError("AMB0303", `${JSON.stringify(address)} is no address of a control plane`, { remedy });
  }
  return `${match[1]}:${match[2] ?? "443"}`;
}

/** Metadata of one call; a token file is read anew each time (ZT-011, ZT-123). @throws MeshError AMB0304 */
export async function callMetadata(endpoint: ControlEndpoint): Promise<grpc.Metadata> {
  const metadata = new grpc.Metadata();
  const token = await readToken(endpoint.token);
  if (token !== undefined) metadata.set("authorization", `Bearer ${token}`);
  metadata.set("clusterid", endpoint.clusterId);
  for (const [name, value] of Object.entries(endpoint.headers)) metadata.set(name, value);
  return metadata;
}

async function readToken(source: TokenSource): Promise<string | undefined> {
  if (source.kind === "none") return undefined;
  if (source.kind === "static") return checkToken(source.token, "the configured token");
  try {
    return checkToken(await Deno.readTextFile(source.path), source.path);
  } catch (cause) {
    if (cause instanceof MeshError) throw cause;
    const remedy = "mint one with `ambit token` or point AUTH_TOKEN at the file that holds it";
    throw new MeshError("AMB0304", `cannot read the token ${source.path}`, { remedy, cause });
  }
}

/** The bytes go as they are, so those that no header may hold are an error, a trailing newline above all. */
function checkToken(token: string, source: string): string {
  const wrong = token === ""
    ? "is empty"
    : token.endsWith("\n")
    ? "ends in a newline"
    : token.length > TOKEN_BYTES_MAX
    ? "is too long"
    : !/^[\x21-\x7e]+$/.test(token)
    ? "holds characters that no header may hold"
    : undefined;
  if (wrong === undefined) return token;
  const remedy = "write the token without anything around it: ambit token … | tr -d '\\n' > FILE";
  throw new MeshError("AMB0304", `the token in ${source} ${wrong}`, { remedy });
}
