/**
 * The schemas of AuthorizationPolicy and PeerAuthentication. Stricter than the others: no field may be unknown and no
 * entry empty, because both would make a policy allow more than its author wrote.
 */
import {
  AUTHORIZATION_ACTIONS,
  type AuthorizationPolicyObject,
  type AuthorizationRule,
  type Labels,
  MTLS_MODES,
  type MtlsMode,
  type ObjectMeta,
  type PeerAuthenticationObject,
  type TargetReference,
  type ValueLists,
  type WhenCondition,
} from "../objects.ts";
import type { Field } from "./field.ts";
import { ipOrPrefix, portText } from "./values.ts";

type ReadValue = (field: Field) => string;
const anyText: ReadValue = (field) => {
  const text = field.required().text();
  return text === "" ? field.fail("must not be empty") : text;
};
const serviceAccount: ReadValue = (field) => {
  const text = anyText(field);
  return /^[^/*]+(\/[^/*]+)?$/.test(text)
    ? text
    : field.fail("must be an account, or a namespace and an account: ns/account");
};

/** What each list of a `source` holds. */
const SOURCE_LISTS: Readonly<Record<string, ReadValue>> = {
  principals: anyText,
  notPrincipals: anyText,
  requestPrincipals: anyText,
  notRequestPrincipals: anyText,
  namespaces: anyText,
  notNamespaces: anyText,
  serviceAccounts: serviceAccount,
  notServiceAccounts: serviceAccount,
  ipBlocks: ipOrPrefix,
  notIpBlocks: ipOrPrefix,
  remoteIpBlocks: ipOrPrefix,
  notRemoteIpBlocks: ipOrPrefix,
  trustDomains: anyText,
  notTrustDomains: anyText,
};

/** What each list of an `operation` holds. */
const OPERATION_LISTS: Readonly<Record<string, ReadValue>> = {
  hosts: anyText,
  notHosts: anyText,
  ports: portText,
  notPorts: portText,
  methods: anyText,
  notMethods: anyText,
  paths: anyText,
  notPaths: anyText,
};

/** Keys of `when` whose values are checked; any other key is for a waypoint (CP-340). */
const WHEN_VALUES: Readonly<Record<string, ReadValue>> = {
  "source.ip": ipOrPrefix,
  "destination.ip": ipOrPrefix,
  "destination.port": portText,
};

function decodeLists(field: Field, readers: Readonly<Record<string, ReadValue>>): ValueLists {
  field.required().only(...Object.keys(readers));
  const lists = new Map<string, readonly string[]>();
  for (const [name, list] of field.entries()) {
    const values = list.items().map(readers[name]!);
    if (values.length === 0) list.fail("must hold at least one value");
    lists.set(name, values);
  }
  if (lists.size === 0) field.fail("must hold at least one field: an empty one would match everything");
  return lists;
}

function decodeEntries(list: Field, inner: string, readers: Readonly<Record<string, ReadValue>>): ValueLists[] {
  if (list.value !== undefined && list.items().length === 0) list.fail("must hold at least one entry, or be absent");
  return list.items().map((entry) => {
    entry.required().only(inner);
    return decodeLists(entry.get(inner), readers);
  });
}

function decodeWhen(list: Field): WhenCondition[] {
  if (list.value !== undefined && list.items().length === 0) {
    list.fail("must hold at least one condition, or be absent");
  }
  return list.items().map((condition) => {
    condition.required().only("key", "values", "notValues");
    const key = anyText(condition.get("key"));
    const read = Object.hasOwn(WHEN_VALUES, key) ? WHEN_VALUES[key]! : anyText;
    const values = condition.get("values").items().map(read), notValues = condition.get("notValues").items().map(read);
    if (values.length + notValues.length === 0) condition.fail("must have values or notValues");
    return { key, values, notValues };
  });
}

function decodeRule(rule: Field): AuthorizationRule {
  rule.required().only("from", "to", "when");
  return {
    from: decodeEntries(rule.get("from"), "source", SOURCE_LISTS),
    to: decodeEntries(rule.get("to"), "operation", OPERATION_LISTS),
    when: decodeWhen(rule.get("when")),
  };
}

function decodeSelector(selector: Field): Labels | undefined {
  if (!selector.present) return undefined;
  selector.only("matchLabels");
  return selector.get("matchLabels").textMap();
}

/** An object of the policy's own namespace, or a GatewayClass. */
function decodeTarget(field: Field): TargetReference {
  field.required().only("group", "kind", "name", "namespace");
  const namespace = field.get("namespace");
  if (namespace.text() !== "") namespace.fail("must be absent: a policy's target is in its own namespace");
  return { group: field.get("group").text(), kind: anyText(field.get("kind")), name: anyText(field.get("name")) };
}

/** Throws FieldRefusal. */
export function decodeAuthorizationPolicy(root: Field, meta: ObjectMeta): AuthorizationPolicyObject {
  root.only("apiVersion", "kind", "metadata", "spec", "status");
  const spec = root.get("spec");
  spec.only("selector", "targetRef", "targetRefs", "rules", "action", "provider");
  const single = spec.get("targetRef");
  const targets = [...single.present ? [single] : [], ...spec.get("targetRefs").items()].map(decodeTarget);
  const selector = decodeSelector(spec.get("selector"));
  if (targets.length > 0 && selector !== undefined) {
    spec.get("selector").fail("must be absent when the policy has a targetRef");
  }
  return {
    kind: "AuthorizationPolicy",
    meta,
    selector,
    targets,
    action: spec.get("action").oneOf(AUTHORIZATION_ACTIONS, "ALLOW"),
    rules: spec.get("rules").items().map(decodeRule),
  };
}

function decodeMode(field: Field): MtlsMode {
  field.only("mode");
  return field.get("mode").oneOf(MTLS_MODES, "UNSET");
}

/** Throws FieldRefusal. */
export function decodePeerAuthentication(root: Field, meta: ObjectMeta): PeerAuthenticationObject {
  root.only("apiVersion", "kind", "metadata", "spec", "status");
  const spec = root.get("spec");
  spec.only("selector", "mtls", "portLevelMtls");
  const selector: Labels = decodeSelector(spec.get("selector")) ?? new Map();
  const ports = spec.get("portLevelMtls");
  const portModes = new Map<number, MtlsMode>();
  for (const [port, mode] of ports.entries()) {
    if (!/^[1-9]\d{0,4}$/.test(port) || Number(port) > 65535) mode.fail("must be named by a port of 1 to 65535");
    portModes.set(Number(port), decodeMode(mode));
  }
  if (portModes.size > 0 && selector.size === 0) {
    ports.fail("needs a selector: ports cannot be set for a whole namespace");
  }
  return { kind: "PeerAuthentication", meta, selector, mode: decodeMode(spec.get("mtls")), portModes };
}
