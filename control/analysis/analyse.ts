/** What is wrong with a mesh although every object in it is good by itself (CP-699). Pure. */
import type { AmbientGraph } from "../ambient/graph.ts";
import { type Finding, inOrder } from "./findings.ts";
import { checkObjects } from "./object_checks.ts";
import { checkPolicies } from "./policy_checks.ts";

/** Looks over everything that was derived; costs about as much as deriving it. */
export function analyse(graph: AmbientGraph): Finding[] {
  return inOrder([...checkPolicies(graph), ...checkObjects(graph)]);
}
