/** From certificates to the contexts that workers use: one row per SPIFFE identity of this node's pods. */
import { chain, type MeshError } from "../../base/errors.ts";
import { createTemplate, releaseTemplate, retainTemplate } from "../../os/openssl.ts";
import type { ContextHandle } from "../../os/api.ts";
import { acquireIdentity, putContext, putFailure, releaseIdentity } from "../tables/identities.ts";
import type { Tables } from "../tables/handles.ts";
import { Command } from "../tables/layout.ts";
import type { Certificates } from "./certificates.ts";
import { Priority } from "./certificates.ts";
import type { WorkloadCertificate } from "./workload_certificate.ts";
import type { WorkerPool } from "./worker_pool.ts";

interface IdentityRow {
  readonly row: number;
  /** Pods that have it. */
  users: number;
  template: ContextHandle | undefined;
}

/** Whom it tells of certificates. */
type Workers = Pick<WorkerPool, "count" | "tell" | "tellAll">;

export class Identities {
  readonly #tables: Tables;
  readonly #workers: Workers;
  readonly #rows = new Map<string, IdentityRow>();
  #certificates: Certificates | undefined;

  constructor(tables: Tables, workers: Workers) {
    this.#tables = tables;
    this.#workers = workers;
  }

  /** The source of certificates, which calls back into this. Once. */
  useCertificates(certificates: Certificates): void {
    this.#certificates = certificates;
  }

  /** One more pod with this identity; its certificate is fetched at once. @returns The identity's row. @throws MeshError AMB2001, AMB2002 */
  acquire(uri: string): number {
    let entry = this.#rows.get(uri);
    if (entry === undefined) {
      entry = { row: acquireIdentity(this.#tables.identities, uri), users: 0, template: undefined };
      this.#rows.set(uri, entry);
      this.#takeFetched(uri);
    }
    entry.users++;
    this.#certificates!.want(uri, Priority.REAL_TIME);
    return entry.row;
  }

  /** A workload of this node will want a certificate: it is fetched when nothing more urgent is (ZT-143). */
  prefetch(uri: string): void {
    this.#certificates!.want(uri, Priority.WARM_UP);
  }

  /** No workload of this node has the identity any more; a pod that has keeps it (ZT-143). */
  forgetUnused(uri: string): void {
    if (!this.#rows.has(uri)) this.#certificates!.forget(uri);
  }

  /** What was fetched ahead, or why it could not be, was told to nobody yet. */
  #takeFetched(uri: string): void {
    const certificate = this.#certificates!.current(uri), failure = this.#certificates!.failure(uri);
    if (certificate !== undefined) this.onCertificate(uri, certificate);
    else if (failure !== undefined) this.onUnavailable(uri, failure);
  }

  /** One pod less. Every worker has forgotten the pod already. */
  release(uri: string): void {
    const entry = this.#rows.get(uri);
    if (entry === undefined || --entry.users > 0) return;
    this.#rows.delete(uri);
    this.#certificates!.forget(uri);
    if (entry.template !== undefined) releaseTemplate(entry.template);
    releaseIdentity(this.#tables.identities, entry.row);
  }

  /** Tells all workers of a context they have no certificate of yet, again: for a pod added after the certificate came. */
  announce(uri: string): void {
    const entry = this.#rows.get(uri);
    if (entry?.template !== undefined) this.#tell(entry.row, entry.template);
  }

  onCertificate(uri: string, certificate: WorkloadCertificate): void {
    const entry = this.#rows.get(uri);
    if (entry === undefined) return; // Forgotten while the answer was on its way.
    const template = createTemplate({
      chain: certificate.leafAndIntermediatesPem,
      privateKey: certificate.privateKeyPem,
      roots: certificate.rootsPem,
    });
    const address = template.high * 0x1_0000_0000 + template.low;
    putContext(this.#tables.identities, entry.row, address, certificate.notAfterMs);
    this.#tell(entry.row, template);
    if (entry.template !== undefined) releaseTemplate(entry.template);
    entry.template = template;
  }

  onUnavailable(uri: string, error: MeshError): void {
    const entry = this.#rows.get(uri);
    if (entry === undefined) return;
    putFailure(this.#tables.identities, entry.row, `signing error: ${chain(error)}`);
    this.#workers.tellAll(Command.IDENTITY_CHANGED, entry.row);
  }

  /** Each worker takes over one reference to the template, and derives its own contexts from it. */
  #tell(row: number, template: ContextHandle): void {
    for (let worker = 0; worker < this.#workers.count; worker++) {
      retainTemplate(template);
      this.#workers.tell(worker, Command.IDENTITY_CHANGED, row, template.low | 0, template.high | 0);
    }
  }
}
