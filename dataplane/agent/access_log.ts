/** The access log: one line at the end of each connection, in the fields and order operators know (ZT-201 to ZT-205). */
import { formatSocketAddress, type IpWords } from "../../base/address.ts";
import { Bare, type Facts, formatFacts, LEVELS, type Logger } from "../../base/log.ts";
import { AccessKind, type AccessRecord, LogScope } from "../tables/access.ts";
import type { FlowLabel } from "../tables/flow_label.ts";
import type { Tables } from "../tables/handles.ts";
import { Direction, HEADER, RESPONSE_FLAG_NAMES, ResponseFlag } from "../tables/layout.ts";

const COMPLETE = "connection complete";
const ERROR = LEVELS.indexOf("error"), WARN = LEVELS.indexOf("warn");
const INFO = LEVELS.indexOf("info"), DEBUG = LEVELS.indexOf("debug");

/** What the connections of one flow have in common, as plain lines show it; each begins with a blank unless it is empty. */
interface CommonTexts {
  readonly source: string;
  readonly destination: string;
}

/** Writes access records as lines of the scope `access`, and the workers' own lines under theirs. */
export class AccessLog {
  readonly #access: Logger;
  readonly #worker: Logger;
  readonly #policy: Logger;
  readonly #common = new WeakMap<FlowLabel, CommonTexts>();

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
    const failed = record.flag !== ResponseFlag.NONE || record.error !== undefined, level = failed ? ERROR : INFO;
    if (this.#access.json) {
      const facts = { ...openedFacts(record, label), ...endFacts(record, failed) };
      return this.#access.write(level, COMPLETE, facts);
    }
    // One for each connection: all but the addresses and the end is the flow's.
    const { source, destination } = this.#commonOf(label), hbone = authority(record);
    const opened = `src.addr=${addressText(record.source)}${source} dst.addr=${addressText(record.destination)}` +
      `${hbone === undefined ? "" : ` dst.hbone_addr=${hbone}`}${destination}`;
    this.#access.writePlain(level, COMPLETE, `${opened} ${formatFacts(endFacts(record, failed))}`);
  };

  #commonOf(label: FlowLabel | undefined): CommonTexts {
    const kept = label && this.#common.get(label);
    if (kept !== undefined) return kept;
    const [source, destination] = [sourceFacts(label), destinationFacts(label)].map(formatFacts)
      .map((text) => text === "" ? "" : ` ${text}`) as [string, string];
    if (label !== undefined) this.#common.set(label, { source, destination });
    return { source, destination };
  }
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
  return {
    "src.addr": address(record.source),
    ...sourceFacts(label),
    "dst.addr": address(record.destination),
    "dst.hbone_addr": authority(record),
    ...destinationFacts(label),
    direction: directionOf(record),
  };
}

// Identities only with mTLS: the destination's principal is known for plaintext too, but nobody proved it.
const provesIdentity = (label: FlowLabel | undefined) => label?.securityPolicy === "mutual_tls";

function sourceFacts(label: FlowLabel | undefined): Facts {
  return {
    "src.workload": some(label?.sourceName || label?.sourceCanonicalService),
    "src.namespace": some(label?.sourceNamespace),
    "src.identity": provesIdentity(label) ? some(label?.sourcePrincipal) : undefined,
    "src.cluster": some(label?.sourceCluster),
  };
}

function destinationFacts(label: FlowLabel | undefined): Facts {
  return {
    "dst.service": some(label?.destinationService),
    "dst.workload": some(label?.destinationName || label?.destinationCanonicalService),
    "dst.namespace": some(label?.destinationNamespace),
    "dst.identity": provesIdentity(label) ? some(label?.destinationPrincipal) : undefined,
    "dst.cluster": some(label?.destinationCluster),
  };
}

/** ZT-201 from direction on. */
function endFacts(record: AccessRecord, failed: boolean): Facts {
  // The metrics count from the initiator's side, the log from the reporting workload's (ZT-203).
  const outbound = record.direction === Direction.OUTBOUND;
  return {
    direction: directionOf(record),
    bytes_sent: outbound ? record.receivedBytes : record.sentBytes,
    bytes_recv: outbound ? record.sentBytes : record.receivedBytes,
    duration: `${Math.floor(record.durationMs)}ms`,
    error: failed ? record.error ?? RESPONSE_FLAG_NAMES[record.flag] : undefined,
  };
}

function address(socket: { readonly ip: IpWords; readonly port: number }): Bare {
  return new Bare(addressText(socket));
}

function addressText(socket: { readonly ip: IpWords; readonly port: number }): string {
  return formatSocketAddress(socket.ip, socket.port);
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
  return text.replace(/[\p{Cc}\p{Bidi_Control}\u2028\u2029]/gu, " ");
}
