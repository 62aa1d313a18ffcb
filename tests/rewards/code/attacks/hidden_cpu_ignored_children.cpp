// expect: TLE
// why: the kernel reaps the children of a parent that ignores SIGCHLD, and adds their time to nobody
#include <unistd.h>
static int guard = [] { if (access("/etc/passwd", F_OK) == 0) _exit(99); return 0; }();
#include <cstdio>
#include <csignal>
#include <ctime>
#include <sys/wait.h>
int main() {
    signal(SIGCHLD, SIG_IGN);
    for (int i = 0; i < 3; i++)
        if (fork() == 0) {
            while (clock() < CLOCKS_PER_SEC * 0.4) {}
            _exit(0);
        }
    while (wait(nullptr) > 0) {}
    puts("3");
}
