/** Rules of redirection by eBPF (CNI-200 to CNI-217) that no test holds yet. A rule with a test leaves this list. */
const NUMBERS = [201, 202, 203, 204, 205, 206, 207, 208, 209, 210, 211, 212, 213, 214, 215, 216, 217];

export const EBPF_REASONS: Readonly<Record<string, string>> = Object.fromEntries(
  NUMBERS.map((number) => [`CNI-${number}`, "there is no redirection by eBPF yet"]),
);
