/** WorkloadEntry and ServiceEntry on their way in (CP-696, CP-697). */
import { parseIp } from "../../base/address.ts";
import { decodeServiceEntry, decodeWorkloadEntry } from "../decode/entries.ts";
import { Field } from "../decode/field.ts";
import { label, parsePrefix } from "../decode/values.ts";
import { NO_META } from "../decode/no_meta.ts";
import type { Findings } from "./findings.ts";
import { checkSelector } from "./selectors.ts";

const ENDPOINT_FIELDS = ["address", "ports", "labels", "network", "locality", "weight", "serviceAccount"];
const SERVICE_FIELDS = [
  "hosts",
  "addresses",
  "ports",
  "location",
  "resolution",
  "endpoints",
  "workloadSelector",
  "exportTo",
  "subjectAltNames",
];
const PORT_FIELDS = ["number", "protocol", "name", "targetPort"];
const LOCATIONS = ["MESH_EXTERNAL", "MESH_INTERNAL"] as const;

/** Protocols of ports, and what of a request tells hosts apart there. */
const PROTOCOLS: Readonly<Record<string, "http" | "tls" | "nothing">> = {
  HTTP: "http",
  HTTP2: "http",
  HTTP_PROXY: "http",
  GRPC: "http",
  "GRPC-WEB": "http",
  HTTPS: "tls",
  TLS: "tls",
  TCP: "nothing",
  UDP: "nothing",
  MONGO: "nothing",
  REDIS: "nothing",
  MYSQL: "nothing",
  HBONE: "nothing",
};
const DYNAMIC_PROTOCOLS = ["HTTP", "HTTP2", "GRPC", "TLS"];
const USE_WAYPOINT = "istio.io/use-waypoint";

const LABEL_KEY = /^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
const LABEL_VALUE = /^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/;
const FQDN =
  /^(?=.{1,255}$)[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?)*\.?$/;

export function checkWorkloadEntry(root: Field, findings: Findings): void {
  const spec = root.get("spec");
  findings.attempt(() => spec.required().only(...ENDPOINT_FIELDS));
  const isSocket = checkEndpoint(spec, findings);
  // A socket is nothing the mesh carries, so that the rest is decoded as if the address were another.
  const shown = isSocket
    ? new Field({ ...spec.value as Record<string, never>, address: "127.0.0.1" }, spec.path)
    : spec;
  findings.attempt(() => decodeWorkloadEntry(new Field({ spec: shown.value ?? null }), NO_META));
}

/** @returns whether its address is a Unix domain socket. */
function checkEndpoint(endpoint: Field, findings: Findings): boolean {
  const address = endpoint.get("address"), text = findings.attempt(() => address.text()) ?? "";
  const ports = endpoint.get("ports"), names = findings.attempt(() => ports.entries()) ?? [];
  const isSocket = text.startsWith("unix://");
  if (isSocket) {
    findings.refuseIf(!/^unix:\/\/[/@]./.test(text), address, "must name an absolute path, or an abstract socket by @");
    findings.refuseIf(names.length > 0, ports, "must be absent beside a socket");
    findings.warn(address, "is a Unix domain socket, which the mesh does not carry: it has no effect");
  } else if (text === "" && endpoint.get("network").present) {
    findings.warn(address, "is not set: it is reached through its network's gateway, if there is one");
  } else if (text !== "" && parseIp(text) === undefined && !FQDN.test(text)) {
    findings.refuse(address, "must be an IP address, a host's name, or a socket's path by unix://");
  }
  for (const [name, field] of names) {
    findings.attempt(() => label(new Field(name, field.path)));
    findings.attempt(() => field.required().port());
  }
  checkLabels(endpoint.get("labels"), findings);
  checkLocality(endpoint.get("locality"), findings);
  return isSocket;
}

function checkLabels(labels: Field, findings: Findings): void {
  for (const [key, field] of findings.attempt(() => labels.entries()) ?? []) {
    const value = findings.attempt(() => field.text()) ?? "";
    findings.refuseIf(!LABEL_KEY.test(key), field, "is not named as a label can be");
    findings.refuseIf(!LABEL_VALUE.test(value), field, "is no value of a label");
  }
}

/** `region/zone/subzone`, from the left as far as known. */
function checkLocality(locality: Field, findings: Findings): void {
  const text = findings.attempt(() => locality.text()) ?? "";
  if (text === "") return;
  const parts = text.split("/");
  findings.refuseIf(parts.length > 3, locality, "may hold region/zone/subzone and no more");
  findings.refuseIf(parts.some((part) => part === ""), locality, "may hold no empty part");
  findings.refuseIf(text.includes("*"), locality, "may hold no wildcard");
}

export function checkServiceEntry(root: Field, findings: Findings): void {
  const spec = root.get("spec");
  findings.attempt(() => spec.required().only(...SERVICE_FIELDS));
  // Of all that is told at once only what the folder refuses too; then what only an author can mend.
  const addressed = findings.attempt(() => decodeServiceEntry(withoutSockets(root), NO_META));
  checkShape(spec, findings);
  if (addressed === undefined) return;
  const facts: Facts = {
    hosts: addressed.hosts,
    resolution: addressed.resolution,
    addresses: addressed.addresses,
    endpoints: spec.get("endpoints").items(),
    protocols: spec.get("ports").items().map((port) => port.get("protocol")),
    ports: new Set(addressed.ports.map((port) => port.name)),
    usesWaypoint: usesWaypoint(root),
  };
  for (const rule of SERVICE_RULES) {
    if (rule.holds(facts, spec)) findings.refuse(rule.at(spec), rule.why);
  }
  checkEndpoints(facts, findings);
  checkServiceWarnings(facts, spec, findings);
}

/** Endpoints that are sockets are judged by {@link checkEndpoint}. */
function withoutSockets(root: Field): Field {
  const spec = root.get("spec");
  if (!Array.isArray(spec.get("endpoints").value)) return root;
  const endpoints = spec.get("endpoints").items().map(({ value }) => {
    const socket = typeof value === "object" && value !== null && "address" in value &&
      String(value.address).startsWith("unix://");
    return socket ? { ...value, address: "127.0.0.1" } : value ?? null;
  });
  const plain = { ...spec.value as Record<string, never>, endpoints };
  return new Field({ spec: plain, status: root.get("status").value ?? null });
}

function usesWaypoint(root: Field): boolean {
  const value = root.get("metadata").get("labels").get(USE_WAYPOINT).value;
  return typeof value === "string" && value !== "" && value.toLowerCase() !== "none";
}

interface Facts {
  readonly hosts: readonly string[];
  readonly resolution: string;
  readonly addresses: readonly string[];
  readonly endpoints: readonly Field[];
  readonly protocols: readonly Field[];
  readonly ports: ReadonlySet<string>;
  readonly usesWaypoint: boolean;
}

interface ServiceRule {
  /** Whether it is broken. */
  readonly holds: (facts: Facts, spec: Field) => boolean;
  readonly at: (spec: Field) => Field;
  readonly why: string;
}

const byName = (facts: Facts) => facts.resolution === "DNS" || facts.resolution === "DNS_ROUND_ROBIN";
const dynamic = (facts: Facts) => facts.resolution === "DYNAMIC_DNS";
const isWild = (host: string) => host.startsWith("*");
const protocolOf = (field: Field) => typeof field.value === "string" ? field.value.toUpperCase() : "";

const SERVICE_RULES: readonly ServiceRule[] = [
  {
    holds: (it) => it.resolution === "NONE" && it.endpoints.length > 0,
    at: (spec) => spec.get("endpoints"),
    why: "must be absent with resolution NONE",
  },
  {
    holds: (it) =>
      it.resolution !== "NONE" && it.resolution !== "STATIC" && it.addresses.some((address) => address.includes("/")),
    at: (spec) => spec.get("addresses"),
    why: "may hold prefixes with resolution NONE or STATIC only",
  },
  {
    holds: (it) => byName(it) && it.endpoints.length === 0 && it.hosts.some((host) => !FQDN.test(host)),
    at: (spec) => spec.get("hosts"),
    why: "must be whole names: without endpoints they are what is looked up",
  },
  {
    holds: (it) => it.resolution === "DNS_ROUND_ROBIN" && it.endpoints.length > 1,
    at: (spec) => spec.get("endpoints"),
    why: "may be one at most with resolution DNS_ROUND_ROBIN",
  },
  {
    holds: (it) => dynamic(it) && !it.hosts.every(isWild),
    at: (spec) => spec.get("hosts"),
    why: "must all be wildcards with resolution DYNAMIC_DNS",
  },
  {
    holds: (it) => dynamic(it) && it.addresses.length > 0,
    at: (spec) => spec.get("addresses"),
    why: "must be absent with resolution DYNAMIC_DNS",
  },
  {
    holds: (it) => dynamic(it) && it.endpoints.length > 0,
    at: (spec) => spec.get("endpoints"),
    why: "must be absent with resolution DYNAMIC_DNS",
  },
  {
    holds: (it) => dynamic(it) && !it.protocols.every((protocol) => DYNAMIC_PROTOCOLS.includes(protocolOf(protocol))),
    at: (spec) => spec.get("ports"),
    why: `must be ${DYNAMIC_PROTOCOLS.join(", ")} with resolution DYNAMIC_DNS`,
  },
  {
    holds: (it, spec) => dynamic(it) && spec.get("location").value === "MESH_INTERNAL" && it.usesWaypoint,
    at: (spec) => spec.get("location"),
    why: "must be MESH_EXTERNAL with resolution DYNAMIC_DNS and a waypoint",
  },
  {
    holds: (it) =>
      it.resolution !== "NONE" && it.hosts.length > 1 &&
      it.protocols.some((protocol) => (PROTOCOLS[protocolOf(protocol)] ?? "nothing") === "nothing"),
    at: (spec) => spec.get("hosts"),
    why: "may be one only, where a port is neither HTTP nor TLS: nothing else tells them apart",
  },
];

/** Of each list its items, whatever the resolution. */
function checkShape(spec: Field, findings: Findings): void {
  const items = (name: string) => findings.attempt(() => spec.get(name).items()) ?? [];
  for (const host of items("hosts")) findings.refuseIf(host.value === "*", host, "may not be every host there is");
  const numbers = new Set<unknown>();
  for (const port of items("ports")) {
    findings.attempt(() => port.required().only(...PORT_FIELDS));
    findings.attempt(() => label(port.get("name")));
    const number = port.get("number"), protocol = port.get("protocol");
    findings.refuseIf(numbers.has(number.value), number, "is used by an earlier port");
    numbers.add(number.value);
    const known = protocol.value === undefined || protocol.value === "" ||
      Object.hasOwn(PROTOCOLS, protocolOf(protocol));
    findings.refuseIf(!known, protocol, `must be one of ${Object.keys(PROTOCOLS).join(", ")}`);
  }
  findings.attempt(() => spec.get("location").oneOf(LOCATIONS, "MESH_EXTERNAL"));
  const selector = spec.get("workloadSelector");
  findings.attempt(() => selector.only("labels"));
  checkSelector(selector, findings, "labels");
  for (const endpoint of items("endpoints")) {
    findings.attempt(() => endpoint.required().only(...ENDPOINT_FIELDS));
    checkEndpoint(endpoint, findings);
  }
  checkExport(items("exportTo"), findings);
}

/** Whom it is shown to; ambient shows it to all (serviceEntryVisibility says otherwise), so that it is but checked. */
function checkExport(targets: readonly Field[], findings: Findings): void {
  const seen = new Set<unknown>();
  for (const target of targets) {
    findings.refuseIf(seen.has(target.value), target, "is there twice");
    seen.add(target.value);
    if (![".", "*", "~"].includes(target.value as string)) findings.attempt(() => label(target));
  }
  const [first] = targets;
  const alone = seen.has("*") || seen.has("~");
  if (first !== undefined) findings.refuseIf(alone && targets.length > 1, first, "may hold nothing beside * or ~");
}

function checkEndpoints({ resolution, endpoints, ports }: Facts, findings: Findings): void {
  for (const endpoint of endpoints) {
    const address = endpoint.get("address"), text = address.text();
    const isIp = text === "" || text.startsWith("unix://") || parseIp(text) !== undefined;
    findings.refuseIf(resolution === "STATIC" && !isIp, address, "must be an IP address with resolution STATIC");
    for (const [name, port] of endpoint.get("ports").entries()) {
      findings.refuseIf(!ports.has(name), port, "is named as no port of the service");
    }
    findings.refuseIf(
      text.startsWith("unix://") && ports.size !== 1,
      address,
      "is a socket, which needs exactly one port of the service",
    );
  }
}

function checkServiceWarnings(
  { resolution, hosts, addresses, protocols }: Facts,
  spec: Field,
  findings: Findings,
): void {
  if (resolution === "NONE" && spec.get("workloadSelector").present) {
    findings.warn(spec.get("workloadSelector"), "has no effect with resolution NONE");
  }
  const isPlain = protocols.some((protocol) => ["", "TCP"].includes(protocolOf(protocol)));
  if (addresses.length > 0 && hosts.length > 1 && isPlain && resolution === "NONE") {
    findings.warn(spec.get("hosts"), "cannot be told apart by TCP at the same addresses");
  }
  const wide = addresses.find((address) => parsePrefix(address)?.prefixLength === 0);
  if (wide !== undefined) findings.warn(spec.get("addresses"), `holds ${wide}, which is every address there is`);
}
