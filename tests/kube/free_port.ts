/** Ports for programs that cannot be told to choose one themselves. */
import { HeldPort } from "../../os/held_port_testing.ts";

const held: HeldPort[] = [];

/** A port of the loopback address that nobody else is given as long as this process runs, another one at every call. */
export function freePort(): number {
  const port = new HeldPort();
  held.push(port);
  return port.port;
}
