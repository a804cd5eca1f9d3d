/** Rules of plugin, node agent and ZDS (CNI-001 to CNI-100, CNI-240 to CNI-257, CNI-290 to CNI-316) that no test holds, and those of sidecars, each with the reason. */
const SIDECAR = "not offered: this mesh has no sidecars, so nothing captures, injects or repairs them";

export const AGENT_REASONS: Readonly<Record<string, string>> = {
  "CNI-010": SIDECAR,
  "CNI-048": "role cni has no life without the mesh: it is all there is",
  "CNI-100": SIDECAR,
  "CNI-165": SIDECAR,
  "CNI-166": SIDECAR,
  "CNI-167": SIDECAR,
  "CNI-168": SIDECAR,
  "CNI-169": SIDECAR,
};
