/** Fuzzed: what comes as text. Headers, identities, YAML and JSON of files and sockets, queries of the admin endpoint. */
import { equal } from "@std/assert";
import { formatSocketAddress, parseIp, parseSocketAddress } from "../../base/address.ts";
import { MeshError } from "../../base/errors.ts";
import { LogFilter } from "../../base/log.ts";
import { EMPTY_FILE, readFileState } from "../../control/folder/file_state.ts";
import { parseJson, parseYaml, YamlRefusal } from "../../control/folder/yaml.ts";
import { parseLocal } from "../../dataplane/agent/local_file.ts";
import { applyLevels } from "../../dataplane/agent/log_levels.ts";
import { readProxyConfig } from "../../dataplane/agent/proxy_config.ts";
import { parseEnrolRequest } from "../../mesh/enrolment.ts";
import { formatIdentity, parseIdentity } from "../../mesh/identity.ts";
import { parseAuthority } from "../../wire/authority.ts";
import { formatBaggage, parseBaggage } from "../../wire/baggage.ts";
import { parseForwardedHost } from "../../wire/forwarded.ts";
import { parseTraceparent } from "../../wire/traceparent.ts";
import { latin1, promise, size, sort, type Target, utf8 } from "./target.ts";

/** A reader of text. */
function text(
  name: string,
  seeds: readonly string[],
  run: (text: string) => string,
  words?: readonly string[],
): Target {
  return { name, seeds: seeds.map(utf8), bytesMax: 4_096, words, run: (input) => run(latin1(input)) };
}

const BAGGAGE = "k8s.cluster.name=Kubernetes,k8s.namespace.name=ns,k8s.deployment.name=web,service.name=web," +
  "service.version=v1,cloud.region=r,cloud.availability_zone=z";

const HEADERS: readonly Target[] = [
  text("baggage", [BAGGAGE, "k8s.pod.name=p;x=y , service.name = web"], (input) => {
    const baggage = parseBaggage(input), again = parseBaggage(formatBaggage(baggage));
    for (const [name, value] of Object.entries(baggage)) {
      promise(typeof value === "string" && value.length <= input.length, `${name} comes from the text`);
    }
    // What can be written at all is read back as it was.
    for (const [name, value] of Object.entries(again)) {
      promise(
        value === "" || value === baggage[name as keyof typeof baggage],
        `${name} is the same when written and read`,
      );
    }
    return Object.entries(baggage).filter(([, value]) => value !== "").map(([name]) => name).join();
  }, [",", "=", ";", " ", "service.name=", "k8s.pod.name=", "k8s.job.name="]),
  text("forwarded", ['for="10.0.0.1:80";host=web.ns.svc', "host=a, host=b", 'host="a\\"b"'], (input) => {
    const host = parseForwardedHost(input);
    if (host === undefined) return "none";
    promise(host.length > 0 && host.length <= input.length, "a host says something, and comes from the text");
    return `host ${size(host.length)} ${host.includes('"')}`;
  }, ['"', "host=", "for=", ";", ",", "\\", "HOST="]),
  text("traceparent", ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"], (input) => {
    const parent = parseTraceparent(input);
    if (parent === undefined) return "none";
    promise(/[1-9a-f]/.test(JSON.stringify(parent)), "an id is not zero");
    return "taken";
  }, ["-", "00", "ff", "0".repeat(32)]),
  text("authority", ["10.0.0.1:80", "[fd00::1]:8080", "web.ns.svc:443", "[::ffff:10.0.0.1]:80"], (input) => {
    const authority = parseAuthority(input);
    if (authority === undefined) return "refused";
    promise(authority.port >= 0 && authority.port <= 65_535, "a port is one");
    if (authority.kind === "hostname") return "hostname";
    const again = parseAuthority(formatSocketAddress(authority.ip, authority.port));
    promise(equal(again, authority), "an address is the same when written and read");
    return `address ${authority.ip[2] === 0xffff}`;
  }, [":", "[", "]", ".", "::", "ffff", "%25"]),
  text("socket-address", ["10.0.0.1:80", "[fd00::1]:1"], (input) => {
    parseIp(input);
    const address = parseSocketAddress(input);
    if (address === undefined) return "refused";
    promise(equal(parseSocketAddress(formatSocketAddress(address.ip, address.port)), address), "it is read back");
    return "taken";
  }, [":", "::", ".", "[", "]"]),
  text("spiffe-san", ["spiffe://cluster.local/ns/shop/sa/web"], (input) => {
    const identity = parseIdentity(input);
    if (identity === undefined) return "refused";
    promise(formatIdentity(identity) === input, "an identity is written as it was read");
    promise(!Object.values(identity).some((part) => part.includes("/")), "no part holds a separator");
    return Object.values(identity).map((part) => size(part.length)).join();
  }, ["spiffe://", "/ns/", "/sa/", "/", "%2f", ".."]),
];

const LEVELS = text("admin-logging", ["info", "info,access=debug", "xds=trace,dns=off"], (input) => {
  const filter = new LogFilter(), before = filter.toString(), wrong = applyLevels(filter, input);
  if (wrong === undefined) return `taken ${size(input.split(",").length)}`;
  promise(filter.toString() === before, "of a wrong text nothing is taken");
  return "refused";
}, ["=", ",", "info", "debug", "off"]);

const QUERY = text(
  "admin-query",
  ["/logging?level=info", "/config_dump", "/debug/pprof/profile?seconds=1"],
  (input) => {
    const url = URL.parse(`http://127.0.0.1:15000${input}`);
    if (url === null) return "no URL";
    const filter = new LogFilter();
    for (const level of url.searchParams.getAll("level")) applyLevels(filter, level);
    return `${url.pathname === "/logging"} ${size(url.searchParams.size)}`;
  },
  ["?", "&", "=", "%", "+", "#", "level="],
);

const YAML = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: p, namespace: n }
spec:
  action: DENY
  rules: [{ from: [{ source: { principals: ["*"], ipBlocks: &b [10.0.0.0/8] } }], when: [{ key: source.ip, values: *b }] }]
---
apiVersion: v1
kind: Pod
metadata: { name: a, namespace: n, labels: { app: x } }
spec: { nodeName: node, serviceAccountName: sa, containers: [{ name: app }] }
status: { phase: Running, podIPs: [{ ip: 10.0.0.1 }, { ip: "fd00::1" }] }
`;
const LOCAL = `workloads:
- workload: { uid: u, name: w, namespace: n, workloadIps: [10.0.0.1], protocol: HBONE, services: {} }
  services: { n/web.svc: { 80: 8080 } }
policies:
- { name: p, namespace: n, scope: Global, action: Deny, rules: [[[{ principals: [!Exact a] }]]] }
services:
- { name: web, namespace: n, hostname: web.svc, vips: [/10.96.0.1], ports: { 80: 8080 } }
`;
const YAML_WORDS = [
  "{",
  "}",
  "[",
  "]",
  ": ",
  ", ",
  "\n",
  "- ",
  "  ",
  "&a ",
  "*a",
  "!Exact ",
  "!!int ",
  "---\n",
  "|\n",
  ">-\n",
  "null",
  "~",
  "'",
  '"',
  "#",
  "<<: ",
];

const DOCUMENTS: readonly Target[] = [
  text("yaml", [YAML.split("---")[0]!, "a: &x [1, 2]\nb: *x\n"], (input) => plain(() => parseYaml(input)), YAML_WORDS),
  text("json", ['{"a":[1,2,{"b":null}]}'], (input) => plain(() => parseJson(input)), [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    '"',
    "\\u0000",
    "1e999",
    "null",
  ]),
  {
    name: "folder-file",
    seeds: [utf8(YAML)],
    bytesMax: 4_096,
    words: YAML_WORDS,
    run(input) {
      const before = readFileState("f.yaml", utf8(YAML), EMPTY_FILE),
        { held, refusals } = readFileState("f.yaml", input, before);
      for (const { line } of held.values()) promise(line > 0, "an object is somewhere");
      return `${size(held.size)} ${refusals.map((it) => sort(it.reason)).slice(0, 2).join()}`;
    },
  },
  text("local-file", [LOCAL], (input) => {
    try {
      const resources = parseLocal(input, "f");
      return `taken ${size(resources.addresses.length)} ${size(resources.policies.length)}`;
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      return sort(error.message.split(": ").slice(1).join(" "));
    }
  }, YAML_WORDS),
  text(
    "proxy-config",
    ["discoveryAddress: istiod:15012\nproxyMetadata: { A: b }\nproxyAdminPort: 15000\n"],
    (input) => {
      try {
        const config = readProxyConfig(undefined, { PROXY_CONFIG: input, ISTIO_META_X: "y" });
        return `taken ${config.discoveryAddress === undefined} ${config.proxyAdminPort === undefined}`;
      } catch (error) {
        if (!(error instanceof MeshError)) throw error;
        return sort(error.message);
      }
    },
    YAML_WORDS,
  ),
  text(
    "enrol-request",
    ['{"target":"netns/a","namespace":"n","serviceAccount":"s","name":"w","dnsCapture":true}'],
    (input) => {
      let value: unknown;
      try {
        value = parseJson(input);
      } catch (error) {
        if (!(error instanceof YamlRefusal)) throw error;
        return "no JSON";
      }
      const request = parseEnrolRequest(value);
      if ("wrong" in request) return sort(request.wrong);
      promise(/^[a-z0-9.-]+$/.test(request.name), "a name has no other letters");
      return `taken ${request.target.kind}`;
    },
    ['"netns-path:/', '"pid/', "null", "true", ","],
  ),
];

function plain(parse: () => unknown): string {
  try {
    const value = parse();
    return `taken ${value === null ? "null" : Array.isArray(value) ? "list" : typeof value}`;
  } catch (error) {
    if (!(error instanceof YamlRefusal)) throw error;
    return sort(error.message);
  }
}

export const TEXT_TARGETS: readonly Target[] = [...HEADERS, LEVELS, QUERY, ...DOCUMENTS];
