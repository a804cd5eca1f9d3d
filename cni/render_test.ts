import { assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import { render, RENDER_CONFIG } from "./render.ts";

const rendered = (...args: string[]) => render(RENDER_CONFIG.parse(args, () => undefined).config);
const GOLDEN = new URL("../tests/golden/redirection/", import.meta.url);

/** What pods of Istio's own tests ask for, by name. */
const DNS = "ambient.istio.io/dns-capture", INGRESS = "ambient.istio.io/bypass-inbound-capture";
const INTERFACES = "istio.io/reroute-virtual-interfaces";
const PODS: readonly { readonly name: string; readonly annotations: object; readonly flags: readonly string[] }[] = [
  { name: "default", annotations: {}, flags: ["--dns-capture"] },
  { name: "ingress", annotations: { [INGRESS]: "true" }, flags: [] },
  { name: "virtual_interfaces", annotations: { [INTERFACES]: "fake1s0f0, fake1s0f1," }, flags: [] },
  {
    name: "ingress_and_virtual_interfaces",
    annotations: { [INGRESS]: "True", [INTERFACES]: "fake1s0f0,fake1s0f1" },
    flags: [],
  },
  { name: "dns_pod_enabled_and_off_globally", annotations: { [DNS]: "true" }, flags: [] },
  { name: "dns_pod_disabled_and_on_globally", annotations: { [DNS]: "false" }, flags: ["--dns-capture"] },
];
const VARIANTS = ["nft", "iptables"].flatMap((backend) =>
  [false, true].flatMap((ipv6) => {
    const common = [`--backend=${backend}`, `--ipv6=${ipv6}`], suffix = `${ipv6 ? "_ipv6" : ""}.${backend}`;
    return [
      ...PODS.map(({ name, annotations, flags }) => ({
        file: `${name}${suffix}`,
        args: [...common, ...flags, `--pod-annotations=${JSON.stringify(annotations)}`],
      })),
      { file: `hostprobe${suffix}`, args: [...common, "--host"] },
    ];
  })
);

for (const { file, args } of VARIANTS) {
  Deno.test(`render() prints ${file} letter by letter (CNI-123 to CNI-126, CNI-130, CNI-145, CNI-182, CNI-183)`, () => {
    const text = rendered(...args), url = new URL(`${file}.txt`, GOLDEN);
    // GOLDEN=write renews the files; read the difference before it is kept.
    if (Deno.env.get("GOLDEN") === "write") Deno.writeTextFileSync(url, text);
    assertEquals(text, Deno.readTextFileSync(url));
  });
}

Deno.test("render() refuses annotations that the agent would pass over (CNI-095)", () => {
  const refused = (value: string) => assertThrows(() => rendered(`--pod-annotations=${value}`), MeshError).message;
  assertEquals(refused("a=b"), "--pod-annotations cannot be used: it is not JSON");
  assertEquals(refused("[]"), "--pod-annotations cannot be used: it is no object");
  assertEquals(refused(`{"a":1}`), "--pod-annotations cannot be used: a is not a text");
  assertEquals(refused(`{"${DNS}":"yes"}`), `--pod-annotations cannot be used: ${DNS} is neither true nor false`);
  for (const name of [`eth0\\" accept`, "a+", "-j", "a/b", "a".repeat(16), "a;b", "a\\nb"]) {
    assertEquals(
      refused(`{"${INTERFACES}":"${name}"}`),
      `--pod-annotations cannot be used: ${INTERFACES} names what is no interface`,
    );
  }
});
