/** The `baggage` header: who stands at the other end of a tunnel, in telemetry's words (ZT-055, ZT-056). */
import { isVisibleAscii } from "./visible_ascii.ts";

/** Empty: not said. */
export interface Baggage {
  readonly cluster: string;
  readonly namespace: string;
  /** `deployment`, `cronjob`, `pod` or `job`. */
  readonly workloadType: string;
  readonly workloadName: string;
  /** `service.name`. */
  readonly canonicalName: string;
  /** `service.version`. */
  readonly canonicalRevision: string;
  readonly region: string;
  readonly zone: string;
}

const WORKLOAD_TYPES = ["deployment", "cronjob", "pod", "job"];

/** Writes what is known, in the order of ZT-055. A value that could not be read back (a comma, not ASCII) is left out. */
export function formatBaggage(baggage: Baggage): string {
  let text = item("k8s.cluster.name", baggage.cluster);
  text += item("k8s.namespace.name", baggage.namespace);
  if (baggage.workloadType !== "") text += item(`k8s.${baggage.workloadType}.name`, baggage.workloadName);
  text += item("service.name", baggage.canonicalName);
  text += item("service.version", baggage.canonicalRevision);
  text += item("cloud.region", baggage.region);
  text += item("cloud.availability_zone", baggage.zone);
  return text.slice(1);
}

function item(key: string, value: string): string {
  return value === "" || /[,=]/.test(value) || !isVisibleAscii(value) ? "" : `,${key}=${value}`;
}

/**
 * Reads all `baggage` fields, joined by commas. Never fails: unknown keys and items without a value are nothing. If the
 * text is not visible ASCII, none of it counts (ZT-056). Of a repeated key the last counts.
 */
export function parseBaggage(text: string): Baggage {
  const baggage = {
    cluster: "",
    namespace: "",
    workloadType: "",
    workloadName: "",
    canonicalName: "",
    canonicalRevision: "",
    region: "",
    zone: "",
  };
  if (!isVisibleAscii(text)) return baggage;
  for (const entry of text.split(",")) {
    const [key, value] = entry.split("=", 2);
    if (value === undefined) continue;
    switch (key) {
      case "k8s.cluster.name":
        baggage.cluster = value;
        break;
      case "k8s.namespace.name":
        baggage.namespace = value;
        break;
      case "service.name":
        baggage.canonicalName = value;
        break;
      case "service.version":
        baggage.canonicalRevision = value;
        break;
      case "cloud.region":
        baggage.region = value;
        break;
      case "cloud.availability_zone":
        baggage.zone = value;
        break;
      default: {
        const type = WORKLOAD_TYPES.find((name) => key === `k8s.${name}.name`);
        if (type === undefined) break;
        baggage.workloadType = value === "" ? "" : type;
        baggage.workloadName = value;
      }
    }
  }
  return baggage;
}
