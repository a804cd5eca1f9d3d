import { assertEquals } from "@std/assert";
import { AppProtocol } from "../../mesh/service.ts";
import { appProtocolOfEntryPort, appProtocolOfPort } from "./app_protocol.ts";

const named = ({ appProtocol }: { appProtocol?: AppProtocol }) =>
  Object.entries(AppProtocol).find(([, value]) => value === appProtocol)?.[0];

Deno.test("a Service's port: appProtocol, else its name up to the first -, else the ports where servers speak first (CP-226)", () => {
  const cases: [name: string, appProtocol: string, port: number, expected: string | undefined][] = [
    ["http", "", 80, "HTTP11"],
    ["http-web", "", 80, "HTTP11"],
    ["HTTP2-x", "", 80, "HTTP2"],
    ["grpc", "", 80, "GRPC"],
    ["grpc-api", "", 80, "GRPC"],
    ["grpc-web", "", 80, undefined],
    ["grpc-web-api", "", 80, undefined],
    ["tcp-x", "", 80, "TCP"],
    ["tls", "", 443, "TLS"],
    ["https-x", "", 443, "TLS"],
    ["web", "", 80, undefined],
    ["", "", 80, undefined],
    ["httpx", "", 80, undefined],
    ["web", "", 3306, "TCP"],
    ["", "", 53, "TCP"],
    ["", "", 25, "TCP"],
    ["", "", 27017, "TCP"],
    ["http", "", 3306, "HTTP11"],
    ["mysql", "", 3306, undefined],
    ["http", "grpc", 80, "GRPC"],
    ["http", "kubernetes.io/h2c", 80, "HTTP2"],
    ["tcp", "kubernetes.io/ws", 80, "HTTP11"],
    ["tcp", "kubernetes.io/wss", 80, "TLS"],
    ["http", "example.com/own", 80, undefined],
  ];
  for (const [name, appProtocol, port, expected] of cases) {
    const said = { name, appProtocol, port, protocol: "TCP", targetPort: port };
    assertEquals(named(appProtocolOfPort(said)), expected, `${name} ${appProtocol} ${port}`);
    assertEquals(named(appProtocolOfPort({ ...said, protocol: "UDP" })), undefined, "UDP has none");
  }
});

Deno.test("a ServiceEntry's port speaks its protocol, whatever the case (CP-226)", () => {
  const cases: [protocol: string, expected: string | undefined][] = [
    ["HTTP", "HTTP11"],
    ["http2", "HTTP2"],
    ["GRPC", "GRPC"],
    ["GRPC-Web", undefined],
    ["HTTPS", "TLS"],
    ["TLS", "TLS"],
    ["TCP", "TCP"],
    ["MONGO", undefined],
    ["", undefined],
  ];
  for (const [protocol, expected] of cases) assertEquals(named(appProtocolOfEntryPort(protocol)), expected, protocol);
});
