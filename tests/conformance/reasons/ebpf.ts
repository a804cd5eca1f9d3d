/** Rules of redirection by eBPF (CNI-200 to CNI-217) that no test holds yet. A rule with a test leaves this list. */
const NUMBERS = [208, 209, 210, 211, 212, 213, 215, 216];

export const EBPF_REASONS: Readonly<Record<string, string>> = Object.fromEntries(
  NUMBERS.map((number) => [`CNI-${number}`, "not there yet, or held by no test"]),
);
