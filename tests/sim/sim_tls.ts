/** TLS without cryptography but with everything that can go wrong around it: flights, verification, records, keys that change. */
import {
  type ContextHandle,
  type Fd,
  HandshakeStep,
  RecordError,
  type RecordOpener,
  type RecordSealer,
  type Tls,
  type TlsHandshake,
  type TlsIdentity,
  type TrafficKeys,
} from "../../os/api.ts";
import { hold } from "./chance.ts";
import type { SimMemory } from "./memory.ts";
import type { SimOs } from "./sim_os.ts";
import { Errno, SimSocket } from "./stream.ts";

const HEADER_BYTES = 5, TAG_BYTES = 16;
const HANDSHAKE = 22, APPLICATION_DATA = 23;
const Flight = { CLIENT_HELLO: 1, SERVER: 2, FINISHED: 16 } as const;

/** A certificate with its key, as the agent hands it over. */
export interface Certificate {
  readonly uris: readonly string[];
  /** Certificates of another root are refused. */
  readonly root: number;
}

/** Certificates by the handle that stands for them, and what is alive of everything that must be freed. */
export class Certificates {
  readonly #byHandle = new Map<number, Certificate>();
  live = 0;
  /** Takes every record for genuine: a mistake that a test puts in. */
  trusting = false;
  /** Keeps opening with the first key: another. */
  stubborn = false;

  issue(certificate: Certificate): ContextHandle {
    const low = this.#byHandle.size + 1;
    this.#byHandle.set(low, certificate);
    return { low, high: 7 };
  }

  find(handle: ContextHandle): Certificate {
    const found = this.#byHandle.get(handle.low);
    hold(found !== undefined && handle.high === 7, "a worker derives from a template that the agent made");
    return found;
  }
}

function mix(one: number, other: number): number {
  let hash = Math.imul(one ^ other, 0x9e3779b1);
  hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca6b);
  return hash ^ (hash >>> 13);
}

/** One direction: hides content under a key and a sequence number, and marks it so that no change goes unseen. */
class Direction {
  readonly tls12 = false;
  protected readonly memory: SimMemory;
  protected sequence = 0;
  #key: number;
  #freed = false;
  protected readonly owner: Certificates;

  constructor(owner: Certificates, memory: SimMemory, key: number) {
    this.owner = owner;
    this.memory = memory;
    this.#key = key;
    owner.live++;
  }

  nextKey(): void {
    this.#key = mix(this.#key, 0x6b7570);
    this.sequence = 0;
  }

  exportKeys(): TrafficKeys {
    const secret = new Uint8Array(4);
    new DataView(secret.buffer).setInt32(0, this.#key);
    return { suite: "simulated", secret, sequence: this.sequence };
  }

  /** Goes on with what another exported. */
  goOnAt(sequence: number): void {
    this.sequence = sequence;
  }

  free(): void {
    hold(!this.#freed, "keys are freed once");
    this.#freed = true;
    this.owner.live--;
  }

  /** Hides or shows bytes[at..at+count). @returns The mark of the plaintext. */
  protected turn(u8: Uint8Array, at: number, count: number, sealing: boolean): number {
    hold(!this.#freed, "freed keys are not used");
    let stream = mix(this.#key, this.sequence++), mark = mix(stream, count);
    for (let index = at, end = at + count; index < end; index++) {
      stream = Math.imul(stream, 0x19660d) + 0x3c6ef35f | 0;
      const before = u8[index]!, after = before ^ (stream >>> 24);
      mark = Math.imul(mark ^ (sealing ? before : after), 0x01000193);
      u8[index] = after;
    }
    return mark;
  }
}

class SimSealer extends Direction implements RecordSealer {
  readonly contentBytesMax = 16_384;

  get sealedCount(): number {
    return this.sequence;
  }

  seal(at: number, bytes: number, contentType: number): number {
    const { u8, view } = this.memory, body = bytes + 1 + TAG_BYTES;
    hold(bytes <= 16_384, "a record holds at most 2^14 bytes of content");
    u8.set([APPLICATION_DATA, 3, 3, body >> 8, body & 255], at);
    u8[at + HEADER_BYTES + bytes] = contentType;
    const mark = this.turn(u8, at + HEADER_BYTES, bytes + 1, true);
    for (let word = 0; word < 4; word++) view.setInt32(at + HEADER_BYTES + bytes + 1 + 4 * word, mix(mark, word));
    return HEADER_BYTES + body;
  }
}

class SimOpener extends Direction implements RecordOpener {
  override nextKey(): void {
    if (!this.owner.stubborn) super.nextKey();
  }

  open(at: number, recordBytes: number): number {
    const bytes = recordBytes - HEADER_BYTES - TAG_BYTES, { u8, view } = this.memory;
    if (bytes < 1) return RecordError.BAD_RECORD;
    const mark = this.turn(u8, at + HEADER_BYTES, bytes, false);
    for (let word = 0; word < 4; word++) {
      if (view.getInt32(at + HEADER_BYTES + bytes + 4 * word) === mix(mark, word) || this.owner.trusting) continue;
      return RecordError.BAD_RECORD;
    }
    return bytes;
  }
}

/** Both ends in one machine; each step goes as far as the socket lets it. */
class SimHandshake implements TlsHandshake {
  readonly #tls: SimTls;
  readonly #certificate: Certificate;
  readonly #socket: SimSocket;
  readonly #client: boolean;
  readonly #own: number;
  #peerNonce = 0;
  #peer: Certificate | undefined = undefined;
  #awaits: number;
  #out: Uint8Array[] = [];
  #in: number[] = [];
  readonly peerRevoked = false;
  #failure = "";
  #done = false;
  #gone = false;
  #sealer: SimSealer | undefined = undefined;

  constructor(tls: SimTls, certificate: Certificate, fd: Fd, client: boolean) {
    this.#tls = tls;
    this.#certificate = certificate;
    const file = tls.os.process.files[fd];
    hold(file instanceof SimSocket, "a handshake is given a socket");
    this.#socket = file;
    this.#client = client;
    this.#own = tls.os.random32();
    tls.certificates.live++;
    this.#awaits = client ? Flight.SERVER : Flight.CLIENT_HELLO;
    if (client) this.#say(Flight.CLIENT_HELLO, { nonce: this.#own });
  }

  step(): HandshakeStep {
    hold(!this.#gone, "a handshake that is gone takes no steps");
    for (;;) {
      if (this.#failure !== "") return HandshakeStep.FAILED;
      if (!this.#flush()) return this.#failure !== "" ? HandshakeStep.FAILED : HandshakeStep.WANTS_WRITE;
      if (this.#done) return HandshakeStep.DONE;
      const heard = this.#hear();
      if (heard !== HandshakeStep.DONE) return heard;
    }
  }

  #say(kind: number, message: unknown): void {
    const text = new TextEncoder().encode(JSON.stringify(message)), body = new Uint8Array(text.length + 5);
    body[0] = kind;
    body.set(text, 5);
    new DataView(body.buffer).setInt32(1, markOf(kind, text));
    this.#out.push(Uint8Array.of(HANDSHAKE, 3, 3, body.length >> 8, body.length & 255), body);
  }

  #flush(): boolean {
    for (let bytes = this.#out[0]; bytes !== undefined; bytes = this.#out[0]) {
      const sent = this.#socket.send(bytes);
      if (sent === -Errno.AGAIN) return false;
      if (sent < 0) {
        this.#failure = "the peer hung up while we wrote";
        return false;
      }
      if (sent < bytes.length) this.#out[0] = bytes.subarray(sent);
      else this.#out.shift();
    }
    return true;
  }

  /** Reads one record, and not a byte more: what follows belongs to the session. */
  #hear(): HandshakeStep {
    for (;;) {
      const have = this.#in.length;
      const wanted = have < HEADER_BYTES ? HEADER_BYTES : HEADER_BYTES + (this.#in[3]! << 8 | this.#in[4]!);
      if (have >= HEADER_BYTES && have === wanted) break;
      if (have >= HEADER_BYTES && this.#in[0] !== HANDSHAKE) return this.#fail("an unexpected message");
      const scratch = new Uint8Array(wanted - have);
      const got = this.#socket.receive(scratch, 0, scratch.length);
      if (got === -Errno.AGAIN) return HandshakeStep.WANTS_READ;
      if (got <= 0) return this.#fail("unexpected end of file");
      this.#in.push(...scratch.subarray(0, got));
    }
    const body = Uint8Array.from(this.#in.splice(0).slice(HEADER_BYTES));
    const kind = body[0], text = body.subarray(5);
    if (kind !== this.#awaits || new DataView(body.buffer).getInt32(1) !== markOf(kind, text)) {
      return this.#fail("a bad flight");
    }
    return this.#take(JSON.parse(new TextDecoder().decode(text)));
  }

  #take(message: { nonce: number; certificate?: Certificate }): HandshakeStep {
    if (message.certificate !== undefined) {
      if (message.certificate.root !== this.#certificate.root) return this.#fail("certificate verify failed");
      this.#peer = message.certificate;
    }
    if (this.#awaits === Flight.CLIENT_HELLO) {
      this.#peerNonce = message.nonce;
      this.#say(Flight.SERVER, { nonce: this.#own, certificate: this.#certificate });
      this.#awaits = Flight.FINISHED;
    } else if (this.#awaits === Flight.SERVER) {
      this.#peerNonce = message.nonce;
      this.#say(Flight.FINISHED, { nonce: this.#own, certificate: this.#certificate });
      this.#done = true;
    } else {
      this.#done = true;
      if ((this.#own & 3) === 0) this.#sayTicket();
    }
    return HandshakeStep.DONE;
  }

  /** A session ticket, as servers send it behind the handshake, and sometimes a wish for a new key. */
  #sayTicket(): void {
    const { memory, scratchAt } = this.#tls;
    memory.u8.fill(9, scratchAt + HEADER_BYTES, scratchAt + HEADER_BYTES + 24);
    memory.u8.set([4, 0, 0, 20], scratchAt + HEADER_BYTES);
    this.#sealer = this.#makeSealer();
    const bytes = this.#sealer.seal(scratchAt, 24, HANDSHAKE);
    this.#out.push(memory.u8.slice(scratchAt, scratchAt + bytes));
    if ((this.#own & 4) === 0) return;
    memory.u8.set([24, 0, 0, 1, 1], scratchAt + HEADER_BYTES); // KeyUpdate, update_requested (RFC 8446 §4.6.3).
    const more = this.#sealer.seal(scratchAt, 5, HANDSHAKE);
    this.#sealer.nextKey();
    this.#out.push(memory.u8.slice(scratchAt, scratchAt + more));
  }

  #makeSealer(): SimSealer {
    return new SimSealer(this.#tls.certificates, this.#tls.memory, this.#key(this.#client));
  }

  #key(client: boolean): number {
    const [first, second] = this.#client ? [this.#own, this.#peerNonce] : [this.#peerNonce, this.#own];
    return mix(mix(first, second), client ? 1 : 2);
  }

  #fail(reason: string): HandshakeStep {
    this.#failure = reason;
    return HandshakeStep.FAILED;
  }

  failure(): string {
    return this.#failure;
  }

  peerUris(): readonly string[] {
    return this.#peer?.uris ?? [];
  }

  takePath(): null {
    return null;
  }

  takeRecords(): { sealer: RecordSealer; opener: RecordOpener } {
    hold(this.#done && !this.#gone, "records are taken from a handshake that is through");
    const sealer = this.#sealer ?? this.#makeSealer();
    this.#sealer = undefined;
    this.#go();
    return { sealer, opener: new SimOpener(this.#tls.certificates, this.#tls.memory, this.#key(!this.#client)) };
  }

  free(): void {
    this.#sealer?.free();
    this.#go();
  }

  #go(): void {
    hold(!this.#gone, "a handshake is freed once");
    this.#gone = true;
    this.#tls.certificates.live--;
  }
}

function markOf(kind: number, text: Uint8Array): number {
  let mark = kind;
  for (const byte of text) mark = Math.imul(mark ^ byte, 0x01000193);
  return mix(mark, text.length);
}

class SimIdentity implements TlsIdentity {
  readonly #tls: SimTls;
  readonly #certificate: Certificate;
  #freed = false;

  constructor(tls: SimTls, certificate: Certificate) {
    this.#tls = tls;
    this.#certificate = certificate;
    tls.certificates.live++;
  }

  connect(fd: Fd): TlsHandshake {
    return this.#begin(fd, true);
  }
  accept(fd: Fd): TlsHandshake {
    return this.#begin(fd, false);
  }

  #begin(fd: Fd, client: boolean): TlsHandshake {
    hold(!this.#freed, "a freed identity makes no handshakes");
    return new SimHandshake(this.#tls, this.#certificate, fd, client);
  }

  free(): void {
    hold(!this.#freed, "an identity is freed once");
    this.#freed = true;
    this.#tls.certificates.live--;
  }
}

export class SimTls implements Tls {
  readonly os: SimOs;
  readonly memory: SimMemory;
  readonly certificates: Certificates;
  readonly revocation = null;
  readonly scratchAt: number;

  constructor(os: SimOs, certificates: Certificates) {
    this.os = os;
    this.memory = os.memory;
    this.certificates = certificates;
    this.scratchAt = os.memory.allocate(256);
  }

  derive(template: ContextHandle): TlsIdentity {
    return new SimIdentity(this, this.certificates.find(template));
  }

  resumeRecords(seal: TrafficKeys, open: TrafficKeys): { sealer: SimSealer; opener: SimOpener } | undefined {
    if (seal.suite !== "simulated" || open.suite !== "simulated") return undefined;
    const keyOf = ({ secret }: TrafficKeys) => new DataView(secret.buffer, secret.byteOffset, 4).getInt32(0);
    const sealer = new SimSealer(this.certificates, this.memory, keyOf(seal));
    const opener = new SimOpener(this.certificates, this.memory, keyOf(open));
    sealer.goOnAt(seal.sequence);
    opener.goOnAt(open.sequence);
    return { sealer, opener };
  }
}
