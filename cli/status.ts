/** `ambit status`: what of this node is in the mesh, and what keeps the rest from it. */
import { ConfigDefinition, defineConfig, oneOf, text } from "../base/config.ts";
import { splitArguments, writeOut } from "./arguments.ts";
import { ENROL_SOCKET } from "./enrol_client.ts";
import { ENROL_OUTPUTS, showStatus } from "./enroll.ts";

export const STATUS_CONFIG = defineConfig("ambit status", {
  enrolSocket: {
    kind: text("PATH"),
    flag: "enrol-socket",
    env: "AMBIT_ENROL_SOCKET",
    default: ENROL_SOCKET,
    help: "the node agent's enrolment socket",
  },
  output: { kind: oneOf(...ENROL_OUTPUTS), flag: "output", default: "text", help: "form of the answer; -o for short" },
});

/** @returns 0 once it is written. Throws MeshError when the node agent cannot be asked. */
export async function runStatus(args: string[]): Promise<number> {
  if (ConfigDefinition.wantsHelp(args)) {
    writeOut(STATUS_CONFIG.help("Shows what of this node is in the mesh, and what is wrong."));
    return 0;
  }
  const { config } = STATUS_CONFIG.parse(splitArguments(STATUS_CONFIG, args).flags, (name) => Deno.env.get(name));
  return await showStatus(config.enrolSocket, config.output);
}
