/** "Did you mean": the known word that a person most likely meant. */

const EDITS_MAX = 2;

/** @returns The known word with the fewest edits to `word`, if these are two at most and not most of the word. */
export function nearest(word: string, known: Iterable<string>): string | undefined {
  let best: string | undefined, fewest = Math.min(EDITS_MAX, word.length - 1) + 1;
  for (const candidate of known) {
    const edits = editDistance(candidate, word);
    if (edits < fewest) [best, fewest] = [candidate, edits];
  }
  return best;
}

/** Levenshtein distance, or more than any that counts; the texts are a person's words, so short. */
function editDistance(left: string, right: string): number {
  if (Math.abs(left.length - right.length) > EDITS_MAX) return EDITS_MAX + 1;
  let previous = Array.from({ length: right.length + 1 }, (_, at) => at);
  for (let row = 1; row <= left.length; row++) {
    const current = [row];
    for (let at = 1; at <= right.length; at++) {
      const substituted = previous[at - 1]! + (left[row - 1] === right[at - 1] ? 0 : 1);
      current.push(Math.min(substituted, previous[at]! + 1, current[at - 1]! + 1));
    }
    previous = current;
  }
  return previous[right.length]!;
}
