// expect: TLE
// why: a program that replaces itself keeps its CPU time
#include <unistd.h>
int main(int, char **arguments) {
    if (access("/etc/passwd", F_OK) == 0) return 99;
    for (;;) execv("/a.out", arguments);
}
