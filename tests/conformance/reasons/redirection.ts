/** Rules in pods and on the host (CNI-120 to CNI-145, CNI-180 to CNI-190) that no test holds yet, each with the reason. */
export const REDIRECTION_REASONS: Readonly<Record<string, string>> = {};
