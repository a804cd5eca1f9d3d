/** The names under which a hostname is looked for, in order (ZT-179 to ZT-181). All text: lower case, no closing dot. */
import { parseName } from "../../../wire/dns/name.ts";

/** A name to look for, and how it came from the one that was asked. */
export interface Candidate {
  readonly name: string;
  /** The asked name without the search domain that this candidate came from; undefined if none was taken off. */
  readonly stripped: string | undefined;
}

/** What a name of one to four labels may be short for in Kubernetes (ZT-179). */
export function kubernetesNames(name: string, namespace: string, clusterDomain: string): string[] {
  const labels = name.split(".").length, endsInSvc = hasDomain(name, "svc");
  const services = `svc.${clusterDomain}`;
  switch (labels) {
    case 1:
      return [`${name}.${namespace}.${services}`];
    case 2:
      return [`${name}.${services}`, `${name}.${namespace}.${services}`];
    case 3:
      return [...(endsInSvc ? [`${name}.${clusterDomain}`] : []), `${name}.${services}`];
    case 4:
      return endsInSvc ? [`${name}.${clusterDomain}`] : [];
    default:
      return [];
  }
}

/** The search domains that Kubernetes gives to the pods of a namespace (ZT-180). */
export function searchDomains(namespace: string, clusterDomain: string): string[] {
  return [`${namespace}.svc.${clusterDomain}`, `svc.${clusterDomain}`, clusterDomain];
}

/** Every name to look for, each once, in order (ZT-179). */
export function candidates(
  name: string,
  namespace: string,
  { clusterDomain, search }: { readonly clusterDomain: string; readonly search: readonly string[] },
): Candidate[] {
  const found = new Map<string, Candidate>();
  const add = (name: string, stripped: string | undefined) => {
    if (!found.has(name) && parseName(name) !== undefined) found.set(name, { name, stripped });
  };
  add(name, undefined);
  for (const longer of kubernetesNames(name, namespace, clusterDomain)) add(longer, undefined);
  for (const domain of search) {
    if (!hasDomain(name, domain)) continue;
    const stripped = name.slice(0, -domain.length - 1);
    add(stripped, stripped);
    for (const longer of kubernetesNames(stripped, namespace, clusterDomain)) add(longer, stripped);
  }
  return [...found.values()];
}

/** The name itself, then the wildcards that it matches, the most specific first (ZT-181). */
export function hostnamesFor(name: string): string[] {
  const hostnames = [name];
  for (let dot = name.indexOf("."); dot >= 0; dot = name.indexOf(".", dot + 1)) hostnames.push(`*${name.slice(dot)}`);
  return hostnames;
}

/** Whether a name ends in the labels of a domain, and is longer. */
export function hasDomain(name: string, domain: string): boolean {
  return name.endsWith(`.${domain}`) && name.length > domain.length + 1;
}
