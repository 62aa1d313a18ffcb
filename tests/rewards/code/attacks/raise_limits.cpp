// expect: AC
// why: what was lowered stays low
#include <cstdio>
#include <initializer_list>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>
int main() {
    for (int what : {RLIMIT_AS, RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_NPROC, RLIMIT_CORE, RLIMIT_NOFILE}) {
        rlimit more = {RLIM_INFINITY, RLIM_INFINITY};
        if (setrlimit((__rlimit_resource)what, &more) == 0) printf("LEAK limit %d\n", what);
    }
    sched_param first = {1};
    if (sched_setscheduler(0, SCHED_FIFO, &first) == 0) puts("LEAK real time");
    if (setpriority(PRIO_PROCESS, 0, -5) == 0) puts("LEAK priority");
    if (setuid(0) == 0 && getuid() == 0) puts("LEAK root");
    puts("3");
}
