/** Which backend redirects on this node: the one asked for, or the first that this machine can use (CNI-139, CNI-143, CNI-144). */
import { MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { NETLINK_CANDIDATE } from "./netlink.ts";
import { candidateNames, type RedirectSettings } from "./choices.ts";
import type { Candidate, Redirection } from "./redirection.ts";

/** Every backend that there is. */
export const CANDIDATES: readonly Candidate[] = [NETLINK_CANDIDATE];

/** Throws AMB7140, with what each lacks, when none can be used. */
export async function chooseRedirection(
  settings: RedirectSettings,
  { log, candidates = CANDIDATES }: { readonly log: Logger; readonly candidates?: readonly Candidate[] },
): Promise<Redirection> {
  const lacks: string[] = [];
  for (const name of candidateNames(settings)) {
    const candidate = candidates.find((it) => it.name === name);
    const missing = candidate === undefined ? ["it is not part of this build"] : await candidate.missing();
    if (candidate !== undefined && missing.length === 0) {
      log.info("redirection chosen", { backend: name, passedOver: lacks.join("; ") });
      return await candidate.open();
    }
    lacks.push(`${name}: ${missing.join(", ")}`);
  }
  throw new MeshError("AMB7140", `no redirection can be used here: ${lacks.join("; ")}`, {
    remedy: "Provide what is missing, or choose another --redirect; `ambit doctor` tells what this machine offers.",
  });
}
