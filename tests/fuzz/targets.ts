/** Everything that is fuzzed input by input. What is fuzzed as a conversation is in session_fuzz_test.ts. */
import type { Target } from "./target.ts";
import { BINARY_TARGETS } from "./targets_binary.ts";
import { GRPC_TARGETS } from "./targets_grpc.ts";
import { KUBE_TARGETS } from "./targets_kube.ts";
import { TAKEOVER_TARGET } from "./targets_takeover.ts";
import { TEXT_TARGETS } from "./targets_text.ts";

export const TARGETS: readonly Target[] = [
  ...BINARY_TARGETS,
  TAKEOVER_TARGET,
  ...TEXT_TARGETS,
  ...KUBE_TARGETS,
  ...GRPC_TARGETS,
];
