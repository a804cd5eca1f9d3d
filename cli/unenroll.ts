/** `ambit unenroll`: takes a network namespace of this node out of the mesh. */
import { ConfigDefinition, defineConfig } from "../base/config.ts";
import type { EnrolmentStatus } from "../mesh/enrolment.ts";
import { writeOut } from "../base/standard_output.ts";
import { oneTarget } from "./arguments.ts";
import { askNodeAgent } from "./enrol_client.ts";
import { AGENT_SETTINGS } from "./enroll.ts";

export const UNENROLL_CONFIG = defineConfig("ambit unenroll", AGENT_SETTINGS, {
  operands: "TARGET",
  examples: ["ambit unenroll netns/web-1", "ambit unenroll unit/db.service"],
});

/** @returns 0 when rules and listeners are gone. Throws MeshError otherwise. */
export async function runUnenroll(args: string[]): Promise<number> {
  if (ConfigDefinition.wantsHelp(args)) {
    writeOut(UNENROLL_CONFIG.help("Takes a target out of the mesh, by the name that it was enrolled under."));
    return 0;
  }
  const { config, operands } = UNENROLL_CONFIG.parse(args, (variable) => Deno.env.get(variable));
  const target = oneTarget(UNENROLL_CONFIG.command, operands);
  const request = { method: "POST", path: "/unenrol", body: { target } } as const;
  const before = await askNodeAgent(config.enrolSocket, request) as EnrolmentStatus;
  writeOut(
    config.output === "json"
      ? JSON.stringify({ ...before, state: "unenrolled" }, null, 2) + "\n"
      : `${before.target} is out of the mesh: it was pod ${before.namespace}/${before.name}\n`,
  );
  return 0;
}
