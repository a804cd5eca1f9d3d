/** The shop's catalogue: what there is to buy, over HTTP. Tells each caller the address it is seen under. */

interface Item {
  readonly id: string;
  readonly name: string;
  readonly cents: number;
}

const ITEMS: readonly Item[] = [
  { id: "tea", name: "Green tea", cents: 450 },
  { id: "cup", name: "Porcelain cup", cents: 1290 },
  { id: "pot", name: "Cast iron pot", cents: 5900 },
];

const port = Number(Deno.env.get("PORT") ?? "8080");
const banner = Deno.env.get("SHOP_BANNER") ?? "welcome";

Deno.serve({ hostname: "::", port, onListen: () => {} }, (request, { remoteAddr }) => {
  const caller = (remoteAddr as Deno.NetAddr).hostname.replace(/^::ffff:/, "");
  return Response.json({ banner, caller, asked: request.headers.get("x-shop-banner"), items: ITEMS });
});
