/** Maps, programs, links and pins against the kernel; needs root. What is made is gone afterwards. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { assemble, R0, R1, R2 } from "../../os/bpf/assembler.ts";
import { BpfLink } from "../../os/bpf/links.ts";
import { MapType } from "../../os/bpf/map_shape.ts";
import { BpfMap, u32Bytes } from "../../os/bpf/maps.ts";
import { openPinned, pin } from "../../os/bpf/pins.ts";
import { BpfProgram, programsOfCgroup } from "../../os/bpf/programs.ts";
import { openFolder, PrivateBpffs, ScratchCgroup } from "./bpf_scratch.ts";

const PASS = assemble((a) => a.return(1));

Deno.test("BpfMap keeps what it is given, of every kind that is used, and lists its keys (CNI-200)", () => {
  const shape = { name: "test", keyBytes: 4, valueBytes: 8, entriesMax: 16 };
  for (const type of [MapType.HASH, MapType.LRU_HASH]) {
    using map = BpfMap.create({ ...shape, type });
    assertEquals(map.lookup(u32Bytes(1)), undefined);
    for (const key of [1, 2, 3]) map.update(u32Bytes(key), new Uint8Array(8).fill(key));
    assertEquals(map.lookup(u32Bytes(2)), new Uint8Array(8).fill(2));
    assertEquals(map.keys().map((key) => key[0]).sort(), [1, 2, 3]);
    assertEquals([map.delete(u32Bytes(2)), map.delete(u32Bytes(2))], [true, false]);
  }
  using counters = BpfMap.create({ ...shape, type: MapType.PER_CPU_ARRAY });
  const value = counters.lookup(u32Bytes(3));
  assert(value !== undefined && value.byteLength % 8 === 0 && value.every((byte) => byte === 0));
  assertThrows(() => counters.lookup(u32Bytes(16)) ?? missing(), Error, "no such counter");
});

function missing(): never {
  throw new Error("no such counter");
}

Deno.test("BpfMap of prefixes finds the longest that matches", () => {
  using trie = BpfMap.create({ name: "trie", type: MapType.LPM_TRIE, keyBytes: 8, valueBytes: 4, entriesMax: 8 });
  const prefix = (bits: number, ...bytes: number[]) => Uint8Array.of(bits, 0, 0, 0, ...bytes);
  trie.update(prefix(8, 10, 0, 0, 0), u32Bytes(1));
  trie.update(prefix(24, 10, 1, 2, 0), u32Bytes(2));
  assertEquals([prefix(32, 10, 1, 2, 3), prefix(32, 10, 9, 9, 9)].map((key) => trie.lookup(key)?.[0]), [2, 1]);
  assertEquals(trie.lookup(prefix(32, 11, 0, 0, 1)), undefined);
});

Deno.test("BpfProgram.load() tells what the verifier says against a program (AMB7151)", () => {
  using program = BpfProgram.load("connect4", "pass", PASS);
  assert(program.info().id > 0);
  const unsafe = assemble((a) => a.load(R2, R1, { at: 4, bytes: 4 }).load(R0, R2, { at: 0, bytes: 8 }).exit());
  const error = assertThrows(() => BpfProgram.load("connect4", "unsafe", unsafe), MeshError);
  assertEquals(error.code, "AMB7151");
  assert(String(error.cause).includes("R2 invalid mem access"), String(error.cause));
});

Deno.test("pins outlive descriptors and are adopted by shape only; links are replaced in place", () => {
  using bpffs = new PrivateBpffs();
  using cgroup = new ScratchCgroup();
  const shape = { name: "kept", type: MapType.HASH, keyBytes: 4, valueBytes: 4, entriesMax: 4 } as const;
  {
    using map = BpfMap.create(shape);
    map.update(u32Bytes(7), u32Bytes(70));
    assertEquals(pin(map.fd, `${bpffs.folder}/kept`), true);
    assertEquals(pin(map.fd, `${bpffs.folder}/kept`), false);
    using program = BpfProgram.load("connect4", "first", PASS);
    using folder = openFolder(cgroup.path);
    using link = BpfLink.attach(program, folder.fd);
    pin(link.fd, `${bpffs.folder}/link`);
  }
  using map = BpfMap.adopt(openPinned(`${bpffs.folder}/kept`)!, shape);
  assertEquals(map?.lookup(u32Bytes(7)), u32Bytes(70));
  assertEquals(BpfMap.adopt(openPinned(`${bpffs.folder}/kept`)!, { ...shape, entriesMax: 8 }), undefined);
  assertEquals(openPinned(`${bpffs.folder}/nothing`), undefined);
  using folder = openFolder(cgroup.path);
  const names = () => programsOfCgroup(folder.fd, "connect4").map(({ name }) => name).filter((it) => it !== "");
  assert(names().includes("first"), `${names()}`);
  using link = new BpfLink(openPinned(`${bpffs.folder}/link`)!);
  using second = BpfProgram.load("connect4", "second", PASS);
  link.replace(second);
  assert(names().includes("second") && !names().includes("first"), `${names()}`);
});
