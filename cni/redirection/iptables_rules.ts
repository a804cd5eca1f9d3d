/** The rules of pods and of the node for iptables, as data: R1 to R20 in the order of CNI-124, the node's of CNI-182. Pure. */
import { formatIp } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import { parseCidr } from "../../mesh/enrolment.ts";
import type { IpFamily } from "../../os/netlink/nft_model.ts";
import {
  CAPTURE_PORTS,
  MARK_MASK,
  PROBE_ADDRESS,
  type ProbeSource,
  type RedirectionOptions,
  REPLY_MARK,
  ZTUNNEL_MARK,
} from "../nft_rules.ts";

/** The tables that are looked at; any other is somebody else's (CNI-134). */
export const TABLES = ["filter", "nat", "mangle", "raw"] as const;
export type IptablesTable = typeof TABLES[number];

export interface IptablesRule {
  readonly table: IptablesTable;
  readonly chain: string;
  /** Matches and target, as words of the command line. */
  readonly args: readonly string[];
  /** Put at this position; else at the end. */
  readonly insertAt?: number;
}

/** What every chain of ours begins with, and Istio's. */
export const OWN_PREFIX = "ISTIO_";
const PREROUTING = "ISTIO_PRERT", OUTPUT = "ISTIO_OUTPUT";
/** The node's only chain. */
export const NODE_CHAIN = "ISTIO_POSTRT";
/** The node's sets of probed addresses (CNI-181). */
export const PROBE_SETS = { ipv4: "istio-inpod-probes-v4", ipv6: "istio-inpod-probes-v6" } as const;

const LOOPBACK = { ipv4: "127.0.0.1/32", ipv6: "::1/128" } as const;
const hex = (value: number) => `0x${value.toString(16)}`;
const FROM_ZTUNNEL = `${hex(ZTUNNEL_MARK)}/${hex(MARK_MASK)}`, REPLY = `${hex(REPLY_MARK)}/${hex(MARK_MASK)}`;
const ALL_BITS = "0xffffffff";

/** A pod's rules for one family, in the order of CNI-124. */
export function podRules(options: RedirectionOptions, family: IpFamily): IptablesRule[] {
  const dns = options.dnsCapture === true,
    inbound = options.ingress !== true,
    probe = (options.probe ?? PROBE_ADDRESS)[family];
  const rules: IptablesRule[] = [];
  const add = (table: IptablesTable, chain: string, text: string) => {
    rules.push({ table, chain, args: text.split(" ") });
  };
  const begins = options.graceful === true ? " --tcp-flags FIN,SYN,RST,ACK SYN" : "";
  const notToLoopback = `! -d ${LOOPBACK[family]}`, notFromZtunnel = `-m mark ! --mark ${FROM_ZTUNNEL}`;
  add("mangle", "PREROUTING", `-j ${PREROUTING}`); // R1
  add("mangle", "OUTPUT", `-j ${OUTPUT}`); // R2
  add("nat", "OUTPUT", `-j ${OUTPUT}`); // R5
  if (dns) {
    add("raw", "PREROUTING", `-j ${PREROUTING}`); // R17
    add("raw", "OUTPUT", `-j ${OUTPUT}`); // R18
  }
  add("nat", "PREROUTING", `-j ${PREROUTING}`); // R6
  for (const name of options.virtualInterfaces ?? []) {
    add("nat", PREROUTING, `-i ${name} -p tcp -j REDIRECT --to-ports ${CAPTURE_PORTS.outbound}`); // R7
    add("nat", PREROUTING, `-i ${name} -p tcp -j RETURN`); // R8
  }
  add("mangle", PREROUTING, `-m mark --mark ${FROM_ZTUNNEL} -j CONNMARK --set-xmark ${REPLY}`); // R3
  if (inbound) add("nat", PREROUTING, `-s ${probe} -p tcp -m tcp -j ACCEPT`); // R9
  add("nat", OUTPUT, `-d ${probe} -p tcp -m tcp -j ACCEPT`); // R10
  if (inbound) {
    for (const port of options.exclude?.inboundPorts ?? []) {
      add("nat", PREROUTING, `-p tcp -m tcp --dport ${port} -j RETURN`);
    }
  }
  if (inbound) { // R11
    const notHbone = `! --dport ${CAPTURE_PORTS.inboundHbone}`, target = CAPTURE_PORTS.inboundPlaintext;
    add(
      "nat",
      PREROUTING,
      `${notToLoopback} -p tcp ${notHbone}${begins} ${notFromZtunnel} -j REDIRECT --to-ports ${target}`,
    );
  }
  const restore = `--restore-mark --nfmask ${ALL_BITS} --ctmask ${ALL_BITS}`;
  add("mangle", OUTPUT, `-m connmark --mark ${REPLY} -j CONNMARK ${restore}`); // R4
  for (const port of options.exclude?.outboundPorts ?? []) {
    add("nat", OUTPUT, `-p tcp -m tcp --dport ${port} -j RETURN`);
  }
  for (const range of rangesOf(options, family)) add("nat", OUTPUT, `-d ${range} -j RETURN`);
  if (dns) {
    const target = CAPTURE_PORTS.dns;
    add("nat", OUTPUT, `! -o lo -p udp ${notFromZtunnel} -m udp --dport 53 -j REDIRECT --to-port ${target}`); // R12
    add(
      "nat",
      OUTPUT,
      `${notToLoopback} -p tcp --dport 53${begins} ${notFromZtunnel} -j REDIRECT --to-ports ${target}`,
    ); // R13
    add("raw", OUTPUT, `-p udp -m mark --mark ${FROM_ZTUNNEL} -m udp --dport 53 -j CT --zone 1`); // R19
    add("raw", PREROUTING, `-p udp ${notFromZtunnel} -m udp --sport 53 -j CT --zone 1`); // R20
  }
  add("nat", OUTPUT, `-p tcp -m mark --mark ${REPLY} -j ACCEPT`); // R14
  add("nat", OUTPUT, `${notToLoopback} -o lo -j ACCEPT`); // R15
  add(
    "nat",
    OUTPUT,
    `${notToLoopback} -p tcp${begins} ${notFromZtunnel} -j REDIRECT --to-ports ${CAPTURE_PORTS.outbound}`,
  ); // R16
  return rules;
}

/** Excluded ranges of a family. Asserts that they were parsed before. */
function rangesOf({ exclude }: RedirectionOptions, family: IpFamily): string[] {
  return (exclude?.outboundCidrs ?? []).flatMap((text) => {
    const range = parseCidr(text);
    assert(range !== undefined, "an excluded range is one");
    return range.family === family ? [`${formatIp(...range.ip)}/${range.prefixLength}`] : [];
  });
}

/** The node's rules for one family (CNI-182). */
export function nodeRules(family: IpFamily, probe: ProbeSource = PROBE_ADDRESS): IptablesRule[] {
  const source = `-m owner --socket-exists -p tcp -m set --match-set ${PROBE_SETS[family]} dst`;
  return [
    { table: "nat", chain: "POSTROUTING", insertAt: 1, args: ["-j", NODE_CHAIN] },
    { table: "nat", chain: NODE_CHAIN, args: `${source} -j SNAT --to-source ${probe[family]}`.split(" ") },
  ];
}
