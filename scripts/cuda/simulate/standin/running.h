// What this thread runs for the device, for messages.
#pragma once

extern thread_local const char *running;
