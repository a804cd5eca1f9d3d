/** A connection to an API server through an HTTP proxy: CONNECT, and then whatever the server speaks (RFC 9110 §9.3.6). */
import { connect, type Socket } from "node:net";
import { MeshError } from "../base/errors.ts";
import type { Dial } from "./access.ts";
import { type HttpProxy, proxyVariable, readProxyUrl } from "./proxy.ts";

/** Until the proxy has answered: it may have to resolve and reach the server first. */
const ANSWER_LIMIT_MS = 30_000;
const HEAD_BYTES_MAX = 16 << 10;
const HEAD_END = "\r\n\r\n";

/** @param limitMs for tests. @returns What opens connections; it fails with an error that names the proxy and not what we are there. */
export function dialBy(proxy: HttpProxy, limitMs = ANSWER_LIMIT_MS): Dial {
  const via = `the proxy ${hostPort(proxy.host, proxy.port)}`;
  return (host, port, signal) => {
    const { promise, resolve, reject } = Promise.withResolvers<Socket>();
    const socket = connect(proxy.port, proxy.host), target = hostPort(host, port);
    let head = "";
    const fail = (why: string) => {
      reject(new Error(`${via} ${why}`));
      socket.destroy();
    };
    const onAbort = () => fail("is no longer wanted");
    signal.addEventListener("abort", onAbort);
    const timer = setTimeout(() => fail(`has not answered within ${limitMs / 1_000} s`), limitMs);
    const onError = (error: Error) => fail(`cannot be reached: ${error.message}`);
    const onClose = () => fail("closed the connection without an answer");
    const onData = (bytes: Uint8Array) => {
      head += new TextDecoder("latin1").decode(bytes);
      const end = head.indexOf(HEAD_END);
      if (end < 0) return void (head.length > HEAD_BYTES_MAX && fail("answers with more than a head"));
      const status = /^HTTP\/1\.[01] (\d{3})[ \r]/.exec(head)?.[1];
      if (status === undefined) return fail("answers what is no HTTP");
      if (status === "407") return fail("wants another user and password (407)");
      if (!status.startsWith("2")) return fail(`refuses to connect to ${target} (${status})`);
      // Before it is asked a server of HTTP or TLS says nothing: what is there is somebody else's.
      if (head.length > end + HEAD_END.length) return fail("sent more than its answer");
      socket.off("data", onData).off("error", onError).off("close", onClose);
      resolve(socket);
    };
    socket.on("data", onData).on("error", onError).on("close", onClose);
    socket.once("connect", () => {
      const credentials = proxy.authorization === undefined ? "" : `Proxy-Authorization: ${proxy.authorization}\r\n`;
      socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n${credentials}\r\n`);
    });
    return promise.finally(() => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    });
  };
}

/** The proxy that the environment names for the server, as programs of Kubernetes take it. @throws MeshError AMB0840. */
export function environmentsProxy(
  server: URL,
  environment: Readonly<Record<string, string | undefined>>,
): HttpProxy | undefined {
  const said = proxyVariable(server, environment);
  if (said === undefined) return undefined;
  const proxy = readProxyUrl(said.text);
  if (!("wrong" in proxy)) return proxy;
  throw new MeshError("AMB0840", `reaching the API server ${server.host} by ${said.name}, which ${proxy.wrong}`, {
    remedy: "name a proxy that takes CONNECT over plain HTTP, or put the API server into NO_PROXY",
  });
}

function hostPort(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
