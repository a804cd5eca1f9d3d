/** Redirection by eBPF as one of the backends that can be asked for; any other takes its pods over from it. */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { netnsCookie } from "../../os/bpf/netns_cookie.ts";
import { RedirectedPods } from "../../os/bpf/redirected_pods.ts";
import { PIN_FOLDER, podPinFolder } from "../../os/bpf/shared_maps.ts";
import type { Netns } from "../../os/netns.ts";
import type { RedirectSettings } from "../redirection/choices.ts";
import type { ProgramRunner } from "../redirection/programs.ts";
import type { Candidate, PodRuleOptions, Redirection } from "../redirection/redirection.ts";
import { Residue } from "../redirection/residue.ts";
import { type BpfPlaces, findCgroupRoot } from "./places.ts";
import { removePodPins } from "./pinned.ts";
import { stopAcceptingMarks } from "./pod_objects.ts";
import { BpfRedirection } from "./redirection.ts";
import { tryBpf } from "./trial.ts";

export function bpfCandidate(
  { settings, runner, log }: {
    readonly settings: RedirectSettings;
    readonly runner: ProgramRunner;
    readonly log: Logger;
  },
): Candidate {
  const places = placesOf(settings);
  return {
    name: "bpf",
    missing: () => places === undefined ? ["no cgroup hierarchy of version 2 is mounted"] : tryBpf(places),
    open: () =>
      new BpfRedirection(places!, {
        residue: new Residue("tables", { runner, log }),
        runner,
      }),
  };
}

function placesOf({ bpfPins, bpfCgroup, bpfForeignZtunnel, hostRoot }: RedirectSettings): BpfPlaces | undefined {
  const cgroup = bpfCgroup ?? findCgroupRoot(hostRoot ?? "");
  if (cgroup === undefined) return undefined;
  return { pins: bpfPins ?? PIN_FOLDER, cgroup, foreignZtunnel: bpfForeignZtunnel, sysctls: sysctlsOf(hostRoot) };
}

/** The node's, where a container's own are mounted read-only. */
function sysctlsOf(hostRoot: string | undefined): string | undefined {
  const node = `${hostRoot}/proc/sys`;
  return hostRoot !== undefined && isFolder(`${node}/net`) ? node : undefined;
}

/** Has another backend release the pods that a former agent redirected by eBPF, each as soon as it has its rules. */
export function withoutBpf(redirection: Redirection, settings: RedirectSettings, log: Logger): Redirection {
  const pins = settings.bpfPins ?? PIN_FOLDER, sysctls = sysctlsOf(settings.hostRoot);
  if (!isFolder(pins)) return redirection;
  const leave = (netns: Netns) => {
    try {
      stopAcceptingMarks(netns, podPinFolder(pins, netnsCookie(netns)), sysctls);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      log.warn("a setting that eBPF needed stays in a pod", { netnsInode: netns.inode, error: chain(error) });
    }
    forget(pins, netns);
  };
  return {
    ...delegated(redirection),
    async apply(netns: Netns, options: PodRuleOptions) {
      await redirection.apply(netns, options);
      leave(netns);
    },
    async release(netns: Netns) {
      leave(netns);
      await redirection.release(netns);
    },
    async check(netns: Netns, options: PodRuleOptions) {
      const found = await redirection.check(netns, options);
      return isRedirected(pins, netns) ? [...found, "BPF programs redirect it, too"] : found;
    },
  };
}

/** The same backend as a plain object, some of which another may replace. */
export function delegated(redirection: Redirection): Redirection {
  return {
    name: redirection.name,
    apply: (netns, options) => redirection.apply(netns, options),
    release: (netns) => redirection.release(netns),
    remove: (netns) => redirection.remove(netns),
    check: (netns, options) => redirection.check(netns, options),
    supersedes: (netns) => redirection.supersedes?.(netns) ?? false,
    forget: (netns) => redirection.forget?.(netns),
    openNode: (netns) => redirection.openNode(netns),
    clearNode: redirection.clearNode,
    [Symbol.dispose]: () => redirection[Symbol.dispose](),
  };
}

function forget(pins: string, netns: Netns): void {
  const cookie = netnsCookie(netns);
  using pods = RedirectedPods.open(pins);
  pods?.forget(cookie);
  removePodPins(podPinFolder(pins, cookie));
}

function isRedirected(pins: string, netns: Netns): boolean {
  using pods = RedirectedPods.open(pins);
  return pods?.has(netnsCookie(netns)) === true;
}

/** Whether a folder is there, as far as we may see. */
export function isFolder(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied) return false;
    throw error;
  }
}
