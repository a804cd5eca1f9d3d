/** The suite, in its order: all of it is on one cluster. `deno task test:cluster` starts it. */
import "./install_test.ts";
import "./redirection_test.ts";
import "./reinstall_test.ts";
import "./label_test.ts";
import "./policy_test.ts";
import "./probes_test.ts";
import "./figures_test.ts";
import "./kill_test.ts";
import "./upgrade_test.ts";
import "./uninstall_test.ts";
