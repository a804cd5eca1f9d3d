import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { assert } from "../base/assert.ts";
import { MeshError } from "../base/errors.ts";
import { countDescriptors } from "./descriptors_testing.ts";
import * as libc from "./libc_cold.ts";
import { PacketError, SeqpacketListener, SeqpacketSocket } from "./seqpacket.ts";

const bytes = (...values: number[]) => Uint8Array.from(values);

class TemporaryFolder implements Disposable {
  readonly path = Deno.makeTempDirSync();

  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

/** One packet with any number of copies of a descriptor, as only a hostile peer sends it. */
function sendHostile(fd: number, data: Uint8Array<ArrayBuffer>, descriptor: number, count: number): void {
  const control = new Uint8Array((16 + 4 * count + 7) & ~7);
  const view = new DataView(control.buffer);
  view.setBigUint64(0, BigInt(16 + 4 * count), true);
  view.setInt32(8, 1, true);
  view.setInt32(12, 1, true);
  for (let at = 0; at < count; at++) view.setInt32(16 + 4 * at, descriptor, true);
  assert(libc.sendMessage(fd, data, control) >= 0, "the packet was sent");
}

Deno.test("SeqpacketSocket keeps packets apart, and passes one descriptor that the receiver owns", async () => {
  const file = Deno.makeTempFileSync();
  {
    const [one, other] = SeqpacketSocket.pair();
    await using _one = one, _other = other;
    const fd = libc.open(file, libc.O.RDONLY);
    assertEquals(await one.send(bytes(1, 2)), true);
    assertEquals(await one.send(bytes(3), { descriptor: fd }), true);
    libc.close(fd);
    assertEquals(await other.receive(16), { bytes: bytes(1, 2), descriptor: undefined });
    const second = await other.receive(16);
    assert(typeof second !== "string" && second.descriptor !== undefined, "a descriptor came");
    assertEquals(second.bytes, bytes(3));
    assertEquals(Deno.readLinkSync(`/proc/self/fd/${second.descriptor}`), file);
    const FD_CLOEXEC = 1, F_GETFD = 1;
    assertEquals(libc.fcntl(second.descriptor, F_GETFD), FD_CLOEXEC);
    libc.close(second.descriptor);
    assertEquals(await other.receive(16, { timeoutMs: 5 }), "timeout");
    assertEquals(one.peerUserId(), Deno.uid());
  }
  assertEquals(countDescriptors(file), 0);
  Deno.removeSync(file);
});

Deno.test("SeqpacketSocket.receive() refuses cut packets and surplus descriptors, and closes those (CNI-241, CNI-244)", async () => {
  using folder = new TemporaryFolder();
  const path = `${folder.path}/s`;
  await using listener = SeqpacketListener.listen(path, { mode: 0o600 });
  const hostile = libc.socket(libc.AF.UNIX, libc.SOCK.SEQPACKET, 0);
  const address = new Uint8Array([libc.AF.UNIX, 0, ...new TextEncoder().encode(path), 0]);
  assertEquals(libc.connect(hostile, address), 0);
  const socket = await listener.accept();
  assert(socket !== undefined, "the listener is open");
  const file = Deno.makeTempFileSync();
  const surplus = libc.open(file, libc.O.RDONLY);
  for (const count of [2, 8, 60]) {
    sendHostile(hostile, bytes(1), surplus, count);
    await assertRejects(() => socket.receive(16), PacketError);
    assertEquals(countDescriptors(file), 1, `${count} descriptors`);
  }
  sendHostile(hostile, new Uint8Array(17), surplus, 1);
  await assertRejects(() => socket.receive(16), PacketError, "too long");
  assertEquals(countDescriptors(file), 1);
  assertEquals(libc.send(hostile, new Uint8Array(16)), 16);
  const whole = await socket.receive(16);
  assert(typeof whole !== "string" && whole.bytes.length === 16, "a packet of just the bound is fine");
  libc.close(hostile);
  libc.close(surplus);
  Deno.removeSync(file);
  assertEquals(await socket.receive(16), "closed");
  assertEquals(await socket.send(bytes(1)), false, "no SIGPIPE, no exception");
  await socket.close();
});

Deno.test("closing releases whoever waits, on a connection, a listener and a full socket", async () => {
  const [one, other] = SeqpacketSocket.pair();
  const waiting = one.receive(16);
  const fill = async () => {
    while (await one.send(new Uint8Array(1024)));
  };
  const filling = fill();
  await one.close();
  assertEquals(await waiting, "closed");
  await filling;
  await other.close();
  using folder = new TemporaryFolder();
  const listener = SeqpacketListener.listen(`${folder.path}/s`, { mode: 0o600 });
  const accepting = listener.accept();
  await listener.close();
  assertEquals(await accepting, undefined);
});

Deno.test("SeqpacketSocket.send() gives up on a full socket at its time-out", async () => {
  const [one, other] = SeqpacketSocket.pair();
  await using _one = one, _other = other;
  const fill = async () => {
    for (;;) await one.send(new Uint8Array(1024), { timeoutMs: 10 });
  };
  assertEquals((await assertRejects(fill, MeshError)).code, "AMB7031");
});

Deno.test("SeqpacketListener.listen() replaces an old socket, and nothing else (CNI-240)", async () => {
  using temporary = new TemporaryFolder();
  const folder = temporary.path;
  const path = `${folder}/deep/er/s`;
  for (let round = 0; round < 2; round++) {
    await using listener = SeqpacketListener.listen(path, { mode: 0o600 });
    assertEquals(Deno.statSync(path).mode! & 0o777, 0o600);
    await using socket = SeqpacketSocket.connect(path);
    const accepted = await listener.accept();
    await accepted!.close();
    assertEquals(await socket.receive(1), "closed");
  }
  assertEquals(assertThrows(() => SeqpacketSocket.connect(path), MeshError).code, "AMB7030");
  Deno.writeTextFileSync(`${folder}/file`, "");
  assertEquals(
    assertThrows(() => SeqpacketListener.listen(`${folder}/file`, { mode: 0o600 }), MeshError).code,
    "AMB7032",
  );
  assertThrows(() => SeqpacketListener.listen(`${folder}/${"x".repeat(120)}`, { mode: 0o600 }), MeshError);
});
