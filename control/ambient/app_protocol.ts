/** What a port's traffic speaks, by what its author said of it (CP-226). Pure. */
import { AppProtocol } from "../../mesh/service.ts";
import type { KubernetesServicePort } from "../objects.ts";

/** What a name of a protocol stands for; of the recognised ones that are not told apart on the wire, unknown. */
const BY_NAME: ReadonlyMap<string, AppProtocol> = new Map<string, AppProtocol>([
  ["http", AppProtocol.HTTP11],
  ["http2", AppProtocol.HTTP2],
  ["grpc", AppProtocol.GRPC],
  ["tcp", AppProtocol.TCP],
  ["tls", AppProtocol.TLS],
  ["https", AppProtocol.TLS],
  ["udp", AppProtocol.UNKNOWN],
  ["http_proxy", AppProtocol.UNKNOWN],
  ["mongo", AppProtocol.UNKNOWN],
  ["redis", AppProtocol.UNKNOWN],
  ["mysql", AppProtocol.UNKNOWN],
]);

/** Kubernetes' own names, which no port name can be. */
const OF_KUBERNETES: ReadonlyMap<string, AppProtocol> = new Map<string, AppProtocol>([
  ["kubernetes.io/h2c", AppProtocol.HTTP2],
  ["kubernetes.io/ws", AppProtocol.HTTP11],
  ["kubernetes.io/wss", AppProtocol.TLS],
]);

/** Ports of servers that speak first (SMTP, DNS, MySQL, MongoDB): to wait for the client's bytes would wait for ever. */
const SERVER_FIRST_PORTS: readonly number[] = [25, 53, 3306, 27017];

/** The field of a port, left out when unknown. */
type AppProtocolField = { readonly appProtocol?: AppProtocol };

function field(protocol: AppProtocol): AppProtocolField {
  return protocol === AppProtocol.UNKNOWN ? {} : { appProtocol: protocol };
}

/** Of a Kubernetes Service's port: what its appProtocol says, else its name up to the first `-`. */
export function appProtocolOfPort(port: KubernetesServicePort): AppProtocolField {
  if (port.protocol === "UDP") return {};
  const kubernetes = OF_KUBERNETES.get(port.appProtocol);
  if (kubernetes !== undefined) return field(kubernetes);
  const name = (port.appProtocol || port.name).toLowerCase();
  if (name.startsWith("grpc-web")) return {};
  const named = BY_NAME.get(name.split("-", 1)[0]!);
  return field(named ?? (SERVER_FIRST_PORTS.includes(port.port) ? AppProtocol.TCP : AppProtocol.UNKNOWN));
}

/** Of a ServiceEntry's port, by its protocol. */
export function appProtocolOfEntryPort(protocol: string): AppProtocolField {
  return field(BY_NAME.get(protocol.toLowerCase()) ?? AppProtocol.UNKNOWN);
}
