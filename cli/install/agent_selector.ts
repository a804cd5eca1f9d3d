/** The node agent's DaemonSet, told to select no pod and told so no more: how all pods leave the mesh (CNI-050). Pure. */
import type { KubeObject } from "../../kube/api.ts";

export const AGENT = "istio-cni-node";
/** A list of selectors with nothing in it. */
const NOTHING = { name: "AMBIENT_ENABLEMENT_SELECTOR", value: "[]" } as const;

type Variable = Readonly<Record<string, unknown>>;
const isNothing = ({ name, value }: Variable) => name === NOTHING.name && value === NOTHING.value;

export function selectingNothing(daemonSet: KubeObject): KubeObject {
  return withVariables(daemonSet, (env) => [...env.filter(({ name }) => name !== NOTHING.name), NOTHING]);
}

/** What an uninstallation that was broken off has left: a server-side apply leaves alone what another wrote. @returns undefined where there is none. */
export function selectingAgain(daemonSet: KubeObject): KubeObject | undefined {
  let found = false;
  const changed = withVariables(daemonSet, (env) => {
    found ||= env.some(isNothing);
    return env.filter((variable) => !isNothing(variable));
  });
  return found ? changed : undefined;
}

function withVariables(daemonSet: KubeObject, change: (env: readonly Variable[]) => Variable[]): KubeObject {
  const changed = structuredClone(daemonSet) as unknown as {
    spec: { template: { spec: { containers: { env?: Variable[] }[] } } };
  };
  const pod = changed.spec.template.spec;
  pod.containers = pod.containers.map((container) => ({ ...container, env: change(container.env ?? []) }));
  return changed as unknown as KubeObject;
}
