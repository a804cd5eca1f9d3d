/** A policy of a local file, as the config dump writes one (ZT-146, ZT-211). */
import {
  type Policy,
  PolicyAction,
  type PolicyMatch,
  PolicyScope,
  type ServiceAccountMatch,
  type StringMatch,
} from "../../mesh/policy.ts";
import { rangeOf } from "./local_range.ts";
import type { Field } from "./yaml_fields.ts";

const POLICY_KEYS = ["name", "namespace", "scope", "action", "rules", "dryRun"];
const KINDS = { Exact: "exact", Prefix: "prefix", Suffix: "suffix", Presence: "presence" } as const;

/** Reads one; all fields are required. @throws DocumentProblem */
export function readPolicy(field: Field): Policy {
  field.onlyKeys(POLICY_KEYS);
  const name = field.at("name").text(), namespace = field.at("namespace").text();
  return {
    key: `${namespace}/${name}`,
    name,
    namespace,
    scope: field.at("scope").word<PolicyScope>({
      Global: PolicyScope.GLOBAL,
      Namespace: PolicyScope.NAMESPACE,
      WorkloadSelector: PolicyScope.WORKLOAD_SELECTOR,
    }),
    action: field.at("action").word<PolicyAction>({ Allow: PolicyAction.ALLOW, Deny: PolicyAction.DENY }),
    rules: field.at("rules").required().items().map((rule) => ({
      clauses: rule.items().map((clause) => clause.items().map(matchOf)),
    })),
    dryRun: field.at("dryRun").flag(),
  };
}

/** The fields of a match and how each item is read; a `not` field of the same form goes with each. */
function matchOf(field: Field): PolicyMatch {
  const read = new Set<string>();
  const list = <T>(key: string, item: (field: Field) => T): T[] => {
    read.add(key);
    return field.at(key).items().map(item);
  };
  const port = (item: Field) => item.integer(0, 65_535);
  const match = {
    namespaces: list("namespaces", stringMatchOf),
    notNamespaces: list("notNamespaces", stringMatchOf),
    principals: list("principals", stringMatchOf),
    notPrincipals: list("notPrincipals", stringMatchOf),
    serviceAccounts: list("serviceAccounts", accountOf),
    notServiceAccounts: list("notServiceAccounts", accountOf),
    sourceIps: list("sourceIps", rangeOf),
    notSourceIps: list("notSourceIps", rangeOf),
    destinationIps: list("destinationIps", rangeOf),
    notDestinationIps: list("notDestinationIps", rangeOf),
    destinationPorts: list("destinationPorts", port),
    notDestinationPorts: list("notDestinationPorts", port),
  };
  field.onlyKeys([...read]); // A restriction that nobody reads would open a policy, or close it, unseen.
  return match;
}

/** `!Exact a`, which has become `{ Exact: a }`, and so on. */
function stringMatchOf(field: Field): StringMatch {
  const [key, ...more] = field.keys();
  if (key === undefined || more.length > 0) field.fail("is not one of !Exact, !Prefix, !Suffix, !Presence");
  field.onlyKeys(Object.keys(KINDS));
  const kind = KINDS[key as keyof typeof KINDS];
  return { kind, value: kind === "presence" ? "" : field.at(key!).text() };
}

function accountOf(field: Field): ServiceAccountMatch {
  field.onlyKeys(["namespace", "serviceAccount"]);
  return { namespace: field.at("namespace").text(), serviceAccount: field.at("serviceAccount").text() };
}
