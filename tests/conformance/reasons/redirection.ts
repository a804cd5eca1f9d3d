/** Rules in pods and on the host (CNI-120 to CNI-145, CNI-180 to CNI-190) that no test holds yet, each with the reason. */
const NO_IPTABLES = "there is no redirection by iptables yet";

export const REDIRECTION_REASONS: Readonly<Record<string, string>> = {
  "CNI-127": "the SYN-only condition is not there yet",
  "CNI-131": "rules are appended, in the order of CNI-124: nothing is inserted",
  "CNI-134": NO_IPTABLES,
  "CNI-135": NO_IPTABLES,
  "CNI-136": NO_IPTABLES,
  "CNI-137": NO_IPTABLES,
  "CNI-138": NO_IPTABLES,
  "CNI-140": NO_IPTABLES,
  "CNI-141": NO_IPTABLES,
  "CNI-142": NO_IPTABLES,
  "CNI-143": NO_IPTABLES,
  "CNI-182": NO_IPTABLES,
  "CNI-185": "no test yet",
  "CNI-186": "the agent shares the host's network namespace; it does not switch to it yet",
  "CNI-187": "not there yet",
  "CNI-189": "not there yet",
  "CNI-190": "not there yet",
  "CNI-312": "no test yet",
};
