// expect: AC
// why: a daemon that holds stdout must not delay the verdict, nor outlive it
#include <cstdio>
#include <unistd.h>
int main() {
    puts("3");
    fflush(stdout);
    if (fork() == 0) {
        setsid();
        if (fork() == 0) sleep(100);
        _exit(0);
    }
}
