/** The metadata of an object that says nothing of itself: of settings, and of one that is only being checked. */
import type { ObjectMeta } from "../objects.ts";

export const NO_META: ObjectMeta = Object.freeze({
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
});
