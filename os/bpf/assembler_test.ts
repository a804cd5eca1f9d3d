/** Instructions against the encoding of RFC 9669 §3, and what an assembler must refuse. */
import { assertEquals, assertThrows } from "@std/assert";
import { assemble, Assembler, FRAME, Helper, instructionCount, R0, R1, R2, R3, R6 } from "./assembler.ts";
import { possibleCpuCount } from "./maps.ts";

/** Each instruction as code, registers, offset and value, as RFC 9669 §3 lays them out. */
function listing(program: Uint8Array<ArrayBuffer>): string[] {
  const view = new DataView(program.buffer);
  return Array.from({ length: instructionCount(program) }, (_, index) => {
    const at = index * 8, registers = view.getUint8(at + 1);
    const code = view.getUint8(at).toString(16).padStart(2, "0");
    return `${code} ${registers & 15} ${registers >> 4} ${view.getInt16(at + 2, true)} ${view.getInt32(at + 4, true)}`;
  });
}

Deno.test("Assembler encodes moves, memory, arithmetic, calls and maps as RFC 9669 §4 and §5 say (CNI-200)", () => {
  const program = assemble((a) => {
    a.move(R6, R1).set(R0, 7).load(R2, R6, { at: 24, bytes: 4 }).store(FRAME, { at: -8, bytes: 8 }, R0);
    a.storeValue(FRAME, { at: -10, bytes: 2 }, -1).networkOrder(R2, 16).and(R2, 0xfff).shiftLeft(R2, 2);
    a.map(R1, 33).stack(R3, -8).call(Helper.MAP_LOOKUP).exit();
  });
  assertEquals(listing(program), [
    "bf 6 1 0 0",
    "b4 0 0 0 7",
    "61 2 6 24 0",
    "7b 10 0 -8 0",
    "6a 10 0 -10 -1",
    "dc 2 0 0 16",
    "54 2 0 0 4095",
    "64 2 0 0 2",
    "18 1 1 0 33",
    "00 0 0 0 0",
    "bf 3 10 0 0",
    "07 3 0 0 -8",
    "85 0 0 0 1",
    "95 0 0 0 0",
  ]);
});

Deno.test("Assembler counts jumps from the instruction behind them", () => {
  const program = assemble((a) => {
    a.jumpIf(R1, "==", 5, "end").jumpIfNull(R0, "end").jumpIfDifferent(R1, R2, "end").jump("end");
    a.set(R0, 1).label("end").return(2);
  });
  assertEquals(listing(program).slice(0, 4), ["16 1 0 4 5", "15 0 0 3 0", "5d 1 2 2 0", "05 0 0 1 0"]);
});

Deno.test("Assembler refuses what would jump nowhere or back, labels placed twice, and memory beside the stack", () => {
  assertThrows(() => new Assembler().jump("nowhere").finish(), Error, "the label nowhere is placed");
  assertThrows(() => new Assembler().label("here").label("here"), Error, "placed once");
  assertThrows(() => new Assembler().label("back").set(R0, 0).jump("back").finish(), Error, "goes forward");
  assertThrows(() => new Assembler().stack(R1, -520), Error, "on the stack");
  const a = new Assembler();
  assertEquals(a.unique("label") === a.unique("label"), false);
});

Deno.test("possibleCpuCount() counts up to the highest number", () => {
  assertEquals(["0\n", "0-3\n", "0,2-7\n"].map(possibleCpuCount), [1, 4, 8]);
});
