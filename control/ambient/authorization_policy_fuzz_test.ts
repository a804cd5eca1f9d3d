/** Converted policies decide as the written ones do, wherever ztunnel can know enough (CP section 10.6). */
import { assert, assertEquals } from "@std/assert";
import { parseIp, prefixContains } from "../../base/address.ts";
import { authorize, type ConnectionFacts } from "../../mesh/policy.ts";
import { decodeAuthorization, encodeAuthorization } from "../../mesh/proto/authorization_codec.ts";
import type { AuthorizationPolicyObject, AuthorizationRule, ValueLists } from "../objects.ts";
import { NO_META } from "../decode/no_meta.ts";
import { parsePrefix } from "./addresses.ts";
import { convertAuthorizationPolicy } from "./authorization_policy.ts";
import { AMBIENT_DEFAULTS } from "./options.ts";

interface Request {
  readonly namespace: string;
  readonly account: string;
  readonly trustDomain: string;
  readonly ip: string;
  readonly port: string;
  readonly method: string;
}

const VALUES: Readonly<Record<string, readonly string[]>> = {
  principals: ["td/ns/a/sa/x", "td/ns/b/sa/y", "td/*", "*/sa/x", "*", "other/ns/a/sa/x"],
  namespaces: ["a", "b", "a*", "*b", "*"],
  serviceAccounts: ["x", "a/x", "b/y"],
  ipBlocks: ["10.0.0.1", "10.0.0.0/24", "10.0.0.77/24", "192.0.2.0/30", "fd00::/16"],
  ports: ["80", "443"],
  methods: ["GET", "POST"],
  trustDomains: ["td", "other"],
};
const SOURCE_FIELDS = ["principals", "namespaces", "serviceAccounts", "ipBlocks", "trustDomains"];
const OPERATION_FIELDS = ["ports", "methods"];
const LAYER_7 = ["methods", "notMethods", "trustDomains", "notTrustDomains", "request.method"];
const WHEN_KEYS: Readonly<Record<string, string>> = {
  "source.principal": "principals",
  "source.namespace": "namespaces",
  "source.ip": "ipBlocks",
  "destination.port": "ports",
  "request.method": "methods",
};

function negated(field: string): string {
  return `not${field[0]!.toUpperCase()}${field.slice(1)}`;
}

function matchesText(pattern: string, text: string): boolean {
  if (pattern === "*") return text !== "";
  if (pattern.startsWith("*")) return text.endsWith(pattern.slice(1));
  return pattern.endsWith("*") ? text.startsWith(pattern.slice(0, -1)) : pattern === text;
}

/** Whether one written value holds of a request, as Istio's reference has it. */
function holds(field: string, value: string, request: Request): boolean {
  const { namespace, account, trustDomain } = request;
  if (field === "principals") return matchesText(value, `${trustDomain}/ns/${namespace}/sa/${account}`);
  if (field === "namespaces") return matchesText(value, namespace);
  if (field === "serviceAccounts") return (value.includes("/") ? value : `a/${value}`) === `${namespace}/${account}`;
  if (field === "trustDomains") return value === trustDomain;
  if (field === "ports") return value === request.port;
  if (field === "methods") return value === request.method;
  const prefix = parsePrefix(value)!, ip = parseIp(request.ip)!;
  const full = value.includes(":") ? 128 : 32;
  return prefixContains(prefix.ip, prefix.prefixLength ?? full, ip[0], ip[1], ip[2], ip[3]);
}

function listsHold(lists: ValueLists, request: Request): boolean {
  for (const [name, values] of lists) {
    const field = name.startsWith("not") ? name[3]!.toLowerCase() + name.slice(4) : name;
    if (values.some((value) => holds(field, value, request)) === name.startsWith("not")) return false;
  }
  return true;
}

/** The written rule, evaluated with everything known. */
function ruleHolds(rule: AuthorizationRule, request: Request): boolean {
  const any = (entries: readonly ValueLists[]) => entries.length === 0 || entries.some((it) => listsHold(it, request));
  const when = rule.when.every(({ key, values, notValues }) => {
    const is = (value: string) => holds(WHEN_KEYS[key]!, value, request);
    return (values.length === 0 || values.some(is)) && !notValues.some(is);
  });
  return any(rule.from) && any(rule.to) && when;
}

const namesOf = (rule: AuthorizationRule) => [
  ...[...rule.from, ...rule.to].map((lists) => [...lists.keys()]),
  ...rule.when.map(({ key }) => [key]),
];
const usesLayer7 = (rule: AuthorizationRule) => namesOf(rule).flat().some((name) => LAYER_7.includes(name));
/** Whether each entry says something that ztunnel knows: then a DENY can only deny more (CP-342). */
const everyEntryHasLayer4 = (rule: AuthorizationRule) =>
  namesOf(rule).every((names) => names.some((name) => !LAYER_7.includes(name)));

function factsOf({ namespace, account, trustDomain, ip, port }: Request): ConnectionFacts {
  const source = parseIp(ip)!;
  return {
    identity: { trustDomain, namespace, serviceAccount: account },
    principal: `${trustDomain}/ns/${namespace}/sa/${account}`,
    source0: source[0],
    source1: source[1],
    source2: source[2],
    source3: source[3],
    destination0: 0,
    destination1: 0,
    destination2: 0xffff,
    destination3: 1,
    destinationPort: Number(port),
  };
}

Deno.test("convertAuthorizationPolicy(): ALLOW never allows more than written, DENY denies no less where it can; without layer 7 both are exact", () => {
  let state = 11;
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor(state / 2 ** 32 * below);
  };
  const pick = <T>(from: readonly T[]): T => from[random(from.length)]!;
  const some = (field: string) => Array.from({ length: 1 + random(2) }, () => pick(VALUES[field]!));
  const lists = (fields: readonly string[]): ValueLists => {
    const map = new Map<string, readonly string[]>();
    for (let count = 1 + random(2); count > 0; count--) {
      const field = pick(fields);
      map.set(random(3) === 0 ? negated(field) : field, some(field));
    }
    return map;
  };
  const rule = (): AuthorizationRule => ({
    from: Array.from({ length: random(3) }, () => lists(SOURCE_FIELDS)),
    to: Array.from({ length: random(3) }, () => lists(OPERATION_FIELDS)),
    when: Array.from({ length: random(2) }, () => {
      const key = pick(Object.keys(WHEN_KEYS)), field = WHEN_KEYS[key]!, negative = random(3) === 0;
      return { key, values: negative ? [] : some(field), notValues: negative || random(4) === 0 ? some(field) : [] };
    }),
  });
  const meta = { ...NO_META, name: "p", namespace: "a" };
  let exact = 0, oneSided = 0;
  for (let round = 0; round < 3_000; round++) {
    const action = pick(["ALLOW", "DENY"] as const);
    const rules = Array.from({ length: random(3) }, rule);
    const object: AuthorizationPolicyObject = {
      kind: "AuthorizationPolicy",
      meta,
      selector: undefined,
      targets: [],
      action,
      rules,
    };
    const { policy } = convertAuthorizationPolicy(object, AMBIENT_DEFAULTS);
    const sent = decodeAuthorization(encodeAuthorization(policy!), policy!.key);
    for (let attempt = 0; attempt < 20; attempt++) {
      const request: Request = {
        namespace: pick(["a", "b", "ab"]),
        account: pick(["x", "y"]),
        trustDomain: pick(["td", "other"]),
        ip: pick(["10.0.0.1", "10.0.0.200", "192.0.2.3", "fd00::1"]),
        port: pick(["80", "443", "9"]),
        method: pick(["GET", "POST"]),
      };
      const { allowed } = authorize([sent], factsOf(request));
      const matched = rules.filter((it) => ruleHolds(it, request));
      const written = action === "ALLOW" ? matched.length > 0 : matched.length === 0;
      const label = Deno.inspect({ action, rules, request }, { depth: 9 });
      if (!rules.some(usesLayer7)) {
        assertEquals(allowed, written, label);
        exact++;
      } else if (action === "ALLOW") {
        if (allowed) assert(written, label);
        oneSided++;
      } else if (matched.some(everyEntryHasLayer4)) {
        assert(!allowed, label);
        oneSided++;
      }
    }
  }
  assert(exact > 5_000 && oneSided > 5_000, `both were tried: ${exact}, ${oneSided}`);
});
