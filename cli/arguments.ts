/** What the commands share of reading arguments. */
import { MeshError } from "../base/errors.ts";
import { TARGET_FORMS } from "../mesh/enrolment.ts";

/** Throws AMB7500 unless there is just one target. */
export function oneTarget(command: string, operands: readonly string[]): string {
  if (operands.length === 1) return operands[0]!;
  throw new MeshError("AMB7500", `${command} needs one target, not ${operands.length}`, {
    remedy: `Name it as ${TARGET_FORMS}, e.g. ${command} netns/web.`,
  });
}
