/** What is read of the kinds that every API server has, by its number in protobuf: all that their decoders, and the status of Services, ask for. */
import {
  bool,
  boolAlways,
  int,
  intAlways,
  intOrText,
  message,
  messages,
  type ProtoFields,
  protoFields,
  text,
  textAlways,
  textMap,
  texts,
  time,
} from "../../kube/proto_fields.ts";
import { hasOurDomain } from "./decode.ts";

/** Which version of the Gateway API a CRD is of. */
export const BUNDLE_VERSION = "gateway.networking.k8s.io/bundle-version";
/** How a watch says that its first list is complete. */
const LIST_END = "k8s.io/initial-events-end";

const METADATA = message("metadata", {
  1: text("name"),
  2: text("generateName"),
  3: text("namespace"),
  5: text("uid"),
  6: text("resourceVersion"),
  7: int("generation"),
  8: time("creationTimestamp"),
  9: time("deletionTimestamp"),
  11: textMap("labels"),
  12: textMap("annotations", (key) => key === LIST_END || hasOurDomain(key)),
  13: messages("ownerReferences", { 1: textAlways("kind"), 3: textAlways("name"), 6: boolAlways("controller") }),
});

const CONTAINER = {
  6: messages("ports", { 1: text("name"), 3: intAlways("containerPort"), 4: text("protocol") }),
  24: textAlways("restartPolicy"),
};

export const METADATA_FIELDS: ProtoFields = protoFields({ 1: METADATA });

/** Of a CRD its schema is most of it, and what installed it says all of it again. */
export const DEFINITION_FIELDS: ProtoFields = protoFields({
  1: message("metadata", {
    1: text("name"),
    5: text("uid"),
    6: text("resourceVersion"),
    12: textMap("annotations", (key) => key === LIST_END || key === BUNDLE_VERSION),
  }),
});

export const POD_FIELDS: ProtoFields = protoFields({
  1: METADATA,
  2: message("spec", {
    2: messages("containers", CONTAINER),
    8: text("serviceAccountName"),
    10: text("nodeName"),
    11: bool("hostNetwork"),
    20: messages("initContainers", CONTAINER),
  }),
  3: message("status", {
    1: text("phase"),
    2: messages("conditions", { 1: textAlways("type"), 2: textAlways("status") }),
    6: text("podIP"),
    12: messages("podIPs", { 1: text("ip") }),
  }),
});

export const SERVICE_FIELDS: ProtoFields = protoFields({
  1: METADATA,
  2: message("spec", {
    1: messages("ports", {
      1: text("name"),
      2: text("protocol"),
      3: intAlways("port"),
      4: intOrText("targetPort"),
      6: textAlways("appProtocol"),
    }),
    2: textMap("selector"),
    3: text("clusterIP"),
    4: text("type"),
    13: bool("publishNotReadyAddresses"),
    18: texts("clusterIPs"),
    19: texts("ipFamilies"),
    22: textAlways("internalTrafficPolicy"),
    23: textAlways("trafficDistribution"),
  }),
  3: message("status", {
    1: message("loadBalancer", { 1: messages("ingress", { 1: text("ip"), 2: text("hostname") }) }),
    2: messages("conditions", {
      1: textAlways("type"),
      2: textAlways("status"),
      3: int("observedGeneration"),
      4: time("lastTransitionTime"),
      5: textAlways("reason"),
      6: textAlways("message"),
    }),
  }),
});

export const ENDPOINT_SLICE_FIELDS: ProtoFields = protoFields({
  1: METADATA,
  2: messages("endpoints", {
    1: texts("addresses"),
    2: message("conditions", { 1: boolAlways("ready") }),
    4: message("targetRef", { 1: text("kind"), 2: text("namespace"), 3: text("name"), 4: text("uid") }),
  }),
  3: messages("ports", { 1: textAlways("name"), 2: textAlways("protocol"), 3: intAlways("port") }),
  4: textAlways("addressType"),
});
