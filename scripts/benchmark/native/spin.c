// Keeps a virtual CPU from halting: waking an idle one takes 0.1 to 5 ms, which would drown what is measured.
//   spin SECONDS
// Runs in the idle class, so it only takes what nobody wants. No PAUSE instruction: a hypervisor would take the CPU away.
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

int main(int argc, char **argv) {
    struct sched_param idle = {0};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc != 2 || sched_setscheduler(0, SCHED_IDLE, &idle)) return 2;
    time_t end = time(NULL) + atoi(argv[1]);
    volatile unsigned long x = 1;
    while (time(NULL) < end)
        for (int i = 0; i < 200000; i++) x = x * 31 + 1;
}
