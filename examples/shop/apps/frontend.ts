/** The shop's front end: one page over HTTP, made of what the catalogue and the store answer. */

const port = Number(Deno.env.get("PORT") ?? "8080");
const catalogueUrl = Deno.env.get("CATALOGUE_URL") ?? "http://127.0.0.1:8081/";
const storeAddress = Deno.env.get("STORE_ADDRESS") ?? "127.0.0.1:9000";
const banner = Deno.env.get("SHOP_BANNER") ?? "welcome";
const BACKEND_TIMEOUT_MS = 3_000;

async function visits(): Promise<string> {
  const [, hostname, storePort] = /^\[?(.*?)\]?:(\d+)$/.exec(storeAddress) ?? [];
  using connection = await Deno.connect({ hostname: hostname!, port: Number(storePort) });
  const giveUp = setTimeout(() => connection.close(), BACKEND_TIMEOUT_MS);
  try {
    await connection.write(new TextEncoder().encode(`GET visits ${banner}\n`));
    const answer = new Uint8Array(4096);
    const count = await connection.read(answer);
    return new TextDecoder().decode(answer.subarray(0, count ?? 0)).trim();
  } finally {
    clearTimeout(giveUp);
  }
}

async function page(): Promise<Response> {
  const headers = { "x-shop-banner": banner };
  const signal = AbortSignal.timeout(BACKEND_TIMEOUT_MS);
  const [catalogue, visited] = await Promise.all([
    fetch(catalogueUrl, { headers, signal }).then((response) => response.json()),
    visits(),
  ]);
  return Response.json({ banner, items: catalogue.items, visited });
}

Deno.serve({ hostname: "::", port, onListen: () => {} }, async () => {
  try {
    return await page();
  } catch (error) {
    return Response.json({ banner, error: error instanceof Error ? error.message : String(error) }, { status: 502 });
  }
});
