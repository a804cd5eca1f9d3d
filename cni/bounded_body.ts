/** What a caller sends, up to a bound. */

/** @returns undefined for nothing at all, and for more than that. */
export async function boundedBody(request: Request, bytesMax: number): Promise<string | undefined> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of request.body ?? []) {
    bytes += part.length;
    if (bytes > bytesMax) return undefined;
    parts.push(part);
  }
  return bytes === 0 ? undefined : new TextDecoder().decode(await new Blob(parts as BlobPart[]).bytes());
}
