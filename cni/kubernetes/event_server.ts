/** The plugin's socket: a pod that is being made is enrolled before its sandbox is ready (CNI-012 to CNI-016, CNI-021). */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { KubeError, KubeUnreachable } from "../../kube/api.ts";
import { type Netns, openNetns } from "../../os/netns.ts";
import { removeOldSocket } from "../../os/seqpacket.ts";
import { DECIDE_PATH, decodeEvent, EVENT_BYTES_MAX, EVENT_PATH } from "../plugin_event.ts";
import { serveUnixHttp, type UnixHttpServer } from "../unix_http.ts";
import { boundedBody } from "../bounded_body.ts";
import type { MeshPods } from "./mesh_pods.ts";
import { isMeant } from "./node_pod.ts";
import type { NodeState } from "./node_state.ts";

export interface EventServerOptions {
  readonly path: string;
  /** Where the host's root is seen: `/host` in a container, empty on the host (CNI-080). */
  readonly hostRoot: string;
  /** Whether a namespace is the host's own. */
  readonly isHost: (netns: Netns) => boolean;
  readonly state: NodeState;
  readonly pods: Pick<MeshPods, "add">;
  /** Told the status of each answer to a new pod's event. */
  readonly onAnswer: (status: number) => void;
  readonly log: Logger;
}

const LOOKUPS = 10, LOOKUP_PAUSE_MS = 10; // CNI-014: the watch may be a moment behind the scheduler
const SOCKET_MODE = 0o666; // The runtime calls the plugin as whom it likes; what it may ask is checked here.

/** Serves until its `shutdown` is called. Throws AMB7121. */
export async function serveEvents(options: EventServerOptions): Promise<UnixHttpServer> {
  const { path } = options;
  try {
    Deno.mkdirSync(path.replace(/\/[^/]*$/, ""), { recursive: true, mode: 0o750 });
    removeOldSocket(path);
    const server = await serveUnixHttp(path, options.log, async (request, signal) => {
      const response = await answered(request, signal, options);
      if (new URL(request.url).pathname === EVENT_PATH) options.onAnswer(response.status);
      return response;
    });
    Deno.chmodSync(path, SOCKET_MODE);
    return server;
  } catch (cause) {
    throw new MeshError("AMB7121", `cannot serve ${path}`, {
      remedy: "choose another --cni-agent-run-dir, on a file system where sockets can be made",
      cause,
    });
  }
}

async function answered(request: Request, signal: AbortSignal, options: EventServerOptions): Promise<Response> {
  try {
    return await answer(request, signal, options);
  } catch (error) {
    if (!(error instanceof MeshError || error instanceof KubeError || error instanceof KubeUnreachable)) throw error;
    options.log.warn("pod not enrolled", { error: chain(error) });
    return failed(500, error instanceof MeshError ? `${chain(error)} (${error.code}): ${error.remedy}` : chain(error));
  }
}

async function answer(request: Request, signal: AbortSignal, options: EventServerOptions): Promise<Response> {
  const { pathname } = new URL(request.url);
  if (request.method !== "POST" || (pathname !== EVENT_PATH && pathname !== DECIDE_PATH)) {
    return failed(404, `there is no ${request.method} ${pathname}`);
  }
  const body = await boundedBody(request, EVENT_BYTES_MAX);
  if (body === undefined) return failed(400, `the body is empty, or longer than ${EVENT_BYTES_MAX} bytes`);
  return pathname === DECIDE_PATH ? decide(body, options) : await enrol(body, signal, options);
}

/** From memory: `ambient`, `not-ambient`, or `unknown` where the pod or its namespace is not known. */
function decide(body: string, { state }: EventServerOptions): Response {
  let question: { name?: unknown; namespace?: unknown; uid?: unknown } | null;
  try {
    question = JSON.parse(body);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return failed(400, "the question is no JSON");
  }
  const { name, namespace, uid } = question ?? {};
  if (typeof name !== "string" || typeof namespace !== "string") return failed(400, "name and namespace are missing");
  const key = `${namespace}/${name}`, wanted = state.wants(key);
  const pod = state.pod(key), another = typeof uid === "string" && pod !== undefined && !isMeant(pod, uid);
  return new Response(wanted === undefined || another ? "unknown" : wanted ? "ambient" : "not-ambient");
}

async function enrol(body: string, signal: AbortSignal, options: EventServerOptions): Promise<Response> {
  const { state, pods, hostRoot, isHost } = options, event = decodeEvent(body);
  if ("wrong" in event) return failed(400, event.wrong);
  const key = `${event.namespace}/${event.name}`;
  /** Another of its name, before it, may have had another service account. */
  const known = () => {
    const pod = state.pod(key);
    return pod !== undefined && isMeant(pod, event.uid) ? pod : undefined;
  };
  for (let lookup = 1; (known() && state.wants(key)) === undefined && lookup < LOOKUPS; lookup++) {
    await new Promise((resolve) => setTimeout(resolve, LOOKUP_PAUSE_MS));
  }
  const pod = known(), wanted = state.wants(key);
  if (pod === undefined || wanted === undefined) return failed(500, `pod ${key} is not known on this node`);
  if (!wanted) return failed(500, `pod ${key} does not belong into the mesh`);
  // The API has no addresses yet; the network plugins before us gave these (CNI-015).
  const ips = event.ips.length > 0 ? event.ips : pod.ips;
  using netns: Netns = openNetns(`${hostRoot}${event.netns}`);
  if (isHost(netns)) {
    throw new MeshError("AMB7270", `${event.netns} of pod ${key} is the network namespace of the host`, {
      remedy: "look for who speaks to the plugin's socket: a runtime makes a namespace for each pod that has one",
    });
  }
  await pods.add({ ...pod, ips }, { netns }, signal);
  return new Response(null, { status: 200 });
}

function failed(status: number, text: string): Response {
  return new Response(`${text}\n`, { status });
}
