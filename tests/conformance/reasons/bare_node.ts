/** Rules of nodes without Kubernetes (CNI-270 to CNI-279) that no test holds yet, each with the reason. */
export const BARE_NODE_REASONS: Readonly<Record<string, string>> = {};
