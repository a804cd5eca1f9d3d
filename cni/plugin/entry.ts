/** What the plugin's start script runs. */
import { Logger } from "../../base/log.ts";
import { kubePodLookup } from "./pod_lookup.ts";
import { runPlugin } from "./process.ts";

const quiet = new Logger("kube", { sink: () => {} }); // Failures of a lookup are told by whoever asked.

if (import.meta.main) Deno.exit(await runPlugin(kubePodLookup(quiet)));
