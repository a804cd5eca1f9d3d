/** From a query's bytes to an answer's, for one pod: read, answer from the mesh or forward, write, count (ZT-176 to ZT-188). */
import type { Logger } from "../../../base/log.ts";
import type { Workload } from "../../../mesh/workload.ts";
import { CLASS_INTERNET, Code, type Query, readQuery } from "../../../wire/dns/message.ts";
import { answerBytesMax, writeForwarded, writeOwnAnswer, writeRefusal } from "../../../wire/dns/message_writer.ts";
import type { Counter, Histogram, Labels } from "../metrics_registry.ts";
import { answerLocally, type AnswerSettings, type DnsMesh } from "./answer.ts";
import type { Forwarder } from "./forwarder.ts";
import { typeName } from "./type_names.ts";

/** ZT-185. */
const TTL_SECONDS = 30;

/** The answer's bytes, now or later; undefined: nothing is said. Never throws, never rejects. */
export type Respond = (
  message: Uint8Array,
  overTcp: boolean,
) => Uint8Array<ArrayBuffer> | undefined | Promise<Uint8Array<ArrayBuffer> | undefined>;

/** What is counted (ZT-188). */
export interface DnsMetrics {
  readonly dnsRequests: Counter;
  readonly dnsUpstreamRequests: Counter;
  readonly dnsUpstreamFailures: Counter;
  readonly dnsUpstreamSeconds: Histogram;
}

export interface ResponderOptions {
  readonly mesh: DnsMesh;
  readonly settings: AnswerSettings;
  /** The pod's workload; a promise while it is not known yet, which gives undefined when it stays so (ZT-177). */
  readonly client: () => Workload | Promise<Workload | undefined>;
  readonly forwarder: Pick<Forwarder, "forward">;
  readonly metrics: DnsMetrics;
  readonly random: () => number;
  /** Milliseconds that only grow. */
  readonly now: () => number;
  readonly log: Logger;
}

/** Makes the function that answers for one pod. */
export function responder(options: ResponderOptions): Respond {
  return (message, overTcp) => {
    const received = readQuery(message);
    if (received.kind === "ignore") return undefined;
    if (received.kind === "refuse") return writeRefusal(received, received.code);
    const client = options.client();
    if (isPromise(client)) return client.then((client) => serve(options, received.query, client, overTcp));
    return serve(options, received.query, client, overTcp);
  };
}

/** Whether an answer comes later. */
export function isPromise<T>(value: T | Promise<T>): value is Promise<T> {
  return value instanceof Promise;
}

function serve(
  options: ResponderOptions,
  query: Query,
  client: Workload | undefined,
  overTcp: boolean,
): Uint8Array<ArrayBuffer> | Promise<Uint8Array<ArrayBuffer>> {
  const { mesh, settings, metrics, random } = options;
  const labels = labelsOf(query, client, overTcp);
  metrics.dnsRequests.add(labels);
  if (client === undefined) {
    logged(options, query, client, "unknown source");
    return refusal(query, Code.SERVFAIL);
  }
  const { name, type } = query;
  const local = name === undefined || query.class !== CLASS_INTERNET
    ? undefined
    : answerLocally(mesh, { name, type, client }, settings, random);
  if (local === undefined) return forward(options, { query, client, overTcp, labels });
  logged(options, query, client, local.addresses.length === 0 ? "no records" : "success", local.addresses.length);
  const { alias, addresses } = local;
  const answer = { name: name!, alias, addresses, ttlSeconds: TTL_SECONDS };
  return writeOwnAnswer(query, answer, answerBytesMax(query, overTcp));
}

async function forward(
  options: ResponderOptions,
  request: { readonly query: Query; readonly client: Workload; readonly overTcp: boolean; readonly labels: Labels },
): Promise<Uint8Array<ArrayBuffer>> {
  const { forwarder, metrics, now } = options, { query, client, overTcp, labels } = request;
  metrics.dnsUpstreamRequests.add(labels);
  const startedAtMs = now();
  const kept = await forwarder.forward(query);
  metrics.dnsUpstreamSeconds.observe(labels, (now() - startedAtMs) / 1_000);
  const code = kept?.response.code ?? Code.SERVFAIL;
  // As in the original, every code but NOERROR is a failure, NXDOMAIN too.
  if (code !== Code.NOERROR) metrics.dnsUpstreamFailures.add(labels);
  logged(options, query, client, kept === undefined ? "forwarding failed" : `forwarded, code ${code}`);
  if (kept === undefined || code > 15) return refusal(query, Code.SERVFAIL); // Extended codes speak of EDNS between us.
  const ageSeconds = Math.max(0, Math.floor((now() - kept.receivedAtMs) / 1_000));
  return writeForwarded(query, kept, { bytesMax: answerBytesMax(query, overTcp), ageSeconds });
}

function refusal(query: Query, code: number): Uint8Array<ArrayBuffer> {
  return writeRefusal({ id: query.id, flags: query.flags, query }, code);
}

function labelsOf(query: Query, client: Workload | undefined, overTcp: boolean): Labels {
  return {
    request_query_type: typeName(query.type),
    request_protocol: overTcp ? "tcp" : "udp",
    source_canonical_service: client?.canonicalName || "unknown",
    source_canonical_revision: client?.canonicalRevision || "unknown",
  };
}

function logged(
  { log }: ResponderOptions,
  query: Query,
  client: Workload | undefined,
  result: string,
  endpoints = 0,
): void {
  log.debug("query answered", {
    workload: client?.name,
    namespace: client?.namespace,
    type: typeName(query.type),
    domain: query.name,
    result,
    endpoints,
  });
}
