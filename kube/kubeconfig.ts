/** A kubeconfig's text to what its context means: decided here, with every file's name and no file read. */
import { type Fields, isFields } from "../base/plain.ts";
import { parse } from "@std/yaml";
import { MeshError } from "../base/errors.ts";
import { isToken } from "./file_credentials.ts";
import { type HttpProxy, readProxyUrl } from "./proxy.ts";

/** A value that stands in the file, or in another that the file names. */
export type Source = { readonly data: string } | { readonly path: string };

/** A program that prints credentials. */
export interface ExecPlugin {
  readonly apiVersion: "client.authentication.k8s.io/v1" | "client.authentication.k8s.io/v1beta1";
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly provideClusterInfo: boolean;
  readonly installHint: string;
}

/** What one context of a kubeconfig asks for. */
export interface KubeconfigContext {
  readonly name: string;
  /** What the file calls the cluster. */
  readonly cluster: string;
  readonly server: URL;
  readonly ca: Source | undefined;
  readonly serverName: string | undefined;
  readonly insecure: boolean;
  /** As the file has it; undefined: it says nothing, and the environment counts. */
  readonly proxy: { readonly url: string; readonly proxy: HttpProxy } | undefined;
  readonly namespace: string;
  readonly token: Source | undefined;
  readonly certificate: { readonly certificate: Source; readonly key: Source } | undefined;
  readonly exec: ExecPlugin | undefined;
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
}

/** Throws with the file, the context and the field. */
type Refuse = (field: string, wrong: string, remedy?: string) => never;

const TEXT_BYTES_MAX = 1 << 20;
const NAMES_LETTERS_MAX = 300; // Some people have contexts by the hundred.
const CORRECT = "`kubectl config view` shows the file as kubectl reads it";

/** @param source the file's name, or what it came from, for errors. @throws MeshError AMB0801, AMB0802, AMB0803. */
export function readKubeconfig(text: string, source: string, contextName?: string): KubeconfigContext {
  const refuseFile: Refuse = (field, wrong, remedy = CORRECT) => {
    throw new MeshError("AMB0801", `reading kubeconfig ${source}: ${field}: ${wrong}`, {
      remedy: `correct that field: ${remedy}`,
    });
  };
  const root = parseText(text, source);
  const current = textOf(root["current-context"], "current-context", refuseFile);
  const name = contextName ?? current;
  if (name === "") {
    throw new MeshError("AMB0802", `reading kubeconfig ${source}: it has no current-context`, {
      remedy: "set it with `kubectl config use-context`, or name a context",
    });
  }
  const refuse: Refuse = (field, wrong, remedy = CORRECT) => {
    throw new MeshError("AMB0803", `reading kubeconfig ${source}, context "${name}": ${field}: ${wrong}`, {
      remedy: `${remedy}`,
    });
  };
  const context = entry(root, "contexts", "context", name, refuse);
  const clusterName = textOf(context.cluster, "context.cluster", refuse),
    userName = textOf(context.user, "context.user", refuse);
  const cluster = entry(root, "clusters", "cluster", clusterName, refuse);
  const user = userName === "" ? {} : entry(root, "users", "user", userName, refuse);
  return {
    name,
    cluster: clusterName,
    namespace: textOf(context.namespace, "context.namespace", refuse),
    ...readCluster(cluster, refuse),
    ...readUser(user, refuse),
  };
}

function parseText(text: string, source: string): Fields {
  let value: unknown, cause: unknown;
  if (text.length > TEXT_BYTES_MAX) cause = new Error("it is larger than 1 MiB");
  else {
    try {
      value = parse(text, { schema: "core" });
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      // A parser's message quotes the lines around the mistake, and here these may be a key.
      cause = new Error(`line ${"line" in error ? error.line : "unknown"} is no YAML`);
    }
  }
  if (cause === undefined && isFields(value)) return value;
  throw new MeshError("AMB0801", `reading kubeconfig ${source}: it is no YAML object`, {
    remedy: "correct the file; `kubectl config view` shows it as kubectl reads it",
    cause,
  });
}

function textOf(value: unknown, field: string, refuse: Refuse): string {
  if (value === undefined || value === null) return "";
  return typeof value === "string" ? value : refuse(field, "should be a text");
}

function flagOf(value: unknown, field: string, refuse: Refuse): boolean {
  if (value === undefined || value === null) return false;
  return typeof value === "boolean" ? value : refuse(field, "should be true or false");
}

/** One of the named entries; of two with a name the first counts, as with kubectl. */
function entry(root: Fields, list: string, part: string, name: string, refuse: Refuse): Fields {
  const entries = root[list] ?? [];
  if (!Array.isArray(entries)) return refuse(list, "should be a list");
  const found = (entries as unknown[]).find((it) => isFields(it) && it.name === name);
  if (!isFields(found)) {
    const names = (entries as unknown[]).map((it) => isFields(it) ? String(it.name) : "").filter((it) => it !== "");
    return refuse(
      list,
      `has no entry "${name}"`,
      `name one that it has: ${names.join(", ").slice(0, NAMES_LETTERS_MAX) || "it has none"}`,
    );
  }
  const value = found[part] ?? {};
  return isFields(value) ? value : refuse(`${list}[${name}].${part}`, "should be an object");
}

/** A value inline in base64 (`…-data`), or in a file; inline wins, as with kubectl. */
function sourceOf(of: Fields, field: string, refuse: Refuse): Source | undefined {
  const inline = textOf(of[`${field}-data`], `${field}-data`, refuse), path = textOf(of[field], field, refuse);
  if (inline === "") return path === "" ? undefined : { path };
  try {
    return { data: new TextDecoder().decode(Uint8Array.fromBase64(inline.replace(/\s/g, ""))) };
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return refuse(`${field}-data`, "is no base64");
  }
}

function readCluster(cluster: Fields, refuse: Refuse) {
  const address = textOf(cluster.server, "server", refuse);
  const server = URL.parse(address.includes("://") || address === "" ? address : `https://${address}`);
  if (server === null || (server.protocol !== "https:" && server.protocol !== "http:")) {
    return refuse("server", "should be a URL like https://host:6443");
  }
  if (server.username !== "" || server.password !== "" || server.search !== "" || server.hash !== "") {
    return refuse("server", "should hold no user, password, query or fragment");
  }
  const proxyUrl = textOf(cluster["proxy-url"], "proxy-url", refuse), proxy = readProxyUrl(proxyUrl);
  if (proxyUrl !== "" && "wrong" in proxy) {
    return refuse(
      "proxy-url",
      proxy.wrong,
      "name a proxy that takes CONNECT over plain HTTP; TLS and SOCKS are not spoken",
    );
  }
  const insecure = flagOf(cluster["insecure-skip-tls-verify"], "insecure-skip-tls-verify", refuse);
  const ca = sourceOf(cluster, "certificate-authority", refuse);
  if (insecure && ca !== undefined) {
    return refuse(
      "insecure-skip-tls-verify",
      "contradicts certificate-authority",
      "keep the CA, and take this field away",
    );
  }
  const serverName = textOf(cluster["tls-server-name"], "tls-server-name", refuse);
  if (!/^[A-Za-z0-9._:-]*$/.test(serverName)) return refuse("tls-server-name", "should be a host's name");
  return {
    server,
    ca,
    serverName: serverName === "" ? undefined : serverName,
    insecure,
    proxy: proxyUrl === "" || "wrong" in proxy ? undefined : { url: proxyUrl, proxy },
  };
}

function readUser(user: Fields, refuse: Refuse) {
  if (user["auth-provider"] !== undefined && user["auth-provider"] !== null) {
    const remedy = "use the exec plugin of your provider, or a token; Kubernetes itself has no auth-provider any more";
    return refuse("auth-provider", "is not supported", remedy);
  }
  if (textOf(user.username, "username", refuse) !== "" || textOf(user.password, "password", refuse) !== "") {
    return refuse(
      "username",
      "passwords are not supported",
      "use a token or a client certificate; API servers take no passwords since 1.19",
    );
  }
  return {
    token: readToken(user, refuse),
    certificate: readCertificate(user, refuse),
    exec: user.exec === undefined || user.exec === null ? undefined : readExec(user.exec, refuse),
    headers: readImpersonation(user, refuse),
  };
}

/** kubectl prefers the file, so that a rotated token is used. */
function readToken(user: Fields, refuse: Refuse): Source | undefined {
  const path = textOf(user.tokenFile, "tokenFile", refuse), data = textOf(user.token, "token", refuse);
  if (path !== "") return { path };
  if (data === "") return undefined;
  return isToken(data) ? { data } : refuse("token", "holds letters that no token has");
}

function readCertificate(user: Fields, refuse: Refuse) {
  const certificate = sourceOf(user, "client-certificate", refuse), key = sourceOf(user, "client-key", refuse);
  if (certificate === undefined && key === undefined) return undefined;
  if (certificate === undefined) return refuse("client-certificate", "is missing beside client-key");
  if (key === undefined) return refuse("client-key", "is missing beside client-certificate");
  if ("path" in certificate !== "path" in key) {
    return refuse("client-key", "and client-certificate should both be files, or both be inline");
  }
  return { certificate, key };
}

function readExec(exec: unknown, refuse: Refuse): ExecPlugin {
  if (!isFields(exec)) return refuse("exec", "should be an object");
  const apiVersion = textOf(exec.apiVersion, "exec.apiVersion", refuse),
    command = textOf(exec.command, "exec.command", refuse);
  if (apiVersion !== "client.authentication.k8s.io/v1" && apiVersion !== "client.authentication.k8s.io/v1beta1") {
    return refuse(
      "exec.apiVersion",
      "should be client.authentication.k8s.io/v1 or /v1beta1",
      "update the plugin; v1alpha1 is gone",
    );
  }
  if (command === "") return refuse("exec.command", "is missing");
  const mode = textOf(exec.interactiveMode, "exec.interactiveMode", refuse);
  if (mode === "" && apiVersion.endsWith("/v1")) {
    return refuse("exec.interactiveMode", "is missing, and v1 asks for it");
  }
  if (mode === "Always") {
    return refuse(
      "exec.interactiveMode",
      "Always needs a terminal",
      "use a plugin that can run without one (IfAvailable or Never)",
    );
  }
  if (!["", "Never", "IfAvailable"].includes(mode)) {
    return refuse("exec.interactiveMode", "should be Never or IfAvailable");
  }
  const args = exec.args ?? [], env = exec.env ?? [];
  if (!Array.isArray(args) || !args.every((it) => typeof it === "string")) {
    return refuse("exec.args", "should be texts");
  }
  const isVariable = (it: unknown) => isFields(it) && typeof it.name === "string" && typeof it.value === "string";
  if (!Array.isArray(env) || !env.every(isVariable)) return refuse("exec.env", "should be names with values");
  return {
    apiVersion,
    command,
    args,
    env: Object.fromEntries((env as { name: string; value: string }[]).map(({ name, value }) => [name, value])),
    provideClusterInfo: flagOf(exec.provideClusterInfo, "exec.provideClusterInfo", refuse),
    installHint: textOf(exec.installHint, "exec.installHint", refuse),
  };
}

function readImpersonation(user: Fields, refuse: Refuse): Record<string, string | readonly string[]> {
  const as = textOf(user.as, "as", refuse),
    uid = textOf(user["as-uid"], "as-uid", refuse),
    groups = user["as-groups"] ?? [];
  const sendable = (text: unknown) => typeof text === "string" && /^[\x20-\x7e]+$/.test(text);
  if (as !== "" && !sendable(as)) return refuse("as", "holds letters that a header cannot");
  if (uid !== "" && !sendable(uid)) return refuse("as-uid", "holds letters that a header cannot");
  if (!Array.isArray(groups) || !groups.every(sendable)) return refuse("as-groups", "should be names of groups");
  if (user["as-user-extra"] !== undefined) return refuse("as-user-extra", "is not supported", "take it away");
  if (as === "" && (uid !== "" || groups.length > 0)) return refuse("as", "is missing beside as-uid or as-groups");
  return {
    ...(as === "" ? {} : { "impersonate-user": as }),
    ...(uid === "" ? {} : { "impersonate-uid": uid }),
    ...(groups.length === 0 ? {} : { "impersonate-group": groups as readonly string[] }),
  };
}
