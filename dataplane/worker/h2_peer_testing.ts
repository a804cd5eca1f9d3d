/** The other end of an HBONE session, written by hand for tests: plain OpenSSL below, single frames above, no manners. */
import { assert } from "../../base/assert.ts";
import type { IpWords } from "../../base/address.ts";
import type { LeafPem } from "../../os/certificates_testing.ts";
import { OpenSslPeer, type PeerOptions, PeerState } from "../../os/openssl_peer_testing.ts";
import type { RecordOpener, RecordSealer } from "../../os/api.ts";
import { expandMaster, Opener12, Sealer12 } from "../../os/tls12_records.ts";
import { Opener, Sealer } from "../../os/tls_records.ts";
import { readUint24, readUint31, readUint32 } from "../../wire/bytes.ts";
import { CLIENT_PREFACE, errorName, FRAME_RULES, FrameFlag, FrameType } from "../../wire/h2/frame_rules.ts";
import { HpackDecoder } from "../../wire/h2/hpack_decoder.ts";
import { writeConnectBlock } from "../../wire/h2/hpack_encoder.ts";
import { frame, HeaderTexts } from "../../wire/h2/testing.ts";
import { hostMemory, hostTls, Socket } from "./loopback_testing.ts";
import { type Rig } from "./testing.ts";

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Uint8Array<ArrayBuffer>;
}

const RECORD_AT = hostMemory.allocate(5 + 16_384 + 256 + 64);

/** Four bytes, big-endian. */
export function word(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

/** Pieces one after the other, of any size. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** The header block of an ordinary CONNECT. */
export function connectBlock(authority: string, extra = ""): Uint8Array {
  const block = new Uint8Array(16_000);
  const end = writeConnectBlock(block, 0, authority, "k8s.cluster.name=K" + extra, `for="127.0.0.1:1"`, "00-0-0-00");
  assert(end > 0, "the block fits");
  return block.slice(0, end);
}

/** Frames of a CONNECT: HEADERS without END_STREAM unless asked for. */
export function connectFrame(streamId: number, authority: string, flags = 0): Uint8Array {
  return frame(FrameType.HEADERS, FrameFlag.END_HEADERS | flags, streamId, connectBlock(authority));
}

export class H2Peer {
  readonly rig: Rig;
  readonly socket: Socket;
  readonly tls: OpenSslPeer;
  readonly server: boolean;
  /** All frames that came, oldest first. */
  readonly frames: Frame[] = [];
  readonly #decoder = new HpackDecoder(4096, 65_536);
  #input: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  #prefaceBytes = 0;
  #keys: { sealer: RecordSealer; opener: RecordOpener } | undefined;
  #raw: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  /** Alerts as `level,description`, once the connection's records are opened here. */
  readonly alerts: string[] = [];

  constructor(rig: Rig, socket: Socket, options: PeerOptions) {
    this.rig = rig;
    this.socket = socket;
    this.server = options.server;
    this.tls = new OpenSslPeer(socket.fd, options);
    rig.atEnd(() => {
      this.#keys?.sealer.free();
      this.#keys?.opener.free();
      this.tls.free();
      socket.close();
    });
  }

  /** A client of an inbound listener, after its TLS handshake. */
  static dial(rig: Rig, ip: IpWords, leaf: LeafPem, options: Partial<PeerOptions> = {}): H2Peer {
    const socket = Socket.connect(ip, 15008);
    const peer = new H2Peer(rig, socket, { server: false, leaf, roots: leaf.roots, alpn: "\x02h2", ...options });
    peer.handshake();
    return peer;
  }

  handshake(): void {
    this.rig.until("the handshake is over", () => {
      const step = this.tls.step();
      assert(step !== PeerState.FAILED, `the peer's handshake goes well: ${this.tls.failure}`);
      return step === PeerState.DONE;
    });
  }

  /** Says what a well-behaved client says first. */
  greet(settings: Uint8Array = new Uint8Array(0)): this {
    this.send(...(this.server ? [] : [CLIENT_PREFACE]), frame(FrameType.SETTINGS, 0, 0, settings));
    return this;
  }

  /** Sends all of it, turning while the socket is full. Stops quietly when the session is over. */
  send(...parts: readonly Uint8Array[]): void {
    const bytes = concat(...parts);
    for (let at = 0; at < bytes.length;) {
      const sent = this.tls.write(bytes.subarray(at));
      if (sent < 0) return;
      at += sent;
      if (sent === 0) {
        this.rig.turn();
        this.poll(); // Before the next write: OpenSSL 4 reads nothing any more once one has failed.
      }
    }
  }

  /** Takes what has come. */
  poll(): void {
    if (this.#keys !== undefined) return this.#pollRaw();
    for (;;) {
      const bytes = this.tls.read();
      if (bytes === undefined) {
        if (this.tls.closed) this.socket.finish(); // As anybody does who hears a goodbye.
        return;
      }
      this.#take(bytes);
    }
  }

  #take(bytes: Uint8Array): void {
    let from = 0;
    while (this.server && this.#prefaceBytes < CLIENT_PREFACE.length && from < bytes.length) {
      assert(bytes[from++] === CLIENT_PREFACE[this.#prefaceBytes++], "a client starts with its preface");
    }
    this.#input = concat(this.#input, bytes.subarray(from));
    let at = 0;
    const input = this.#input;
    while (input.length - at >= 9) {
      const payloadBytes = readUint24(input, at);
      if (input.length - at < 9 + payloadBytes) break;
      this.frames.push({
        type: input[at + 3]!,
        flags: input[at + 4]!,
        streamId: readUint31(input, at + 5),
        payload: input.slice(at + 9, at + 9 + payloadBytes),
      });
      at += 9 + payloadBytes;
    }
    this.#input = input.slice(at);
  }

  /** The first frame that fits, removed from {@link frames}. Turns until it comes. */
  next(what: string, fits: (frame: Frame) => boolean): Frame {
    let at = -1;
    this.rig.until(`${what} comes, after ${this.describe()}`, () => {
      this.poll();
      return (at = this.frames.findIndex(fits)) >= 0;
    });
    return this.frames.splice(at, 1)[0]!;
  }

  /** Waits for a frame of this type on this stream. */
  expect(type: number, streamId: number): Frame {
    return this.next(`${FRAME_RULES[type]!.name} ${streamId}`, (it) => it.type === type && it.streamId === streamId);
  }

  /** The headers of the answer on this stream, as `name: value`. */
  answer(streamId: number): { headers: string[]; ended: boolean } {
    const { payload, flags } = this.expect(FrameType.HEADERS, streamId);
    const texts = new HeaderTexts();
    assert(this.#decoder.decode(payload, 0, payload.length, texts) === 0, "the block decodes");
    return { headers: texts.texts, ended: (flags & FrameFlag.END_STREAM) !== 0 };
  }

  /** The error that RST_STREAM names for this stream. */
  reset(streamId: number): string {
    return errorName(readUint32(this.expect(FrameType.RST_STREAM, streamId).payload, 0));
  }

  /** Waits until the session is over. @returns The error of its GOAWAY, or "" if none came. */
  ending(): string {
    this.rig.until(`the session is over, after ${this.describe()}`, () => {
      this.poll();
      return this.over;
    });
    const goaway = this.frames.find(({ type }) => type === FrameType.GOAWAY);
    return goaway === undefined ? "" : errorName(readUint32(goaway.payload, 4));
  }

  get over(): boolean {
    return this.tls.closed || this.tls.failure !== "" || this.socket.ended || this.socket.error !== 0;
  }

  describe(): string {
    return this.frames.map((it) => `${FRAME_RULES[it.type]?.name ?? it.type} ${it.streamId}`).slice(-8).join(", ");
  }

  /** From now on records are made and opened here, so that they can be as wrong as a test wants. After a handshake. */
  takeKeys(): void {
    const suite = this.tls.cipher.includes("256") ? "aes256" : "aes128";
    const [own, other] = this.server ? ["SERVER", "CLIENT"] : ["CLIENT", "SERVER"];
    const secret = (of: string) => this.tls.secrets.get(`${of}_TRAFFIC_SECRET_0`)!;
    const { records } = hostTls;
    if (this.tls.tls12) {
      const keys = expandMaster(suite, this.tls.secrets.get("CLIENT_RANDOM")!, this.tls.randoms);
      const clients = { key: keys.clientKey, salt: keys.clientSalt };
      const servers = { key: keys.serverKey, salt: keys.serverSalt };
      this.#keys = {
        sealer: new Sealer12(records, suite, this.server ? servers : clients),
        opener: new Opener12(records, suite, this.server ? clients : servers),
      };
      return;
    }
    this.#keys = {
      sealer: new Sealer(records, suite, secret(own!)),
      opener: new Opener(records, suite, secret(other!)),
    };
  }

  get sealer(): RecordSealer {
    return this.#keys!.sealer;
  }

  /** One record with this content, whose last byte is `type`. @returns It, not yet sent. */
  seal(content: Uint8Array, type: number): Uint8Array<ArrayBuffer> {
    hostMemory.u8.set(content, RECORD_AT + 5);
    return hostMemory.u8.slice(RECORD_AT, RECORD_AT + this.sealer.seal(RECORD_AT, content.length, type));
  }

  /** Sends bytes as they are, below TLS. */
  sendRaw(...parts: readonly Uint8Array[]): void {
    const bytes = concat(...parts);
    for (let at = 0; at < bytes.length && this.socket.error === 0;) {
      at += this.socket.write(bytes.subarray(at));
      this.rig.turn();
    }
  }

  #pollRaw(): void {
    this.#raw = concat(this.#raw, this.socket.read());
    let at = 0;
    while (this.#raw.length - at >= 5) {
      const bytes = 5 + (this.#raw[at + 3]! << 8 | this.#raw[at + 4]!);
      if (this.#raw.length - at < bytes) break;
      hostMemory.u8.set(this.#raw.subarray(at, at + bytes), RECORD_AT);
      let end = this.#keys!.opener.open(RECORD_AT, bytes);
      assert(end > 0, "what we receive opens");
      while (hostMemory.u8[RECORD_AT + 5 + end - 1] === 0) end--;
      const type = hostMemory.u8[RECORD_AT + 5 + end - 1]!;
      const content = hostMemory.u8.slice(RECORD_AT + 5, RECORD_AT + 5 + end - 1);
      if (type === 23) this.#take(content);
      else if (type === 21) this.alerts.push(content.join());
      else if (type === 22) this.#keys!.opener.nextKey();
      at += bytes;
    }
    this.#raw = this.#raw.slice(at);
  }
}
