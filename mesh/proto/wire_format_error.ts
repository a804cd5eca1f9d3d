/** The one error that decoders of the mesh's messages throw. */

/** The bytes are not the message they should be. Its message is the reason, fit for a NACK or a log. */
export class WireFormatError extends Error {
  override readonly name = "WireFormatError";
}
