/** What the chosen OpenSSL can do on this machine, for `ambit doctor`. Loading this loads the library. */
import { Arena } from "./arena.ts";
import { checkPolicy, opensslVersion } from "./openssl.ts";
import { OPENSSL } from "./openssl_library.ts";
import { RecordCrypto, Sealer } from "./tls_records.ts";
import { ignore } from "../base/errors.ts";

const APPLICATION_DATA = 23;
const RECORD_BYTES = 16_384, RECORDS = 1_000; // 16 MB: 3 ms where it is slow, and long enough to be told apart.
const ROUNDS = 3; // The fastest counts: nothing makes a processor faster than it is.

export interface OpenSslFacts {
  readonly version: string;
  /** The file or name that was loaded. */
  readonly libssl: string;
  /** Gigabytes a second of one thread that seals records with AES-256-GCM. */
  readonly aesGbps: number;
  /** Key exchange by X25519MLKEM768. */
  readonly postQuantum: boolean;
}

/** @throws MeshError AMB7055, AMB7056 from the import when there is no library. */
export function opensslFacts(): OpenSslFacts {
  return { version: opensslVersion(), libssl: OPENSSL.libssl, aesGbps: measureAes(), postQuantum: hasPostQuantum() };
}

function hasPostQuantum(): boolean {
  try {
    checkPolicy({ postQuantumOnly: true });
    return true;
  } catch (error) {
    ignore(error, "that it has not is the answer");
    return false;
  }
}

function measureAes(): number {
  const arena = new Arena(1 << 20, { hugePages: false });
  const sealer = new Sealer(new RecordCrypto(arena), "aes256", new Uint8Array(48));
  const at = arena.allocate(RECORD_BYTES + 64);
  let best = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const startMs = performance.now();
    for (let record = 0; record < RECORDS; record++) sealer.seal(at, RECORD_BYTES, APPLICATION_DATA);
    best = Math.max(best, RECORDS * RECORD_BYTES / (performance.now() - startMs) / 1e6);
  }
  sealer.free();
  return best;
}
