/** Workers that are replaced in the middle of it, by a chance of their own: worlds without them are as they were. */
import { Chance } from "./chance.ts";
import type { World } from "./world.ts";

/** In every so manyth seed, and how often a round. */
const SEEDS_EVERY = 4, PERCENT = 12;

export class Successions {
  /** Connections that went to a successor, each time anew. */
  handedOver = 0;
  readonly #chance: Chance | undefined;

  constructor(seed: number) {
    this.#chance = seed % SEEDS_EVERY === 0 ? new Chance(seed + 1_000_003) : undefined;
  }

  /** Perhaps a worker of some node hands over now. */
  endanger(world: World): void {
    const chance = this.#chance;
    if (chance === undefined || !chance.often(PERCENT)) return;
    const carried = chance.pick(world.nodes).takeOver(chance);
    this.handedOver += carried;
    world.say(`${carried} connections go to a successor`);
  }
}
