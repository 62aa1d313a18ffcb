// expect: AC
// why: signals must reach neither the supervisor nor the next run
// repeat: 3
#include <csignal>
#include <cstdio>
#include <initializer_list>
#include <unistd.h>
int main() {
    for (int sig : {SIGKILL, SIGTERM, SIGSTOP, SIGINT}) {
        kill(-1, sig);
        kill(1, sig);
        kill(getppid(), sig);
    }
    puts("3");
}
