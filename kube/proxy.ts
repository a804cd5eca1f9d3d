/** Which HTTP proxy leads to an API server, if any: what a kubeconfig says, else the environment, as kubectl reads both. Pure. */

import { isIpv4, isLoopback, parseIp, prefixContains } from "../base/address.ts";

/** A proxy, and what we say to it of ourselves. Its password is in no message and no log. */
export interface HttpProxy {
  readonly host: string;
  readonly port: number;
  /** The value of Proxy-Authorization. */
  readonly authorization: string | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** @returns The proxy, or what is wrong with the text as `{ wrong }`; that never quotes it, since it may hold a password. */
export function readProxyUrl(text: string): HttpProxy | { readonly wrong: string } {
  const url = URL.parse(text.includes("://") ? text : `http://${text}`);
  if (url === null || url.hostname === "") return { wrong: "should be a URL like http://host:3128" };
  if (url.protocol !== "http:") return { wrong: "names a proxy that is no plain HTTP one" };
  if (url.pathname.length > 1 || url.search !== "" || url.hash !== "") {
    return { wrong: "should hold no path, query or fragment" };
  }
  const user = unescaped(url.username), password = unescaped(url.password);
  if (user === undefined || password === undefined) {
    return { wrong: "has a user or password that is no percent-encoding" };
  }
  const bytes = new TextEncoder().encode(`${user}:${password}`);
  return {
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? 80 : Number(url.port),
    authorization: url.username === "" && url.password === "" ? undefined : `Basic ${bytes.toBase64()}`,
  };
}

function unescaped(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    if (!(error instanceof URIError)) throw error;
    return undefined;
  }
}

/** The first of both spellings that is set, as curl and Go read them. */
function variable(
  environment: Environment,
  name: string,
): { readonly name: string; readonly text: string } | undefined {
  for (const spelling of [name, name.toLowerCase()]) {
    const text = environment[spelling];
    if (text !== undefined && text !== "") return { name: spelling, text };
  }
  return undefined;
}

/** What the environment says for this server: the variable and its text, unless NO_PROXY has the server. */
export function proxyVariable(
  server: URL,
  environment: Environment,
): { readonly name: string; readonly text: string } | undefined {
  const found = variable(environment, server.protocol === "https:" ? "HTTPS_PROXY" : "HTTP_PROXY");
  if (found === undefined) return undefined;
  const host = server.hostname.replace(/^\[|\]$/g, "").toLowerCase();
  const port = server.port !== "" ? server.port : server.protocol === "https:" ? "443" : "80";
  if (isOwn(host)) return undefined; // To the proxy that would be its own host.
  const exceptions = variable(environment, "NO_PROXY")?.text ?? "";
  return exceptions.split(",").some((it) => excepts(it.trim().toLowerCase(), host, port)) ? undefined : found;
}

function isOwn(host: string): boolean {
  const ip = parseIp(host);
  return ip === undefined ? host === "localhost" : isLoopback(...ip);
}

/**
 * One entry of NO_PROXY: `*`; a range of addresses; an address or a domain with its subdomains, with a port or without;
 * `.domain` for subdomains alone.
 */
function excepts(entry: string, host: string, port: string): boolean {
  if (entry === "*") return true;
  const ip = parseIp(host), [start = "", bits = "", more] = entry.split("/"), first = parseIp(start);
  if (bits !== "" && more === undefined && first !== undefined) {
    const length = /^\d{1,3}$/.test(bits) ? Number(bits) : NaN, max = isIpv4(first[0], first[1], first[2]) ? 32 : 128;
    return ip !== undefined && length <= max && prefixContains(first, length, ...ip);
  }
  const [, named = entry, wantedPort = port] = /^(\[.*\]|[^:]*):(\d+)$/.exec(entry) ?? [];
  const name = named.replace(/^\[|\]$/g, ""), address = parseIp(name);
  if (name === "" || wantedPort !== port) return false;
  if (address !== undefined) return ip !== undefined && address.every((word, at) => word === ip[at]);
  const domain = name.replace(/^\*(?=\.)/, "");
  return domain.startsWith(".") ? host.endsWith(domain) : host === domain || host.endsWith(`.${domain}`);
}
