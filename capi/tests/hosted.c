/* For calls.c on a Cortex-M with newlib: start.c calls this main, which opens the console of the debugger. */

#include <stdio.h>

int calls_main(void);
void initialise_monitor_handles(void);

int main(void) {
    initialise_monitor_handles();
    return calls_main() | fflush(stdout);
}
