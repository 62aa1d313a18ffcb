// expect: TLE
// why: signals that keep process 1 busy do not keep it from its work
#include <csignal>
int main() {
    for (;;) kill(1, SIGCHLD);
}
