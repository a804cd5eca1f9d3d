/** Connects without pause from inside a namespace, until the connects are stopped; then says how many there were. */
import { openNetns } from "../../os/netns.ts";
import { RawSocket } from "./raw_socket.ts";

export interface ConnectOrder {
  readonly netnsPath: string;
  readonly ip: string;
  readonly port: number;
  /** One word: not zero when it is time to stop. */
  readonly stop: Int32Array;
}

const receive = self as unknown as {
  onmessage: (event: MessageEvent<ConnectOrder>) => void;
  postMessage(it: number): void;
};

receive.onmessage = ({ data: { netnsPath, ip, port, stop } }) => {
  using netns = openNetns(netnsPath);
  let connected = 0;
  while (Atomics.load(stop, 0) === 0) {
    using socket = RawSocket.connect(netns, ip, port);
    if (socket.fd >= 0) connected++;
  }
  receive.postMessage(connected);
};
