/** The classes of Gateways that are ours (CP-550), by the controller that each names. */

export interface BuiltInClass {
  readonly name: string;
  readonly controllerName: string;
  readonly description: string;
}

/**
 * Classes that are made where they are missing. The class `istio`, of ingress gateways, is none of them: there is nothing
 * here that serves one, and a class that is accepted says that there is.
 */
const BUILT_IN: readonly BuiltInClass[] = [
  {
    name: "istio-waypoint",
    controllerName: "istio.io/mesh-controller",
    description: "Waypoint proxies of the ambient mesh",
  },
  {
    name: "istio-remote",
    controllerName: "istio.io/unmanaged-gateway",
    description: "Gateways of other networks; nothing is deployed for them",
  },
  {
    name: "istio-east-west",
    controllerName: "istio.io/eastwest-controller",
    description: "Gateways by which other networks enter the mesh",
  },
];

/** The classes to make. @param multiNetwork whether networks are joined at all. */
export function builtInClasses(multiNetwork: boolean): readonly BuiltInClass[] {
  return BUILT_IN.filter(({ name }) => multiNetwork || name !== "istio-east-west");
}

/** Whether a controller's classes are looked after here. */
export function isOurController(controllerName: string): boolean {
  return BUILT_IN.some((it) => it.controllerName === controllerName);
}
