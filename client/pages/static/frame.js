// A page with nothing of its own to do keeps its head up to date.

import { watchStatus } from "./status.js";

watchStatus();
