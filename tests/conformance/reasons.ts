/** Rules that no test holds, each with the reason; and where ours is known to differ. */

/** Why no test cites the rule. A test that does makes its entry here wrong, and tidy says so. */
export const REASONS: Readonly<Record<string, string>> = {
  "ZT-005": "the own HBONE listener is not there yet",
  "ZT-064": "the sizes are no part of the contract; ours follow the sizes of records",
};

/** What a reader should know of a rule besides its tests: where ours differs, and why. */
export const NOTES: Readonly<Record<string, string>> = {
  "ZT-069": "the words after `send:` and `receive:` are ours",
  "ZT-147": "ours gives xDS's defaults: without them a workload has an identity that nobody issues",
};
