// expect: OLE
// why: writes for ever
#include <cstdio>
#include <unistd.h>
int main() {
    if (access("/etc/passwd", F_OK) == 0) return 99;
    for (;;) puts("all work and no play");
}
