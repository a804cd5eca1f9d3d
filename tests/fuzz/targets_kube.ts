/** Fuzzed: what comes from Kubernetes. Kubeconfigs, and the bytes of a watch. */
import { equal } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { KubeError, KubeUnreachable } from "../../kube/api.ts";
import { answerReview } from "../../control/webhook/review.ts";
import { readWatchEvent } from "../../kube/decode.ts";
import { readKubeconfig } from "../../kube/kubeconfig.ts";
import { ProtoEventReader } from "../../kube/event_readers.ts";
import { LineCutter } from "../../kube/lines.ts";
import { field, frame, joined, named, statusBytes } from "../../kube/proto_testing.ts";
import { POD_FIELDS, SERVICE_FIELDS } from "../../control/cluster/read_fields.ts";
import { latin1, promise, size, sort, type Target, utf8 } from "./target.ts";

const KUBECONFIG = `apiVersion: v1
current-context: a
clusters: [{ name: c, cluster: { server: "https://h:6443", certificate-authority-data: QQ==, tls-server-name: n } }]
users:
- name: u
  user: { token: t, client-certificate: a.pem, client-key: b.pem, as: x, as-groups: [y] }
- name: e
  user: { exec: { apiVersion: client.authentication.k8s.io/v1, command: x, args: [y], env: [{ name: a, value: b }], interactiveMode: Never } }
contexts: [{ name: a, context: { cluster: c, user: u, namespace: n } }, { name: b, context: { cluster: c, user: e } }]
`;

const EVENTS = `{"type":"ADDED","object":{"metadata":{"name":"a","namespace":"n","resourceVersion":"5"}}}
{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"6","annotations":{"k8s.io/initial-events-end":"true"}}}}
{"type":"DELETED","object":{"metadata":{"name":"\u00e4","resourceVersion":"7"}}}
{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}
`;

const LINE_BYTES_MAX = 1_024;

/** What a watch says until it ends, its bytes cut into pieces of one length. */
function readWatch(input: Uint8Array, pieceBytes: number): { readonly events: unknown[]; readonly end: string } {
  const cutter = new LineCutter(LINE_BYTES_MAX), events: unknown[] = [];
  try {
    for (let at = 0; at < input.length; at += pieceBytes) {
      for (const line of cutter.push(input.subarray(at, at + pieceBytes))) {
        if (line !== "") events.push(readWatchEvent(line));
      }
      promise(cutter.pendingBytes <= LINE_BYTES_MAX, "what waits is bounded");
    }
    return { events, end: `rest ${size(cutter.pendingBytes)}` };
  } catch (error) {
    if (error instanceof KubeError) return { events, end: `error ${error.status} ${error.reason}` };
    if (error instanceof KubeUnreachable) {
      promise(error.undecodable, "what cannot be read says so");
      return { events, end: sort(error.message) };
    }
    if (error instanceof RangeError || error instanceof TypeError) return { events, end: error.name };
    throw error;
  }
}

const POD = joined(
  named("a", "5", field(8, field(1, 1_700_000_000)), field(11, joined(field(1, "k"), field(2, "v")))),
  field(2, joined(field(2, joined(field(1, "c"), field(6, joined(field(1, "http"), field(3, 80))))), field(11, true))),
  field(3, joined(field(1, "Running"), field(6, "10.0.0.1"), field(12, field(1, "10.0.0.1")))),
);
const SERVICE = joined(
  named("s", "6"),
  field(
    2,
    joined(field(1, joined(field(3, 80), field(4, joined(field(1, 1), field(3, "http"))))), field(18, "10.1.0.1")),
  ),
);

/** As {@link readWatch}, of a watch in protobuf. */
function readProtoWatch(input: Uint8Array, pieceBytes: number): { readonly events: unknown[]; readonly end: string } {
  const fields = input.length % 2 === 0 ? POD_FIELDS : SERVICE_FIELDS;
  const reader = new ProtoEventReader(fields, LINE_BYTES_MAX), events: unknown[] = [];
  try {
    for (let at = 0; at < input.length; at += pieceBytes) {
      for (const event of reader.push(input.subarray(at, at + pieceBytes))) events.push(event);
      promise(reader.pendingBytes <= LINE_BYTES_MAX + 4, "what waits is bounded");
    }
    return { events, end: `rest ${size(reader.pendingBytes)}` };
  } catch (error) {
    if (error instanceof KubeError) return { events, end: `error ${error.status} ${error.reason}` };
    if (!(error instanceof KubeUnreachable)) throw error;
    promise(error.undecodable, "what cannot be read says so");
    return { events, end: sort(error.message) };
  }
}

const REVIEWS = [
  [
    "security.istio.io",
    "AuthorizationPolicy",
    '{"action":"DENY","rules":[{"from":[{"source":{"principals":["a"]}}],"when":[{"key":"source.ip","values":["10.0.0.0/8"]}]}]}',
  ],
  [
    "security.istio.io",
    "PeerAuthentication",
    '{"selector":{"matchLabels":{"a":"b"}},"portLevelMtls":{"80":{"mode":"STRICT"}}}',
  ],
  ["networking.istio.io", "WorkloadEntry", '{"address":"10.0.0.1","ports":{"http":80},"locality":"a/b","weight":1}'],
  [
    "networking.istio.io",
    "ServiceEntry",
    '{"hosts":["a.com"],"ports":[{"number":80,"name":"http","protocol":"HTTP"}],"resolution":"STATIC","endpoints":[{"address":"10.0.0.1"}],"exportTo":["."]}',
  ],
].map(([group, kind, spec]) =>
  `{"apiVersion":"admission.k8s.io/v1","request":{"uid":"u","operation":"CREATE","kind":{"group":"${group}","kind":"${kind}"},"object":{"metadata":{"name":"a"},"spec":${spec}}}}`
);

export const KUBE_TARGETS: readonly Target[] = [
  {
    name: "admission-review",
    seeds: REVIEWS.map(utf8),
    bytesMax: 4_096,
    words: [
      '"',
      "{",
      "}",
      "[",
      "]",
      ":",
      ",",
      "null",
      "1",
      '""',
      "*",
      '"spec":',
      '"DYNAMIC_DNS"',
      '"CUSTOM"',
      '"unix:///a"',
      "{*}",
    ],
    run(input) {
      const { outcome, body } = answerReview(latin1(input));
      const { response } = body as {
        response: { allowed: boolean; status?: { message: string }; warnings?: string[] };
      };
      promise(response.allowed === (outcome === "allowed"), "an answer says what it is counted as");
      promise(response.allowed || (response.status?.message ?? "") !== "", "a refusal has a reason");
      promise((response.warnings ?? []).every((it) => it.length <= 256), "warnings are short");
      return `${outcome} ${sort((response.status?.message ?? "").split(": ").slice(1).join(" "))} ${
        size(response.warnings?.length ?? 0)
      }`;
    },
  },
  {
    name: "kubeconfig",
    seeds: [utf8(KUBECONFIG)],
    bytesMax: 4_096,
    words: [
      "{",
      "}",
      "[",
      "]",
      ": ",
      ", ",
      "\n",
      "- ",
      "  ",
      "null",
      "'",
      '"',
      "&a ",
      "*a",
      "-data: ",
      "exec: ",
      "/v1beta1",
      "proxy-url: x",
      "true",
    ],
    run(input) {
      try {
        const context = readKubeconfig(latin1(input), "f", input.length % 2 === 0 ? undefined : "b");
        promise(/^https?:$/.test(context.server.protocol), "it is asked by HTTP");
        promise(context.server.username === "" && context.server.password === "", "no password is in an address");
        return `taken ${
          Object.entries(context).filter(([, it]) => it !== undefined && it !== false && it !== "").map(([name]) =>
            name
          ).join()
        }`;
      } catch (error) {
        if (!(error instanceof MeshError)) throw error;
        promise(error.remedy !== "", "there is a remedy");
        return sort(error.message.split(": ").slice(1).join(" "));
      }
    },
  },
  {
    name: "watch-events",
    seeds: [utf8(EVENTS), utf8(EVENTS.split("\n")[0] + "\n")],
    bytesMax: 4_096,
    words: [
      "\n",
      '{"type":"',
      "ADDED",
      "MODIFIED",
      '"object":{',
      '"metadata":{',
      '"resourceVersion":"',
      "}",
      '"',
      ",",
      "null",
      "410",
    ],
    run(input) {
      const whole = readWatch(input, Math.max(input.length, 1));
      for (const pieceBytes of [1, 7]) {
        const cut = readWatch(input, pieceBytes);
        promise(
          equal(cut, whole) || whole.end.startsWith("RangeError") || cut.end.startsWith("RangeError"),
          "where it is cut does not matter",
        );
      }
      return `${size(whole.events.length)} ${whole.end}`;
    },
  },
  {
    name: "watch-events-protobuf",
    seeds: [
      joined(frame("ADDED", "Pod", POD), frame("BOOKMARK", "Pod", field(1, field(6, "7")))),
      joined(frame("MODIFIED", "Service", SERVICE), frame("ERROR", "Status", statusBytes(410, "Expired"))),
    ],
    bytesMax: 1_024,
    words: ["k8s\0", "\n", "\x12", "\x1a", "\x08", "\0\0\0", "ADDED", "Status"],
    run(input) {
      const whole = readProtoWatch(input, Math.max(input.length, 1));
      for (const pieceBytes of [1, 7]) {
        promise(equal(readProtoWatch(input, pieceBytes), whole), "where it is cut does not matter");
      }
      return `${size(whole.events.length)} ${whole.end}`;
    },
  },
];
