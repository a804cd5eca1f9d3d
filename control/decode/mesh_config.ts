/** The schema of the mesh's settings: the YAML text of ConfigMap `istio`, or of a file (CP-026, CP-027). */
import type { Plain } from "../../base/plain.ts";
import { parseYaml, YamlRefusal } from "../folder/yaml.ts";
import {
  type MeshCaCertificate,
  type MeshConfigObject,
  SERVICE_ENTRY_VISIBILITIES,
  type ServiceEntryVisibility,
  type ServiceScopeRule,
  type Visibility,
} from "../objects.ts";
import { Field, FieldRefusal, formatPath } from "./field.ts";
import { decodeLabelSelector } from "./label_selector.ts";
import { NO_META } from "./no_meta.ts";
import { label } from "./values.ts";

type Settings = Omit<MeshConfigObject, "kind" | "meta">;

/** Settings as they are put together, each value its own reader's. */
type Loose = { -readonly [K in keyof Settings]?: unknown };

const TRUST_DOMAIN = /^[a-z0-9._-]{1,255}$/; // SPIFFE ID §2.1

const META = { ...NO_META, name: "istio" };

/** What holds where nothing is written. */
export const EMPTY_MESH_CONFIG: MeshConfigObject = {
  kind: "MeshConfig",
  meta: META,
  rootNamespace: "",
  trustDomain: "",
  trustDomainAliases: [],
  discoverySelectors: [],
  serviceScopes: [],
  serviceEntryVisibility: undefined,
  caCertificates: [],
  discoveryAddress: "",
};

function decodeTrustDomain(field: Field): string {
  const text = field.required().text();
  return TRUST_DOMAIN.test(text) ? text : field.fail("must be lower-case letters, digits, dots, hyphens, underscores");
}

function decodeScope(field: Field): ServiceScopeRule {
  return {
    services: decodeLabelSelector(field.get("servicesSelector")),
    namespaces: decodeLabelSelector(field.get("namespaceSelector")),
    global: field.get("scope").oneOf(["LOCAL", "GLOBAL"], "LOCAL") === "GLOBAL",
  };
}

function decodeVisibility(field: Field): Visibility {
  const written = field.oneOf([...SERVICE_ENTRY_VISIBILITIES, "VISIBILITY_UNSPECIFIED"], "VISIBILITY_UNSPECIFIED");
  return written === "VISIBILITY_UNSPECIFIED" ? "PUBLIC" : written;
}

function decodeServiceEntryVisibility(field: Field): ServiceEntryVisibility | undefined {
  if (!field.present) return undefined;
  return {
    fallback: decodeVisibility(field.get("defaultVisibility")),
    policies: field.get("policies").items().map((policy) => ({
      visibility: decodeVisibility(policy.get("visibility")),
      namespaces: policy.get("matchingRules").items().map((rule) => {
        const selector = rule.get("namespaceSelector");
        return selector.present ? decodeLabelSelector(selector) : undefined;
      }),
    })),
  };
}

function decodeCaCertificate(field: Field): MeshCaCertificate {
  return {
    pem: field.get("pem").text(),
    spiffeBundleUrl: field.get("spiffeBundleUrl").text(),
    certSigners: field.get("certSigners").texts(),
    trustDomains: field.get("trustDomains").items().map(decodeTrustDomain),
  };
}

/** Each setting with its own reader, so that a bad one costs no other. */
const READERS: { readonly [K in keyof Settings]: (root: Field) => Settings[K] } = {
  rootNamespace: (root) => optional(root.get("rootNamespace"), label),
  trustDomain: (root) => optional(root.get("trustDomain"), decodeTrustDomain),
  trustDomainAliases: (root) => root.get("trustDomainAliases").items().map(decodeTrustDomain),
  discoverySelectors: (root) => root.get("discoverySelectors").items().map(decodeLabelSelector),
  serviceScopes: (root) => root.get("serviceScopeConfigs").items().map(decodeScope),
  serviceEntryVisibility: (root) => decodeServiceEntryVisibility(root.get("serviceEntryVisibility")),
  caCertificates: (root) => root.get("caCertificates").items().map(decodeCaCertificate),
  discoveryAddress: (root) => root.get("defaultConfig").get("discoveryAddress").text(),
};

function optional(field: Field, read: (field: Field) => string): string {
  return field.present && field.text() !== "" ? read(field) : "";
}

/** Where the settings stand. Networks (key `meshNetworks`) are Gateways and labels in ambient mode, and not read. */
export interface MeshConfigText {
  /** Key `mesh` of the ConfigMap, or the file. */
  readonly mesh: string;
  /** Key `mesh` of the shared ConfigMap, which counts where the first names no such field. */
  readonly shared?: string;
}

export interface MeshConfigReading {
  /** Undefined: something is bad, and there is no good value from before to keep; istiod must not serve with a guess. */
  readonly object: MeshConfigObject | undefined;
  /** Fields that are not in force as written; for a text that is no YAML, one with an empty field. */
  readonly refusals: readonly { readonly field: string; readonly reason: string }[];
}

/** Reads the settings; what is bad keeps its value from before, and unknown fields count for nothing. Never throws. */
export function readMeshConfig(text: MeshConfigText, previous: MeshConfigObject | undefined): MeshConfigReading {
  let root: Plain;
  try {
    root = { ...documentOf(text.shared ?? ""), ...documentOf(text.mesh) };
  } catch (error) {
    if (!(error instanceof YamlRefusal)) throw error;
    return { object: previous, refusals: [{ field: "", reason: `line ${error.line}: ${error.message}` }] };
  }
  const refusals: { field: string; reason: string }[] = [];
  const settings = readSettings(new Field(root), ({ path, message }, name) => {
    refusals.push({ field: formatPath(path), reason: message });
    return previous?.[name];
  });
  const object = refusals.length > 0 && previous === undefined ? undefined : meshConfig(settings);
  return { object, refusals };
}

function documentOf(text: string): { readonly [key: string]: Plain } {
  const value = text.trim() === "" ? {} : parseYaml(text);
  if (value === null) return {};
  if (typeof value !== "object" || Array.isArray(value)) throw new YamlRefusal("is not a map of settings", 1);
  return value as { readonly [key: string]: Plain };
}

function readSettings(
  root: Field,
  refused: (refusal: FieldRefusal, name: keyof Settings) => unknown,
): Loose {
  const settings: Loose = {};
  for (const name of Object.keys(READERS) as (keyof Settings)[]) {
    try {
      settings[name] = READERS[name](root);
    } catch (error) {
      if (!(error instanceof FieldRefusal)) throw error;
      settings[name] = refused(error, name);
    }
  }
  return settings;
}

function meshConfig(settings: Loose): MeshConfigObject {
  return { ...EMPTY_MESH_CONFIG, ...settings as Settings }; // Each value is its own reader's, or the last good one.
}

/** The settings in a ConfigMap of a folder, where a bad document as a whole keeps its last good state. Throws FieldRefusal. */
export function decodeMeshConfigMap(root: Field): MeshConfigObject {
  const mesh = root.get("data").get("mesh");
  try {
    const settings = readSettings(new Field(documentOf(mesh.text()), mesh.path), (refusal) => {
      throw refusal;
    });
    return meshConfig(settings);
  } catch (error) {
    // The settings are a text inside the document: their own lines are none of the file's.
    if (error instanceof YamlRefusal) return mesh.fail(`line ${error.line} of it: ${error.message}`);
    if (!(error instanceof FieldRefusal)) throw error;
    const inside = formatPath(error.path.slice(mesh.path.length));
    return mesh.fail(`${inside}: ${error.message}`);
  }
}
