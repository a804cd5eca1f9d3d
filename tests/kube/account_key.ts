/** The key by which an API server signs the tokens of service accounts. */

/** Makes a key for service account tokens: `.key` in PKCS #8, `.pub` as a public key. */
export async function writeKeyPair(path: string): Promise<void> {
  const pair = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
  const pem = (kind: string, der: ArrayBuffer) => {
    const lines = new Uint8Array(der).toBase64().replaceAll(/.{64}/g, "$&\n");
    return `-----BEGIN ${kind}-----\n${lines}\n-----END ${kind}-----\n`;
  };
  await Deno.writeTextFile(`${path}.pub`, pem("PUBLIC KEY", await crypto.subtle.exportKey("spki", pair.publicKey)));
  const secret = pem("PRIVATE KEY", await crypto.subtle.exportKey("pkcs8", pair.privateKey));
  await Deno.writeTextFile(`${path}.key`, secret, { mode: 0o600 });
}
