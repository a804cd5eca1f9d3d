/** Rules of nodes without Kubernetes (CNI-270 to CNI-279) that no test holds yet, each with the reason. */
export const BARE_NODE_REASONS: Readonly<Record<string, string>> = {
  "CNI-272": "there are no workload files yet",
  "CNI-274": "targets that share the host's namespace are not there yet",
  "CNI-275": "targets that share the host's namespace are not there yet",
  "CNI-276": "targets that share the host's namespace are not there yet",
  "CNI-277": "units are not there yet",
  "CNI-279": "the checks run for namespaces alone (CNI-310)",
};
