/** The systemd drop-in by which a unit enrols itself before its program starts, or does not start (CNI-277). Pure. */
import { MeshError } from "../base/errors.ts";
import { parseEnrolTarget } from "../mesh/enrolment.ts";

const PROGRAM = "/usr/local/bin/ambit", WAIT = "30s";

/**
 * @param flags of `ambit enroll`, but for the target. Throws AMB7500 for a target that is no unit, or a flag that systemd would
 * take apart.
 */
export function unitDropIn(target: string, flags: readonly string[]): string {
  const unit = parseEnrolTarget(target);
  if (unit?.kind !== "unit") {
    throw new MeshError("AMB7500", `${target} is no unit, and only units start by systemd`, {
      remedy: "Name it as unit/NAME.service.",
    });
  }
  const kept = withoutFlags(flags, ["--drop-in", "--wait", "--output", "-o"]);
  const odd = kept.find((it) => !/^[\w.,:/=@-]+$/.test(it));
  if (odd !== undefined) {
    throw new MeshError("AMB7500", `${JSON.stringify(odd)} cannot stand in a unit's file`, {
      remedy: "Give namespace, account, name, ports and ranges in plain letters.",
    });
  }
  const folder = `/etc/systemd/system/${unit.unit}.d`;
  return `# ${folder}/10-ambit.conf: the unit is of the mesh when its program starts, or does not start.
# Its control group is another at every start, so each start enrols it anew.
[Unit]
# Not Requires=: a restart of the node agent would restart the unit. Without the agent the line below fails.
Wants=ambit-cni.service ambit-ztunnel.service
After=ambit-cni.service ambit-ztunnel.service

[Service]
# "+": as root, and outside of the unit's own sandbox. It returns when the rules stand and ztunnel listens.
ExecStartPre=+${PROGRAM} enroll unit/%n ${[...kept, "--wait", WAIT].join(" ")}
`;
}

/** Each of these flags, and the value behind it unless it is a switch or brings it by `=`. */
function withoutFlags(flags: readonly string[], names: readonly string[]): string[] {
  const kept: string[] = [];
  for (let at = 0; at < flags.length; at++) {
    const name = flags[at]!.split("=")[0]!;
    if (!names.includes(name)) kept.push(flags[at]!);
    else if (name !== "--drop-in" && !flags[at]!.includes("=")) at++;
  }
  return kept;
}
