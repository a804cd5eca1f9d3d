/** The schemas of WorkloadEntry and ServiceEntry. */
import { parseIp } from "../../base/address.ts";
import {
  type EntryEndpoint,
  type ObjectMeta,
  SERVICE_ENTRY_RESOLUTIONS,
  type ServiceEntryObject,
  type WorkloadEntryObject,
} from "../objects.ts";
import type { Field } from "./field.ts";
import { host, ipOrPrefix, subdomain } from "./values.ts";

function decodeEndpoint(field: Field): EntryEndpoint {
  const address = field.get("address"), network = field.get("network").text();
  if (!address.present || address.text() === "") {
    // Reached through its network's gateway (CP-212).
    if (network === "") address.fail("is required unless a network is set");
  } else if (address.text().startsWith("unix:")) address.fail("must not be a Unix domain socket: the mesh carries TCP");
  else if (parseIp(address.text()) === undefined) host(address);
  const account = field.get("serviceAccount");
  return {
    address: address.text(),
    ports: new Map(field.get("ports").entries().map(([name, port]) => [name, port.required().port()])),
    labels: field.get("labels").textMap(),
    network,
    locality: field.get("locality").text(),
    weight: field.get("weight").integer(0, 0xffff_ffff),
    serviceAccount: account.present && account.text() !== "" ? subdomain(account) : "",
  };
}

/** Throws FieldRefusal. */
export function decodeWorkloadEntry(root: Field, meta: ObjectMeta): WorkloadEntryObject {
  return { kind: "WorkloadEntry", meta, spec: decodeEndpoint(root.get("spec").required()) };
}

/** Throws FieldRefusal. */
export function decodeServiceEntry(root: Field, meta: ObjectMeta): ServiceEntryObject {
  const spec = root.get("spec").required();
  const hosts = spec.get("hosts").required(), selector = spec.get("workloadSelector");
  if (hosts.items().length === 0) hosts.fail("must hold at least one host");
  const endpoints = spec.get("endpoints");
  if (selector.present && endpoints.items().length > 0) endpoints.fail("must be absent when workloadSelector is set");
  const resolution = spec.get("resolution").oneOf(SERVICE_ENTRY_RESOLUTIONS, "NONE");
  const names = new Set<string>();
  const ports = spec.get("ports").items().map((port) => {
    const name = port.get("name");
    if (names.has(name.text())) name.fail("is used by an earlier port");
    names.add(name.text());
    return {
      name: name.text(),
      protocol: port.get("protocol").text("TCP"),
      port: port.get("number").required().port(),
      targetPort: port.get("targetPort").port(),
    };
  });
  return {
    kind: "ServiceEntry",
    meta,
    hosts: hosts.items().map(host),
    addresses: spec.get("addresses").items().map(ipOrPrefix),
    ports,
    resolution,
    endpoints: endpoints.items().map(decodeEndpoint),
    selector: selector.present ? selector.get("labels").textMap() : undefined,
    subjectAltNames: spec.get("subjectAltNames").texts(),
    allocated: root.get("status").get("addresses").items().map((item) => ({
      value: ipOrPrefix(item.get("value")),
      host: item.get("host").text(),
    })),
  };
}
