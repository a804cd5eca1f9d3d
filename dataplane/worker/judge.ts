/** Policies over open connections: judged when they open, and again whenever the snapshot changes (ZT-093, ZT-120). */
import { formatIp, formatSocketAddress } from "../../base/address.ts";
import { type Identity, principalOf } from "../../mesh/identity.ts";
import { authorize, dryRunVerdicts, type Policy, type Verdict } from "../../mesh/policy.ts";
import type { Workload } from "../../mesh/workload.ts";
import { CLOSE_REQUESTED, CONNECTION, HEADER, ResponseFlag } from "../tables/layout.ts";
import type { Connection } from "./connection.ts";
import type { Resumable } from "./reactor.ts";
import { LogLevel, type Shard } from "./shard.ts";

const JUDGED_PER_TURN_MAX = 256;

export class Judge implements Resumable {
  readonly #shard: Shard;
  /** Filled anew for each judgement. */
  readonly #facts = {
    identity: undefined as Identity | undefined,
    principal: undefined as string | undefined,
    source0: 0,
    source1: 0,
    source2: 0,
    source3: 0,
    destination0: 0,
    destination1: 0,
    destination2: 0,
    destination3: 0,
    destinationPort: 0,
  };
  /** Where the round stands, and how many rows are to be looked at until each was judged under the present snapshot. */
  #from = 0;
  #left = 0;
  /** The table's rows as counted in {@link #left}; a row that is new among them was judged as it opened. */
  #limit = 0;
  #warnedGeneration = -1;
  #warned = new WeakSet<Workload>();

  constructor(shard: Shard) {
    this.#shard = shard;
  }

  /**
   * Looks at every open connection again: at the policies in force, and whether its end was asked for. A round under way
   * goes on from where it is: begun anew with each snapshot, it would never come to the last rows while many arrive.
   */
  again(): void {
    if (this.#left === 0) this.#shard.reactor.resumeLater(this);
    this.#left = this.#limit = this.#shard.rows.limit;
  }

  /** Judges open inbound connections again, some of them each turn (ZT-120). */
  onResume(): void {
    const { rows } = this.#shard;
    let left = JUDGED_PER_TURN_MAX;
    this.#left += rows.limit - this.#limit; // They stand in the way of the round.
    this.#limit = rows.limit;
    while (this.#left > 0 && left > 0) {
      this.#left--;
      if (this.#from >= rows.limit) this.#from = 0;
      const connection = rows.at(this.#from++);
      if (connection === null || connection.closed) continue;
      left--;
      if ((this.#shard.connections.load(connection.row, CONNECTION.control) & CLOSE_REQUESTED) !== 0) {
        connection.end(ResponseFlag.CONNECT, "closed on request");
      } else this.#judge(connection);
    }
    if (this.#left > 0) this.#shard.reactor.resumeLater(this);
  }

  #judge(connection: Connection): void {
    const { facts, row } = connection;
    if (facts === undefined) return;
    // The workload as it is now: a policy that names it only since yesterday holds for open connections too.
    const workload = this.#shard.view.localWorkload(connection.pod.row) ?? facts.workload;
    const verdict = this.verdictOn(row, workload, facts.identity);
    if (!verdict.allowed) connection.end(ResponseFlag.DENY, `connection closed due to policy change: ${verdict.by}`);
  }

  /** What the policies in force for `workload` say of the connection whose addresses stand in the row (ZT-093, ZT-100). */
  verdictOn(row: number, workload: Workload, identity: Identity | undefined, trace = ""): Verdict {
    const { connections } = this.#shard, facts = this.#facts, from = CONNECTION.sourceIp, to = CONNECTION.destinationIp;
    facts.identity = identity;
    facts.principal = identity === undefined ? undefined : principalOf(identity);
    facts.source0 = connections.getAt(row, from, 0);
    facts.source1 = connections.getAt(row, from, 1);
    facts.source2 = connections.getAt(row, from, 2);
    facts.source3 = connections.getAt(row, from, 3);
    facts.destination0 = connections.getAt(row, to, 0);
    facts.destination1 = connections.getAt(row, to, 1);
    facts.destination2 = connections.getAt(row, to, 2);
    facts.destination3 = connections.getAt(row, to, 3);
    facts.destinationPort = connections.get(row, CONNECTION.destinationPort);
    if (workload.authorizationPolicies.length > 0) this.#warnOfUnknown(workload);
    const policies = this.#shard.view.policiesFor(workload), verdict = authorize(policies, facts);
    if (verdict.allowed) connections.set(row, CONNECTION.policyGeneration, this.#shard.view.generation);
    const level = this.#shard.tables.header.load(0, HEADER.policyLevel);
    if (level !== 0) this.#tell(level, policies, verdict, trace);
    return verdict;
  }

  /** Once a generation for each workload: a policy that it names and that nobody sent protects nobody (ZT-106). */
  #warnOfUnknown(workload: Workload): void {
    const { view } = this.#shard;
    if (view.generation !== this.#warnedGeneration) {
      this.#warnedGeneration = view.generation;
      this.#warned = new WeakSet();
    }
    if (this.#warned.has(workload)) return;
    this.#warned.add(workload);
    for (const key of view.unknownPoliciesOf(workload)) {
      this.#shard.reportPolicy(LogLevel.WARN, `policy ${key} of workload ${workload.uid} is not known, and skipped`);
    }
  }

  /** A line about the decision, and one for each thing that a dry run would have done (ZT-109, ZT-206). */
  #tell(level: number, policies: readonly Policy[], verdict: Verdict, trace: string): void {
    const facts = this.#facts, { source0, source1, source2, source3, destinationPort } = facts;
    const { destination0, destination1, destination2, destination3, principal } = facts;
    const to = formatSocketAddress([destination0, destination1, destination2, destination3], destinationPort);
    const who = `${formatIp(source0, source1, source2, source3)} (${principal ?? "no identity"}) to ${to}${
      trace === "" ? "" : ` id ${trace}`
    }`;
    this.#shard.reportPolicy(level, `${verdict.allowed ? "allowed" : "denied"} ${who}: ${verdict.by}`);
    for (const { text, policyKey } of dryRunVerdicts(policies, facts)) {
      this.#shard.reportPolicy(level, `${text} ${who}${policyKey === undefined ? "" : `: ${policyKey}`}`);
    }
  }
}
