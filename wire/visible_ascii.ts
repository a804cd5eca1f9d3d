/** Header values that are text: visible ASCII, as everything the mesh puts into its headers is. */

/** The value `bytes[start..end)` as text. @returns undefined if any byte is not visible ASCII, space or tab. */
export function visibleAscii(bytes: Uint8Array, start: number, end: number): string | undefined {
  let text = "";
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!;
    if (!isVisible(byte)) return undefined;
    text += String.fromCharCode(byte);
  }
  return text;
}

/** Whether all of a text is visible ASCII, space or tab. */
export function isVisibleAscii(text: string): boolean {
  for (let at = 0; at < text.length; at++) if (!isVisible(text.charCodeAt(at))) return false;
  return true;
}

function isVisible(code: number): boolean {
  return (code >= 0x20 && code < 0x7f) || code === 0x09;
}
