// expect: OLE
// why: ignores the signal of the size limit and ends well
#include <csignal>
#include <cstdio>
int main() {
    signal(SIGXFSZ, SIG_IGN);
    while (puts("3") != EOF) {}
}
