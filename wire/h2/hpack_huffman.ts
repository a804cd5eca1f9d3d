/** The Huffman code of HPACK (RFC 7541 §5.2, Appendix B), decoded four bits at a time. */
import { assert } from "../../base/assert.ts";

// Appendix B by symbol, EOS last. The code is canonical, so its lengths say all: codes of a length count up by symbol.
// deno-fmt-ignore: sixteen rows of sixteen are easier to hold against the RFC.
const CODE_BITS = Uint8Array.of(
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
  28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
  5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
  6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
  24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
  21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
  26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30,
);

const EOS = 256;
const SYMBOL_COUNT = 257;
const NODE_COUNT = SYMBOL_COUNT - 1; // A full binary tree has one inner node less than it has leaves.
const EMITS = 1 << 8, FAILS = 1 << 9; // A step: symbol in bits 0 to 7, these two, and the next node from bit 10 on.
const NODE_SHIFT = 10;

/** Inner nodes as pairs: a child is a node's number, or -1 - symbol for a leaf. */
function buildTree(): Int16Array {
  const children = new Int16Array(NODE_COUNT * 2);
  let nodeCount = 1, code = 0, codeBits = 0;
  const symbols = Array.from({ length: SYMBOL_COUNT }, (_, symbol) => symbol);
  for (const symbol of symbols.sort((one, other) => CODE_BITS[one]! - CODE_BITS[other]! || one - other)) {
    code <<= CODE_BITS[symbol]! - codeBits;
    codeBits = CODE_BITS[symbol]!;
    let node = 0;
    for (let bit = codeBits - 1; bit > 0; bit--) {
      const child = node * 2 + ((code >>> bit) & 1);
      if (children[child] === 0) children[child] = nodeCount++;
      node = children[child]!;
    }
    children[node * 2 + (code & 1)] = -1 - symbol;
    code++;
  }
  assert(nodeCount === NODE_COUNT && code === 2 ** codeBits, "the lengths make a full tree");
  return children;
}

const TREE = buildTree();

/** By node and four bits: what happens. No code is shorter than 5 bits, so four bits end at most one symbol. */
const STEPS = new Uint32Array(NODE_COUNT * 16);
for (let from = 0; from < NODE_COUNT; from++) {
  for (let bits = 0; bits < 16; bits++) {
    let node = from, emitted = 0;
    for (let bit = 3; bit >= 0 && (emitted & FAILS) === 0; bit--) {
      const child = TREE[node * 2 + ((bits >>> bit) & 1)]!;
      if (child >= 0) node = child;
      else {
        emitted = -1 - child === EOS ? FAILS : EMITS | (-1 - child);
        node = 0;
      }
    }
    STEPS[from * 16 + bits] = (node << NODE_SHIFT) | emitted;
  }
}

/** Nodes at which a string may end: the root, and up to seven ones below it, the padding of RFC 7541 §5.2. */
const MAY_END = new Uint8Array(NODE_COUNT);
for (let node = 0, depth = 0; depth <= 7; depth++, node = TREE[node * 2 + 1]!) MAY_END[node] = 1;

/**
 * Decodes `bytes[start..end)` into `target` from `at` on. Symbols that do not fit are counted, not written.
 * @returns The count of symbols, or -1 if the string holds EOS or its padding is not at most seven ones.
 */
export function decodeHuffman(
  bytes: Uint8Array,
  start: number,
  end: number,
  target: Uint8Array,
  at: number,
  targetEnd: number,
): number {
  const first = at;
  let node = 0;
  for (let from = start; from < end; from++) {
    const octet = bytes[from]!;
    let step = STEPS[node * 16 + (octet >>> 4)]!;
    if ((step & (EMITS | FAILS)) !== 0) {
      if ((step & FAILS) !== 0) return -1;
      if (at < targetEnd) target[at] = step;
      at++;
    }
    step = STEPS[(step >>> NODE_SHIFT) * 16 + (octet & 15)]!;
    if ((step & (EMITS | FAILS)) !== 0) {
      if ((step & FAILS) !== 0) return -1;
      if (at < targetEnd) target[at] = step;
      at++;
    }
    node = step >>> NODE_SHIFT;
  }
  return MAY_END[node] === 1 ? at - first : -1;
}
