/** Which rules of a manifest's roles the calls of an account used, and which calls none of them allows. */
import { parseAll } from "@std/yaml";
import type { AuditedCall } from "./audit.ts";

interface Role {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly rules: readonly {
    readonly apiGroups: readonly string[];
    readonly resources: readonly string[];
    readonly resourceNames?: readonly string[];
    readonly verbs: readonly string[];
  }[];
}

/** One verb on one resource: `list pods`, in a namespace alone `list configmaps in istio-system`. */
export interface Right {
  readonly group: string;
  readonly resource: string;
  readonly verb: string;
  /** Undefined: in every namespace. */
  readonly namespace: string | undefined;
  /** Undefined: whatever its name. */
  readonly names: readonly string[] | undefined;
}

/** Every right that the Roles and ClusterRoles of a YAML text give, one by one. */
export function rightsOf(yaml: string): Right[] {
  const roles = (parseAll(yaml) as Role[]).filter(({ kind }) => kind === "Role" || kind === "ClusterRole");
  return roles.flatMap(({ rules, metadata: { namespace } }) =>
    rules.flatMap(({ apiGroups, resources, verbs, resourceNames: names }) =>
      apiGroups.flatMap((group) =>
        resources.flatMap((resource) => verbs.map((verb) => ({ group, resource, verb, namespace, names })))
      )
    )
  );
}

/** The rights that no allowed call needed. What a narrower one allows needs nothing wider. */
export function unusedRights(rights: readonly Right[], calls: readonly AuditedCall[]): string[] {
  const used = new Set<Right>();
  for (const call of calls.filter(({ allowed }) => allowed)) {
    const fitting = rights.filter((right) => fits(right, call)).sort((one, other) => width(one) - width(other));
    if (fitting[0] !== undefined) used.add(fitting[0]);
  }
  return rights.filter((right) => !used.has(right)).map(describe).sort();
}

function fits({ group, resource, verb, namespace, names }: Right, call: AuditedCall): boolean {
  return group === call.group && resource === call.resource && verb === call.verb &&
    (namespace ?? call.namespace) === call.namespace && (names?.includes(call.name) ?? true);
}

const width = ({ namespace, names }: Right) => (namespace === undefined ? 2 : 0) + (names === undefined ? 1 : 0);

/** The calls that were refused, each once. */
export function refusedCalls(calls: readonly AuditedCall[]): string[] {
  const refused = calls.filter(({ allowed }) => !allowed).map(({ group, resource, verb, namespace, name }) =>
    describe({
      ...{ group, resource, verb },
      namespace: namespace === "" ? undefined : namespace,
      names: name === "" ? undefined : [name],
    })
  );
  return [...new Set(refused)].sort();
}

function describe({ group, resource, verb, namespace, names }: Right): string {
  const kind = group === "" ? resource : `${resource}.${group}`, which = names === undefined ? "" : ` ${names.join()}`;
  return `${verb} ${kind}${which}${namespace === undefined ? "" : ` in ${namespace}`}`;
}
