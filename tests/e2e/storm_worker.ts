/** Begins connections without pause and waits for none: load under which a moment without rules would show. */
import { assert } from "../../base/assert.ts";
import { ipToBytes, parseIp } from "../../base/address.ts";
import * as libc from "../../os/libc_cold.ts";
import { openNetns, withinNetns } from "../../os/netns.ts";

export interface StormOrder {
  readonly netnsPath: string;
  /** In turn. */
  readonly ips: readonly string[];
  readonly port: number;
  /** Two words: not zero when it is time to stop, and how many connections were begun. */
  readonly state: Int32Array;
}

const OPEN_MAX = 128; // The oldest is given up for a new one.
const SOL_SOCKET = 1, SO_LINGER = 13;
const RESET_ON_CLOSE = new Uint8Array(Int32Array.of(1, 0).buffer);

const receive = self as unknown as {
  onmessage: (event: MessageEvent<StormOrder>) => void;
  postMessage(it: string): void;
};

/** struct sockaddr_in or sockaddr_in6. */
function socketAddress(ip: string, port: number): Uint8Array<ArrayBuffer> {
  const v6 = ip.includes(":"), bytes = new Uint8Array(v6 ? 28 : 16), view = new DataView(bytes.buffer);
  view.setUint16(0, v6 ? libc.AF.INET6 : libc.AF.INET, true);
  view.setUint16(2, port);
  const words = parseIp(ip)!;
  if (v6) words.forEach((word, at) => view.setUint32(8 + at * 4, word));
  else bytes.set(ipToBytes(words), 4);
  return bytes;
}

receive.onmessage = ({ data: { netnsPath, ips, port, state } }) => {
  using netns = openNetns(netnsPath);
  const addresses = ips.map((ip) => socketAddress(ip, port));
  withinNetns(netns, () => {
    const open: number[] = [];
    for (let count = 0; Atomics.load(state, 0) === 0; count++) {
      const address = addresses[count % addresses.length]!,
        family = address.length === 16 ? libc.AF.INET : libc.AF.INET6;
      const fd = libc.socket(family, libc.SOCK.STREAM | libc.SOCK.NONBLOCK, 0);
      assert(fd >= 0, "there is room for a socket");
      libc.setSocketOption(fd, SOL_SOCKET, SO_LINGER, RESET_ON_CLOSE);
      libc.connect(fd, address);
      Atomics.add(state, 1, 1);
      open.push(fd);
      if (open.length > OPEN_MAX) libc.close(open.shift()!);
    }
    open.forEach((fd) => libc.close(fd));
  });
  receive.postMessage("stopped");
};
