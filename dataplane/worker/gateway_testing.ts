/** A network gateway of the tests' own: it ends the outer tunnel of double HBONE and pipes its bytes to whoever stands behind. */
import type { IpWords } from "../../base/address.ts";
import type { LeafPem } from "../../os/certificates_testing.ts";
import { PeerState } from "../../os/openssl_peer_testing.ts";
import { FrameFlag, FrameType } from "../../wire/h2/frame_rules.ts";
import { frame, hex } from "../../wire/h2/testing.ts";
import { concat, type Frame, H2Peer, word } from "./h2_peer_testing.ts";
import { freshIp, Server, Socket } from "./loopback_testing.ts";
import type { Rig } from "./testing.ts";

const { DATA, HEADERS, WINDOW_UPDATE, RST_STREAM } = FrameType;
const { END_STREAM, END_HEADERS } = FrameFlag;
/** Windows as large as they may be: SETTINGS_INITIAL_WINDOW_SIZE, and what is added to the session's own. */
const WIDE = hex("00047fffffff"), WIDER = word(0x7fffffff - 65_535);
export const OK = hex("88");

/** One outer stream, joined to a socket. */
interface Joint {
  readonly peer: H2Peer;
  readonly streamId: number;
  readonly behind: Socket;
  unsent: Uint8Array<ArrayBuffer>;
  ended: boolean;
  over: boolean;
}

export class Gateway {
  readonly rig: Rig;
  readonly ip: IpWords;
  readonly listener: Server;
  readonly peers: H2Peer[] = [];
  readonly #leaf: LeafPem;
  readonly #joints: Joint[] = [];
  readonly #greeting: H2Peer[] = [];
  #behind: { readonly ip: IpWords; readonly port: number } | undefined;
  /** Bytes that went towards the network behind it, and back. */
  inwards = 0;
  outwards = 0;

  constructor(rig: Rig, leaf: LeafPem, ip = freshIp(), port = 15_009) {
    this.rig = rig;
    this.ip = ip;
    this.#leaf = leaf;
    this.listener = new Server(ip, port);
    rig.atEnd(() => this.listener.close());
    const turn = rig.turn.bind(rig);
    rig.turn = () => {
      turn();
      this.#pump();
    };
  }

  /** The next session of a client, after its handshake unless it is to come to none. */
  accept(goesWell = true): H2Peer {
    let socket: Socket | undefined;
    this.rig.until("a session comes to the gateway", () => (socket = this.listener.accept()) !== undefined);
    const peer = new H2Peer(this.rig, socket!, { server: true, leaf: this.#leaf, roots: this.#leaf.roots });
    if (!goesWell) {
      this.rig.until("the handshake fails", () => peer.tls.step() === PeerState.FAILED);
      return peer;
    }
    peer.handshake();
    peer.greet(WIDE);
    peer.send(frame(WINDOW_UPDATE, 0, 0, WIDER));
    this.peers.push(peer);
    return peer;
  }

  /** Answers 200 to the stream and joins it to a new connection to `ip:port`. */
  join(peer: H2Peer, streamId: number, ip: IpWords, port: number): Joint {
    const behind = Socket.connect(ip, port);
    this.rig.atEnd(() => behind.close());
    const joint = { peer, streamId, behind, unsent: new Uint8Array(0), ended: false, over: false };
    this.#joints.push(joint);
    peer.send(frame(HEADERS, END_HEADERS, streamId, OK));
    return joint;
  }

  /** From now on takes whatever session comes, and joins every stream to `ip:port`, as far as its peer lets it. */
  joinAll(ip: IpWords, port: number): void {
    this.#behind = { ip, port };
  }

  #takeAll({ ip, port }: { ip: IpWords; port: number }): void {
    const socket = this.listener.accept();
    if (socket !== undefined) {
      const peer = new H2Peer(this.rig, socket, { server: true, leaf: this.#leaf, roots: this.#leaf.roots });
      this.#greeting.push(peer);
    }
    for (const peer of this.#greeting.splice(0)) {
      const step = peer.tls.step();
      if (step === PeerState.AGAIN) this.#greeting.push(peer);
      if (step === PeerState.FAILED) peer.socket.close();
      if (step !== PeerState.DONE) continue;
      peer.greet(WIDE);
      peer.send(frame(WINDOW_UPDATE, 0, 0, WIDER));
      this.peers.push(peer);
    }
    for (const peer of this.peers) {
      for (let at = peer.frames.findIndex(({ type }) => type === HEADERS); at >= 0;) {
        const [{ streamId }] = peer.frames.splice(at, 1) as [Frame];
        this.join(peer, streamId, ip, port);
        at = peer.frames.findIndex(({ type }) => type === HEADERS);
      }
    }
  }

  /** Forgets a joint: nothing passes any more. */
  cut(joint: Joint): void {
    this.#joints.splice(this.#joints.indexOf(joint), 1);
  }

  /** Whether nothing is under way through it. */
  get idle(): boolean {
    return this.#joints.every((it) => it.over || it.ended && it.behind.ended);
  }

  #pump(): void {
    if (this.#behind !== undefined) this.#takeAll(this.#behind);
    for (const peer of this.peers) if (!peer.over) peer.poll();
    for (const peer of this.peers.filter((it) => it.over)) {
      this.peers.splice(this.peers.indexOf(peer), 1);
      for (const joint of this.#joints) if (joint.peer === peer) this.#end(joint);
    }
    for (const joint of this.#joints) {
      if (joint.over) continue;
      this.#inwards(joint);
      if (!joint.over) this.#outwards(joint);
    }
  }

  #inwards(joint: Joint): void {
    const { peer, behind, streamId } = joint;
    for (let at = 0; at < peer.frames.length;) {
      const it = peer.frames[at]!;
      if (it.streamId !== streamId || (it.type !== DATA && it.type !== RST_STREAM)) {
        at++;
        continue;
      }
      if (it.type === RST_STREAM) {
        this.#end(joint);
        return;
      }
      peer.frames.splice(at, 1);
      joint.unsent = concat(joint.unsent, it.payload);
      if ((it.flags & END_STREAM) !== 0) joint.ended = true;
    }
    const sent = joint.unsent.length === 0 ? 0 : behind.write(joint.unsent);
    this.inwards += sent;
    joint.unsent = joint.unsent.slice(sent);
    if (joint.ended && joint.unsent.length === 0) behind.finish();
  }

  #outwards(joint: Joint): void {
    const { peer, behind, streamId } = joint;
    if (behind.ended) return;
    const bytes = behind.read(16_000);
    this.outwards += bytes.length;
    if (bytes.length > 0) peer.send(frame(DATA, 0, streamId, bytes));
    if (behind.ended) peer.send(frame(DATA, END_STREAM, streamId, new Uint8Array(0)));
    if (behind.error === 0) return;
    peer.send(frame(RST_STREAM, 0, streamId, word(2)));
    this.#end(joint);
  }

  #end(joint: Joint): void {
    joint.behind.abort();
    joint.over = true;
  }
}
