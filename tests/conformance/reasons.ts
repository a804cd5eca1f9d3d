/** Rules that no test holds, each with the reason; and where ours is known to differ. */

import { AGENT_REASONS } from "./reasons/agent.ts";
import { BARE_NODE_REASONS } from "./reasons/bare_node.ts";
import { EBPF_REASONS } from "./reasons/ebpf.ts";
import { REDIRECTION_REASONS } from "./reasons/redirection.ts";

/** Why no test cites the rule. A test that does makes its entry here wrong, and tidy says so. */
export const REASONS: Readonly<Record<string, string>> = {
  ...AGENT_REASONS,
  ...REDIRECTION_REASONS,
  ...EBPF_REASONS,
  ...BARE_NODE_REASONS,
  "ZT-064": "the sizes are no part of the contract; ours follow the sizes of records",
  "CP-451": "it is ztunnel's side: ZT-125 to ZT-131 hold it",
  "CP-556": "deploying waypoints and gateways comes with the waypoint itself; istiod says so in a Gateway's status",
  "CP-557": "deploying waypoints and gateways comes with the waypoint itself; istiod says so in a Gateway's status",
  "CP-558": "deploying waypoints and gateways comes with the waypoint itself; istiod says so in a Gateway's status",
  "CP-559": "deploying waypoints and gateways comes with the waypoint itself; istiod says so in a Gateway's status",
  "CP-561": "deploying waypoints and gateways comes with the waypoint itself; istiod says so in a Gateway's status",
  "CP-562": "deploying waypoints and gateways comes with the waypoint itself; istiod says so in a Gateway's status",
  "CP-563": "deploying waypoints and gateways comes with the waypoint itself; istiod says so in a Gateway's status",
  "CP-564": "deploying waypoints and gateways comes with the waypoint itself; istiod says so in a Gateway's status",
  "CP-580": "routes come with the waypoint, which is what obeys them",
  "CP-581": "routes come with the waypoint, which is what obeys them",
  "CP-582": "routes come with the waypoint, which is what obeys them",
  "CP-584": "routes come with the waypoint, which is what obeys them",
  "CP-590": "what a waypoint receives comes with the waypoint",
  "CP-591": "what a waypoint receives comes with the waypoint",
  "CP-592": "what a waypoint receives comes with the waypoint",
  "CP-594": "what a waypoint receives comes with the waypoint",
  "CP-595": "what a waypoint receives comes with the waypoint",
  "CP-596": "what a waypoint receives comes with the waypoint",
  "CP-597": "what a waypoint receives comes with the waypoint",
  "CP-598": "what a waypoint receives comes with the waypoint",
  "CP-599": "what a waypoint receives comes with the waypoint",
  "CP-600": "what a waypoint receives comes with the waypoint",
  "CP-513": "not offered: ztunnel takes roots from the CA's answers alone, so nobody in an ambient mesh reads them",
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
  "CP-207": "an EndpointSlice's endpoint has no gateway, as in Istio's own index, where the table gives it one",
  "CP-014": "the status is FAILED_PRECONDITION: after UNKNOWN a ztunnel comes back at once, again and again",
  "CP-028":
    "waypoints' flags do nothing yet, and the log says so of each that is set; ambient mode is on unless it is switched off",
  "CP-430": "a gateway's header counts once a network is named, its last element alone, and of it identities of ours",
  "CP-472": "whoever cannot be checked now gets UNAVAILABLE, which agents try again",
  "CP-476": "a token is reviewed once for all that show it, and remembered for seconds",
  "CP-495": "a request that names another signer is refused, and so is a start that asks for one",
  "CP-503": "a root that has expired is renewed at the start; root-cert.pem in the Secret follows the renewal",
  "CP-699":
    "by ambit analyze and /debug/analyzez, not in objects' status; IST0156 and IST0172 do not arise: one version of the Gateway API is the least",
  "CP-510":
    "remote clusters' namespaces are written to with EXTERNAL_ISTIOD, as by Istio's: others have an istiod that does",
  "CNI-009": "the plugin always asks 31 times, with no setting for it",
  "CNI-091": "an agent that starts compares the sets with its pods, and changes only what differs",
  "CNI-093": "such a pod is enrolled anew",
  "CNI-213": "nothing is accelerated at all (decision 38)",
  "CNI-256":
    "agreed on by bits of the hello beside version 1; what goes so are shared namespaces and the sockets that outlive a crash",
  "CNI-190": "by ambit analyze, which reads the policies with the operator's own account",
};
