// expect: TLE
// why: forks for ever, each child in a session of its own
#include <unistd.h>
int main() {
    if (access("/etc/passwd", F_OK) == 0) return 99;
    for (;;)
        if (fork() == 0) setsid();
}
