/** Rules of redirection by eBPF (CNI-200 to CNI-217) that no test holds. A rule with a test leaves this list. */
export const EBPF_REASONS: Readonly<Record<string, string>> = {
  "CNI-211": "refused: a socket that nobody reads takes the node's memory without bound (decision 38)",
  "CNI-212": "refused with CNI-211 (decision 38)",
};
