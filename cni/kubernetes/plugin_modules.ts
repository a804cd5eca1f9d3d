/** Which of our modules the plugin is made of: they are copied to the node, and nothing else is (CNI-033). */

/** From the root of our modules. */
export const PLUGIN_ENTRY = "cni/plugin/entry.ts";
const IMPORT = /^(?:import|export)\s[^;]*?from\s+"(\.[^"]+)";/gm;

/** Every file that the plugin imports, directly or not, the entry included; sorted. */
export function pluginModules(root: string, entry = PLUGIN_ENTRY): string[] {
  const found = new Set<string>(), waiting = [entry];
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    if (found.has(file)) continue;
    found.add(file);
    const text = Deno.readTextFileSync(`${root}/${file}`);
    for (const [statement, specifier] of text.matchAll(IMPORT)) {
      if (/^(?:import|export)\s+type\s/.test(statement)) continue; // Gone when it runs.
      waiting.push(new URL(specifier!, `file:///${file}`).pathname.slice(1));
    }
  }
  return [...found].sort();
}
