/** The live screen on a terminal: drawn twice a second, at each change of size, and put back as it was at the end. */
import { ignore } from "../base/errors.ts";
import { renderScreen, type ScreenSize, type ScreenState } from "./screen.ts";

const INTERVAL_MS = 500;
const ENTER = "\x1b[?1049h\x1b[?25l", LEAVE = "\x1b[?25h\x1b[?1049l"; // other screen, cursor hidden; and back
const HOME = "\x1b[H", CLEAR_TO_END_OF_LINE = "\x1b[K", CLEAR_BELOW = "\x1b[J";
const CONTROL_C = 3;

const encoder = new TextEncoder();

function write(text: string): void {
  const bytes = encoder.encode(text);
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}

/** Whether colours are wanted: on a terminal that has them, unless NO_COLOR says otherwise. */
export function wantsColor(environment: (name: string) => string | undefined): boolean {
  return (environment("NO_COLOR") ?? "") === "" && environment("TERM") !== "dumb";
}

export class Terminal implements Disposable {
  readonly #state: () => ScreenState;
  readonly #color: boolean;
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #draw = () => this.draw();
  #open = true;

  /** Takes the terminal over. `onQuit` is called at `q` and at Ctrl-C, which is then no signal. */
  constructor(state: () => ScreenState, onQuit: () => void) {
    this.#state = state;
    this.#color = wantsColor((name) => Deno.env.get(name));
    write(ENTER);
    Deno.stdin.setRaw(true);
    this.#timer = setInterval(this.#draw, INTERVAL_MS);
    Deno.addSignalListener("SIGWINCH", this.#draw);
    this.#listen(onQuit);
    this.draw();
  }

  draw(): void {
    if (!this.#open) return;
    const { columns, rows } = Deno.consoleSize();
    const size: ScreenSize = { columns, rows, color: this.#color };
    const lines = renderScreen(this.#state(), size);
    write(HOME + lines.map((line) => line + CLEAR_TO_END_OF_LINE).join("\r\n") + CLEAR_BELOW);
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    clearInterval(this.#timer);
    Deno.removeSignalListener("SIGWINCH", this.#draw);
    Deno.stdin.setRaw(false);
    write(LEAVE);
  }

  async #listen(onQuit: () => void): Promise<void> {
    const keys = new Uint8Array(16);
    try {
      for (let count; this.#open && (count = await Deno.stdin.read(keys)) !== null;) {
        const pressed = keys.subarray(0, count);
        if (pressed.includes("q".charCodeAt(0)) || pressed.includes(CONTROL_C)) return onQuit();
      }
    } catch (error) {
      ignore(error, "the terminal is gone");
    }
    onQuit();
  }
}
