// expect: AC
// repeat: 5
// why: limits of process 1 would hold for the next tests, which then could not be run
#include <unistd.h>
static int guard = [] { if (access("/etc/passwd", F_OK) == 0) _exit(99); return 0; }();
#include <cstdio>
#include <sys/resource.h>
int main() {
    puts("3");
    fflush(stdout);
    rlimit none = {0, 0};
    const int all[] = {RLIMIT_NPROC, RLIMIT_NOFILE, RLIMIT_AS, RLIMIT_CPU, RLIMIT_FSIZE};
    for (int what : all)
        prlimit(1, (__rlimit_resource)what, &none, nullptr);
}
