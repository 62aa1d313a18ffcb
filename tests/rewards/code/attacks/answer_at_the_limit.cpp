// expect: TLE
// why: answers from the signal that the CPU limit sends
#include <csignal>
#include <unistd.h>
int main() {
    signal(SIGXCPU, [](int) { (void)!write(1, "3\n", 2); _exit(0); });
    signal(SIGALRM, [](int) { (void)!write(1, "3\n", 2); });
    for (volatile long n = 0;; n = n + 1) {}
}
