/** The access log: one line at the end of each connection, in the fields and order operators know (ZT-201 to ZT-205). */
import { formatSocketAddress, type IpWords } from "../../base/address.ts";
import { Bare, type Facts, LEVELS, type Logger } from "../../base/log.ts";
import { AccessKind, type AccessRecord, LogScope } from "../tables/access.ts";
import type { FlowLabel } from "../tables/flow_label.ts";
import type { Tables } from "../tables/handles.ts";
import { Direction, HEADER, RESPONSE_FLAG_NAMES, ResponseFlag } from "../tables/layout.ts";

const ERROR = LEVELS.indexOf("error"), WARN = LEVELS.indexOf("warn");
const INFO = LEVELS.indexOf("info"), DEBUG = LEVELS.indexOf("debug");

/** Writes access records as lines of the scope `access`, and the workers' own lines under theirs. */
export class AccessLog {
  readonly #access: Logger;
  readonly #worker: Logger;
  readonly #policy: Logger;

  constructor(logger: Logger) {
    this.#access = logger.child("access");
    this.#worker = logger.child("worker");
    this.#policy = logger.child("policy");
  }

  /**
   * Tells the workers which lines beyond the usual somebody wants to read now: an opening (ZT-204), a policy's decision,
   * at info if the operator says so and at debug otherwise (ZT-206).
   */
  announce(header: Tables["header"], policyAtInfo: boolean): void {
    header.store(0, HEADER.accessOpened, this.#access.filter.allows(DEBUG, "access") ? 1 : 0);
    const level = policyAtInfo ? INFO : DEBUG;
    header.store(0, HEADER.policyLevel, this.#policy.filter.allows(level, "policy") ? level : 0);
  }

  /** Writes one record; `label` is that of its flow, undefined if it has none. Fits FlowTotals.collect. */
  readonly write = (record: AccessRecord, label: FlowLabel | undefined): void => {
    if (record.kind === AccessKind.LOG) {
      const logger = record.direction === LogScope.POLICY ? this.#policy : this.#worker;
      return logger.write(record.flag, oneLine(record.error ?? ""));
    }
    if (record.kind === AccessKind.EARLY) return this.#access.write(WARN, "connection failed", earlyFacts(record));
    if (record.kind === AccessKind.OPENED) {
      return this.#access.write(DEBUG, "connection opened", openedFacts(record, label));
    }
    const failed = record.flag !== ResponseFlag.NONE || record.error !== undefined;
    this.#access.write(failed ? ERROR : INFO, "connection complete", completeFacts(record, label, failed));
  };
}

/** ZT-205. */
function earlyFacts(record: AccessRecord): Facts {
  return {
    "src.addr": address(record.source),
    "dst.addr": address(record.destination),
    direction: directionOf(record),
    error: record.error,
  };
}

/** ZT-201 up to direction. A record whose flow is gone has its addresses at least. */
function openedFacts(record: AccessRecord, label: FlowLabel | undefined): Facts {
  // Identities only with mTLS: the destination's principal is known for plaintext too, but nobody proved it.
  const mutualTls = label?.securityPolicy === "mutual_tls";
  return {
    "src.addr": address(record.source),
    "src.workload": some(label?.sourceName || label?.sourceCanonicalService),
    "src.namespace": some(label?.sourceNamespace),
    "src.identity": mutualTls ? some(label.sourcePrincipal) : undefined,
    "src.cluster": some(label?.sourceCluster),
    "dst.addr": address(record.destination),
    "dst.hbone_addr": authority(record),
    "dst.service": some(label?.destinationService),
    "dst.workload": some(label?.destinationName || label?.destinationCanonicalService),
    "dst.namespace": some(label?.destinationNamespace),
    "dst.identity": mutualTls ? some(label.destinationPrincipal) : undefined,
    "dst.cluster": some(label?.destinationCluster),
    direction: directionOf(record),
  };
}

function completeFacts(record: AccessRecord, label: FlowLabel | undefined, failed: boolean): Facts {
  // The metrics count from the initiator's side, the log from the reporting workload's (ZT-203).
  const outbound = record.direction === Direction.OUTBOUND;
  return {
    ...openedFacts(record, label),
    bytes_sent: outbound ? record.receivedBytes : record.sentBytes,
    bytes_recv: outbound ? record.sentBytes : record.receivedBytes,
    duration: `${Math.floor(record.durationMs)}ms`,
    error: failed ? record.error ?? RESPONSE_FLAG_NAMES[record.flag] : undefined,
  };
}

function address(socket: { readonly ip: IpWords; readonly port: number }): Bare {
  return new Bare(formatSocketAddress(socket.ip, socket.port));
}

function authority({ authority }: AccessRecord): Bare | undefined {
  if (authority === undefined) return undefined;
  return typeof authority === "string" ? new Bare(authority) : address(authority);
}

function directionOf(record: AccessRecord): string {
  return record.direction === Direction.OUTBOUND ? "outbound" : "inbound";
}

function some(text: string | undefined): string | undefined {
  return text === "" ? undefined : text;
}

/** A worker's own line may quote what came from the network; it stays one line. */
function oneLine(text: string): string {
  return text.replace(/\p{Cc}/gu, " ");
}
