import { assertEquals } from "@std/assert";
import { Arena } from "../../os/arena.ts";
import { PagePool } from "./page_pool.ts";

const PIECE_BYTES = 8192 + 100; // The last page is not all its own.

function start() {
  const arena = new Arena(1 << 20, { hugePages: false }), pool = new PagePool(arena, PIECE_BYTES, 4);
  const pieces = Array.from({ length: 4 }, () => pool.acquire());
  for (const piece of pieces) arena.u8.fill(7, piece, piece + PIECE_BYTES);
  for (const piece of pieces) pool.release(piece);
  /** Whether each piece still has what was written into it; a page that was given back is zero. */
  const kept = () => pieces.map((piece) => arena.u8[piece] === 7 && arena.u8[piece + 8191] === 7);
  return { arena, pool, pieces, kept };
}

Deno.test("what a burst needed goes back to the kernel once nobody took it from one look to the next", () => {
  const { arena, pool, pieces, kept } = start();
  pool.giveBack(4);
  assertEquals(kept(), [true, true, true, true], "they were in use since the last look");
  pool.release(pool.acquire());
  pool.giveBack(2);
  assertEquals(kept(), [false, false, true, true], "so many at a time");
  pool.giveBack(4);
  assertEquals(kept(), [false, false, false, false]);
  assertEquals(arena.u8[pieces[0]! + 8192], 7, "whole pages only");
  arena.unmap();
});

Deno.test("what is used all the time keeps its pages, and what was given back is used again", () => {
  const { arena, pool, pieces, kept } = start();
  pool.giveBack(4);
  for (let look = 0; look < 3; look++) {
    const piece = pool.acquire();
    pool.giveBack(4);
    pool.release(piece);
  }
  assertEquals(kept(), [false, false, false, true]);
  const again = [pool.acquire(), pool.acquire(), pool.acquire(), pool.acquire()];
  assertEquals([again.toSorted(), pool.acquire(), pool.taken, pool.left], [pieces.toSorted(), -1, 4, 0]);
  for (const piece of again) arena.u8.fill(7, piece, piece + PIECE_BYTES);
  for (const piece of again) pool.release(piece);
  pool.giveBack(4);
  assertEquals(kept(), [true, true, true, true], "a look must have found them idle");
  pool.giveBack(4);
  assertEquals(kept(), [false, false, false, false]);
  arena.unmap();
});
