// expect: TLE
// why: as with an ignored SIGCHLD, by a flag, in a child that hides its own children
#include <unistd.h>
static int guard = [] { if (access("/etc/passwd", F_OK) == 0) _exit(99); return 0; }();
#include <cstdio>
#include <csignal>
#include <ctime>
#include <sys/wait.h>
int main() {
    struct sigaction action = {};
    action.sa_handler = SIG_DFL;
    action.sa_flags = SA_NOCLDWAIT;
    sigaction(SIGCHLD, &action, nullptr);
    for (int i = 0; i < 3; i++)
        if (vfork() == 0) {
            clock_t start = clock();
            while (clock() - start < CLOCKS_PER_SEC * 0.4) {}
            _exit(0);
        }
    while (wait(nullptr) > 0) {}
    puts("3");
}
