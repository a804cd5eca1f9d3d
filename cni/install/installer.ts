/** Puts the plugin on the node and keeps it there: program, kubeconfig, and our entry in the CNI configuration (CNI-033 to CNI-047). */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { pause } from "../../base/waiting.ts";
import {
  hasPlugin,
  ownedFile,
  pluginEntry,
  primaryFile,
  problemOf,
  standaloneFile,
  withoutPlugin,
  withPlugin,
} from "./conflist.ts";
import { KUBECONFIG_FILE } from "../kubeconfig_file.ts";
import { confFilesOf, permissionsOf, removeNodeFile, writeNodeFile } from "./node_files.ts";
import { installProgram, type PluginProgram, uninstallProgram } from "./plugin_program.ts";

export interface InstallerConfig {
  /** The node's folders, as this process sees them. */
  readonly confDir: string;
  readonly binDir: string;
  readonly runDir: string;
  /** Our own configuration file, which must sort first; undefined: our entry goes into the primary one (CNI-040). */
  readonly ownFile: string | undefined;
  /** Our plugin alone in a file of this name, which touches no other; undefined: chained to the primary one (CNI-042). */
  readonly standaloneFile?: string;
  readonly confMode: number;
  /** What the plugin is told: its own keys of the configuration (CNI-006). */
  readonly settings: Readonly<Record<string, unknown>>;
}

export interface InstallerOptions {
  readonly program: PluginProgram;
  /** The text of the plugin's kubeconfig, as of now: its token is renewed. */
  readonly kubeconfig: () => string;
  /** Told of each pass that wrote something, or could not. */
  readonly onPass?: (result: InstallResult) => void;
  readonly log: Logger;
}

/** As Istio's counter names them. */
export type InstallResult =
  | "SUCCESS"
  | "COPY_BINARIES_FAILURE"
  | "CREATE_KUBECONFIG_FAILURE"
  | "CREATE_CNI_CONFIG_FAILURE";

const KUBECONFIG_MODE = 0o600;
const LOOK_MS = 1_000; // At most one pass a second (CNI-044); a plugin that is missing is missed by the next pod only.
const FAST_PASSES = 6, FAST_MS = 5_000;

/** Installs, and repairs for ever. */
export class Installer {
  readonly #config: InstallerConfig;
  readonly #options: InstallerOptions;
  #ready = false;
  #said = "";
  #passes: number[] = [];

  constructor(config: InstallerConfig, options: InstallerOptions) {
    this.#config = config;
    this.#options = options;
  }

  /** Whether the runtime calls our plugin for the next pod. */
  get ready(): boolean {
    return this.#ready;
  }

  /** Looks, and repairs what is not as it should be, until the signal. What cannot be written is said and tried again. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        this.look();
        this.#say("");
      } catch (error) {
        if (!(error instanceof MeshError)) throw error;
        this.#ready = false;
        this.#say(`${chain(error)}; ${error.remedy}`);
      }
      await pause(LOOK_MS, signal);
    }
  }

  /** One pass: program and kubeconfig before the configuration that names them (CNI-017). Throws AMB7130, AMB7131, AMB7271. */
  look(): void {
    const { confDir, binDir, runDir, ownFile, confMode, settings, standaloneFile: standalone } = this.#config,
      { program, kubeconfig } = this.#options;
    this.#step("COPY_BINARIES_FAILURE", () => installProgram(binDir, program));
    const written = this.#step(
      "CREATE_KUBECONFIG_FAILURE",
      () => writeNodeFile(`${runDir}/${KUBECONFIG_FILE}`, kubeconfig(), KUBECONFIG_MODE),
    );
    const configured = this.#step(
      "CREATE_CNI_CONFIG_FAILURE",
      () =>
        standalone === undefined
          ? this.#configure({ confDir, ownFile, confMode, settings })
          : this.#standAlone({ confDir, name: standalone, confMode, settings }),
    );
    if (written || configured) this.#options.onPass?.("SUCCESS");
  }

  /** @returns Whether the configuration was written. */
  #configure(
    { confDir, ownFile, confMode, settings }: Pick<InstallerConfig, "confDir" | "ownFile" | "confMode" | "settings">,
  ): boolean {
    const files = confFilesOf(confDir),
      entry = pluginEntry(settings),
      problem = problemOf(files, { ownName: ownFile, entry });
    if (problem === undefined) {
      this.#ready = true;
      return false;
    }
    this.#ready = false;
    const primary = primaryFile(files, ownFile);
    if (primary === undefined) {
      throw new MeshError("AMB7131", `there is no CNI configuration in ${confDir}`, {
        remedy: "install the cluster's network plugin first; this one is chained to it, and waits",
      });
    }
    const wanted = ownFile === undefined ? withPlugin(primary, entry)! : ownedFile(primary, { name: ownFile, entry })!;
    const mode = ownFile === undefined ? permissionsOf(`${confDir}/${primary.name}`) : confMode;
    writeNodeFile(`${confDir}/${wanted.name}`, wanted.text, mode);
    // A single configuration has become a list of another name.
    if (ownFile === undefined && wanted.name !== primary.name) removeNodeFile(`${confDir}/${primary.name}`);
    this.#options.log.info("CNI configuration written", { file: wanted.name, reason: problem });
    this.#warnOfConflict(wanted.name);
    const left = problemOf(confFilesOf(confDir), { ownName: ownFile, entry });
    this.#ready = left === undefined;
    if (left !== undefined) this.#say(`the runtime may pass us by: ${left}`);
    return true;
  }

  /** @returns Whether the file was written. */
  #standAlone(
    { confDir, name, confMode, settings }: Pick<InstallerConfig, "confDir" | "confMode" | "settings"> & {
      name: string;
    },
  ): boolean {
    const { text } = standaloneFile({ name, entry: pluginEntry(settings) });
    const written = writeNodeFile(`${confDir}/${name}`, text, confMode);
    if (written) this.#options.log.info("CNI configuration written", { file: name, reason: "it stands alone" });
    this.#ready = true;
    return written;
  }

  #step<T>(failure: InstallResult, work: () => T): T {
    try {
      return work();
    } catch (error) {
      this.#options.onPass?.(failure);
      throw error;
    }
  }

  /** Takes everything away: our entry or file, the kubeconfig, the program (CNI-047). */
  uninstall(): void {
    const { confDir, binDir, runDir, ownFile } = this.#config;
    this.#ready = false;
    if (ownFile !== undefined) removeNodeFile(`${confDir}/${ownFile}`);
    for (const file of confFilesOf(confDir)) {
      if (!hasPlugin(file)) continue;
      const without = withoutPlugin(file), path = `${confDir}/${file.name}`;
      if (without === undefined) removeNodeFile(path);
      else writeNodeFile(path, without.text, permissionsOf(path));
    }
    removeNodeFile(`${runDir}/${KUBECONFIG_FILE}`);
    uninstallProgram(binDir);
  }

  /** Another program that undoes what we write makes us write again and again (CNI-044). */
  #warnOfConflict(file: string): void {
    const nowMs = performance.now();
    this.#passes = [...this.#passes.filter((atMs) => nowMs - atMs < FAST_PASSES * FAST_MS), nowMs];
    if (this.#passes.length < FAST_PASSES) return;
    this.#passes = [];
    const hint = file.includes("cilium") ? "; with Cilium set cni.exclusive=false" : "";
    this.#options.log.warn(`another program rewrites the CNI configuration${hint}`, { file });
  }

  #say(problem: string): void {
    if (problem === this.#said) return;
    this.#said = problem;
    if (problem !== "") this.#options.log.error("plugin not installed; trying again", { problem });
  }
}
