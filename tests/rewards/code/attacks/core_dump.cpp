// expect: AC
// why: a limit of 0 still pipes a core dump to a handler of the host; 1 does not
#include <unistd.h>
static int guard = [] { if (access("/etc/passwd", F_OK) == 0) _exit(99); return 0; }();
#include <cstdio>
#include <sys/resource.h>
int main() {
    rlimit core;
    getrlimit(RLIMIT_CORE, &core);
    printf("%d\n", core.rlim_cur == 1 && core.rlim_max == 1 ? 3 : 0);
}
