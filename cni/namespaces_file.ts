/** `namespaces.json`: which namespaces may have pods in the mesh, as the agent last knew them; read by the plugin when nobody else answers (CNI-021). Pure. */
import { isFields } from "../base/plain.ts";

/** In the agent's run folder. */
export const NAMESPACES_FILE = "namespaces.json";
const VERSION = 1;

export function formatAmbientNamespaces(namespaces: readonly string[]): string {
  return `${JSON.stringify({ version: VERSION, ambient: [...namespaces].sort() }, undefined, 2)}\n`;
}

/** @returns undefined for what is no such list: nothing follows from it. */
export function parseAmbientNamespaces(text: string): ReadonlySet<string> | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
  if (!isFields(value) || value.version !== VERSION || !Array.isArray(value.ambient)) return undefined;
  return value.ambient.every((it) => typeof it === "string") ? new Set(value.ambient as string[]) : undefined;
}
