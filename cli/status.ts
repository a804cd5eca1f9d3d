/** `ambit status`: what of this node is in the mesh, and what keeps the rest from it. */
import { ConfigDefinition, defineConfig } from "../base/config.ts";
import { writeOut } from "../base/standard_output.ts";
import { AGENT_SETTINGS, showStatus } from "./enroll.ts";

export const STATUS_CONFIG = defineConfig("ambit status", AGENT_SETTINGS, {
  examples: ["ambit status", "ambit status -o json"],
});

/** @returns 0 once it is written. Throws MeshError when the node agent cannot be asked. */
export async function runStatus(args: string[]): Promise<number> {
  if (ConfigDefinition.wantsHelp(args)) {
    writeOut(STATUS_CONFIG.help("Shows what of this node is in the mesh, and what is wrong."));
    return 0;
  }
  const { config } = STATUS_CONFIG.parse(args, (name) => Deno.env.get(name));
  return await showStatus(config.enrolSocket, config.output);
}
