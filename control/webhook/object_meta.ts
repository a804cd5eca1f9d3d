/** The metadata that decoding asks for and validation has no use of: an object may have no name yet. */
import type { ObjectMeta } from "../objects.ts";

export const NOBODY: ObjectMeta = {
  name: "",
  namespace: "",
  labels: new Map(),
  annotations: new Map(),
  uid: "",
  generation: 0,
  createdAtMs: 0,
  deleting: false,
  generateName: "",
  controller: undefined,
};
