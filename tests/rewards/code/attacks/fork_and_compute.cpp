// expect: TLE
// why: the work is done by children, so the parent's own CPU time stays small
#include <cstdio>
#include <sys/wait.h>
#include <unistd.h>
int main() {
    for (int i = 0; i < 4; i++)
        if (fork() == 0) {
            for (volatile long n = 0; n < 3000000000; n = n + 1) {}
            _exit(0);
        }
    while (wait(nullptr) > 0) {}
    puts("3");
}
