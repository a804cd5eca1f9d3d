/** Rules as text to be compared. Tables and chains that programs of iptables leave empty behind them say nothing, and are left out. */

const TABLE_OF_IPTABLES = /^table ip6? (raw|mangle|nat|filter|security) \{$/;
const BASE_CHAIN = /^\s*type .* policy accept;$/;

/** `nft --stateless list ruleset`, without iptables' base chains that accept everything. */
export function nftRules(listing: string): string {
  return listing.split(/^(?=table )/m).flatMap((table) => {
    const [head = "", ...lines] = table.trimEnd().split("\n");
    if (!TABLE_OF_IPTABLES.test(head)) return table.trim() === "" ? [] : [table.trimEnd()];
    const parts = lines.slice(0, -1).join("\n").split(/^(?=\t\w)/m).filter((part) => !isEmptyChain(part));
    return parts.length === 0 ? [] : [`${head}\n${parts.join("").trimEnd()}\n}`];
  }).join("\n");
}

function isEmptyChain(part: string): boolean {
  const [head = "", ...body] = part.split("\n").filter((line) => line.trim() !== "" && line.trim() !== "}");
  return head.trim() === "" || /^\tchain /.test(head) && body.length === 1 && BASE_CHAIN.test(body[0]!);
}

/** `iptables-save`, without counters and the kernel's own chains. */
export function savedRules(saved: string): string {
  return saved.split("\n").filter((line) => line.startsWith("-A") || / - \[/.test(line))
    .map((line) => line.replace(/ \[\d+:\d+\]$/, "")).join("\n");
}
