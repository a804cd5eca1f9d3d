/** The schemas of Gateway and GatewayClass: the fields that waypoints, network gateways and their status need. */
import {
  type GatewayAddressEntry,
  type GatewayClassObject,
  type GatewayListener,
  type GatewayObject,
  type ObjectMeta,
  ROUTE_NAMESPACES,
} from "../objects.ts";
import type { Field } from "./field.ts";
import { decodeLabelSelector } from "./label_selector.ts";
import { subdomain } from "./values.ts";

const LISTENERS_MAX = 64; // the API's own bound

function decodeListener(field: Field): GatewayListener {
  const namespaces = field.get("allowedRoutes").get("namespaces"), selector = namespaces.get("selector");
  const tls = field.get("tls");
  return {
    name: field.get("name").required().text(),
    port: field.get("port").required().port(),
    protocol: field.get("protocol").required().text(),
    hostname: field.get("hostname").text(),
    tlsMode: tls.present ? tls.get("mode").text("Terminate") : "",
    from: namespaces.get("from").oneOf(ROUTE_NAMESPACES, "Same"),
    selector: selector.present ? decodeLabelSelector(selector) : undefined,
  };
}

function decodeAddress(field: Field): GatewayAddressEntry {
  return { type: field.get("type").text("IPAddress"), value: field.get("value").text() };
}

/** Throws FieldRefusal. */
export function decodeGateway(root: Field, meta: ObjectMeta): GatewayObject {
  const spec = root.get("spec").required(), infrastructure = spec.get("infrastructure");
  const listeners = spec.get("listeners");
  if (listeners.items().length > LISTENERS_MAX) listeners.fail(`must hold at most ${LISTENERS_MAX} listeners`);
  return {
    kind: "Gateway",
    meta,
    className: subdomain(spec.get("gatewayClassName")),
    listeners: listeners.items().map(decodeListener),
    infrastructure: infrastructure.present
      ? {
        labels: infrastructure.get("labels").textMap(),
        annotations: infrastructure.get("annotations").textMap(),
      }
      : undefined,
    addresses: spec.get("addresses").items().map(decodeAddress),
    statusAddresses: root.get("status").get("addresses").items().map(decodeAddress),
  };
}

/** Throws FieldRefusal. */
export function decodeGatewayClass(root: Field, meta: ObjectMeta): GatewayClassObject {
  const controllerName = root.get("spec").required().get("controllerName").required().text();
  return { kind: "GatewayClass", meta, controllerName };
}
