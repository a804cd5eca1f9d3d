import { assert, assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import * as libc from "./libc_cold.ts";
import { createAnonymousNetns, type Netns, withinNetns } from "./netns.ts";
import { RouteSocket } from "./netlink/rtnetlink.ts";
import { PacketCapture } from "./packet_capture.ts";

const ignore = Deno.uid() !== 0;

/** Two namespaces joined by a veth, IPv4 only. */
function join(left: Netns, right: Netns): void {
  using here = RouteSocket.open(left);
  using there = RouteSocket.open(right);
  here.addVeth({ name: "wire", peerName: "wire", peerNetns: right });
  here.addAddress("wire", "10.99.0.1/24");
  there.addAddress("wire", "10.99.0.2/24");
  here.setUp("wire");
  there.setUp("wire");
  const deadlineMs = performance.now() + 60_000;
  while (!here.findLink("wire")!.running || !there.findLink("wire")!.running) {
    assert(performance.now() < deadlineMs, "the link carries packets");
  }
}

function sendDatagram(netns: Netns, text: string): void {
  const fd = withinNetns(netns, () => libc.socket(libc.AF.INET, libc.SOCK.DGRAM, 0));
  const address = new Uint8Array(16);
  address.set([libc.AF.INET, 0, 0x23, 0x28, 10, 99, 0, 2]); // port 9000
  assertEquals(libc.connect(fd, address), 0);
  assertEquals(libc.send(fd, new TextEncoder().encode(text)), text.length);
  libc.close(fd);
}

Deno.test({
  name: "PacketCapture sees what crosses its interface, whole and nothing else",
  ignore,
  async fn() {
    using left = createAnonymousNetns();
    using right = createAnonymousNetns();
    join(left, right);
    using capture = PacketCapture.open(left, "wire");
    sendDatagram(left, "crossing the wire");
    const texts: string[] = [];
    const deadlineMs = performance.now() + 60_000;
    while (!texts.some((text) => text.includes("crossing the wire"))) {
      assert(performance.now() < deadlineMs, "the datagram is captured in time");
      await capture.wait(100);
      capture.drain((frame) => texts.push(new TextDecoder("latin1").decode(frame)), 100);
    }
    assertEquals(capture.drain(() => {}, 0), 0);
    assertEquals(capture.droppedCount(), 0);
  },
});

Deno.test({
  name: "PacketCapture.open() names an interface that is not there",
  ignore,
  fn() {
    using netns = createAnonymousNetns();
    assertEquals(assertThrows(() => PacketCapture.open(netns, "nothing"), MeshError).code, "AMB7012");
  },
});
