/** Rules that no test holds, each with the reason; and where ours is known to differ. */

/** Why no test cites the rule. A test that does makes its entry here wrong, and tidy says so. */
export const REASONS: Readonly<Record<string, string>> = {
  "ZT-064": "the sizes are no part of the contract; ours follow the sizes of records",
};

/** What a reader should know of a rule besides its tests: where ours differs, and why. */
export const NOTES: Readonly<Record<string, string>> = {
  "ZT-010": "a path that is not there is an error of its own, not taken for a certificate's text",
  "ZT-011": "what looks like a path and is not there is no token, and never sent as one",
  "ZT-063": "a TLS handshake has 10 s as well",
  "ZT-069": "the words after `send:` and `receive:` are ours",
  "ZT-071": "streams that have ended free their place: a session that was full is used again",
  "ZT-072": "a failure wakes all who wait for the session",
  "ZT-076": "a stream that crosses the first GOAWAY is served, where the original leaves it without an answer",
  "ZT-117": "what does not parse never widens an ALLOW",
  "ZT-120": "a change of the workload is judged too, by the workload as it is now",
  "ZT-124": "no TCP keepalive below HTTP/2's own PING, which is quicker: the runtime's sockets have no setting for it",
  "ZT-137": "a service that turns to ALLOW_ALL takes its endpoints at once",
  "ZT-143": "a pod's certificate is also fetched when the pod is enrolled and known, and kept while it is",
  "ZT-147": "ours gives xDS's defaults: without them a workload has an identity that nobody issues",
  "ZT-200": "there are no spans; a line of the scope `policy` names the trace that its client began",
  "ZT-214": "names of settings are ours",
  "ZT-216": "levels are those of our scopes: access, policy, xds, ca, dns and so on",
  "ZT-218": "of the agent's thread; the workers' threads are not in it",
};
